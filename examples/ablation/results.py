"""What came out: error over macs for each line, and how far two lines lie apart at equal macs.

Notable choices:
- Two lines are compared where both have macs: each seed's errors are interpolated over log(macs), and the difference
  is averaged over the common range. A seed orders the images alike for all networks, so differences are paired.
- A difference comes with a 95 % interval from Student's t over the seeds. It counts as a difference only where the
  interval leaves out 0; with three seeds that is a strict demand (t = 4.3).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.condensebench.journal import Row
from examples.ablation.plan import COMPARISONS, LINES, Plan
from space.config import CondenseNetConfig

GRID = 101  # places at which two lines are compared
CONFIDENCE = 0.95


def summary(plan: Plan, rows: Mapping[str, Row], seeds: int) -> dict[str, Any]:
    """Return the plan, every network's error of each seed, and the differences between lines, as plain JSON values.

    Errors are of the deployed networks on the test images, in percent. A training that failed or isn't done is left
    out, and what needs it is too.
    """
    lines = {line: _points(plan, line, rows, seeds) for line in plan.lines}
    return {
        "data": plan.data.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "seeds": seeds,
        "trainings": len(rows),
        "failed": [
            f"{row['line']} {row['config']['stages']}: {row['failed']}" for row in rows.values() if "failed" in row
        ],
        "train_minutes": sum(row["seconds"] for row in rows.values()) / 60,
        "lines": lines,
        "differences": {name: _differences(name, lines) for name in COMPARISONS},
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


def _differences(name: str, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    comparison = COMPARISONS[name]
    reference = lines.get(comparison.reference, ())
    others = [line for line in comparison.lines if line != comparison.reference]
    return {line: difference(lines[line], reference) for line in others if _overlap(lines.get(line, ()), reference)}


def _overlap(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    spans = [[point["macs"] for point in points] for points in (one, other)]
    return all(spans) and max(map(min, spans)) <= min(map(max, spans))


def difference(line: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many points of error `line` lies above `reference` at equal macs, of which there must be some."""
    logs, errors = _curves(line)
    reference_logs, reference_errors = _curves(reference)
    grid = np.linspace(max(logs[0], reference_logs[0]), min(logs[-1], reference_logs[-1]), GRID)
    by_seed = [
        float(np.mean(np.interp(grid, logs, mine) - np.interp(grid, reference_logs, theirs)))
        for mine, theirs in zip(errors, reference_errors, strict=True)
    ]
    half = half_width(by_seed)
    return {
        "by_seed": by_seed,
        "mean": statistics.fmean(by_seed),
        "half_width_95": half,
        "macs": [math.exp(grid[0]), math.exp(grid[-1])],
        "differs": half is not None and abs(statistics.fmean(by_seed)) > half,
    }


def half_width(values: Sequence[float]) -> float | None:
    """Return half of the 95 % interval of a mean, from Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _curves(points: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return log(macs), ascending (P,), and the errors of each seed (S, P)."""
    ordered = sorted(points, key=lambda point: point["macs"])
    return np.log([point["macs"] for point in ordered]), np.array([point["errors"] for point in ordered]).T


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """Return the tables of a result in Markdown, as docs/ablation.md has them."""
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
    text += ["", "| compared with | line | points of error at equal macs | |", "|---|---|---|---|"]
    for name, differences in result["differences"].items():
        labels, reference = COMPARISONS[name].lines, COMPARISONS[name].reference
        text += [
            f"| {labels[reference]} | {labels[line]} | {_signed(found)} | {_verdict(found)} |"
            for line, found in differences.items()
        ]
    return text


def _signed(found: Mapping[str, Any]) -> str:
    half = found["half_width_95"]
    return f"{found['mean']:+.2f}" + ("" if half is None else f" ± {half:.2f}")


def _verdict(found: Mapping[str, Any]) -> str:
    if found["half_width_95"] is None:
        return "one seed"
    if not found["differs"]:
        return "not beyond the seeds' spread"
    return "worse" if found["mean"] > 0 else "better"
