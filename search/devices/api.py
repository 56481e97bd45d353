"""The hub's calls, each with every response that it may give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from search.devices import agents, leases, registry, schemas, submissions
from search.devices.leases import Heartbeat, LeaseRequest, LeaseTerms, Ticket
from search.devices.registry import Device
from search.devices.submissions import Fault
from search.store.vocabulary import FaultKind, LeaseActivity
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.latency.agent_file import NAME, agent_bytes, agent_sha256

BODY_BYTES_MOST = 8 << 20
STRANGERS_BYTES_MOST = 64 << 10  # of a body that is read before its token is looked at

router = APIRouter()
bearer = HTTPBearer(auto_error=False, description="the token that `condensery devices add` printed")


@dataclass(frozen=True)
class HubState:
    """What the calls work on."""

    engine: sa.Engine
    terms: LeaseTerms
    retry_s: float


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals that a call may give, for the interface's description."""
    return {status: {"model": schemas.Problem, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    401: "no token of a device that may measure",
    404: "nothing that belongs to this device",
    409: "another agent serves the device, the lease has ended, or the queue's devices are of another kind",
    413: f"a body of more than {BODY_BYTES_MOST} bytes",
    422: "not what the interface expects",
    503: "the database is locked or away; try again after `Retry-After` seconds",
}
_ALWAYS = (401, 413, 422, 503)


# -- the caller --


def _state(request: Request) -> HubState:
    state: HubState = request.app.state.hub
    return state


Hub = Annotated[HubState, Depends(_state)]


def _caller(hub: Hub, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Device:
    """Return the device of the token. A missing token is looked up like a wrong one, so all refusals are alike."""
    device = registry.device_by_token(hub.engine, credentials.credentials if credentials is not None else "")
    if device is None:
        detail = "this token is unknown or revoked; pass the device's present one"
        raise HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
    return device


def has_token(engine: sa.Engine, authorization: str) -> bool:
    """Whether an Authorization header has the token of a device: asked before a long body is read."""
    scheme, _, token = authorization.partition(" ")
    return scheme.lower() == "bearer" and registry.device_by_token(engine, token.strip()) is not None


Caller = Annotated[Device, Depends(_caller)]
JobId = Annotated[int, PathParameter(ge=1, le=schemas.DATABASE_INTEGER)]


# -- calls --


@router.get("/v1/health", responses=_problems(413, 503))
def health(hub: Hub) -> schemas.Health:
    """Report that the hub and its database respond."""
    with hub.engine.connect() as connection:
        connection.execute(sa.select(1))
    return schemas.Health(status="ok", protocol=PROTOCOL)


@router.get(
    "/agent.pyz",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "the agent"}, **_problems(413)},
)
def agent_file() -> Response:
    """Return the agent that devices run: one file, to be started with the device's Python."""
    return Response(agent_bytes(), media_type="application/zip")


@router.get("/agent.pyz.sha256", response_class=PlainTextResponse, responses=_problems(413))
def agent_file_hash() -> str:
    """Return the SHA-256 of that file, as one line for `sha256sum --check`."""
    return f"{agent_sha256()}  {NAME}\n"


@router.get("/agent.py", include_in_schema=False)
def old_agent_file() -> Response:
    """Say how to replace an agent of another version."""
    raise HTTPException(410, schemas.OLD_AGENT)


@router.post("/v1/enrol", responses=_problems(*_ALWAYS, 409))
def enrol(body: schemas.EnrolBody, caller: Caller, hub: Hub) -> schemas.Enrolled:
    """Begin to serve the token's device; the leases that this agent held before a restart go back to the queue."""
    if body.virtual != caller.virtual:
        kinds = ("a virtual device", "a real device")
        registered, served = kinds if caller.virtual else kinds[::-1]
        detail = f"{caller.name!r} is {registered}, but this agent serves {served}; use that one's token"
        raise HTTPException(422, detail)
    enrolment = agents.Enrolment(body.instance, body.facts.model_dump(), body.conditions)
    if not agents.enrol(hub.engine, caller, enrolment, hub.terms.lease_s, hub.terms.clock):
        raise HTTPException(409, f"another agent serves {caller.name!r}; end it, or give this one a device of its own")
    return schemas.Enrolled(device=caller.name, queue=caller.queue, retry_s=hub.retry_s, lease_s=hub.terms.lease_s)


@router.post("/v1/leases", responses=_problems(*_ALWAYS, 409))
def lease(body: schemas.LeaseBody, caller: Caller, hub: Hub) -> schemas.Jobs:
    """Take jobs that can be measured together; an empty list when there is nothing to do."""
    request = LeaseRequest(body.instance, body.limit, body.conditions)
    leased_jobs = leases.lease_jobs(hub.engine, caller, request, hub.terms)
    return schemas.Jobs(jobs=[schemas.Job.of(job) for job in leased_jobs])


@router.get(
    "/v1/models/{sha256}",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "the model's bytes",
        },
        **_problems(*_ALWAYS, 404),
    },
)
def model(sha256: schemas.Sha256, caller: Caller, hub: Hub) -> Response:
    """Return a model or anchor of a job that this device holds a lease on."""
    content = leases.model_of_lease(hub.engine, caller, sha256)
    if content is None:
        raise HTTPException(404, "no job that this device holds needs such a model")
    return Response(content, media_type="application/octet-stream")


@router.post("/v1/jobs/{job_id}/heartbeat", responses=_problems(*_ALWAYS, 404, 409))
def heartbeat(job_id: JobId, body: schemas.HeartbeatBody, caller: Caller, hub: Hub) -> schemas.Renewed:
    """Renew a lease."""
    ticket = Ticket(job_id, body.attempt, body.instance)
    beat = Heartbeat(LeaseActivity(body.state), body.conditions)
    leases.record_heartbeat(hub.engine, caller, ticket, beat, hub.terms)
    return schemas.Renewed(lease_s=hub.terms.lease_s)


@router.post("/v1/jobs/{job_id}/result", responses=_problems(*_ALWAYS, 404, 409))
def result(job_id: JobId, body: schemas.ResultBody, caller: Caller, hub: Hub) -> schemas.Judged:
    """Hand in a result; handing it in again changes nothing."""
    ticket = Ticket(job_id, body.attempt, body.instance)
    verdict = submissions.record_result(hub.engine, caller, ticket, body.report.model_dump(), hub.terms)
    return schemas.Judged(verdict=verdict)


@router.post("/v1/jobs/{job_id}/failure", responses=_problems(*_ALWAYS, 404, 409))
def failure(job_id: JobId, body: schemas.FailureBody, caller: Caller, hub: Hub) -> schemas.Recorded:
    """Report why nothing was measured; reporting it again changes nothing."""
    ticket = Ticket(job_id, body.attempt, body.instance)
    submissions.record_failure(hub.engine, caller, ticket, Fault(FaultKind(body.fault), body.reason), hub.terms)
    return schemas.Recorded(recorded=True)


@router.post("/v1/leave", responses=_problems(*_ALWAYS))
def leave(body: schemas.LeaveBody, caller: Caller, hub: Hub) -> schemas.Recorded:
    """Stop serving the device; its leases go back to the queue at once."""
    agents.leave(hub.engine, caller, body.instance, hub.terms.clock)
    return schemas.Recorded(recorded=True)
