"""From latency samples to a latency, with an interval that includes the variation between processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.latency.agent.judgement import t_quantile

_Z = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class LatencySummary:
    """The summary of one model's samples; all times in milliseconds.

    `median_ms` is the mean, on a log scale, of the medians of the processes: what a process takes, typically.
    `interval_low_ms <= median_ms <= interval_high_ms` is its 95 % interval, `relative_spread` the interquartile range
    of all samples over the median, `samples` how many samples went in.
    """

    median_ms: float
    p90_ms: float
    interval_low_ms: float
    interval_high_ms: float
    relative_spread: float
    samples: int


def summarise(samples_by_process: Sequence[Sequence[float]], planned_from: int | None = None) -> LatencySummary:
    """Summarise samples in ms, one sequence per measuring process (their lengths may differ).

    p90 and spread are those of all samples pooled. The interval is Student's, of the logs of the processes' medians:
    runs in one process share its memory layout, so that a thousand of them say as little about the next process as ten
    do. Where the first `planned_from` processes decided how many there are, their spread alone gives the interval's
    width (Stein 1945): it then holds in 95 of 100 cases, which the spread of all of them would not. A single
    process says nothing of other ones: its interval is that of its own runs, from their order.

    Raises ValueError when there is no process, a process has no sample, or a sample is not finite and positive.
    """
    processes = [_checked(number, samples) for number, samples in enumerate(samples_by_process)]
    if not processes:
        raise ValueError("a summary needs samples of at least 1 process, but got 0; measure the model first")
    pooled = np.concatenate(processes)
    quartile_low, quartile_high, p90 = (float(q) for q in np.percentile(pooled, [25, 75, 90]))
    if len(processes) == 1:
        median_ms, low_ms, high_ms = _of_runs(processes[0])
    else:
        median_ms, low_ms, high_ms = interval_of([float(np.median(one)) for one in processes], planned_from)
    return LatencySummary(
        median_ms=median_ms,
        p90_ms=p90,
        interval_low_ms=low_ms,
        interval_high_ms=high_ms,
        relative_spread=(quartile_high - quartile_low) / median_ms,
        samples=int(pooled.size),
    )


def interval_of(medians_ms: Sequence[float], planned_from: int | None = None) -> tuple[float, float, float]:
    """Return the mean of two or more processes' medians on a log scale, and the ends of its 95 % interval.

    See `summarise` for `planned_from`.
    """
    logs = [math.log(one / medians_ms[0]) for one in medians_ms]  # exactly 0 where they are equal
    first = logs if planned_from is None or planned_from < 2 else logs[:planned_from]
    middle = statistics.fmean(logs)
    half = t_quantile(len(first) - 1) * statistics.stdev(first) / math.sqrt(len(logs))
    low, centre, high = (medians_ms[0] * math.exp(value) for value in (middle - half, middle, middle + half))
    return centre, low, high


def _of_runs(runs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of one process's sorted runs, and the order statistics that hold it in 95 of 100 cases."""
    count = len(runs)
    reach = _Z * math.sqrt(count) / 2
    low, high = max(0, math.floor((count - 1) / 2 - reach)), min(count - 1, math.ceil((count - 1) / 2 + reach))
    return float(np.median(runs)), float(runs[low]), float(runs[high])


def _checked(number: int, samples: Sequence[float]) -> NDArray[np.float64]:
    """Return one process's samples sorted."""
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"each process needs at least 1 sample, but process {number} has none; measure it again")
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise ValueError(
            f"a latency sample must be finite and > 0 ms, but process {number} has {wrong[0]}; measure it again"
        )
    return values
