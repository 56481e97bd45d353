"""The hub: the HTTP interface that the devices' agents talk to, over the tables of devices and jobs.

Every call but /v1/health, /agent.pyz, its hash and /openapi.json needs a device's token, and shows only that device's
own things: what belongs to another device looks like what doesn't exist. Nothing is kept in memory: the hub may die at
any instruction, and several hubs may serve one database.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from search.devices import PORT, schemas
from search.devices.agents import UnlikeDevice
from search.devices.api import BODY_BYTES_MOST, STRANGERS_BYTES_MOST, HubState, has_token, router
from search.devices.leases import JobUnknown, LeaseLost, LeaseTerms, NotEnrolled
from search.devices.strangers import BodyLimit, HubLoop, LimitedProtocol
from search.devices.transitions import LEASE_S
from search.store.connection.database import open_for_writing
from space.errors import DatabaseLocked, DatabaseUnavailable, DiskFull, InvalidSettings
from workers.clock import Clock
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.listening import in_url, is_loopback, limited_logs, listen, raise_file_limit

RETRY_S = 2.0
RETRY_AFTER_S = 2  # for a database that is locked or away
_AWAY = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,  # every connection is taken
    DatabaseLocked,
    DatabaseUnavailable,
    DiskFull,
)

log = logging.getLogger("condensery.hub")
LOGGERS = (log.name, "uvicorn.error", "asyncio")  # wrong tokens, what is no HTTP, files that ran out

_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    NotEnrolled: (409, "this agent doesn't serve the device now; enrol again"),
    LeaseLost: (409, "the lease of this attempt has ended; drop the job"),
    JobUnknown: (404, "this device was never given this attempt of this job"),
}


def create_app(
    engine: sa.Engine, *, lease_s: float = LEASE_S, retry_s: float = RETRY_S, clock: Clock | None = None
) -> FastAPI:
    """Return the hub over a database opened for writing.

    Args:
        engine: see `search.store.connection.database.open_for_writing`.
        lease_s: a job that its agent hasn't reported on for this long goes to the next device.
        retry_s: how long an agent with nothing to do waits before it asks again.
        clock: the time; None = the database's.
    """
    app = FastAPI(
        title="Condensery device hub",
        version=str(PROTOCOL),
        description="What measuring agents ask and report. Tokens come from `condensery devices add`.",
        docs_url=None,  # those pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.hub = HubState(engine, LeaseTerms(lease_s, clock), retry_s)
    app.include_router(router)
    limits = {"most_bytes": BODY_BYTES_MOST, "strangers_bytes": STRANGERS_BYTES_MOST}
    app.add_middleware(BodyLimit, **limits, knows=lambda header: _knows(engine, header))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    for away in _AWAY:
        app.add_exception_handler(away, _database_away)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _database_refuses)
    for kind, (status, detail) in _REFUSALS.items():
        app.add_exception_handler(kind, _handler(status, detail))
    app.add_exception_handler(UnlikeDevice, _unlike)
    return app


def _knows(engine: sa.Engine, authorization: str) -> bool | None:
    """Whether an Authorization header has a device's token; None while the database can't be asked."""
    try:
        return has_token(engine, authorization)
    except (sa.exc.SQLAlchemyError, *_AWAY):
        return None


def _handler(status: int, detail: str) -> Any:
    def respond(request: Request, error: Exception) -> Response:
        return _problem(status, detail)

    return respond


def _log_refusal(request: Request, detail: str) -> None:
    sender = request.client.host if request.client is not None else "somewhere"
    log.warning("%s", schemas.one_line(f"{request.method} {request.url.path[:100]} from {sender}: {detail}")[:400])


def _unlike(request: Request, error: Exception) -> Response:
    _log_refusal(request, str(error))
    return _problem(409, str(error))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The place and the rule, never what was sent: that may be huge, or nothing that JSON can hold.
    texts = [f"{'.'.join(str(part) for part in broken['loc'])}: {broken['msg']}" for broken in error.errors()[:5]]
    return _problem(422, "; ".join(text[:200] for text in texts))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # only a body that can't be parsed has this status
        return _problem(422, "the body is no JSON object that can be read")
    if error.status_code in (401, 409):  # a wrong token or a second agent: the hub's operator must know
        _log_refusal(request, str(error.detail))
    return _problem(error.status_code, str(error.detail), dict(error.headers or {}))


def _database_away(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, schemas.one_line(str(error))[:300])
    detail = "the database is locked or away; try again"
    return _problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})


def _database_refuses(request: Request, error: Exception) -> Response:
    """Return a 500 for a call that can't be served as it is: repeating it won't help, and agents count these."""
    log.error("%s %s: %s", request.method, request.url.path, schemas.one_line(str(error))[:300])
    return _problem(500, "the database refuses what this call would write")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    plain = schemas.one_line(detail).encode("utf-8", "replace").decode()
    return JSONResponse({"detail": plain}, status, headers)


# -- serving --


def serve(
    url: str,
    host: str = "127.0.0.1",
    port: int = PORT,
    tls: tuple[Path, Path] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a database's devices until SIGTERM or Ctrl-C, then finish the open calls and return.

    Args:
        url: of the database, which is made if it doesn't exist.
        host: the address to listen on; other machines can reach any that isn't loopback.
        port: 0 = any free one.
        tls: the PEM files of the certificate and the key.
        note: called with the address, and with a warning if it is unprotected.

    Raises:
        InvalidSettings: the address can't be listened on, or the certificate can't be used. Also those of
            `open_for_writing`.
    """
    engine = open_for_writing(url)
    raise_file_limit()
    try:
        config = _server_config(create_app(engine), tls)
        server = uvicorn.Server(config)
        with listen(host, port) as listener, _orderly_end(server), limited_logs(*LOGGERS):
            note(f"hub at http{'s' if tls else ''}://{in_url(host)}:{listener.getsockname()[1]}")
            if tls is None and not is_loopback(host):
                note(f"warning: {host} is open to other machines without TLS: tokens can be read on the way")
            server.run(sockets=[listener])
    finally:
        engine.dispose()


def _server_config(app: FastAPI, tls: tuple[Path, Path] | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        loop=f"{HubLoop.__module__}:{HubLoop.__name__}",
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=str(tls[0]) if tls else None,
        ssl_keyfile=str(tls[1]) if tls else None,
    )
    try:
        config.load()
    except OSError as error:  # ssl's own errors are among them
        assert tls is not None
        raise InvalidSettings(f"{tls[0]} and {tls[1]} must be a certificate and its key in PEM: {error}") from None
    return config


@contextmanager
def _orderly_end(server: uvicorn.Server) -> Iterator[None]:
    """Make SIGTERM and Ctrl-C end the server quietly; uvicorn itself raises them again after its shutdown."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
