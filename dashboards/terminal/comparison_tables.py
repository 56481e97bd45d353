"""Studies beside each other, what cross-validation found, and baselines beside a study, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from dashboards.formats import NOTHING, count, one_line, percent
from dashboards.studies.documents import POINT_HEADERS, best_rows, point_rows
from dashboards.studies.fronts import Comparison
from dashboards.terminal.documents import plain
from dashboards.terminal.tables import ONE_LINE_FROM, plain_table
from search.crossvalidation import FoldScore, mean_and_deviation
from search.results.baselines import BaselineResult
from workers.metrics import NAMES, Objective
from workers.wording import counted


def studies_compared(comparison: Comparison) -> RenderableType:
    """Return studies beside each other: who can be compared, the best of each inside the limit, and their fronts."""
    words, *further = comparison.sentences(comparison.limit)
    parts: list[RenderableType] = [Text(one_line(words)), *(Text(one_line(text), style="dim") for text in further)]
    parts.append(Text(f"accuracy against {comparison.view.name}", style="dim"))
    title = "" if comparison.limit is None else f" inside {comparison.limit_words(comparison.limit)}"
    parts += [
        Text(f"\nThe best of each{title}", style="bold"),
        _Networks(best_rows(comparison, comparison.limit), comparison.score_name),
    ]
    if comparison.reason is None:
        rows = [(f"{name}{' *' if on_all else ''}", *cells) for name, *cells, on_all in _with_mark_last(comparison)]
        parts += [Text("\nTheir fronts", style="bold"), _Networks(rows, comparison.score_name)]
        parts.append(Text("* on the front of all: no network of any of these studies beats it", style="dim"))
    return Group(*parts)


def _with_mark_last(comparison: Comparison) -> list[tuple[str, ...]]:
    mark = POINT_HEADERS.index("front of all")
    return [(*row[:mark], *row[mark + 1 :], row[mark]) for row in point_rows(comparison.studies)]


@dataclass(frozen=True)
class _Networks:
    """Networks of several studies; kind and interval of the accuracy are left to JSON and page, as params are where
    the terminal is narrow."""

    rows: Sequence[tuple[str, ...]]
    score_name: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= ONE_LINE_FROM
        params = [">params"] if wide else []
        table = plain_table("~study", ">trial", f">{self.score_name}", ">latency ms", ">macs", *params, "~config")
        for name, trial, score, latency, _, _, macs, count_of_params, config in self.rows:
            further = [count_of_params] if wide else []
            table.add_row(Text(name), trial, score, latency, macs, *further, Text(config))
        yield table


def folds_table(scores: Sequence[FoldScore]) -> RenderableType:
    """Return a row for each fold, and the mean of those that the network wasn't chosen on."""
    table = plain_table(">fold", ">top-1", ">balanced accuracy", ">macro-F1", ">images", "")
    for score in scores:
        accuracies = (percent(score.top1), percent(score.balanced_accuracy), percent(score.macro_f1))
        chosen = "the search judged by it" if score.chosen_on else ""
        table.add_row(str(score.fold), *accuracies, str(score.images), chosen)
    mean, deviation = mean_and_deviation(scores)
    spread = "" if math.isnan(deviation) else f" ± {100 * deviation:.2f} points (standard deviation)"
    folds = counted(sum(not score.chosen_on for score in scores), "fold")
    return Group(table, Text(""), Text(f"top-1 {percent(mean)}{spread} over the {folds} that it wasn't chosen on"))


def folds_document(scores: Sequence[FoldScore]) -> dict[str, Any]:
    """Return the folds as plain JSON values."""
    mean, deviation = mean_and_deviation(scores)
    return {
        "folds": [plain(asdict(score)) for score in scores],
        "top1_mean": plain(mean),
        "top1_deviation": None if math.isnan(deviation) else plain(deviation),
    }


def baselines_document(results: Sequence[BaselineResult], objective: Objective, said: Sequence[str]) -> dict[str, Any]:
    """Return the networks as plain JSON values, and which of them no network of the study beats."""
    return {"baselines": [result.to_dict() for result in results], "objective": objective, "remarks": list(said)}


def baselines_table(results: Sequence[BaselineResult], objective: Objective, said: Sequence[str]) -> RenderableType:
    """Return the networks, the cheapest first."""
    rows = plain_table("~network", f">{NAMES[objective]}", ">latency ms", ">macs", ">params")
    notes = list[str]()
    for result in results:
        score = result.scores.get(objective)
        if result.problem:
            notes.append(result.problem)
            continue
        latency = NOTHING if result.latency is None else f"{result.latency.median_ms:.4g}"
        known = NOTHING if score is None else percent(score)
        rows.add_row(result.title, known, latency, count(result.macs), count(result.params))
    first = next((result.latency for result in results if result.latency is not None), None)
    if first is not None:
        notes.append(
            f"latency: {first.kind} on {first.target} ({first.device}), {first.runtime} {first.runtime_version}"
        )
    return Group(rows, *(Text(note, style="dim") for note in notes), *map(Text, said))
