"""What matters: how much each part of an architecture decides accuracy, latency and macs.

A random forest learns an outcome from the architectures of some trials; on the others the columns of one parameter are
shuffled together, and what the forest's R² loses is that parameter's importance (Breiman, "Random forests", 2001). What
is shown is each parameter's share of all that is lost, which is never beyond 1, with its 95 % interval (`forest`).
Importances describe this study's trials: a parameter that was hardly varied can't matter in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.panels.data_table import DataTable
from dashboards.panels.settings.dimensions import training_values
from dashboards.panels.settings.forest import SEED, judge
from dashboards.panels.style import FRONT, GREY, PREDICTED, STAR, drawable, empty_figure, escaped
from workers.wording import agreeing, counted

LEAST_TRIALS = 10
MOST_ROWS = 1000  # trials that a forest learns from and is tested on; of more, so many are drawn with a fixed seed
LEAST_R2 = 0.05  # a forest that predicts less than that says nothing about what matters
LOOKS = {"latency": (STAR, "/"), "macs": (PREDICTED, "x")}
SCORE_LOOKS = (FRONT, "")


@dataclass(frozen=True)
class Score:
    """One parameter's share of what the forest's R² loses over all of them, with the 95 % interval; all 0..1."""

    parameter: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """How much each parameter decides one outcome."""

    name: str  # accuracy, latency or macs
    trials: int  # that have this outcome
    rows: int  # how many of them were used
    r2: float | None  # R² of the forest on the trials that were held out
    scores: tuple[Score, ...] = ()  # the largest first
    reason: str | None = None  # why there are none


@dataclass(frozen=True)
class ImportanceInfo:
    """What decides accuracy, latency and macs, as far as the trials show it."""

    outcomes: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def parameters(self) -> list[str]:
        """The parameters, by their largest importance for any outcome."""
        best: dict[str, float] = {}
        for score in (score for outcome in self.outcomes for score in outcome.scores):
            best[score.parameter] = max(best.get(score.parameter, -np.inf), score.share)
        return sorted(best, key=lambda name: -best[name])

    def table(self) -> DataTable:
        """Return one line for each parameter."""
        scored = [outcome for outcome in self.outcomes if outcome.scores]
        lines = []
        for name in self.parameters:
            scores = [next(score for score in outcome.scores if score.parameter == name) for outcome in scored]
            lines.append((name, *(f"{one.share:.2f} ({one.low:.2f} to {one.high:.2f})" for one in scores)))
        headers = ("parameter", *(f"importance for {outcome.name} (95 % interval)" for outcome in scored))
        return DataTable(headers, tuple(lines))


def importance_info(columns: StudyColumns, view: View) -> ImportanceInfo:
    """Return what matters for accuracy, latency (of the view's group) and macs; equal columns give equal results."""
    trained = int(columns.trained.sum())
    if trained < LEAST_TRIALS:
        return ImportanceInfo(
            reason=f"Importance can't be computed, because {_trials(trained)} and it takes {LEAST_TRIALS}: it "
            "comes with the next trainings."
        )
    outcomes = {
        "accuracy" if columns.objective == "top1" else columns.score_name: np.where(
            columns.trained, columns.score, np.nan
        ),
        "latency": _log(columns.axis_values(View(view.group, "latency"))),
        "macs": _log(columns.macs.astype(float)),
    }
    parameters = _parameters(columns)
    if not parameters:
        return ImportanceInfo(
            reason="Importance can't be computed, because all trials have the same architecture and training settings: "
            "widen [space] in a new study."
        )
    results = tuple(_outcome(name, parameters, values) for name, values in outcomes.items())
    if not any(outcome.scores for outcome in results):
        return ImportanceInfo(
            results, reason=f"Importance can't be computed yet: {results[0].reason}. Train more networks."
        )
    return ImportanceInfo(results, _notes(results))


def _trials(trained: int) -> str:
    if not trained:
        return "no trial is trained yet"
    return f"only {counted(trained, 'trial')} {agreeing(trained, 'is', 'are')} trained"


def _with(trials: int, outcome: str) -> str:
    if not trials:
        return f"no trial has a {outcome}"
    return f"only {counted(trials, 'trial')} {agreeing(trials, 'has', 'have')} a {outcome}"


def _log(values: Floats) -> Floats:
    """Return the logarithm of costs, by which a forest sees differences between small networks too."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(values), np.nan)


def _parameters(columns: StudyColumns) -> dict[str, Floats]:
    """Return the columns (n, any) of each parameter that varies, by its name."""
    parameters: dict[str, Floats] = {
        "G (groups)": columns.groups_1x1[:, None].astype(float),
        "C (condensing)": columns.condense_factor[:, None].astype(float),
        "growth": np.nan_to_num(columns.growth),
        "stages (layers)": np.concatenate((np.nan_to_num(columns.stages), columns.layers[:, None]), axis=1),
        "bottleneck": columns.bottleneck[:, None].astype(float),
    }
    if (columns.groups_3x3 != columns.groups_1x1).any():
        parameters["3×3 groups"] = columns.groups_3x3[:, None].astype(float)
    parameters |= {name.replace("_", " "): np.nan_to_num(v)[:, None] for name, v in training_values(columns).items()}
    return {name: values for name, values in parameters.items() if len(values) and bool((values != values[0]).any())}


def _outcome(name: str, parameters: dict[str, Floats], values: Floats) -> Outcome:
    places = np.flatnonzero(np.isfinite(values))
    total = len(places)
    if total < LEAST_TRIALS:
        return Outcome(name, total, 0, None, reason=f"{_with(total, name)}, and it takes {LEAST_TRIALS}")
    if np.ptp(values[places]) < 1e-12:
        return Outcome(name, total, 0, None, reason=f"all trials have the same {name}")
    places = np.random.default_rng(SEED).permutation(places)[:MOST_ROWS]
    groups, at = [], 0
    for block in parameters.values():
        groups.append(slice(at, at + block.shape[1]))
        at += block.shape[1]
    rows = np.concatenate([block[places] for block in parameters.values()], axis=1).astype(np.float32)
    judged = judge(rows, values[places], groups)
    if judged.r2 < LEAST_R2:
        reason = f"the settings that were varied don't predict {name} (R² {judged.r2:.2f} on trials held out)"
        return Outcome(name, total, len(places), judged.r2, reason=reason)
    lost = sum(max(0.0, loss.mean) for loss in judged.losses) or 1.0
    scores = [
        Score(
            parameter,
            *(min(1.0, max(0.0, value / lost)) for value in (loss.mean, loss.mean - loss.half, loss.mean + loss.half)),
        )
        for parameter, loss in zip(parameters, judged.losses, strict=True)
    ]
    return Outcome(name, total, len(places), judged.r2, tuple(sorted(scores, key=lambda score: -score.share)))


def _notes(outcomes: tuple[Outcome, ...]) -> tuple[str, ...]:
    fits = ", ".join(
        f"{outcome.name} {outcome.r2:.2f} from {outcome.rows:,} trials"
        for outcome in outcomes
        if outcome.scores and outcome.r2
    )
    notes = [
        "Each setting's share of what decides an outcome, with its 95 % interval; the shares of an outcome sum to 1.",
        "A share is of the R² that a random forest loses when one setting is shuffled among networks it has not seen.",
        f"Its R² there: {fits}.",
        "This describes the study's own trials: what was hardly varied can't matter in them.",
    ]
    notes += [
        f"No importance for {outcome.name}: {outcome.reason}." for outcome in outcomes if outcome.reason is not None
    ]
    return tuple(notes)


# ---- the figure -----------------------------------------------------------------------------------------


def importance_figure(info: ImportanceInfo) -> Any:
    """Return a bar for each parameter and outcome; outcomes differ in colour and hatching.

    Raises:
        ChartUnavailable: importances can't be computed.
    """
    import plotly.graph_objects as go

    drawable(info)
    names = info.parameters[::-1]  # plotly draws from below
    figure = empty_figure(150 + 54 * len(names))
    for outcome in reversed([outcome for outcome in info.outcomes if outcome.scores]):
        colour, hatching = LOOKS.get(outcome.name, SCORE_LOOKS)
        by_name = {score.parameter: score for score in outcome.scores}
        scores = [by_name[name] for name in names]
        figure.add_trace(
            go.Bar(
                y=[escaped(name) for name in names],
                x=np.array([score.share for score in scores]),
                error_x=_error_bars(scores),
                orientation="h",
                name=f"for {outcome.name}",
                marker={
                    "color": colour,
                    "pattern": {"shape": hatching, "fillmode": "overlay", "fgcolor": "#FFFFFF", "size": 6},
                },
                customdata=np.array([(score.low, score.high) for score in scores]),
                hovertemplate=f"<b>%{{y}}</b>: %{{x:.2f}} of what decides {outcome.name}<br>95 %: "
                "%{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
            )
        )
    figure.update_layout(
        barmode="group", bargap=0.25, legend={"traceorder": "reversed", "y": -66 / (64 + 54 * len(names))}
    )
    widest = max(score.high for outcome in info.outcomes for score in outcome.scores)
    title = "share of what decides the outcome"
    figure.update_xaxes(title={"text": title}, range=[0, min(1.0, 1.05 * widest)])
    figure.update_yaxes(griddash="solid", showgrid=False)
    return figure


def _error_bars(scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": np.array([score.high - score.share for score in scores]),
        "arrayminus": np.array([score.share - score.low for score in scores]),
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }
