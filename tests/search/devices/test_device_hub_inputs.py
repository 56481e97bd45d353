"""Whatever is sent to the hub, it answers as its description says, and never falls over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.devices import schemas
from search.devices.api import BODY_BYTES_MOST, STRANGERS_BYTES_MOST
from search.store.connection import database
from search.store.connection.database import open_for_writing
from tests.search.tiny_devices import FACTS, wall_report
from tests.search.tiny_hub import CALLS, CALLS_DESCRIBED, ONE, Hub, result_of
from tests.search.tiny_studies import sqlite_url
from workers.latency.agent.serving.protocol import PROTOCOL


def result_body(job: dict[str, Any], samples: str) -> bytes:
    report = wall_report(job["model"]["sha256"])
    report["processes"][0]["samples_ms"] = "HERE"
    return json.dumps(result_of(job, report)).replace('"HERE"', samples).encode()


@pytest.mark.parametrize("sample", ["NaN", "Infinity", "-Infinity", "-1.5", "0", "5e-324", "1e999"])
def test_a_sample_that_is_no_time_is_stored_in_quarantine(hub: Hub, sample: str):
    token = hub.add("pi")
    (key,) = hub.desk.submit("net", macs=1_000_000)
    hub.enrol(token)
    (job,) = hub.lease(token).json()["jobs"]
    response = hub.post(token, f"/v1/jobs/{key}/result", result_body(job, f"[{sample}, {sample}]"))
    assert response.json() == {"verdict": "quarantined"}
    assert hub.desk.job(key).state == "waiting"


MALFORMED = (
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
)


@pytest.mark.parametrize("path", [path for method, path in CALLS if method == "POST"])
def test_a_malformed_body_is_refused_in_one_line(hub: Hub, path: str):
    token = hub.add("pi")
    for body in MALFORMED:
        response = hub.post(token, path, body)
        assert response.status_code == 422, body[:80]
        detail = response.json()["detail"]
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
        {"format": PROTOCOL + 1},
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
def test_a_body_outside_the_interface_is_refused(hub: Hub, changes: dict[str, Any]):
    token = hub.add("pi")
    assert hub.enrol(token, **changes).status_code == 422
    assert hub.enrol(token).status_code == 200


@pytest.mark.parametrize("key", ["0", "-1", str(2**31), str(2**80), "one", "1.5", "%00"])
def test_an_impossible_job_number_is_refused(hub: Hub, key: str):
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
        for stranger in ({}, {"Authorization": "Bearer wrong"}):
            assert hub.client.post("/v1/enrol", content=pieces(count), headers=stranger).status_code == 413
    assert 8 * len(piece) == BODY_BYTES_MOST


def test_the_most_samples_a_policy_may_keep_fit_into_a_body():
    process = {**wall_report("a" * 64)["processes"][0], "samples_ms": [12.345678901234567] * 1_000}
    report = wall_report("a" * 64, processes=[process] * 100)
    assert len(json.dumps(report)) < BODY_BYTES_MOST
    schemas.WallReport.model_validate(report)


# -- a database that is away --


def test_a_database_that_is_locked_or_away_is_a_503_that_says_when_to_come_back(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    shutil.copy(empty_database, tmp_path)
    hub = Hub(tmp_path)
    token = hub.add("pi")
    holder = open_for_writing(sqlite_url(tmp_path))
    long = json.dumps({"instance": ONE, "text": "x" * STRANGERS_BYTES_MOST}).encode()
    calls = [lambda: hub.enrol(token), lambda: hub.lease(token), lambda: hub.client.get("/v1/health")]
    calls.append(lambda: hub.post(token, "/v1/enrol", long))
    with holder.begin():
        locked = [call() for call in calls]
    assert hub.enrol(token).status_code == 200
    hub.desk.engine.dispose()
    holder.dispose()
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.rmdir()
    for response in [*locked, *(call() for call in calls)]:
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.json() == {"detail": "the database is locked or away; try again"}
    tmp_path.mkdir()
    hub.desk.engine.dispose()


@pytest.mark.parametrize("kind", [sa.exc.DataError, sa.exc.IntegrityError, sa.exc.ProgrammingError])
def test_a_statement_that_the_database_refuses_is_a_500_and_no_503(hub: Hub, kind: type[sa.exc.DBAPIError]):
    token = hub.add("pi")

    @sa.event.listens_for(hub.desk.engine, "before_cursor_execute")
    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            raise kind("UPDATE", {}, Exception("value out of range"))

    response = hub.enrol(token)
    assert (response.status_code, response.json()) == (
        500,
        {"detail": "the database refuses what this call would write"},
    )
    assert "retry-after" not in response.headers


# -- the interface against its own description --


@pytest.mark.parametrize("examples", [25, pytest.param(250, marks=[pytest.mark.slow, pytest.mark.soak])])
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize(("method", "path"), CALLS_DESCRIBED)
def test_every_response_is_one_that_the_description_promises(
    hub: Hub, method: str, path: str, mode: Any, examples: int
):
    token = hub.add("pi")
    hub.enrol(token)
    hub.desk.submit(*(f"net {number}" for number in range(16)), macs=1_000_000)
    jobs = hub.lease(token, limit=16).json()["jobs"]
    operation = schemathesis.openapi.from_asgi("/openapi.json", hub.app)[path][method]

    @given(case=operation.as_strategy(generation_mode=mode), job=st.sampled_from(jobs))
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def try_it(case: schemathesis.Case, job: dict[str, Any]) -> None:
        if mode.is_positive and isinstance(case.body, dict):  # what is valid shall reach this agent's jobs as well
            case.body = {**case.body, "instance": ONE, **({"virtual": False} if "virtual" in case.body else {})}
            if "attempt" in case.body:
                case.body["attempt"], case.path_parameters["job_id"] = 1, job["id"]
        response = case.call_and_validate(headers={"Authorization": f"Bearer {token}"})
        statuses.add(response.status_code)

    statuses: set[int] = set()
    try_it()
    assert not mode.is_positive or 200 in statuses or "models" in path
