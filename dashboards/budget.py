"""What fits a latency budget: a small table that answers any budget at once, here and in the reader's browser.

Whoever moves a budget asks the same question again and again: how many trained networks fit, which is the best, which
comes next, and what would a little more buy? `BudgetTable` holds what the answers are looked up in: the upper ends of
all intervals, and the few networks that can be best or second under some budget. The ranking is that of `search.pick`.
The page and the report look up in the same way (`assets/condensery.js`); a test holds the two together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.columns import StudyColumns
from dashboards.formats import budget_text, count, digits_ms, milliseconds, one_line, percent
from dashboards.intervals import wilson_interval
from search.gate import Budget

MORE_MS = 2.0  # what "a little more" is, from ten milliseconds up
MORE_SHARE = 0.2  # below, it is a fifth of the limit


@dataclass(frozen=True)
class Offer:
    """A network that is the best or the second under some budget; latencies in ms, on the devices of its table."""

    number: int
    high_ms: tuple[float, ...]  # upper ends of the 95 % intervals: what a budget is held to
    median_ms: tuple[float, ...]
    top1: float
    macs: int
    params: int
    name: str  # "trial 7 (14-14-14 growth 8-16-32 G=4 C=4 B=4)"
    accuracy: str  # "94.61 % top-1 (95 % interval 93.9 % to 95.2 %)"
    latency: str  # "11.2 ms [11.1, 11.4] (measured)", of each device


@dataclass(frozen=True)
class Answer:
    """What a budget gets: how many of the trained networks fit, and the offers' places in the table (None: no such)."""

    fits: int
    best: int | None
    runner_up: int | None
    more: int | None  # the best with a little more, where it is better
    more_ms: Mapping[str, float]  # how much more that is, by device


@dataclass(frozen=True)
class Control:
    """One device's control: its name, what its latencies are, and a range of sensible limits in ms."""

    target: str
    kind: str
    low_ms: float
    high_ms: float
    step_ms: float
    limit_ms: float | None  # the study's own
    least: str  # upper end of the fastest trained network's interval, in words; "" where none is trained


