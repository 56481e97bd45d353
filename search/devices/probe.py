"""A latency probe whose models are measured by the agents of one queue.

It talks to the tables that the hub serves, not to the hub: the two need not run at the same time. A model that was
measured before, steadily and under the same key (hash, queue and processor, runtime and version, threads, precision,
policy), is not measured again unless the settings ask for it. The probe renews its requests while it waits, so devices
measure nothing for a killed search. It waits for a database that is away, and submits again the requests that ran out
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

from search.devices import jobs, leases, model_store, plausibility, registry
from search.devices.jobs import JobRow, MeasurementRequest
from search.devices.transitions import CANCELLED
from search.store.connection.patience import Patience
from search.store.connection.printed_commands import printed_command
from search.store.vocabulary import OPEN_JOB_STATES, JobState, MeasurementMode
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from workers.file_names import precision_of
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
from workers.wording import counted

Answer = TypeVar("Answer")
POLL_S = (0.1, 1.0)  # from the first look at the table to the slowest
NOTE_AFTER_S = 15.0  # without any progress
LOOK_AFTER_S = 3.0  # between two renewals of the requests, which also check for dead agents and the runtimes

INSTALL = {
    "onnxruntime": "`pip install onnxruntime` there",
    "ncnn": "`pip install ncnn` there",
    "litert": "`pip install ai-edge-litert` there",
    "native": "install a C compiler there",
}

AT_THE_GATE, VERIFYING, CALIBRATING = 0, 1, 2  # priorities: the candidates that workers wait for come first


@dataclass(frozen=True)
class HubProbeSettings:
    """How the agents of a queue measure a probe's models."""

    queue: str
    policy: MeasurementPolicy
    anchor: Path
    profile: Profile | None = None  # of a virtual device: its counts become an estimate
    priority: int = AT_THE_GATE
    fresh: bool = False  # measure even models that were measured before
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
            sqlalchemy.exc.DBAPIError: the database was away for longer than the settings allow.
        """
        self._stop = stop
        owner = secrets.token_hex(16)
        requests = self._requests(models, nonce=owner if self._settings.fresh else None)
        to_measure = [request for request in requests if isinstance(request, MeasurementRequest)]
        try:
            rows = self._wait({request.identity: request for request in to_measure}, owner)
        except BaseException:
            with contextlib.suppress(sa.exc.DBAPIError):  # requests that no one renews run out by themselves
                jobs.cancel(self._engine, owner)
            raise
        self._ask(model_store.drop_models_of_finished)
        return [
            self._measurement(rows[request.identity], request) if isinstance(request, MeasurementRequest) else request
            for request in requests
        ]

    def _ask(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do one repeatable transaction, `work(engine, …)`; wait for a database that is away.

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

    def _requests(self, models: Sequence[Path], nonce: str | None) -> list[MeasurementRequest | FailedMeasurement]:
        """Store the models and return a request for each; a failure for a file that can't be read."""
        requests: list[MeasurementRequest | FailedMeasurement] = []
        anchor = self._ask(model_store.put_model, self._settings.anchor.read_bytes()) if models else ""
        for path in models:
            if self._stop():
                raise MeasurementStopped
            try:
                content = path.read_bytes()
            except OSError as error:
                requests.append(FailedMeasurement("", f"{path.name} can't be read: {error.strerror or error}"))
                continue
            sha256 = self._ask(model_store.put_model, content)
            request = self._request(sha256, anchor)
            precision = precision_of(path)
            requests.append(replace(request, macs=_macs_of(content), nonce=nonce, precision=precision))
        return requests

    def _request(self, model: str, anchor: str) -> MeasurementRequest:
        policy, virtual = self._settings.policy, self._settings.profile is not None
        return MeasurementRequest(
            queue=self._settings.queue,
            model_sha256=model,
            anchor_sha256=None if virtual else anchor,
            mode=MeasurementMode.COUNTS if virtual else MeasurementMode.WALL,
            runtime=policy.runtime,
            threads=policy.threads,
            policy=policy.model_dump(mode="json"),
            policy_label="counts" if virtual else policy.label,
            priority=self._settings.priority,
        )

    def _submit(self, requests: Mapping[str, MeasurementRequest], owner: str) -> dict[str, int]:
        return dict(zip(requests, self._ask(jobs.submit, list(requests.values()), owner), strict=True))

    def _wait(self, requests: Mapping[str, MeasurementRequest], owner: str) -> dict[str, JobRow]:
        """Wait until the job of every request, by identity, has ended; note it when nothing moves for a while."""
        ids = self._submit(requests, owner)
        progress = _Progress(len(ids), time.monotonic())
        pause_s, looked_at = POLL_S[0], -math.inf
        while True:
            if time.monotonic() - looked_at > LOOK_AFTER_S:
                looked_at = time.monotonic()
                self._ask(jobs.renew, owner)
                self._ask(leases.expire, self.device)
                self._check_runtime()
            rows = self._rows(ids, reports=False)
            cancelled = {identity: requests[identity] for identity, row in rows.items() if row.reason == CANCELLED}
            if cancelled:  # this process, or the whole machine, was suspended for longer than a request lasts
                ids |= self._submit(cancelled, owner)
                continue
            open_jobs = [row for row in rows.values() if row.state in OPEN_JOB_STATES]
            if not open_jobs:
                return self._rows(ids, reports=True)
            if progress.is_stalled(open_jobs, time.monotonic()):
                serve = printed_command(["condensery", "devices", "serve"], self._engine.url)
                self._note(
                    f"waiting for a device of queue {self.device!r} to measure {counted(len(open_jobs), 'network')}: "
                    f"is its agent running, and `{serve}`?"
                )
            self._pause(pause_s)
            pause_s = min(pause_s * 1.5, POLL_S[1])

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stop():
                raise MeasurementStopped
            time.sleep(min(0.1, seconds))

    def _rows(self, ids: Mapping[str, int], reports: bool) -> dict[str, JobRow]:
        return dict(zip(ids, self._ask(jobs.states, list(ids.values()), reports), strict=True))

    def _check_runtime(self) -> None:
        """Raise InvalidSettings if every device of the queue has enrolled and none has the runtime."""
        rows = [row for row in self._ask(registry.list_devices) if row.queue == self.device and not row.revoked]
        runtimes = [set(row.facts.get("runtimes", ())) for row in rows if row.facts]
        if runtimes and len(runtimes) == len(rows):
            need_runtime(self.runtime, set().union(*runtimes), f"queue {self.device!r}", "its devices have")

    def _measurement(self, row: JobRow, request: MeasurementRequest) -> Measurement | FailedMeasurement:
        if row.state != JobState.DONE or row.report is None:
            return FailedMeasurement(request.model_sha256, row.reason or f"its job is {row.state}")
        report: dict[str, Any] = row.report
        measurement: Measurement | FailedMeasurement
        if self._settings.profile is not None:
            measurement = estimated_measurement(report, report, self._settings.profile, self.device)
        else:
            # The drift is computed from the anchor's times here, rather than taken from the agent.
            checked = {**report, "anchor_drift": plausibility.anchor_drift(report["processes"])}
            measurement = measurement_from_report(checked, checked, self.device)
        if isinstance(measurement, FailedMeasurement):
            return measurement
        conditions = {**measurement.conditions, "agent": row.device, "job": row.id}
        return replace(measurement, conditions=conditions, precision=request.precision)


@dataclass
class _Progress:
    """Watches whether the jobs that a probe waits for make progress: one ends, or a device holds one."""

    open_jobs: int
    moved_at: float  # monotonic seconds
    noted: bool = False  # whether the present standstill was noted

    def is_stalled(self, open_jobs: Sequence[JobRow], at: float) -> bool:
        """Return whether to tell the user now that nothing has moved for `NOTE_AFTER_S` seconds."""
        if len(open_jobs) < self.open_jobs or any(row.state == JobState.LEASED for row in open_jobs):
            self.open_jobs, self.moved_at, self.noted = len(open_jobs), at, False
        elif not self.noted and at - self.moved_at > NOTE_AFTER_S:
            self.noted = True
            return True
        return False


def need_runtime(runtime: str, installed: Collection[str], where: str, who_has: str = "it has") -> None:
    """Raise InvalidSettings if a runtime is not among the installed ones."""
    if runtime not in installed:
        names = ", ".join(sorted(installed)) or "none"
        raise InvalidSettings(
            f"latency.runtime = {runtime!r} must be there on {where}, but {who_has} {names}; {INSTALL[runtime]}, or "
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
