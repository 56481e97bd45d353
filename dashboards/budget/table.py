"""What fits a latency budget: a small table that answers any budget at once, here and in the reader's browser.

Moving a budget asks the same questions again and again: how many trained networks fit, which is the best, which comes
next, and what would a little more buy? `BudgetTable` holds what answers them: the upper ends of all intervals, and the
few networks that can be best or second best under some budget. It ranks as `search.results.ranking` does. Page and
report look answers up in the same way (`assets/budget_answer.js`); a test compares the two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.offers import Control, Offer, control_of, finite, offers_of
from dashboards.data.columns import Mask, StudyColumns
from dashboards.data.study_settings import budget_text
from dashboards.formats import count, one_line, percent
from search.budget import Budget
from search.store.vocabulary import OPEN_STATES, TrialState
from workers.metrics import Predictions
from workers.wording import agreeing, counted

PredictionsOf = Callable[[Sequence[int]], Mapping[int, Predictions]]
MORE_MS = 2.0  # "a little more" than a limit of ten milliseconds or above
MORE_SHARE = 0.2  # below ten, a little more is a fifth of the limit


@dataclass(frozen=True)
class Answer:
    """What a budget gets: how many trained networks fit, and which offers by their place in the table (None: none)."""

    fits: int
    best: int | None
    runner_up: int | None
    more: int | None  # the best under a little more, where that is better
    more_ms: Mapping[str, float]  # how much more that is, by device


@dataclass(frozen=True, eq=False)
class BudgetTable:
    """Answers the budgets of one study.

    `highs_ms` is (networks, devices), of the trained networks inside the fixed limits.
    """

    controls: tuple[Control, ...]
    judged_by: str  # the study's first device: what a limit without a device's name is for
    highs_ms: NDArray[np.float64]
    offers: tuple[Offer, ...]  # best first
    trained: int  # how many networks are trained, whatever they cost
    fixed: str  # the study's limits on macs and params in words; "" where there are none
    why_none: str  # why no network is trained; "" where one is
    score_name: str  # what the study maximises

    @classmethod
    def of(
        cls, columns: StudyColumns, budget: Budget, predictions_of: PredictionsOf = lambda numbers: {}
    ) -> BudgetTable:
        """Return a study's table.

        Args:
            columns: the study.
            budget: the limits that the controls start at, and those on macs and params.
            predictions_of: returns what trials said of the validation images, by number, as far as it is recorded.
        """
        targets = [name for name, latencies in columns.latencies.items() if (latencies.group >= 0).any()]
        inside = trained_inside(columns, budget)
        rows = np.flatnonzero(inside)
        highs = [columns.latencies[name].high_ms[rows] for name in targets]
        table = np.stack(highs, axis=1) if highs else np.empty((len(rows), 0))
        table = np.where(np.isnan(table), np.inf, table)  # an unknown latency fits no limit
        judged_by = next(iter(columns.latencies), "host")
        limits = {**budget.elsewhere_ms, judged_by: budget.max_latency_ms}
        best_first = _best_first(columns, rows, judged_by)
        contenders = rows[best_first][_can_be_offered(table[best_first])]
        predictions = predictions_of(columns.number[contenders].tolist())
        fixed = (("macs", budget.max_macs), ("params", budget.max_params))
        return cls(
            controls=tuple(control_of(columns, name, inside, limits.get(name)) for name in targets),
            judged_by=judged_by,
            highs_ms=table,
            offers=offers_of(columns, targets, contenders.tolist(), predictions),
            trained=int(columns.trained.sum()),
            fixed=" and ".join(f"at most {count(limit)} {name}" for name, limit in fixed if limit is not None),
            why_none="" if columns.trained.any() else why_none_trained(columns),
            score_name=columns.score_name,
        )

    @property
    def limits_ms(self) -> dict[str, float | None]:
        """The limits that the controls start at, by device."""
        return {control.target: control.limit_ms for control in self.controls}

    @property
    def recommended(self) -> int | None:
        """The number of the best trial under the limits that the controls start at; None where none fits."""
        best = self.answer(self.limits_ms).best
        return None if best is None else self.offers[best].number

    def answer(self, limits_ms: Mapping[str, float | None]) -> Answer:
        """Return what limits in ms get; a device without a limit, or with None, may be as slow as it is."""
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
        better = more is not None and (best is None or self.offers[more].score > self.offers[best].score)
        return Answer(
            fits=int((self.highs_ms <= ceiling).all(axis=1).sum()),
            best=best,
            runner_up=fitting[1] if len(fitting) > 1 else None,
            more=more if better else None,
            more_ms=more_ms,
        )

    def sentence(self, limits_ms: Mapping[str, float | None]) -> str:
        """Return the answer in words; `assets/budget_answer.js` says the same."""
        if not self.trained:
            return self.why_none
        answer = self.answer(limits_ms)
        networks = f"{answer.fits:,} of {counted(self.trained, 'trained network')}"
        parts = [f"{networks} {agreeing(answer.fits, 'fits', 'fit')} {self._budget_text(limits_ms)}."]
        if answer.best is not None:
            best = self.offers[answer.best]
            parts.append(f"Best: {best.name}, {best.accuracy}{_at(best)}.")
            parts += best.remarks
        if answer.runner_up is not None:
            second = self.offers[answer.runner_up]
            noise = ", as good within noise" if answer.best in second.as_good else ""
            parts.append(f"Runner-up: {second.name}, {percent(second.score)}{noise}{_at(second)}.")
        if answer.best is None:
            parts.append(self._least_text(limits_ms))
        parts.append(self._more_text(answer))
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

    def _more_text(self, answer: Answer) -> str:
        if not answer.more_ms:
            return ""
        many = len(self.controls) > 1
        steps = [f"{limit_text(ms)} ms more" + (f" on {name}" if many else "") for name, ms in answer.more_ms.items()]
        if answer.more is None:
            return f"{' and '.join(steps)} would buy nothing better."
        more = self.offers[answer.more]
        noise = ", no more than noise" if answer.best in more.as_good else ""
        return f"{' and '.join(steps)} would buy {percent(more.score)}{noise}: {more.name}{_at(more)}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, from which the browser answers budgets; an infinite latency is null."""
        return {
            "controls": [vars(control) for control in self.controls],
            "judged_by": self.judged_by,
            "highs_ms": [[finite(ms) for ms in row] for row in self.highs_ms.tolist()],
            "offers": [offer.to_dict() for offer in self.offers],
            "trained": self.trained,
            "fixed": self.fixed,
            "why_none": self.why_none,
            "score_name": self.score_name,
        }