@dataclass(frozen=True, eq=False)
class BudgetTable:
    """Answers budgets of one study. `highs_ms` is (trained inside the fixed limits, devices)."""

    controls: tuple[Control, ...]
    highs_ms: NDArray[np.float64]
    offers: tuple[Offer, ...]  # best first
    trained: int  # networks trained, whatever they cost
    fixed: str  # the study's limits on macs and params in words; "" where there are none
    why_none: str  # why there is no trained network, where there is none

    @classmethod
    def of(cls, columns: StudyColumns, budget: Budget) -> BudgetTable:
        """Return a study's table; `budget` has the limits that the controls start at, and those on macs and params."""
        targets = [name for name, known in columns.latencies.items() if (known.group >= 0).any()]
        inside = columns.trained.copy()
        for limit, values in ((budget.max_macs, columns.macs), (budget.max_params, columns.params)):
            if limit is not None:
                inside &= values <= limit
        highs = np.stack([columns.latencies[name].high_ms for name in targets], axis=1) if targets else None
        rows = np.flatnonzero(inside)
        table = np.empty((len(rows), 0)) if highs is None else highs[rows]
        table = np.where(np.isnan(table), np.inf, table)  # not known to fit anything
        medians = columns.latencies[targets[0]].median_ms if targets else np.full(len(columns), np.nan)
        best_first = rows[np.lexsort((columns.number[rows], columns.macs[rows], medians[rows], -columns.top1[rows]))]
        by_row = dict(zip(rows.tolist(), table, strict=True))
        ranked = np.array([by_row[row] for row in best_first.tolist()]).reshape(len(rows), len(targets))
        contenders = best_first[_can_be_offered(ranked)]
        return cls(
            controls=tuple(_control(columns, name, inside, _limit_of(budget, name, targets)) for name in targets),
            highs_ms=table,
            offers=tuple(_offer(columns, targets, int(row)) for row in contenders),
            trained=int(columns.trained.sum()),
            fixed=" and ".join(
                f"at most {count(limit)} {name}"
                for name, limit in (("macs", budget.max_macs), ("params", budget.max_params))
                if limit is not None
            ),
            why_none="" if columns.trained.any() else why_none_trained(columns),
        )

    def answer(self, limits_ms: Mapping[str, float | None]) -> Answer:
        """Return what limits in ms get; a device that is not named, or None, is not limited."""
        limits = [limits_ms.get(control.target) for control in self.controls]
        ceiling = np.array([math.inf if limit is None else limit for limit in limits])
        more_ms = {
            control.target: more_than(limit)
            for control, limit in zip(self.controls, limits, strict=True)
            if limit is not None
        }
        raised = ceiling + np.array([more_ms.get(control.target, 0.0) for control in self.controls])
        fitting = [i for i, offer in enumerate(self.offers) if (np.array(offer.high_ms) <= ceiling).all()][:2]
        best = fitting[0] if fitting else None
        more = next((i for i, offer in enumerate(self.offers) if (np.array(offer.high_ms) <= raised).all()), None)
        better = more is not None and (best is None or self.offers[more].top1 > self.offers[best].top1)
        return Answer(
            fits=int((self.highs_ms <= ceiling).all(axis=1).sum()),
            best=best,
            runner_up=fitting[1] if len(fitting) > 1 else None,
            more=more if better else None,
            more_ms=more_ms,
        )

    def sentence(self, limits_ms: Mapping[str, float | None]) -> str:
        """Return the answer in words; `assets/condensery.js` says the same."""
        if not self.trained:
            return self.why_none
        found = self.answer(limits_ms)
        budget = self._budget_text(limits_ms)
        networks = "1 trained network" if self.trained == 1 else f"{self.trained} trained networks"
        parts = [f"{found.fits} of {networks} {'fits' if found.fits == 1 else 'fit'} {budget}."]
        if found.best is not None:
            best = self.offers[found.best]
            parts.append(f"Best: {best.name}, {best.accuracy}{_at(best)}.")
        if found.runner_up is not None:
            second = self.offers[found.runner_up]
            parts.append(f"Runner-up: {second.name}, {percent(second.top1)}{_at(second)}.")
        if found.best is None:
            parts.append(self._least_text(limits_ms))
        parts.append(self._more_text(found))
        return " ".join(filter(None, parts))

    def _budget_text(self, limits_ms: Mapping[str, float | None]) -> str:
        many = len(self.controls) > 1
        limits = [
            f"{limit_text(limit)} ms" + (f" on {control.target}" if many else "")
            for control in self.controls
            if (limit := limits_ms.get(control.target)) is not None
        ]
        return " and ".join([*limits, *filter(None, (self.fixed,))]) or "no limit"

    def _least_text(self, limits_ms: Mapping[str, float | None]) -> str:
        many = len(self.controls) > 1
        least = [
            control.least + (f" on {control.target}" if many else "")
            for control in self.controls
            if control.least and limits_ms.get(control.target) is not None
        ]
        return f"The fastest needs {' and '.join(least)}." if least else ""

    def _more_text(self, found: Answer) -> str:
        if not found.more_ms:
            return ""
        many = len(self.controls) > 1
        steps = [f"{limit_text(ms)} ms more" + (f" on {name}" if many else "") for name, ms in found.more_ms.items()]
        if found.more is None:
            return f"{' and '.join(steps)} would buy nothing better."
        more = self.offers[found.more]
        return f"{' and '.join(steps)} would buy {percent(more.top1)}: {more.name}{_at(more)}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: what the browser looks answers up in; an infinite ms is null."""
        return {
            "controls": [vars(control) for control in self.controls],
            "highs_ms": [[_finite(ms) for ms in row] for row in self.highs_ms.tolist()],
            "offers": [
                vars(offer)
                | {name: [_finite(ms) for ms in getattr(offer, name)] for name in ("high_ms", "median_ms")}
                | {"top1_text": percent(offer.top1)}
                for offer in self.offers
            ],
            "trained": self.trained,
            "fixed": self.fixed,
            "why_none": self.why_none,
        }


def more_than(limit_ms: float) -> float:
    """Return how much "a little more" than a limit is, in ms: 2 from 10 ms up, below that a fifth, in one digit."""
    if limit_ms >= MORE_MS / MORE_SHARE:
        return MORE_MS
    fifth = MORE_SHARE * limit_ms
    unit = 10.0 ** int(f"{fifth:.16e}".partition("e")[2])
    return math.floor(fifth / unit + 0.5) * unit


def limit_text(ms: float) -> str:
    """Return a limit with at most six digits and no zeros at the end: "12", "0.35"."""
    if 1e-4 <= ms < 1e6:
        return f"{ms:.6g}"
    return f"{ms:.0f}" if ms >= 1e6 else f"{ms:.6f}".rstrip("0").rstrip(".")


