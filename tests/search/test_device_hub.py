"""The hub's HTTP interface: what it lets in, what it lets out, and that nothing makes it fall over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from search.devices import bodies, registry
from search.devices.api import BODY_BYTES_MOST
from search.devices.hub import create_app
from search.store import database
from search.store.database import open_for_writing
from tests.search.tiny_devices import CONDITIONS, FACTS, LEASE_S, Desk, counts_report, instance_of, wall_report
from tests.search.tiny_studies import sqlite_url
from workers.latency import agent as agent_file

ONE, TWO = instance_of("one"), instance_of("two")


class Hub:
    """The hub in this process, and what agents say to it."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk.at(folder)
        self.app = create_app(self.desk.engine, lease_s=LEASE_S, retry_s=0.5, now=self.desk.clock)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def add(self, name: str, queue: str = "pi5", profile: str | None = None) -> str:
        return registry.add_device(self.desk.engine, name, queue, profile, self.desk.clock)

    def post(self, token: str, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self.client.post(path, content=body if isinstance(body, bytes) else json.dumps(body), headers=headers)

    def get(self, token: str, path: str) -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"})

    def enrol(self, token: str, instance: str = ONE, **changes: Any) -> Any:
        body = {"instance": instance, "format": 1, "virtual": False, "facts": FACTS, "conditions": CONDITIONS}
        return self.post(token, "/v1/enrol", {**body, **changes})

    def lease(self, token: str, instance: str = ONE, limit: int = 1) -> Any:
        return self.post(token, "/v1/leases", {"instance": instance, "limit": limit, "conditions": CONDITIONS})


def answer(job: dict[str, Any], report: dict[str, Any] | None = None, instance: str = ONE) -> dict[str, Any]:
    report = wall_report(job["model"]["sha256"]) if report is None else report
    return {"instance": instance, "attempt": job["attempt"], "report": report}


@pytest.fixture
def hub(tmp_path: Path, empty_database: Path) -> Iterator[Hub]:
    shutil.copy(empty_database, tmp_path)
    hub = Hub(tmp_path)
    with hub.client:
        yield hub
    hub.desk.engine.dispose()


# -- the way of one job --


def test_an_agent_enrols_leases_fetches_measures_and_leaves(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    enrolled = hub.enrol(token)
    assert enrolled.status_code == 200
    assert enrolled.json() == {"device": "pi", "queue": "pi5", "retry_s": 0.5, "lease_s": LEASE_S}
    (job,) = hub.lease(token).json()["jobs"]
    assert set(job) == set("id attempt mode model anchor runtime threads precision policy".split())
    assert (job["id"], job["attempt"], job["mode"], job["precision"]) == (key, 1, "wall", "fp32")
    model = hub.get(token, f"/v1/models/{job['model']['sha256']}")
    assert (model.status_code, model.content, model.headers["content-type"]) == (
        200,
        b"net",
        "application/octet-stream",
    )
    assert len(hub.get(token, f"/v1/models/{job['anchor']['sha256']}").content) == job["anchor"]["size"]
    sign = {"instance": ONE, "attempt": 1, "state": "measuring", "conditions": CONDITIONS}
    assert hub.post(token, f"/v1/jobs/{key}/heartbeat", sign).json() == {"lease_s": LEASE_S}
    assert hub.post(token, f"/v1/jobs/{key}/result", answer(job)).json() == {"verdict": "accepted"}
    assert hub.post(token, f"/v1/jobs/{key}/result", answer(job)).json() == {"verdict": "repeated"}
    assert hub.lease(token).json() == {"jobs": []}
    assert hub.post(token, "/v1/leave", {"instance": ONE}).json() == {"recorded": True}
    assert hub.lease(token).status_code == 409
    assert hub.desk.job(key).report == wall_report(job["model"]["sha256"])


def test_a_virtual_device_counts(hub: Hub):
    token = hub.add("soft", "counted", profile="pi")
    (key,) = hub.desk.submit("net", queue="counted", mode="counts", anchor_sha256=None)
    assert hub.enrol(token, virtual=True).status_code == 200
    (job,) = hub.lease(token).json()["jobs"]
    assert (job["mode"], job["anchor"]) == ("counts", None)
    report = counts_report(job["model"]["sha256"])
    assert hub.post(token, f"/v1/jobs/{key}/result", answer(job, report)).json() == {"verdict": "accepted"}


def test_an_agent_of_the_other_kind_is_told_whose_token_it_has(hub: Hub):
    real, soft = hub.add("pi"), hub.add("soft", "counted", profile="pi")
    said = hub.enrol(soft)
    assert said.status_code == 422
    assert (
        said.json()["detail"] == "'soft' is a virtual device, but this agent serves a real device; use that one's token"
    )
    assert hub.enrol(real, virtual=True).status_code == 422


def test_a_failure_is_recorded(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    hub.enrol(token)
    hub.lease(token)
    body = {"instance": ONE, "attempt": 1, "fault": "model", "reason": "no kernel\nfor\x00 Foo"}
    assert hub.post(token, f"/v1/jobs/{key}/failure", body).json() == {"recorded": True}
    assert (hub.desk.job(key).state, hub.desk.job(key).reason) == ("failed", "no kernel for  Foo")


def test_a_second_agent_is_told_that_the_device_is_served(hub: Hub):
    token = hub.add("pi")
    hub.enrol(token)
    said = hub.enrol(token, TWO)
    assert said.status_code == 409
    assert "another agent serves 'pi'" in said.json()["detail"]
    assert hub.lease(token, TWO).status_code == 409
    hub.desk.clock.tick(LEASE_S)
    assert hub.enrol(token, TWO).status_code == 200
    assert hub.lease(token).status_code == 409  # the first has lost it


def test_the_agent_is_handed_out_as_it_is_here_and_health_needs_no_token(hub: Hub):
    assert hub.client.get("/agent.py").content == Path(agent_file.__file__).read_bytes()
    assert hub.client.get("/v1/health").json() == {"status": "ok", "protocol": 1}


# -- who may do what --


CALLS = [
    ("POST", "/v1/enrol"),
    ("POST", "/v1/leases"),
    ("GET", f"/v1/models/{'0' * 64}"),
    ("POST", "/v1/jobs/1/heartbeat"),
    ("POST", "/v1/jobs/1/result"),
    ("POST", "/v1/jobs/1/failure"),
    ("POST", "/v1/leave"),
]


CALLS_DESCRIBED = [
    (method, path.replace("jobs/1", "jobs/{job_id}").replace("0" * 64, "{sha256}")) for method, path in CALLS
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_needs_a_token_and_all_wrong_ones_are_told_the_same(hub: Hub, method: str, path: str):
    revoked = hub.add("gone")
    registry.revoke_device(hub.desk.engine, "gone")
    answers = []
    for headers in (
        {},
        {"Authorization": f"Bearer {revoked}"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic x"},
    ):
        said = hub.client.request(method, path, headers=headers, json={} if method == "POST" else None)
        answers.append((said.status_code, said.content, said.headers["www-authenticate"]))
    assert set(answers) == {(401, answers[0][1], "Bearer")}


def test_every_call_of_the_interface_is_in_the_list_above(hub: Hub):
    described = hub.app.openapi()["paths"]
    found = [
        (method.upper(), path, "security" in call)
        for path, calls in described.items()
        for method, call in calls.items()
    ]
    assert sorted((method, path) for method, path, needs_token in found if needs_token) == sorted(CALLS_DESCRIBED)
    assert {path for _, path, needs_token in found if not needs_token} == {"/v1/health", "/agent.py"}


def test_one_device_never_learns_of_anothers_jobs_nor_touches_them(hub: Hub):
    mine, theirs = hub.add("one"), hub.add("two", "other")
    key, _ = hub.desk.submit("a", "shared")
    (foreign,) = hub.desk.submit("b", queue="other")
    hub.enrol(mine, ONE)
    hub.enrol(theirs, TWO)
    (job,) = hub.lease(mine, ONE).json()["jobs"]
    assert job["id"] == key
    (other,) = hub.lease(theirs, TWO, 16).json()["jobs"]
    assert other["id"] == foreign
    for name, body in (
        ("heartbeat", {"instance": ONE, "attempt": 1, "state": "measuring", "conditions": {}}),
        ("result", answer(other)),
        ("failure", {"instance": ONE, "attempt": 1, "fault": "model", "reason": "mine now"}),
    ):
        for instance in (ONE, TWO):
            there = hub.post(mine, f"/v1/jobs/{foreign}/{name}", {**body, "instance": instance})
            nowhere = hub.post(mine, f"/v1/jobs/999/{name}", {**body, "instance": instance})
            assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content)
            assert there.status_code == 404
    held = hub.get(mine, f"/v1/models/{other['model']['sha256']}")
    absent = hub.get(mine, f"/v1/models/{'0' * 64}")
    assert (held.status_code, held.content) == (absent.status_code, absent.content)
    assert held.status_code == 404
    assert hub.desk.job(foreign).state == "leased"
    assert hub.desk.events(foreign) == ["submitted", "leased"]


def test_two_devices_of_one_queue_do_not_answer_for_each_other(hub: Hub):
    first, second = hub.add("one"), hub.add("two")
    (key,) = hub.desk.submit("net")
    hub.enrol(first, ONE)
    hub.enrol(second, TWO)
    (job,) = hub.lease(first, ONE).json()["jobs"]
    assert hub.post(second, f"/v1/jobs/{key}/result", answer(job, instance=TWO)).status_code == 404
    assert hub.get(second, f"/v1/models/{job['model']['sha256']}").status_code == 404
    assert hub.post(first, f"/v1/jobs/{key}/result", answer(job)).json() == {"verdict": "accepted"}


def test_a_token_revoked_in_mid_job_ends_it(hub: Hub):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    hub.enrol(token)
    (job,) = hub.lease(token).json()["jobs"]
    registry.revoke_device(hub.desk.engine, "pi", hub.desk.clock)
    assert hub.post(token, f"/v1/jobs/{key}/result", answer(job)).status_code == 401
    assert hub.desk.job(key).state == "waiting"


# -- what comes in --


def result_body(job: dict[str, Any], samples: str) -> bytes:
    report = wall_report(job["model"]["sha256"])
    report["processes"][0]["samples_ms"] = "HERE"
    return json.dumps(answer(job, report)).replace('"HERE"', samples).encode()


@pytest.mark.parametrize("sample", ["NaN", "Infinity", "-Infinity", "-1.5", "0", "1e999"])
def test_a_number_that_is_no_time_is_let_in_kept_and_never_used(hub: Hub, sample: str):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net")
    hub.enrol(token)
    (job,) = hub.lease(token).json()["jobs"]
    said = hub.post(token, f"/v1/jobs/{key}/result", result_body(job, f"[5.0, {sample}]"))
    assert said.json() == {"verdict": "quarantined"}
    assert hub.desk.job(key).state == "waiting"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"instance": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"instance": ' + b"1" * 5_000 + b"}",
        b'{"conditions": {"\\u0000": NaN}, "limit": NaN}',
    ],
    ids=range(12),
)
@pytest.mark.parametrize("path", [path for method, path in CALLS if method == "POST"])
def test_a_body_that_is_no_such_thing_is_refused_in_one_line(hub: Hub, path: str, body: bytes):
    said = hub.post(hub.add("pi"), path, body)
    assert said.status_code == 422
    detail = said.json()["detail"]
    assert detail
    assert len(detail) < 1_200
    assert detail.isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"surplus": 1},
        {"instance": "A" * 32},
        {"instance": "a" * 31},
        {"instance": "a" * 32 + "\n"},
        {"format": 2},
        {"format": True},
        {"virtual": "no"},
        {"conditions": {str(number): 1.0 for number in range(33)}},
        {"conditions": {"deep": {"er": 1}}},
        {"conditions": {"long": "x" * 201}},
        {"facts": {**FACTS, "cores": 0}},
        {"facts": {**FACTS, "cores": "4"}},
        {"facts": {**FACTS, "surplus": None}},
        {"facts": {**FACTS, "runtimes": {"onnxruntime": 1}}},
        {"facts": {**FACTS, "cpu_model": "x" * 201}},
    ],
    ids=str,
)
def test_what_the_interface_does_not_know_is_refused(hub: Hub, changes: dict[str, Any]):
    token = hub.add("pi")
    assert hub.enrol(token, **changes).status_code == 422
    assert hub.enrol(token).status_code == 200


