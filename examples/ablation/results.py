"""What came out: error over macs for each line, and how far two lines lie apart at equal macs.

Notable choices:
- Two lines are compared where both have macs: each seed's errors are interpolated over log(macs), and the difference
  is averaged over the common range.
- Three values of a line say little of how far seeds scatter, so all networks together do: the standard deviation is
  pooled over every network's seeds. A seed moves the networks of a line together, so averaging over them isn't counted
  as making a line's mean more certain.
- A difference comes with a 95 % interval from Student's t, and counts as one only where the interval leaves out 0.
  Where several lines are compared, a wider one holds for all of them at once (Bonferroni).
- Comparisons are computed from the saved errors whenever they are shown: no second record of them can go stale.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.condensebench.journal import Row
from examples.ablation.plan import COMPARISONS, LINES, Plan
from space.config import CondenseNetConfig

GRID = 101  # places at which two lines are compared
CONFIDENCE = 0.95

Points = Sequence[Mapping[str, Any]]  # the networks of a line: macs, and the error of each seed in percent


@dataclass(frozen=True)
class Spread:
    """How far seeds scatter the error of one network, in points: pooled over all networks."""

    deviation: float
    networks: int
    seeds: int

    @property
    def freedom(self) -> int:
        """The degrees of freedom of `deviation`."""
        return self.networks * (self.seeds - 1)

    def half_width(self, comparisons: int = 1) -> float:
        """Return half of the 95 % interval of a difference of two lines, for so many of them at once."""
        quantile = float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * comparisons), self.freedom))
        return quantile * self.deviation * math.sqrt(2 / self.seeds)


@dataclass(frozen=True)
class Difference:
    """How many points of error a line lies above another one at equal macs."""

    line: str  # keys in LINES
    reference: str
    line_label: str  # as their panel has them
    reference_label: str
    by_seed: tuple[float, ...]
    macs: tuple[float, float]  # between which they are compared

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.by_seed)


def summary(plan: Plan, rows: Mapping[str, Row], seeds: int) -> dict[str, Any]:
    """Return the plan and every network's error of each seed, as plain JSON values.

    Errors are of the deployed networks on the test images, in percent. A training that failed or isn't done is left
    out, and its network is too.
    """
    return {
        "data": plan.data.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "seeds": seeds,
        "trainings": len(rows),
        "failed": [
            f"{row['line']} {row['config']['stages']}: {row['failed']}" for row in rows.values() if "failed" in row
        ],
        "train_minutes": sum(row["seconds"] for row in rows.values()) / 60,
        "lines": {line: _points(plan, line, rows, seeds) for line in plan.lines},
    }


def _points(plan: Plan, line: str, rows: Mapping[str, Row], seeds: int) -> list[dict[str, Any]]:
    trainings = [training for training in plan.trainings(seeds) if training.line == line]
    points = []
    for config in plan.configs(line):
        mine = [rows.get(plan.identity(training)) for training in trainings if training.config == config]
        errors = [100 * (1 - row["test_top1"]) for row in mine if row is not None and "test_top1" in row]
        if len(errors) == seeds:
            macs = next(training.cost.macs for training in trainings if training.config == config)
            points.append({"config": config.to_dict(), "macs": macs, "errors": errors})
    return points


def differences_of(result: Mapping[str, Any]) -> list[Difference]:
    """Return every two lines that are compared and have macs in common; each two once, though two panels show them."""
    found: dict[frozenset[str], Difference] = {}
    for comparison in COMPARISONS.values():
        reference = comparison.reference
        for line, label in comparison.lines.items():
            one, other = (result["lines"].get(name, ()) for name in (line, reference))
            if line != reference and _overlap(one, other):
                by_seed, macs = difference(one, other)
                labels = (label, comparison.lines[reference])
                found.setdefault(frozenset((line, reference)), Difference(line, reference, *labels, by_seed, macs))
    return list(found.values())


def _overlap(one: Points, other: Points) -> bool:
    spans = [[point["macs"] for point in points] for points in (one, other)]
    return all(spans) and max(map(min, spans)) <= min(map(max, spans))


def difference(line: Points, reference: Points) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Return how many points of error each seed of `line` lies above `reference`, and between which macs.

    Both have macs in common.
    """
    logs, errors = _curves(line)
    reference_logs, reference_errors = _curves(reference)
    grid = np.linspace(max(logs[0], reference_logs[0]), min(logs[-1], reference_logs[-1]), GRID)
    by_seed = tuple(
        float(np.mean(np.interp(grid, logs, mine) - np.interp(grid, reference_logs, theirs)))
        for mine, theirs in zip(errors, reference_errors, strict=True)
    )
    return by_seed, (math.exp(grid[0]), math.exp(grid[-1]))


