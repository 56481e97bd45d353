"""A latency probe whose models are measured by the agents of one queue.

It talks to the tables that the hub serves, not to the hub: the two need not run at the same time. A model that was
measured before under the same key (hash, queue, runtime and version, threads, precision, policy) is not measured again.
"""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.devices import jobs, leases, registry
from search.devices.jobs import JobRow, Order
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from workers.latency.estimated_probe import estimated_measurement
from workers.latency.measurement import (
    FailedMeasurement,
    Measurement,
    MeasurementStopped,
    measurement_from_report,
    never,
)
from workers.latency.policy import MeasurementPolicy
from workers.latency.profiles import Profile

POLL_S = (0.1, 1.0)  # from the first look at the table to the slowest
NOTE_AFTER_S = 15.0  # without any progress
LOOK_AFTER_S = 3.0  # between two looks at dead agents and at what the devices can run

AT_THE_GATE, VERIFYING, CALIBRATING = 0, 1, 2  # priorities: candidates that workers wait for come first


@dataclass(frozen=True)
class Errand:
    """What a probe asks the agents of a queue for."""

    queue: str
    policy: MeasurementPolicy
    anchor: Path
    profile: Profile | None = None  # of a virtual device: its counts become an estimate
    priority: int = AT_THE_GATE


class HubProbe:
    """Has models measured on the devices of one queue, and waits for them as long as it takes."""

    def __init__(self, engine: sa.Engine, errand: Errand, note: Callable[[str], None] = lambda text: None) -> None:
        self.device, self.runtime = errand.queue, errand.policy.runtime
        self._engine, self._errand, self._note = engine, errand, note

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Return the latency of each model; see `workers.latency.measurement.LatencyProbe`."""
        results: list[Measurement | FailedMeasurement | None] = [None] * len(models)
        orders: dict[int, Order] = {}  # by place in `models`
        anchor = jobs.put_model(self._engine, self._errand.anchor.read_bytes()) if models else ""
        for place, path in enumerate(models):
            if stop():
                raise MeasurementStopped
            try:
                content = path.read_bytes()
            except OSError as error:
                results[place] = FailedMeasurement("", f"{path.name} can't be read: {error.strerror or error}")
                continue
            orders[place] = self._order(jobs.put_model(self._engine, content), anchor, content)
        ids = dict(zip(orders, jobs.submit(self._engine, list(orders.values())), strict=True))
        try:
            rows = self._wait(set(ids.values()), stop)
        except BaseException:
            jobs.cancel(self._engine, sorted(set(ids.values())))
            raise
        for place, order in orders.items():
            results[place] = self._result(rows[ids[place]], order)
        jobs.drop_models_of_finished(self._engine)
        return [one for one in results if one is not None]

    def _order(self, model: str, anchor: str, content: bytes) -> Order:
        virtual = self._errand.profile is not None
        policy = self._errand.policy
        return Order(
            queue=self._errand.queue,
            model_sha256=model,
            anchor_sha256=None if virtual else anchor,
            mode="counts" if virtual else "wall",
            runtime=policy.runtime,
            threads=policy.threads,
            policy=policy.model_dump(mode="json"),
            policy_label="counts" if virtual else policy.label,
            priority=self._errand.priority,
            macs=_macs_of(content),
        )

    def _wait(self, ids: set[int], stop: Callable[[], bool]) -> dict[int, JobRow]:
        """Look until every job has ended; say so when nothing moves for a while."""
        pause_s, left, moved_at, told = POLL_S[0], len(ids), time.monotonic(), False
        looked_at = -math.inf
        while True:
            if time.monotonic() - looked_at > LOOK_AFTER_S:
                looked_at = time.monotonic()
                leases.expire(self._engine, self.device)
                self._check_runtime()
            rows = {row.id: row for row in jobs.states(self._engine, sorted(ids), reports=False)}
            still = sum(row.state in ("waiting", "leased") for row in rows.values())
            if not still:
                return {row.id: row for row in jobs.states(self._engine, sorted(ids))}
            if still < left or any(row.state == "leased" for row in rows.values()):
                left, moved_at, told = still, time.monotonic(), False
            elif not told and time.monotonic() - moved_at > NOTE_AFTER_S:
                told = True
                self._note(
                    f"waiting for a device of queue {self.device!r} to measure {still} networks: is its agent running, "
                    "and `condensery devices serve`?"
                )
            until = time.monotonic() + pause_s
            while time.monotonic() < until:
                if stop():
                    raise MeasurementStopped
                time.sleep(min(0.1, pause_s))
            pause_s = min(pause_s * 1.5, POLL_S[1])

    def _check_runtime(self) -> None:
        """Refuse to wait for what no device of the queue can do; one that has yet to enrol may.

        Raises:
            InvalidSettings: every device that enrolled lacks the runtime.
        """
        rows = [row for row in registry.list_devices(self._engine) if row.queue == self.device and not row.revoked]
        have = [set(row.facts.get("runtimes", ())) for row in rows if row.facts]
        if have and len(have) == len(rows) and not any(self.runtime in one for one in have):
            there = ", ".join(sorted(set().union(*have))) or "none"
            raise InvalidSettings(
                f"latency.runtime = {self.runtime!r} must be there on queue {self.device!r}, but its devices have "
                f"{there}; install it there, or choose another."
            )

    def _result(self, row: JobRow, order: Order) -> Measurement | FailedMeasurement:
        if row.state != "done" or row.report is None:
            return FailedMeasurement(order.model_sha256, row.reason or f"its job is {row.state}")
        report: dict[str, Any] = row.report
        found: Measurement | FailedMeasurement
        if self._errand.profile is not None:
            found = estimated_measurement(report, report, self._errand.profile, self.device)
        else:
            found = measurement_from_report(report, {**report, "attempt": report["tries"]}, self.device)
        if isinstance(found, Measurement):
            found.conditions["agent"] = row.device
            found.conditions["job"] = row.id
        return found


def _macs_of(content: bytes) -> int | None:
    """Return the macs of a model file that carries its config, None for any other."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return cost_of(CondenseNetConfig.from_dict(json.loads(archive.read("model.json"))["config"])).macs
        properties = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
        return cost_of(CondenseNetConfig.from_json(properties["config"])).macs
    except (DecodeError, KeyError, TypeError, ValueError, zipfile.BadZipFile):  # InvalidConfig is a ValueError
        return None