@pytest.mark.parametrize("key", ["0", "-1", str(2**31), str(2**80), "one", "1.5", "%00"])
def test_a_number_that_no_job_can_have_is_refused(hub: Hub, key: str):
    body = {"instance": ONE, "attempt": 1, "fault": "model", "reason": "x"}
    assert hub.post(hub.add("pi"), f"/v1/jobs/{key}/failure", body).status_code == 422


def test_a_body_over_the_limit_is_refused_with_and_without_its_length(hub: Hub):
    token = hub.add("pi")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    piece = b" " * (1 << 20)

    def pieces(count: int) -> Iterator[bytes]:
        yield from (piece for _ in range(count))

    for count, status in ((8, 422), (9, 413)):
        whole = hub.client.post("/v1/enrol", content=piece * count, headers=headers)
        chunked = hub.client.post("/v1/enrol", content=pieces(count), headers=headers)
        assert (whole.status_code, chunked.status_code) == (status, status)
    assert 8 * len(piece) == BODY_BYTES_MOST


def test_the_most_samples_a_policy_may_keep_fit_into_a_body():
    process = {**wall_report("a" * 64)["processes"][0], "samples_ms": [12.345678901234567] * 1_000}
    report = wall_report("a" * 64, processes=[process] * 100)
    assert len(json.dumps(report)) < BODY_BYTES_MOST
    bodies.WallReport.model_validate(report)


