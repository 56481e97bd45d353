"""A latency probe whose models are measured by the agents of one queue.

It talks to the tables that the hub serves, not to the hub: the two need not run at the same time. A model that was
measured before, steadily and under the same key (hash, queue and processor, runtime and version, threads, precision,
policy), is not measured again unless the settings ask for it. The probe renews its requests while it waits, so devices
measure nothing for a killed search. It waits for a database that is away, and submits requests again that ran out
meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import secrets
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from search.devices import jobs, leases, plausibility, registry
from search.devices.jobs import JobRow, MeasurementRequest
from search.devices.transitions import CANCELLED
from search.store.device_tables import OPEN_JOB_STATES
from search.store.patience import Patience
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

Found = TypeVar("Found")
POLL_S = (0.1, 1.0)  # from the first look at the table to the slowest
NOTE_AFTER_S = 15.0  # without any progress
LOOK_AFTER_S = 3.0  # between two renewals of the requests, with a look at dead agents and at what devices can run

INSTALL = {
    "onnxruntime": "`pip install onnxruntime` there",
    "ncnn": "`pip install ncnn` there",
    "litert": "`pip install ai-edge-litert` there",
    "native": "install a C compiler there",
}

AT_THE_GATE, VERIFYING, CALIBRATING = 0, 1, 2  # priorities: candidates that workers wait for come first


@dataclass(frozen=True)
class HubProbeSettings:
    """What a probe asks the agents of a queue for."""

    queue: str
    policy: MeasurementPolicy
    anchor: Path
    profile: Profile | None = None  # of a virtual device: its counts become an estimate
    priority: int = AT_THE_GATE
    fresh: bool = False  # measure anew what was measured before
    database_wait_s: float = 0.0  # how long to wait for a database that is away


class HubProbe:
    """Has models measured on the devices of one queue, and waits for them as long as it takes."""

    def __init__(
        self, engine: sa.Engine, settings: HubProbeSettings, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self.device, self.runtime = settings.queue, settings.policy.runtime
        self._engine, self._settings, self._note = engine, settings, note
        self._stop: Callable[[], bool] = never

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Return the latency of each model; see `workers.latency.measurement.LatencyProbe`.

        Raises:
            sqlalchemy.exc.DBAPIError: the database was away for longer than the settings waits.
        """
        self._stop = stop
        results: list[Measurement | FailedMeasurement | None] = [None] * len(models)
        requests: dict[int, MeasurementRequest] = {}  # by place in `models`
        anchor = self._ask(jobs.put_model, self._settings.anchor.read_bytes()) if models else ""
        for place, path in enumerate(models):
            if stop():
                raise MeasurementStopped
            try:
                content = path.read_bytes()
            except OSError as error:
                results[place] = FailedMeasurement("", f"{path.name} can't be read: {error.strerror or error}")
                continue
            requests[place] = self._request(self._ask(jobs.put_model, content), anchor, content)
        owner = secrets.token_hex(16)
        if self._settings.fresh:
            requests = {place: replace(request, nonce=owner) for place, request in requests.items()}
        try:
            rows = self._wait({request.identity: request for request in requests.values()}, owner)
        except BaseException:
            with contextlib.suppress(sa.exc.DBAPIError):  # what nobody renews runs out by itself
                jobs.cancel(self._engine, owner)
            raise
        for place, request in requests.items():
            results[place] = self._result(rows[request.identity], request)
        self._ask(jobs.drop_models_of_finished)
        return [one for one in results if one is not None]

    def _ask(self, work: Callable[..., Found], *arguments: Any) -> Found:
        """Do one repeatable transaction, as `work(engine, …)`; wait for a database that is away.

        Raises:
            MeasurementStopped: the measurement was stopped meanwhile.
        """
        patience = Patience(self._settings.database_wait_s, self._note, self._stop)
        try:
            return patience.call(lambda: work(self._engine, *arguments))
        except sa.exc.DBAPIError:
            if self._stop():
                raise MeasurementStopped from None
            raise

    def _request(self, model: str, anchor: str, content: bytes) -> MeasurementRequest:
        virtual = self._settings.profile is not None
        policy = self._settings.policy
        return MeasurementRequest(
            queue=self._settings.queue,
            model_sha256=model,
            anchor_sha256=None if virtual else anchor,
            mode="counts" if virtual else "wall",
            runtime=policy.runtime,
            threads=policy.threads,
            policy=policy.model_dump(mode="json"),
            policy_label="counts" if virtual else policy.label,
            priority=self._settings.priority,
            macs=_macs_of(content),
        )

    def _submit(self, requests: Mapping[str, MeasurementRequest], owner: str) -> dict[str, int]:
        return dict(zip(requests, self._ask(jobs.submit, list(requests.values()), owner), strict=True))

    def _wait(self, requests: Mapping[str, MeasurementRequest], owner: str) -> dict[str, JobRow]:
        """Look until the job of every request, by identity, has ended; say so when nothing moves for a while."""
        ids = self._submit(requests, owner)
        pause_s, left, moved_at, told = POLL_S[0], len(ids), time.monotonic(), False
        looked_at = -math.inf
        while True:
            if time.monotonic() - looked_at > LOOK_AFTER_S:
                looked_at = time.monotonic()
                self._ask(jobs.renew, owner)
                self._ask(leases.expire, self.device)
                self._check_runtime()
            rows = self._rows(ids, reports=False)
            forgotten = {identity: requests[identity] for identity, row in rows.items() if row.reason == CANCELLED}
            if forgotten:  # this process, or the whole machine, stood still for longer than a request lasts
                ids |= self._submit(forgotten, owner)
                continue
            still = sum(row.state in OPEN_JOB_STATES for row in rows.values())
            if not still:
                return self._rows(ids, reports=True)
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
                if self._stop():
                    raise MeasurementStopped
                time.sleep(min(0.1, pause_s))
            pause_s = min(pause_s * 1.5, POLL_S[1])

    def _rows(self, ids: Mapping[str, int], reports: bool) -> dict[str, JobRow]:
        return dict(zip(ids, self._ask(jobs.states, list(ids.values()), reports), strict=True))

    def _check_runtime(self) -> None:
        """Refuse to wait for what no device of the queue can do; one that has yet to enrol may.

        Raises:
            InvalidSettings: every device that enrolled lacks the runtime.
        """
        rows = [row for row in self._ask(registry.list_devices) if row.queue == self.device and not row.revoked]
        have = [set(row.facts.get("runtimes", ())) for row in rows if row.facts]
        if have and len(have) == len(rows):
            need_runtime(self.runtime, set().union(*have), f"queue {self.device!r}", "its devices have")

    def _result(self, row: JobRow, request: MeasurementRequest) -> Measurement | FailedMeasurement:
        if row.state != "done" or row.report is None:
            return FailedMeasurement(request.model_sha256, row.reason or f"its job is {row.state}")
        report: dict[str, Any] = row.report
        found: Measurement | FailedMeasurement
        if self._settings.profile is not None:
            found = estimated_measurement(report, report, self._settings.profile, self.device)
        else:
            # The anchor's own times say how far it moved; what the agent calls its drift is not needed.
            seen = {**report, "anchor_drift": plausibility.anchor_drift(report["processes"])}
            found = measurement_from_report(seen, seen, self.device)
        if isinstance(found, FailedMeasurement):
            return found
        return replace(found, conditions={**found.conditions, "agent": row.device, "job": row.id})


def need_runtime(runtime: str, there: Collection[str], where: str, who_has: str = "it has") -> None:
    """Refuse a runtime that is not there.

    Raises:
        InvalidSettings: so it is.
    """
    if runtime not in there:
        has = ", ".join(sorted(there)) or "none"
        raise InvalidSettings(
            f"latency.runtime = {runtime!r} must be there on {where}, but {who_has} {has}; {INSTALL[runtime]}, or "
            "choose another."
        )


def _macs_of(content: bytes) -> int | None:
    """Return the macs of a model file that carries its config, None for any other."""
    import onnx
    from google.protobuf.message import DecodeError

    from workers.export import tflite

    try:
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return cost_of(CondenseNetConfig.from_dict(json.loads(archive.read("model.json"))["config"])).macs
        if tflite.is_model(content):
            return cost_of(CondenseNetConfig.from_dict(json.loads(tflite.description_of(content))["config"])).macs
        properties = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
        return cost_of(CondenseNetConfig.from_json(properties["config"])).macs
    except (DecodeError, KeyError, TypeError, ValueError, zipfile.BadZipFile):  # InvalidConfig is a ValueError
        return None
