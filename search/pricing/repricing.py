"""Measuring a study's trained networks on a device that the study doesn't have, without any training.

What is measured is recorded as latencies of that device beside the study's own: the study's settings, and what its
trials are judged by, stay as they are. As at the gate, the deployed network runs with random weights and indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.pricing.pricer import Target, price
from search.settings import LatencySettings, StudySettings
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import TrialState
from space.errors import InvalidSettings, TrialNotReady
from workers.latency.measurement import FailedMeasurement, Measurement, never
from workers.latency.record import LatencyPurpose
from workers.wording import none_of

AT_ONCE = 8  # networks measured in one batch: what was measured before a crash is recorded


@dataclass(frozen=True)
class Repriced:
    """One trial's latency on the new device, or why there is none."""

    number: int
    latency: Measurement | FailedMeasurement


def settings_on(
    settings: StudySettings, device: str, runtime: str | None = None, policy: str | None = None
) -> StudySettings:
    """Return a study's settings as if the device were its only one, without a limit on the latency there.

    Args:
        settings: of the study.
        device: host, virtual:PROFILE or a queue.
        runtime: None = that of the study's first device.
        policy: standard or quick; None = the study's.

    Raises:
        InvalidSettings: the device is one of the study's own, or has no such runtime or policy.
    """
    own = settings.latency
    if device in own.devices:
        raise InvalidSettings(
            f"--device must be one that the study doesn't have, but {device!r} is among its own "
            f"({', '.join(own.devices)}); `pick` measures there again."
        )
    values = {
        **own.model_dump(),
        "devices": (device,),
        "objectives": None,
        "runtime": runtime or own.runtime_on(own.devices[0]),
        "policy": policy or own.policy,
    }
    try:
        latency = LatencySettings.model_validate(values)
    except ValueError as error:  # pydantic's, of several lines
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ") if hasattr(error, "errors") else str(error)
        raise InvalidSettings(f"{device!r} can't be measured so: {reason}.") from None
    budget = settings.budget.model_copy(update={"max_latency_ms": None})
    return settings.model_copy(update={"latency": latency, "budget": budget})


def trained_without(rows: Sequence[TrialRow], device: str, again: bool) -> list[TrialRow]:
    """Return the trained trials whose latency on a device isn't known; all of them if they are measured again.

    Raises:
        TrialNotReady: none has been trained.
    """
    trained = [row for row in rows if row.state == TrialState.DONE and row.score is not None]
    if not trained:
        raise TrialNotReady(f"{none_of(len(rows), 'trial')} has finished its training yet; launch the study first.")
    return [row for row in trained if again or device not in row.latencies]


def reprice(
    store: StudyStore,
    rows: Sequence[TrialRow],
    target: Target,
    files: Path,
    stop: Callable[[], bool] = never,
) -> Iterator[Repriced]:
    """Measure the trials' networks on a device, batch by batch; record and yield each latency.

    Raises:
        MeasurementStopped: `stop` said so; what was measured before is recorded.
    """
    for at in range(0, len(rows), AT_ONCE):
        batch = rows[at : at + AT_ONCE]
        for row, latency in zip(batch, price([row.config for row in batch], target.probe, files, stop), strict=True):
            if isinstance(latency, Measurement):
                latency = replace(latency, target=target.name, purpose=LatencyPurpose.PRICE)
                store.add_latency(row.number, latency, judged=False)
            yield Repriced(row.number, latency)
