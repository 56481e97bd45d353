"""The hub in the test's process, and the calls of its agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from search.devices import registry
from search.devices.hub import create_app
from tests.search.tiny_devices import CONDITIONS, FACTS, LEASE_S, Desk, instance_of, wall_report
from workers.latency.agent.serving.protocol import PROTOCOL

ONE, TWO = instance_of("one"), instance_of("two")


class Hub:
    """The hub in this process, and the calls of its agents."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk.at(folder)
        self.app = create_app(self.desk.engine, lease_s=LEASE_S, retry_s=0.5, clock=self.desk.clock)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def add(self, name: str, queue: str = "pi5", profile: str | None = None) -> str:
        return registry.add_device(self.desk.engine, name, queue, profile, self.desk.clock)

    def post(self, token: str, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self.client.post(path, content=body if isinstance(body, bytes) else json.dumps(body), headers=headers)

    def get(self, token: str, path: str) -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {token}"})

    def enrol(self, token: str, instance: str = ONE, **changes: Any) -> Any:
        body = {"instance": instance, "format": PROTOCOL, "virtual": False, "facts": FACTS, "conditions": CONDITIONS}
        return self.post(token, "/v1/enrol", {**body, **changes})

    def lease(self, token: str, instance: str = ONE, limit: int = 1) -> Any:
        return self.post(token, "/v1/leases", {"instance": instance, "limit": limit, "conditions": CONDITIONS})


def result_of(job: dict[str, Any], report: dict[str, Any] | None = None, instance: str = ONE) -> dict[str, Any]:
    report = wall_report(job["model"]["sha256"]) if report is None else report
    return {"instance": instance, "attempt": job["attempt"], "report": report}


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
