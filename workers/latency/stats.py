"""From latency samples to a median, with an interval that includes the variation between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CONFIDENCE = 0.95
_REPLICATES_MOST = 2000
_REPLICATES_LEAST = 400
_DRAWS = 1_200_000  # replicates x samples aimed at: keeps 3 x 1000 samples at a few tens of milliseconds
_CHUNK_DRAWS = 1_000_000  # held in memory at once
_SEED = 20180618


@dataclass(frozen=True)
class LatencySummary:
    """The summary of one model's samples; all times in milliseconds.

    `interval_low_ms <= median_ms <= interval_high_ms` is the 95 % bootstrap interval of the median,
    `relative_spread` the interquartile range over the median, `samples` how many samples went in.
    """

    median_ms: float
    p90_ms: float
    interval_low_ms: float
    interval_high_ms: float
    relative_spread: float
    samples: int


def summarise(samples_by_process: Sequence[Sequence[float]]) -> LatencySummary:
    """Summarise samples in ms, one sequence per measuring process (their lengths may differ).

    The median, p90 and spread are those of all samples pooled. The interval is a two-stage percentile bootstrap
    (Davison and Hinkley 1997, section 3.8): draw processes with replacement, then runs inside each drawn one, so
    that three processes that disagree give a wide interval however many runs each made. A single process shows
    no variation between processes: its interval is that of its runs alone. The seed is fixed, and the order
    of the samples inside a process has no effect.

    Raises ValueError when there is no process, a process has no sample, or a sample is not finite and positive.
    """
    processes = [_checked(number, samples) for number, samples in enumerate(samples_by_process)]
    if not processes:
        raise ValueError("a summary needs samples of at least 1 process, but got 0; measure the model first")
    pooled = np.concatenate(processes)
    quartile_low, median, quartile_high, p90 = (float(q) for q in np.percentile(pooled, [25, 50, 75, 90]))
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(_bootstrap_medians(processes), [tail, 100 - tail])
    return LatencySummary(
        median_ms=median,
        p90_ms=p90,
        interval_low_ms=min(float(low), median),
        interval_high_ms=max(float(high), median),
        relative_spread=(quartile_high - quartile_low) / median,
        samples=int(pooled.size),
    )


def _checked(number: int, samples: Sequence[float]) -> NDArray[np.float64]:
    """Return one process's samples sorted (sorting makes the bootstrap blind to their order)."""
    values = np.sort(np.asarray(samples, dtype=np.float64))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"each process needs at least 1 sample, but process {number} has none; measure it again")
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise ValueError(
            f"a latency sample must be finite and > 0 ms, but process {number} has {wrong[0]}; measure it again"
        )
    return values


def _bootstrap_medians(processes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the pooled medians of resampled processes with resampled runs, (replicates,)."""
    sizes = np.array([values.size for values in processes])
    count, longest = len(processes), int(sizes.max())
    padded = np.full((count, longest), np.inf)
    for row, values in enumerate(processes):
        padded[row, : values.size] = values
    replicates = max(_REPLICATES_LEAST, min(_REPLICATES_MOST, _DRAWS // (count * longest)))
    rows = max(1, _CHUNK_DRAWS // (count * longest))
    rng = np.random.default_rng(_SEED)
    medians = [_one_chunk(padded, sizes, min(rows, replicates - start), rng) for start in range(0, replicates, rows)]
    return np.concatenate(medians)


def _one_chunk(
    padded: NDArray[np.float64], sizes: NDArray[np.int64], replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw `replicates` resamples at once; padded is (processes, longest), infinite beyond each process's size."""
    count, longest = padded.shape
    drawn = rng.integers(count, size=(replicates, count))  # (replicates, processes)
    size = sizes[drawn][:, :, None]
    run = (rng.random((replicates, count, longest), dtype=np.float32) * size).astype(np.int64)
    np.minimum(run, size - 1, out=run)  # float32 rounding may reach the size itself
    values = padded[drawn[:, :, None], run]  # (replicates, processes, longest)
    if sizes.min() < longest:  # a shorter process contributes as many draws as it has samples, the rest sort last
        values[np.arange(longest) >= size] = np.inf
    flat = values.reshape(replicates, -1)
    flat.sort(axis=1)
    total = sizes[drawn].sum(axis=1)
    row = np.arange(replicates)
    middle: NDArray[np.float64] = (flat[row, (total - 1) // 2] + flat[row, total // 2]) / 2
    return middle