def trained_inside(columns: StudyColumns, budget: Budget) -> Mask:
    """Return which trained networks are inside a budget's limits on macs and params, whatever their latency."""
    inside = columns.trained.copy()
    for limit, values in ((budget.max_macs, columns.macs), (budget.max_params, columns.params)):
        if limit is not None:
            inside &= values <= limit
    return inside


def more_than(limit_ms: float) -> float:
    """Return how much "a little more" than a limit is, in ms: 2 for 10 ms or above, else a fifth in one digit."""
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
    words = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    if any(counts.get(state) for state in OPEN_STATES):
        return f"No network has finished its training yet: {words}."
    if counts.get(TrialState.INFEASIBLE) and not counts.get(TrialState.FAILED):
        limits = budget_text(columns.study.settings)
        return f"No candidate was inside the budget ({limits}), so none was trained: {words}."
    failed = [columns.reason[row] for row in np.flatnonzero(columns.is_state(TrialState.FAILED))]
    common = Counter(one_line(reason, 200) for reason in failed if reason).most_common(1)
    main_reason = f" Most frequent reason: {common[0][0].rstrip('.')}." if common else ""
    return f"No trial led to a trained network: {words}.{main_reason}"


def _best_first(columns: StudyColumns, rows: NDArray[np.int64], judged_by: str) -> NDArray[np.int64]:
    """Return the order of some rows by score; ties by latency on the judging device, macs, then number."""
    latencies = columns.latencies.get(judged_by)
    medians = np.full(len(columns), np.nan) if latencies is None else latencies.median_ms
    return np.lexsort((columns.number[rows], columns.macs[rows], medians[rows], -columns.score[rows]))


def _can_be_offered(ranked: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows (best first, of upper ends) can be best or second best under some budget.

    A row can't where two better ones fit every budget that it fits itself.
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


def _at(offer: Offer) -> str:
    return f" at {offer.latency}" if offer.latency else ""
