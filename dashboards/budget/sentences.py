"""The answer to a budget in words; `assets/budget_answer.js` says the same, sentence by sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dashboards.budget.answers import Answer
from dashboards.budget.controls import Control, limit_text
from dashboards.budget.facts import BudgetFacts
from dashboards.budget.offers import Offer
from dashboards.formats import percent
from workers.latency.record import LatencyStatistic
from workers.wording import agreeing, counted

Limits = Mapping[str, float | None]
Sentence = tuple[str, str]  # what it is about, and its text


def sentences_of(table: BudgetFacts, answer: Answer, limits_ms: Limits, statistic: LatencyStatistic) -> list[Sentence]:
    """Return the answer, a sentence at a time."""
    if not table.trained:
        return [("none", table.why_none)]
    return [
        _fits(table, answer, limits_ms, statistic),
        *_named(table, answer, limits_ms, statistic),
        *_least(table, answer, limits_ms, statistic),
        *_more(table, answer, statistic),
    ]


def _fits(table: BudgetFacts, answer: Answer, limits_ms: Limits, statistic: LatencyStatistic) -> Sentence:
    networks = f"{answer.fits:,} of {counted(table.trained, 'trained network')}"
    by = {"upper": "", "median": " by the median", "p90": " by p90"}[statistic]
    limits = [
        f"{limit_text(limit)} ms{_on(table, control)}"
        for control in table.controls
        if (limit := limits_ms.get(control.target)) is not None
    ]
    by = by if limits else ""
    budget = " and ".join([*limits, *filter(None, (table.fixed,))]) or "no limit"
    return "fits", f"{networks} {agreeing(answer.fits, 'fits', 'fit')} {budget}{by}."


def _named(table: BudgetFacts, answer: Answer, limits_ms: Limits, statistic: LatencyStatistic) -> Iterator[Sentence]:
    """Yield the networks that the answer names, and what speaks against the best."""
    if answer.best is None:
        return
    best = table.offers[answer.best]
    lead = "Best of what was trained" if _is_past_study(table, answer, limits_ms) else "Best"
    yield "best", f"{lead}: {best.name}, {best.accuracy}{_at(best)}."
    yield from _doubts(table, best, limits_ms, statistic)
    yield from (("remark", text) for text in best.remarks)
    if answer.runner_up is not None:
        second = table.offers[answer.runner_up]
        noise = f", {_as_good(best, second)}" if answer.runner_up in best.as_good else ""
        yield "runner-up", f"Runner-up: {second.name}, {percent(second.score)}{noise}{_at(second)}."
    if answer.fastest is not None and answer.fastest == answer.smallest:
        yield "alike", _alike("fastest and smallest", best, table.offers[answer.fastest])
    else:
        for which, place in (("fastest", answer.fastest), ("smallest", answer.smallest)):
            if place is not None:
                yield "alike", _alike(which, best, table.offers[place])
    if answer.knee is not None and answer.knee != answer.best:
        knee = table.offers[answer.knee]
        yield "knee", f"Knee of the front: {knee.name}, {percent(knee.score)}{_at(knee)}."
    if answer.chosen is not None and answer.chosen != answer.best:
        yield "taken", f"Taken: trial {table.offers[answer.chosen].number}."


def _doubts(table: BudgetFacts, best: Offer, limits_ms: Limits, statistic: LatencyStatistic) -> Iterator[Sentence]:
    """Yield where the best was over a limit when `pick` measured it again, which doesn't rule it out yet."""
    for control, verified in zip(table.controls, best.verified, strict=True):
        again, limit = verified.get(statistic), limits_ms.get(control.target)
        if again is not None and limit is not None and again["ms"] > limit:
            where = _on(table, control)
            yield "doubt", f"Measured again it took {again['text']}{where}, over the limit, which isn't decided yet."


def _alike(which: str, best: Offer, other: Offer) -> str:
    """Return a cheaper network that can't be told from the best."""
    return f"The {which} {_as_good(best, other)}: {other.name}, {percent(other.score)}{_at(other)}."


def _as_good(best: Offer, other: Offer) -> str:
    """Return how two networks that are as good as each other were compared."""
    return "as good within noise" if best.paired and other.paired else "as good by the intervals"


def _is_past_study(table: BudgetFacts, answer: Answer, limits_ms: Limits) -> bool:
    """Whether a limit is beyond the study's own, and beyond all that was trained."""
    return any(
        control.target in answer.beyond
        and control.study_limit_ms is not None
        and ((limit := limits_ms.get(control.target)) is None or limit > control.study_limit_ms)
        for control in table.controls
    )


def _least(table: BudgetFacts, answer: Answer, limits_ms: Limits, statistic: LatencyStatistic) -> Iterator[Sentence]:
    least = [
        control.trained[statistic].least + _on(table, control)
        for control in table.controls
        if control.trained[statistic].least and limits_ms.get(control.target) is not None
    ]
    if answer.best is None and least:
        yield "least", f"The fastest needs {' and '.join(least)}."


def _more(table: BudgetFacts, answer: Answer, statistic: LatencyStatistic) -> Iterator[Sentence]:
    """Yield what more budget buys of what was trained, beyond what nothing is known, and what is predicted."""
    inside = [control for control in table.controls if control.target in answer.more_ms]
    inside = [control for control in inside if control.target not in answer.beyond]
    steps = [f"{limit_text(answer.more_ms[control.target])} ms more{_on(table, control)}" for control in inside]
    if answer.more is not None:
        more = table.offers[answer.more]
        as_good = answer.best is not None and answer.best in more.as_good
        noise = f", {_as_good(table.offers[answer.best or 0], more)}" if as_good else ""
        yield "more", f"{' and '.join(steps)} would buy {percent(more.score)}{noise}: {more.name}{_at(more)}."
    elif steps:
        yield "more", f"{' and '.join(steps)} would buy nothing better of what was trained."
    ends = [_end(table, control, statistic) for control in table.controls if control.target in answer.unknown]
    if ends:
        yield "unknown", f"What more would buy is not known: {'; '.join(ends)}."
    if answer.predicted is not None:
        one = table.predicted[answer.predicted]
        yield "predicted", f"Predicted for a network that was not trained: {one.words} ({one.code})."


def _end(table: BudgetFacts, control: Control, statistic: LatencyStatistic) -> str:
    trained = control.trained[statistic]
    refused = f"{counted(trained.refused, 'candidate')} {agreeing(trained.refused, 'was', 'were')} refused there"
    nothing = f"nothing above {trained.most} ms{_on(table, control)} was trained"
    return f"{nothing}; {refused}" if trained.refused else nothing


def _on(table: BudgetFacts, control: Control) -> str:
    return f" on {control.target}" if len(table.controls) > 1 else ""


def _at(offer: Offer) -> str:
    return f" at {offer.latency}" if offer.latency else ""