def why_none_trained(columns: StudyColumns) -> str:
    """Return why a study has no trained network yet, in a sentence."""
    counts = columns.counts
    if not counts:
        return "This study has no trials yet."
    words = ", ".join(f"{number} {state}" for state, number in counts.items())
    if any(counts.get(state) for state in ("asked", "queued", "running")):
        return f"No network has finished its training yet: {words}."
    if counts.get("infeasible") and not counts.get("failed"):
        limits = budget_text(columns.study.settings)
        return f"No candidate was inside the budget ({limits}), so none was trained: {words}."
    failed = [columns.reason[row] for row in np.flatnonzero(columns.is_state("failed"))]
    common = Counter(one_line(reason, 200) for reason in failed if reason).most_common(1)
    why = f" Most frequent reason: {common[0][0].rstrip('.')}." if common else ""
    return f"No trial led to a trained network: {words}.{why}"


def _can_be_offered(ranked: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of the rows (best first, of upper ends) can be best or second under some budget.

    A row can't be when two better ones fit every budget that it fits itself.
    """
    kept: list[int] = []
    rows = np.empty_like(ranked)
    for index, row in enumerate(ranked):
        before = rows[: len(kept)]
        if (before <= row).all(axis=1).sum() < 2:
            rows[len(kept)] = row
            kept.append(index)
    mask = np.zeros(len(ranked), dtype=bool)
    mask[kept] = True
    return mask


def _limit_of(budget: Budget, target: str, targets: Sequence[str]) -> float | None:
    return budget.max_latency_ms if target == targets[0] else budget.elsewhere_ms.get(target)


def _control(columns: StudyColumns, target: str, inside: NDArray[np.bool_], limit: float | None) -> Control:
    known = columns.latencies[target]
    highs = known.high_ms[np.isfinite(known.high_ms)]
    trained = known.high_ms[inside & np.isfinite(known.high_ms)]
    seen = (trained if trained.size else highs).tolist() + ([] if limit is None else [limit])
    low, high = min(seen), max(seen)
    step = 10.0 ** math.floor(math.log10(max(high - low, high * 0.01) / 100))
    kinds = sorted({columns.latency_groups[group].kind for group in np.unique(known.group[known.group >= 0])})
    return Control(
        target=target,
        kind=" and ".join(kinds),
        low_ms=round(math.floor(0.9 * low / step) * step, 9),
        high_ms=round(math.ceil(1.05 * high / step) * step, 9),
        step_ms=round(step, 9),
        limit_ms=limit,
        least=f"{digits_ms(_rounded_up(float(trained.min())), 4)} ms" if trained.size else "",
    )


def _rounded_up(ms: float) -> float:
    """Return a latency with four digits that as a limit lets it in."""
    unit = 10.0 ** (math.floor(math.log10(ms)) - 3)
    return math.ceil(ms / unit - 1e-9) * unit


def _offer(columns: StudyColumns, targets: Sequence[str], row: int) -> Offer:
    latencies = [columns.latencies[name] for name in targets]
    top1 = float(columns.top1[row])
    images = (columns.study.data_info or {}).get("validation_images")
    accuracy = f"{percent(top1)} top-1"
    if isinstance(images, int) and images > 0:
        low, high = wilson_interval(top1, images)
        accuracy += f" (95 % interval {percent(low, 1)} to {percent(high, 1)})"
    many = len(targets) > 1
    texts = []
    for name, known in zip(targets, latencies, strict=True):
        if known.group[row] >= 0:
            interval = f"[{digits_ms(known.low_ms[row], 4)}, {digits_ms(known.high_ms[row], 4)}]"
            place = f" on {name}" if many else ""
            kind = columns.latency_groups[known.group[row]].kind
            texts.append(f"{milliseconds(known.median_ms[row])} {interval}{place} ({kind})")
    return Offer(
        number=int(columns.number[row]),
        high_ms=tuple(float(known.high_ms[row]) if known.group[row] >= 0 else math.inf for known in latencies),
        median_ms=tuple(float(known.median_ms[row]) if known.group[row] >= 0 else math.inf for known in latencies),
        top1=top1,
        macs=int(columns.macs[row]),
        params=int(columns.params[row]),
        name=f"trial {columns.number[row]} ({one_line(columns.config_text[row], 120)})",
        accuracy=accuracy,
        latency=" and ".join(texts),
    )


def _at(offer: Offer) -> str:
    return f" at {offer.latency}" if offer.latency else ""


def _finite(ms: float) -> float | None:
    return ms if math.isfinite(ms) else None
