"""What matters: how much each part of an architecture decides accuracy, latency and macs.

A random forest learns an outcome from the architectures of two thirds of the trials; on the other third the columns of
one parameter are shuffled together, and what the forest's R² loses is that parameter's importance (Breiman, "Random
forests", 2001). Importances describe this study's trials: a parameter that was hardly varied can't matter in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.parallel import training_values
from dashboards.panels.style import FRONT, GREY, STAR, empty_figure, escaped, message
from workers.wording import agreeing, counted

LEAST_TRIALS = 20
MOST_ROWS = 2000  # trials that a forest learns from and is tested on; of more, so many are drawn with a fixed seed
HELD_OUT = 1 / 3
TREES = 50
REPEATS = 5
LEAST_R2 = 0.05  # a forest that predicts less than that says nothing about what matters
SEED = 0
LOOKS = {"latency": (STAR, "/"), "macs": ("#1E9E77", "x")}
SCORE_LOOKS = (FRONT, "")


@dataclass(frozen=True)
class Score:
    """What the forest's R² loses when one parameter is shuffled: mean and standard deviation of `REPEATS`."""

    parameter: str
    lost: float
    spread: float


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
            best[score.parameter] = max(best.get(score.parameter, -np.inf), score.lost)
        return sorted(best, key=lambda name: -best[name])

    def table(self) -> DataTable:
        """Return one line for each parameter."""
        scored = [outcome for outcome in self.outcomes if outcome.scores]
        lines = []
        for name in self.parameters:
            scores = [next(score for score in outcome.scores if score.parameter == name) for outcome in scored]
            lines.append((name, *(f"{score.lost:.3f} ± {score.spread:.3f}" for score in scores)))
        headers = ("parameter", *(f"R² lost for {outcome.name}" for outcome in scored))
        return DataTable(headers, tuple(lines))


def importance_info(columns: StudyColumns, view: View) -> ImportanceInfo:
    """Return what matters for accuracy, latency (of the view's group) and macs; equal columns give equal results."""
    trained = int(columns.trained.sum())
    if trained < LEAST_TRIALS:
        return ImportanceInfo(
            reason=f"Importance can't be computed, because {_trials(trained)} and it takes {LEAST_TRIALS}."
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
            reason="Importance can't be computed, because all trials have the same architecture and training settings."
        )
    results = tuple(_outcome(name, parameters, values) for name, values in outcomes.items())
    if not any(outcome.scores for outcome in results):
        return ImportanceInfo(results, reason=f"Importance can't be computed: {results[0].reason}.")
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
    rng = np.random.default_rng(SEED)
    places = rng.permutation(places)[:MOST_ROWS]
    groups, at = [], 0
    for block in parameters.values():
        groups.append(slice(at, at + block.shape[1]))
        at += block.shape[1]
    rows = np.concatenate([block[places] for block in parameters.values()], axis=1).astype(np.float32)
    r2, lost = _forest(rows, values[places], groups, rng)
    if r2 < LEAST_R2:
        reason = f"the settings that were varied don't predict {name} (R² {r2:.2f} on trials held out)"
        return Outcome(name, total, len(places), r2, reason=reason)
    scores = [
        Score(name, float(drops.mean()), float(drops.std(ddof=1)))
        for name, drops in zip(parameters, lost, strict=True)
    ]  # fmt: skip
    return Outcome(name, total, len(places), r2, tuple(sorted(scores, key=lambda score: -score.lost)))


def _forest(rows: Any, values: Floats, groups: list[slice], rng: np.random.Generator) -> tuple[float, Floats]:
    """Return the forest's R² on held-out trials and what it loses for each group of columns (groups, repeats)."""
    from sklearn.ensemble import RandomForestRegressor

    cut = max(1, round(len(rows) * HELD_OUT))
    held, target = rows[:cut], values[:cut]
    forest = RandomForestRegressor(
        TREES, min_samples_leaf=2, max_features=0.7, max_samples=0.8, n_jobs=1, random_state=SEED
    )
    forest.fit(rows[cut:], values[cut:])
    spread = float(((target - target.mean()) ** 2).sum()) or 1e-12

    def r2_of(predicted: Any) -> Any:
        return 1 - ((predicted - target) ** 2).sum(axis=-1) / spread

    base = float(r2_of(forest.predict(held)))
    shuffled = np.tile(held, (len(groups) * REPEATS, 1, 1))  # (groups * repeats, held, columns)
    for index in range(len(shuffled)):
        part = groups[index // REPEATS]
        shuffled[index, :, part] = held[rng.permutation(cut), part]
    predicted = forest.predict(shuffled.reshape(-1, held.shape[1])).reshape(len(shuffled), cut)
    return base, (base - r2_of(predicted)).reshape(len(groups), REPEATS)


def _notes(outcomes: tuple[Outcome, ...]) -> tuple[str, ...]:
    fits = ", ".join(
        f"{outcome.name} {outcome.r2:.2f} from {outcome.rows:,} trials"
        for outcome in outcomes
        if outcome.scores and outcome.r2
    )
    notes = [
        "How much of its R² a random forest loses when one parameter is shuffled among networks that it has not seen.",
        f"Its R² there: {fits}.",
        "This describes the study's own trials: what was hardly varied can't matter in them.",
    ]
    notes += [
        f"No importance for {outcome.name}: {outcome.reason}." for outcome in outcomes if outcome.reason is not None
    ]
    return tuple(notes)


# ---- the figure -----------------------------------------------------------------------------------------


def importance_figure(info: ImportanceInfo) -> Any:
    """Return a bar for each parameter and outcome; outcomes differ in colour and hatching."""
    import plotly.graph_objects as go

    if info.reason is not None:
        return message(info.reason)
    names = info.parameters[::-1]  # plotly draws from below
    figure = empty_figure(150 + 54 * len(names))
    for outcome in reversed([outcome for outcome in info.outcomes if outcome.scores]):
        colour, hatching = LOOKS.get(outcome.name, SCORE_LOOKS)
        by_name = {score.parameter: score for score in outcome.scores}
        scores = [by_name[name] for name in names]
        figure.add_trace(
            go.Bar(
                y=[escaped(name) for name in names],
                x=np.array([max(0.0, score.lost) for score in scores]),
                error_x=_error_bars(scores),
                orientation="h",
                name=f"for {outcome.name}",
                marker={
                    "color": colour,
                    "pattern": {"shape": hatching, "fillmode": "overlay", "fgcolor": "#FFFFFF", "size": 6},
                },
                hovertemplate=f"<b>%{{y}}</b>: {outcome.name} loses %{{x:.3f}} of R²<extra></extra>",
            )
        )
    figure.update_layout(
        barmode="group", bargap=0.25, legend={"traceorder": "reversed", "y": -66 / (64 + 54 * len(names))}
    )
    figure.update_xaxes(title={"text": "R² lost when shuffled"}, rangemode="tozero")
    figure.update_yaxes(griddash="solid", showgrid=False)
    return figure


def _error_bars(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the spread of scores as error bars that don't reach below 0."""
    return {
        "type": "data",
        "symmetric": False,
        "array": np.array([score.spread for score in scores]),
        "arrayminus": np.array([min(score.spread, max(0.0, score.lost)) for score in scores]),
        "color": GREY,
        "thickness": 1.2,
        "width": 3,
    }
