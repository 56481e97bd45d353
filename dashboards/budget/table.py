"""What fits a latency budget: a small table that answers any budget at once, here and in the reader's browser.

Moving a budget asks the same questions again and again: how many trained networks fit, which is the best, which is as
good and cheaper, and what would a little more buy? `BudgetTable` holds what answers them: what is held to a limit, and
the few networks that an answer can name. It ranks as `search.results.ranking` does. Page and report look answers up in
the same way (`assets/budget_answer.js`); a test compares the two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.answers import Answer, Take, answer_of
from dashboards.budget.badges import BADGES
from dashboards.budget.contenders import best_first, contenders
from dashboards.budget.controls import control_of, finite
from dashboards.budget.controls import limit_text as limit_text  # also for importers
from dashboards.budget.facts import BudgetFacts
from dashboards.budget.offers import offers_of
from dashboards.budget.predictions import predicted_of
from dashboards.budget.recorded import NOTHING_RECORDED, Recorded
from dashboards.budget.sentences import sentences_of
from dashboards.data.columns import Mask, StudyColumns
from dashboards.data.study_settings import budget_of, budget_text
from dashboards.formats import count, one_line
from search.budget import Budget
from search.store.vocabulary import OPEN_STATES, TrialState
from space.config import code_legend
from workers.latency.record import STATISTIC_WORDS, STATISTICS, LatencyStatistic

RecordedOf = Callable[[Sequence[int]], Recorded]
DIGITS = 6  # of a limit, and of what is held to it


class BudgetTable(BudgetFacts):
    """Answers the budgets of one study."""

    @classmethod
    def of(
        cls, columns: StudyColumns, budget: Budget, recorded_of: RecordedOf = lambda numbers: NOTHING_RECORDED
    ) -> BudgetTable:
        """Return a study's table.

        Args:
            columns: the study.
            budget: the limits that the controls start at, and those on macs and params.
            recorded_of: returns what else is recorded of trials, by number.
        """
        targets = [name for name, latencies in columns.latencies.items() if (latencies.group >= 0).any()]
        inside, judged_by = trained_inside(columns, budget), next(iter(columns.latencies), "host")
        statistics = _statistics(columns, inside, targets, budget.latency_statistic)
        rows = np.flatnonzero(inside)
        rows = rows[best_first(columns, rows, judged_by)]
        held = {name: _held(columns, targets, rows, name) for name in statistics}
        named = contenders(columns.score[rows], columns.params[rows], held.values(), columns.validation_images)
        recorded = recorded_of(columns.number[rows[named]].tolist())
        study_budget = budget_of(columns.study.settings)
        limits, study_limits = budget.limits_ms(judged_by), study_budget.limits_ms(judged_by)
        fixed = (("macs", budget.max_macs), ("params", budget.max_params))
        return cls(
            controls=tuple(
                control_of(columns, name, inside, (limits.get(name), study_limits.get(name)), statistics)
                for name in targets
            ),
            judged_by=judged_by,
            statistic=budget.latency_statistic,
            study_statistic=study_budget.latency_statistic,
            held_ms={name: _rounded_up(values) for name, values in held.items()},
            offers=offers_of(columns, targets, rows[named].tolist(), recorded, statistics),
            predicted=predicted_of(recorded.believed, targets),
            trained=int(columns.trained.sum()),
            fixed=" and ".join(f"at most {count(limit)} {name}" for name, limit in fixed if limit is not None),
            why_none="" if columns.trained.any() else why_none_trained(columns),
            score_name=columns.score_name,
            images=columns.validation_images,
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

    def answer(
        self,
        limits_ms: Mapping[str, float | None],
        statistic: LatencyStatistic | None = None,
        take: Take = "best",
    ) -> Answer:
        """Return what limits in ms get; a device without a limit, or with None, may be as slow as it is."""
        return answer_of(self, limits_ms, self.statistic_for(statistic), take)

    def sentence(
        self,
        limits_ms: Mapping[str, float | None],
        statistic: LatencyStatistic | None = None,
        take: Take = "best",
    ) -> str:
        """Return the answer in words; `assets/budget_answer.js` says the same."""
        of = self.statistic_for(statistic)
        return " ".join(text for _, text in sentences_of(self, answer_of(self, limits_ms, of, take), limits_ms, of))

    def statistic_for(self, asked: LatencyStatistic | None) -> LatencyStatistic:
        """Return the statistic that is asked for, where this study has it."""
        return asked if asked is not None and asked in self.held_ms else self.statistic

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, from which the browser answers budgets; an infinite latency is null."""
        return {
            "controls": [control.to_dict() for control in self.controls],
            "judged_by": self.judged_by,
            "statistic": self.statistic,
            "study_statistic": self.study_statistic,
            "statistics": {name: STATISTIC_WORDS[name] for name in self.held_ms},
            "networks": len(self.held_ms[self.statistic]),
            "held_ms": {name: [finite(ms) for ms in values.ravel().tolist()] for name, values in self.held_ms.items()},
            "offers": [offer.to_dict() for offer in self.offers],
            "predicted": [one.to_dict() for one in self.predicted],
            "trained": self.trained,
            "fixed": self.fixed,
            "why_none": self.why_none,
            "score_name": self.score_name,
            "images": self.images,
            "badges": {name: BADGES[name] for offer in self.offers for name in offer.badges},
            "code_legend": code_legend(offer.code for offer in self.offers),
        }


def trained_inside(columns: StudyColumns, budget: Budget) -> Mask:
    """Return which trained networks are inside a budget's limits on macs and params, whatever their latency."""
    inside = columns.trained.copy()
    for limit, values in ((budget.max_macs, columns.macs), (budget.max_params, columns.params)):
        if limit is not None:
            inside &= values <= limit
    return inside


def _statistics(
    columns: StudyColumns, inside: Mask, targets: Sequence[str], own: LatencyStatistic
) -> list[LatencyStatistic]:
    """Return what a budget can be put on: p90 only where a network was timed on every device."""
    timed = inside.copy()
    for name in targets:
        timed &= np.isfinite(columns.latencies[name].held_ms["p90"])
    return [name for name in STATISTICS if name != "p90" or own == "p90" or (timed.any() and targets)]


def _held(
    columns: StudyColumns, targets: Sequence[str], rows: NDArray[np.int64], statistic: LatencyStatistic
) -> NDArray[np.float64]:
    """Return what is held to a limit, (rows, devices); an unknown latency fits none."""
    values = [columns.latencies[name].held_ms[statistic][rows] for name in targets]
    table = np.stack(values, axis=1) if values else np.empty((len(rows), 0))
    return np.where(np.isnan(table), np.inf, table)


def _rounded_up(values_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return latencies rounded up to as many digits as a limit has: each fits the same limits, and is short as JSON."""
    flat = [_up(ms) if math.isfinite(ms) and ms > 0 else ms for ms in values_ms.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(values_ms.shape)


def _up(ms: float) -> float:
    nearest = float(f"{ms:.{DIGITS}g}")
    if nearest >= ms:
        return nearest
    unit = 10.0 ** (math.floor(math.log10(nearest)) - DIGITS + 1)
    return float(f"{nearest + unit:.{DIGITS}g}")


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
