"""What the runs come to: how far each peer was after so many trainings, as figures and as a table to read.

Without a budget the measure is the share of the whole table's hypervolume; with one, the best accuracy within it, 0
while there is none. Where a peer ended early of itself, it keeps what it had; where it was given fewer trainings than
others, or its library failed, nothing is said of it beyond those.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.sample_efficiency.hypervolume import Array, hypervolume, scaled, trajectory
from benchmarks.sample_efficiency.peers import OURS, SPREAD, TITLES
from benchmarks.sample_efficiency.replay import Run, within
from benchmarks.sample_efficiency.table import Table
from workers.wording import agreeing, counted

MARKS = (10, 20, 25, 30, 40, 50, 100, 200)
BUDGET_MARKS = (5, 10, 15, 20, 30, 60)
GATED = " + gate"
CELL = 24  # characters of a column: a median with its quartiles, and a space
LEAST_GAIN = 1e-9  # below it two measures are the same


class Measure:
    """How far a run was after each training."""

    def __init__(self, table: Table, limits: Sequence[float | None]) -> None:
        self._accuracy, self._costs = scaled(table.accuracy), scaled(np.log(table.costs))
        self._whole = hypervolume(self._costs, self._accuracy)
        self.has_budget = any(limit is not None for limit in limits)
        self._inside = np.where(within(table, limits), table.accuracy, 0.0)
        self.name = "best accuracy within the budget" if self.has_budget else "share of the table's hypervolume"
        self.marks = BUDGET_MARKS if self.has_budget else MARKS
        self.most = float(self._inside.max()) if self.has_budget else 1.0  # what nobody can exceed

    def curve(self, run: Run, length: int) -> Array:
        """Return the measure (length,) after each training; NaN where the run wasn't to go."""
        rows = run.rows[:length]
        if self.has_budget:
            values = np.maximum.accumulate(self._inside[rows]) if rows else np.zeros(0)
        else:
            values = trajectory(self._costs[rows], self._accuracy[rows]) / self._whole
        last = (values[-1] if rows else 0.0) if run.ended and not run.broke else math.nan
        return np.concatenate([values, np.full(length - len(rows), last)])


def figures(measure: Measure, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return each peer's figures by its label, and what the best of the others reached."""
    length = measure.marks[-1]
    at = min(length, max(len(run.rows) for some in runs.values() for run in some))  # as far as anybody went
    curves = {label: np.stack([measure.curve(run, length) for run in some]) for label, some in runs.items()}
    medians = {label: np.median(curve, axis=0) for label, curve in curves.items()}
    others = {
        label: float(median[at - 1])
        for label, median in medians.items()
        if label not in (OURS, SPREAD) and not math.isnan(median[at - 1])
    }
    best = max(others, key=lambda label: others[label], default=None)
    target = None if best is None else others[best]
    return {
        "measure": measure.name,
        "most": measure.most,
        "best_peer": best,
        "best_peer_reached": None if target is None else round(target, 5),
        "at": at,
        "peers": {label: _of_peer(runs[label], curves[label], medians[label], measure.marks, target) for label in runs},
    }


def _of_peer(
    runs: Sequence[Run], curve: Array, median: Array, marks: Sequence[int], target: float | None
) -> dict[str, Any]:
    low, high = np.quantile(curve, 0.25, axis=0), np.quantile(curve, 0.75, axis=0)
    at = {mark: mark - 1 for mark in marks if not math.isnan(median[mark - 1])}
    seconds = [second for run in runs for second in run.ask_seconds]
    reached = np.flatnonzero(median >= target - LEAST_GAIN) if target is not None else np.zeros(0)
    return {
        "median": {mark: round(float(median[place]), 5) for mark, place in at.items()},
        "quartiles": {mark: [round(float(low[place]), 5), round(float(high[place]), 5)] for mark, place in at.items()},
        "seeds": {mark: [round(float(value), 5) for value in curve[:, place]] for mark, place in at.items()},
        "trainings_to_best_peer": int(reached[0]) + 1 if reached.size else None,
        "trainings": [len(run.rows) for run in runs],
        "asks": [run.asks for run in runs],
        "repeats": [run.repeats for run in runs],
        "refused": [run.refused for run in runs],
        "failed": [run.failed for run in runs],
        "drawn_at_random": [run.drawn for run in runs],
        "ended": sorted({run.ended for run in runs if run.ended}),
        "ask_seconds": {
            "median": round(statistics.median(seconds), 5) if seconds else None,
            "largest": round(max(seconds), 5) if seconds else None,
        },
    }


def title(label: str) -> str:
    """Return a peer's name for a reader."""
    name = label.removesuffix(GATED)
    return TITLES.get(name, name) + (GATED if label.endswith(GATED) else "")


def table_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the result as lines of text."""
    marks = sorted({int(mark) for peer in result["peers"].values() for mark in peer["median"]})
    width = max(len(title(label)) for label in result["peers"]) + 1
    heads = "".join(f"{mark:>{CELL}}" for mark in marks)
    lines = [f"{result['measure']} after so many trainings: median (quartiles)", ""]
    lines.append(f"{'':{width}}{heads}{'to best':>10}{'ask, s':>9}{'asks':>7}{'drawn':>7}")
    for label, peer in result["peers"].items():
        cells = "".join(f"{_cell(peer, mark):>{CELL}}" for mark in marks)
        needed = peer["trainings_to_best_peer"]
        seconds = peer["ask_seconds"]["median"]
        lines.append(
            f"{title(label):{width}}{cells}{needed or '-':>10}{'-' if seconds is None else f'{seconds:.4f}':>9}"
            f"{statistics.median(peer['asks']):>7.0f}{statistics.median(peer['drawn_at_random']):>7.0f}"
        )
    lines += ["", *_remarks(result)]
    return lines


def _cell(peer: Mapping[str, Any], mark: int) -> str:
    if mark not in peer["median"]:
        return ""
    low, high = peer["quartiles"][mark]
    return f"{peer['median'][mark]:.4g} ({low:.4g}–{high:.4g})"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    lines = ["drawn: networks drawn at random for a peer that repeated itself"]
    if result["best_peer"]:
        lines.append(
            f"to best: trainings until the median is what the best peer, {title(result['best_peer'])}, has after "
            f"{counted(result['at'], 'training')}: {result['best_peer_reached']:.4g} of {result['most']:.4g}"
        )
    for label, peer in result["peers"].items():
        trained = statistics.median(peer["trainings"])
        if len(peer["trainings"]) and (trained < result["at"] or peer["ended"]):
            why = "; ".join(peer["ended"]) or "as many as it was given"
            lines.append(
                f"{title(label)}: {trained:g} {agreeing(trained, 'training', 'trainings')}, "
                f"{counted(len(peer['trainings']), 'seed')} ({why})"
            )
    return lines + [f"{title(name)} did not run: {why}" for name, why in result.get("not_run", {}).items()]