def spread_of(result: Mapping[str, Any]) -> Spread | None:
    """Return how far seeds scatter errors, pooled over all networks of a result; None of a single seed, or of none."""
    networks = [point["errors"] for points in result["lines"].values() for point in points]
    if not networks or result["seeds"] < 2:
        return None
    variance = statistics.fmean(statistics.variance(errors) for errors in networks)
    return Spread(math.sqrt(variance), len(networks), result["seeds"])


def _curves(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return log(macs), ascending (P,), and the errors of each seed (S, P)."""
    ordered = sorted(points, key=lambda point: point["macs"])
    return np.log([point["macs"] for point in ordered]), np.array([point["errors"] for point in ordered]).T


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """Return the tables of a result in Markdown, as docs/ablation.md has them."""
    differences, spread = differences_of(result), spread_of(result)
    text = [
        *_error_table(result),
        "",
        "| compared with | line | points of error at equal macs | |",
        "|---|---|---|---|",
    ]
    for found in differences:
        cells = (
            found.reference_label,
            found.line_label,
            signed(found, spread),
            verdict(found, spread, len(differences)),
        )
        text.append(f"| {' | '.join(cells)} |")
    return [*text, "", *_about_spread(spread, len(differences))]


def _error_table(result: Mapping[str, Any]) -> list[str]:
    text = ["| line | layers | M macs | error % | ± |", "|---|---|---|---|---|"]
    for line, points in result["lines"].items():
        for point in points:
            config, errors = CondenseNetConfig.from_dict(point["config"]), point["errors"]
            spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
            depth = "-".join(map(str, config.stages))
            macs = point["macs"] / 1e6
            text.append(
                f"| {LINES[line].label} | {depth} | {macs:.3f} | {statistics.fmean(errors):.2f} | {spread:.2f} |"
            )
    return text


def _about_spread(spread: Spread | None, comparisons: int) -> list[str]:
    """Return what the intervals rest on, a sentence a line."""
    if spread is None or not comparisons:
        return []
    return [
        f"Seeds scatter one network's error by a standard deviation of {spread.deviation:.2f} points, pooled over "
        f"{spread.networks} networks with {spread.seeds} seeds each ({spread.freedom} degrees of freedom).",
        f"So the 95 % interval is ±{spread.half_width():.2f} for one comparison, and "
        f"±{spread.half_width(comparisons):.2f} for all {comparisons} at once (Bonferroni).",
        f"If no two lines differed, {(1 - CONFIDENCE) * comparisons:.1f} of {comparisons} single intervals would leave "
        "out 0 by chance, on average.",
    ]


def signed(found: Difference, spread: Spread | None, places: int = 2) -> str:
    """Return a difference with its sign and its interval."""
    return f"{found.mean:+.{places}f}" + ("" if spread is None else f" ± {spread.half_width():.{places}f}")


def verdict(found: Difference, spread: Spread | None, comparisons: int) -> str:
    """Return in words what can be told of a difference that is one of several."""
    if spread is None:
        return "one seed"
    if abs(found.mean) <= spread.half_width():
        return "no difference told"
    words = "more errors" if found.mean > 0 else "fewer errors"
    alone = abs(found.mean) <= spread.half_width(comparisons)
    return f"{words}, by its own interval only" if alone else f"{words}, also by the wider interval"