# -- a database that is away --


def test_a_database_that_is_locked_or_away_is_a_503_that_says_when_to_come_back(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    shutil.copy(empty_database, tmp_path)
    hub = Hub(tmp_path)
    token = hub.add("pi")
    holder = open_for_writing(sqlite_url(tmp_path))
    calls = [lambda: hub.enrol(token), lambda: hub.lease(token), lambda: hub.client.get("/v1/health")]
    with holder.begin():
        locked = [call() for call in calls]
    assert hub.enrol(token).status_code == 200
    hub.desk.engine.dispose()
    holder.dispose()
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.rmdir()
    for said in [*locked, *(call() for call in calls)]:
        assert said.status_code == 503
        assert said.headers["retry-after"] == "2"
        assert said.json() == {"detail": "the database is locked or away; try again"}
    tmp_path.mkdir()
    hub.desk.engine.dispose()


# -- the interface against its own description --


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize(("method", "path"), CALLS_DESCRIBED)
def test_every_answer_is_one_that_the_description_promises(hub: Hub, method: str, path: str, mode: Any):
    token = hub.add("pi")
    hub.enrol(token)
    hub.desk.submit(*(f"net {number}" for number in range(16)))
    jobs = hub.lease(token, limit=16).json()["jobs"]
    operation = schemathesis.openapi.from_asgi("/openapi.json", hub.app)[path][method]

    @given(case=operation.as_strategy(generation_mode=mode), job=st.sampled_from(jobs))
    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def try_it(case: schemathesis.Case, job: dict[str, Any]) -> None:
        if mode.is_positive and isinstance(case.body, dict):  # what is valid shall reach this agent's jobs as well
            case.body = {**case.body, "instance": ONE, **({"virtual": False} if "virtual" in case.body else {})}
            if "attempt" in case.body:
                case.body["attempt"], case.path_parameters["job_id"] = 1, job["id"]
        said = case.call_and_validate(headers={"Authorization": f"Bearer {token}"})
        statuses.add(said.status_code)

    statuses: set[int] = set()
    try_it()
    assert not mode.is_positive or 200 in statuses or "models" in path
