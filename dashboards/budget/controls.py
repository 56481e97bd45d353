"""The control of one device's limit: a range of sensible limits, and up to where networks were trained at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.columns import Floats, Latencies, StudyColumns
from dashboards.formats import digits_ms
from search.store.vocabulary import TrialState
from workers.latency.record import LatencyStatistic


@dataclass(frozen=True)
class TrainedRange:
    """Between which limits networks were trained, by one statistic of their latencies; infinite where none was."""

    least: str  # the lowest limit that a trained network fits, in words; "" where there is none
    most_ms: float  # the lowest limit that all trained networks fit
    most: str  # the same in words: "0.0997"
    refused: int  # candidates that were refused above it

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite latency is null."""
        return {**vars(self), "most_ms": finite(self.most_ms)}


@dataclass(frozen=True)
class Control:
    """The control of one device's limit: what its latencies are, and a range of sensible limits in ms."""

    target: str
    kind: str
    low_ms: float
    high_ms: float
    step_ms: float
    limit_ms: float | None  # that the control starts at
    study_limit_ms: float | None  # above which the study trained nothing
    trained: Mapping[LatencyStatistic, TrainedRange]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "trained": {name: one.to_dict() for name, one in self.trained.items()}}


def limit_text(ms: float) -> str:
    """Return a limit with at most six digits and no zeros at the end: "12", "0.35"."""
    if 1e-4 <= ms < 1e6:
        return f"{ms:.6g}"
    return f"{ms:.0f}" if ms >= 1e6 else f"{ms:.6f}".rstrip("0").rstrip(".")


def finite(ms: float) -> float | None:
    """Return a latency as JSON has it: None where it is infinite."""
    return ms if math.isfinite(ms) else None


def control_of(
    columns: StudyColumns,
    target: str,
    inside: NDArray[np.bool_],
    limits_ms: tuple[float | None, float | None],
    statistics: Sequence[LatencyStatistic],
) -> Control:
    """Return a device's control.

    Args:
        columns: the study.
        target: the device.
        inside: (n,), the trained networks that can be offered.
        limits_ms: what the control starts at, and the study's own limit.
        statistics: those that a budget can be put on.
    """
    latencies, (limit, study_limit) = columns.latencies[target], limits_ms
    highs = latencies.high_ms[np.isfinite(latencies.high_ms)]
    trained = latencies.high_ms[inside & np.isfinite(latencies.high_ms)]
    ends = (trained if trained.size else highs).tolist() + ([] if limit is None else [limit])
    low, high = min(ends), max(ends)
    step = 10.0 ** math.floor(math.log10(max(high - low, high * 0.01) / 100))
    kinds = sorted({columns.latency_groups[group].kind for group in np.unique(latencies.group[latencies.group >= 0])})
    return Control(
        target=target,
        kind=" and ".join(kinds),
        low_ms=round(math.floor(0.9 * low / step) * step, 9),
        high_ms=round(math.ceil(1.05 * high / step) * step, 9),
        step_ms=round(step, 9),
        limit_ms=limit,
        study_limit_ms=study_limit,
        trained={name: _range_of(columns, latencies, inside, name) for name in statistics},
    )


def _range_of(
    columns: StudyColumns, latencies: Latencies, inside: NDArray[np.bool_], statistic: LatencyStatistic
) -> TrainedRange:
    held = latencies.held_ms[statistic]
    known = np.flatnonzero(inside & np.isfinite(held))
    if not known.size:
        return TrainedRange("", math.inf, "", 0)
    fastest = int(known[held[known].argmin()])
    kind = columns.latency_groups[latencies.group[fastest]].kind
    most_ms = float(held[known].max())
    return TrainedRange(
        least=f"{digits_ms(_rounded_up(float(held[fastest])), 4)} ms ({kind})",
        most_ms=most_ms,
        most=limit_text(_rounded_up(most_ms)),
        refused=int((_refused_at(columns, latencies, held) > most_ms).sum()),
    )


def _refused_at(columns: StudyColumns, latencies: Latencies, held: Floats) -> Floats:
    """Return the latencies of the refused candidates; the interval's upper end where they have no 90th percentile."""
    refused = columns.is_state(TrialState.INFEASIBLE)
    values = np.where(np.isfinite(held), held, latencies.high_ms)[refused]
    return values[np.isfinite(values)]


def _rounded_up(ms: float) -> float:
    """Return a latency rounded up to four digits, so that it fits the limit that people read."""
    unit = 10.0 ** (math.floor(math.log10(ms)) - 3)
    return math.ceil(ms / unit - 1e-9) * unit
