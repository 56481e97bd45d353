"""The report's answer: which trial to deploy and what it gives, or why there is none yet."""

from __future__ import annotations

from collections import Counter

from dashboards.formats import (
    budget_text,
    count,
    interval_text,
    latency_label,
    milliseconds,
    one_line,
    percent,
    place_label,
)
from dashboards.intervals import wilson_interval
from dashboards.page import esc
from dashboards.queries import StudyView
from search.gate import Budget
from search.pick import best
from search.store.reader import TrialRow
from search.store.tables import OPEN_STATES, STATES
from space.errors import NothingFeasible


def answer_card(view: StudyView, budget: Budget) -> tuple[TrialRow | None, str]:
    """Return the recommended trial and the HTML card that says so, or says why there is none."""
    try:
        ranked = best(view.trials, budget)
    except NothingFeasible as error:
        return None, f'<div class="answer none"><p>{esc(_no_answer(view, str(error)))}</p></div>'
    pick, inside_it = ranked[0], len(ranked)
    inside = "" if budget == Budget() else f" inside {budget}"
    among = "the only trained network" if inside_it == 1 else f"the most accurate of {inside_it} trained networks"
    config = f"<strong>Trial {pick.number}</strong> ({esc(pick.config)})"
    sentence = f"{config} is {esc(among)}{esc(inside)}: {esc(percent(pick.top1))} top-1"
    if pick.latency is not None:
        sentence += f" at {esc(milliseconds(pick.latency.median_ms))} ({esc(latency_label(pick.latency))})"
    for other in pick.others:
        sentence += f", {esc(milliseconds(other.median_ms))} on {esc(other.target)} ({esc(latency_label(other))})"
    return pick, f'<div class="answer"><p>{sentence}.</p>{_tiles(view, pick)}</div>'


def _no_answer(view: StudyView, reason: str) -> str:
    """Why nothing can be recommended yet, in one sentence."""
    rows = view.trials
    states = Counter(row.state for row in rows)
    if not rows:
        return "This study has no trials yet."
    if states["done"]:
        return reason[:1].upper() + reason[1:]
    if any(states[state] for state in OPEN_STATES):
        return f"No network has finished its training yet: {counted(states)}."
    if states["infeasible"] and not states["failed"]:
        return f"No candidate was inside the budget ({budget_text(view.study.settings)}), so none was trained."
    common = Counter(one_line(row.reason, 200) for row in rows if row.state == "failed" and row.reason).most_common(1)
    why = f" Most frequent reason: {common[0][0]}" if common else ""
    return f"No trial led to a trained network: {counted(states)}.{why}"


def counted(states: Counter[str]) -> str:
    """Return "3 done, 1 failed"."""
    return ", ".join(f"{states[state]} {state}" for state in STATES if states[state])


def _tiles(view: StudyView, pick: TrialRow) -> str:
    tiles = [("Top-1, validation", percent(pick.top1), _accuracy_note(view, pick))]
    if pick.test_top1 is not None:
        tiles.append(("Top-1, test", percent(pick.test_top1), "on images that no decision has seen"))
    if (latency := pick.latency) is not None:
        interval = f"95 % interval {interval_text(latency)} ms; "
        tiles.append(
            (
                "Latency, median",
                milliseconds(latency.median_ms),
                f"{interval}{latency_label(latency)}, on {place_label(latency)}",
            )
        )
    tiles.append(("Multiply-adds", count(pick.macs), f"{pick.macs:,}"))
    tiles.append(("Parameters", count(pick.params), f"{pick.params:,}"))
    cells = (f"<div><dt>{esc(t)}</dt><dd>{esc(v)}<small>{esc(note)}</small></dd></div>" for t, v, note in tiles)
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _accuracy_note(view: StudyView, pick: TrialRow) -> str:
    images = (view.study.data_info or {}).get("validation_images")
    if not isinstance(images, int) or images < 1 or pick.top1 is None:
        return "deployed network"
    low, high = wilson_interval(pick.top1, images)
    return f"deployed network; 95 % interval {percent(low, 1)} to {percent(high, 1)} for {images:,} images"
