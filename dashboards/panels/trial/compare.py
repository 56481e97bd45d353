"""Up to four trials side by side: outcome, latencies, costs, settings. A sign marks what differs.

The chart shows each trial's figures as ratios to those of the first trial: 1 is the same. Latencies are compared on one
device and of one kind; where two trials have none in common the table says so and the chart leaves them out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import count, digits_ms, duration, interval_text, latency_label, one_line, percent, place_label
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import COLOURS, GREY, SYMBOLS, empty_figure, escaped, message, slim
from search.results.paired import PairedTest, paired_test, same_images
from workers.latency.record import LatencyRecord, kind_words
from workers.metrics import METRICS, NAMES

MOST_TRIALS = 4
CLOSE = 1.5  # where no ratio is further from 1 than this, the chart shows differences in %
DIFFERS, SAME = "≠", "="
NONE = "-"


@dataclass(frozen=True)
class CompareRow:
    """One line of the table: a value for each trial, and whether the values differ."""

    section: str  # outcome, latency, cost, config or training
    label: str
    values: tuple[str, ...]
    differs: bool

    @property
    def mark(self) -> str:
        """The sign that says whether the values differ."""
        return DIFFERS if self.differs else SAME


@dataclass(frozen=True)
class RatioRow:
    """One figure of each trial divided by the first trial's (less is better); NaN where either is unknown."""

    label: str
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class CompareInfo:
    """Trials side by side."""

    names: tuple[str, ...] = ()
    rows: tuple[CompareRow, ...] = ()
    ratios: tuple[RatioRow, ...] = ()
    reason: str | None = None

    @property
    def differences(self) -> int:
        """How many lines differ."""
        return sum(row.differs for row in self.rows)

    def table(self) -> DataTable:
        """Return every line, with its sign first."""
        rows = tuple((row.mark, row.section, row.label, *row.values) for row in self.rows)
        return DataTable(("", "", "", *self.names), rows)

    def sentence(self) -> str:
        """Return the comparison in words."""
        if self.reason is not None:
            return self.reason
        return f"{', '.join(self.names)}: {self.differences} of {len(self.rows)} lines differ ({DIFFERS})."


def compare_info(details: Sequence[TrialDetail]) -> CompareInfo:
    """Return trials side by side, in the order given, each of them once."""
    chosen = list({detail.row.number: detail for detail in details}.values())
    if len(chosen) < 2:
        return CompareInfo(reason="Choose two to four trials to compare: tick them in the table.")
    if len(chosen) > MOST_TRIALS:
        return CompareInfo(
            reason=f"At most {MOST_TRIALS} trials can be compared side by side, but {len(chosen)} are chosen: untick "
            f"{len(chosen) - MOST_TRIALS}."
        )
    rows = [*_outcome(chosen), *_paired(chosen), *_latencies(chosen), *_costs(chosen), *_settings(chosen)]
    return CompareInfo(tuple(detail.name for detail in chosen), tuple(rows), tuple(_ratios(chosen)))


def _line(section: str, label: str, values: Sequence[Any], text: Callable[[Any], str] | None = None) -> CompareRow:
    """Return a line; whether it differs is decided by the values, of which the texts may show less."""
    texts = tuple(NONE if value is None else text(value) if text else _text(value) for value in values)
    keys = {json.dumps(value, sort_keys=True, default=str) for value in values}
    return CompareRow(section, one_line(label, 80), texts, len(keys) > 1)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return one_line("-".join(map(str, value)), 200)
    return one_line(value, 200)


def _settings(chosen: Sequence[TrialDetail]) -> list[CompareRow]:
    configs = [detail.row.config.to_dict() | {"groups_3x3": detail.row.config.conv3x3_groups} for detail in chosen]
    rows = [_line("config", name.replace("_", " "), [config[name] for config in configs]) for name in configs[0]]
    trainings = [detail.row.training for detail in chosen]
    names = list(dict.fromkeys(name for training in trainings for name in training))
    rows += [
        _line("training", name.replace("_", " "), [training.get(name) for training in trainings]) for name in names
    ]
    return [*rows, _line("training", "seed", [detail.row.seed for detail in chosen], str)]


def _costs(chosen: Sequence[TrialDetail]) -> list[CompareRow]:
    names = {"macs": "macs", "params": "params", "paper_flops": "paper's FLOPs"}
    return [_counts(label, [getattr(detail.row, name) for detail in chosen]) for name, label in names.items()]


def _counts(label: str, values: Sequence[int]) -> CompareRow:
    """Return a line of counts in short, or as they are where two that differ would look alike."""
    distinct = set(values)
    return _line("cost", label, values, count if len(set(map(count, distinct))) == len(distinct) else None)


def _outcome(chosen: Sequence[TrialDetail]) -> list[CompareRow]:
    lines: dict[str, tuple[Callable[[TrialDetail], Any], Callable[[Any], str] | None]] = {
        "state": (lambda detail: detail.row.state, None),
        "reason": (lambda detail: detail.row.reason, None),
        **{f"{NAMES[name]}, validation": (_metric(name), percent) for name in METRICS},
        "loss, validation": (lambda detail: detail.row.val_loss, lambda loss: f"{loss:.4f}"),
        "top-1, test": (lambda detail: detail.row.test_top1, percent),
        "epochs": (lambda detail: len(detail.curve), None),
        "training time": (lambda detail: detail.row.train_seconds, duration),
        "attempts": (lambda detail: detail.row.attempt, None),
    }
    lines = {label: line for label, line in lines.items() if any(line[0](detail) is not None for detail in chosen)}
    return [_line("outcome", label, list(map(value, chosen)), text) for label, (value, text) in lines.items()]


def _metric(name: str) -> Callable[[TrialDetail], Any]:
    return lambda detail: getattr(detail.row, name)


def _paired(chosen: Sequence[TrialDetail]) -> Iterator[CompareRow]:
    """Yield how each trial compares with the first one image by image, where what both said of them is recorded."""
    first, objective = chosen[0].seen.validation, chosen[0].row.objective
    if first is None:
        return
    tests = [
        None if other is None or not same_images(first, other) else paired_test(other, first, objective)
        for other in (detail.seen.validation for detail in chosen[1:])
    ]
    if any(test is not None for test in tests):
        texts = [NONE if test is None else _paired_words(test) for test in tests]
        differs = any(test is not None and not test.within_noise for test in tests)
        label = f"{NAMES[objective]} against {chosen[0].name}, image by image"
        yield CompareRow("outcome", label, (NONE, *texts), differs)
        counts = [NONE if test is None else f"{test.only_first:,} and {test.only_second:,}" for test in tests]
        label = f"images that only it, and only {chosen[0].name}, recognises"
        yield CompareRow("outcome", label, (NONE, *counts), differs)


def _paired_words(test: PairedTest) -> str:
    return f"{test}: {'as good within noise' if test.within_noise else 'more than noise'}"


def _latencies(chosen: Sequence[TrialDetail]) -> list[CompareRow]:
    """Return two lines for each device: the latencies, and what they are; two kinds of them can't be compared."""
    by_trial: list[Mapping[str, LatencyRecord]] = [detail.row.latencies for detail in chosen]
    targets = list(dict.fromkeys(target for latencies in by_trial for target in latencies))
    rows = []
    for target in targets:
        records = [latencies.get(target) for latencies in by_trial]
        values = [None if row is None else f"{digits_ms(row.median_ms, 4)} {interval_text(row)}" for row in records]
        kinds = [None if row is None else f"{latency_label(row)}, {place_label(row)}" for row in records]
        rows.append(_line("latency", f"ms on {target}", values))
        rows.append(_line("latency", f"what it is on {target}", kinds))
    return rows


def _ratios(chosen: Sequence[TrialDetail]) -> list[RatioRow]:
    first = chosen[0].row
    rows = [
        RatioRow(f"errors (1 - {NAMES[first.objective]})", _over([_error(detail.row.score) for detail in chosen])),
        RatioRow("macs", _over([detail.row.macs for detail in chosen])),
        RatioRow("params", _over([detail.row.params for detail in chosen])),
        RatioRow("training time", _over([detail.row.train_seconds for detail in chosen])),
    ]
    for target, latency in first.latencies.items():
        others = [detail.row.latencies.get(target) for detail in chosen]
        medians = [None if row is None or not _comparable(latency, row) else row.median_ms for row in others]
        rows.insert(1, RatioRow(one_line(f"{kind_words(latency)} latency on {target}", 60), _over(medians)))
    return [row for row in rows if sum(map(math.isfinite, row.ratios)) > 1]


def _error(score: float | None) -> float | None:
    return None if score is None else 1 - score


def _comparable(first: LatencyRecord, second: LatencyRecord) -> bool:
    names = ("kind", "device", "runtime", "runtime_version", "threads")
    return all(getattr(first, name) == getattr(second, name) for name in names)


def _over(values: Sequence[float | None]) -> tuple[float, ...]:
    numbers = [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]
    return tuple(number / numbers[0] if numbers[0] > 0 else math.nan for number in numbers)


# ---- the figure -----------------------------------------------------------------------------------------


def compare_figure(info: CompareInfo) -> Any:
    """Return each trial's figures as ratios to the first trial's."""
    if info.reason is not None:
        return message(info.reason)
    if not info.ratios:
        return message("These trials have no figure in common yet.")
    figure = empty_figure(130 + 44 * len(info.ratios))
    places = np.arange(len(info.ratios))
    ratios = [ratio for row in info.ratios for ratio in row.ratios if math.isfinite(ratio)]
    close = all(1 / CLOSE <= ratio <= CLOSE for ratio in ratios)  # a logarithmic axis would have one tick
    same = 0 if close else 1
    for index, name in enumerate(info.names):
        lane = 0.16 * (index - (len(info.names) - 1) / 2)
        figure.add_scatter(
            x=slim([100 * (row.ratios[index] - 1) if close else row.ratios[index] for row in info.ratios]),
            y=slim(places + lane),
            mode="markers",
            name=name,
            marker={"symbol": SYMBOLS[index], "size": 11, "color": COLOURS[index]},
            customdata=slim([row.ratios[index] for row in info.ratios]),
            hovertemplate=f"<b>{name}</b>: %{{customdata:.3~f}} times as much as {info.names[0]}<extra></extra>",
        )
    line = {"color": GREY, "width": 1.5}
    figure.add_shape(type="line", x0=same, x1=same, y0=0, y1=1, yref="paper", line=line, layer="below")
    figure.update_layout(
        xaxis=_close_axis(info, ratios) if close else _wide_axis(info),
        yaxis={
            "tickvals": places,
            "ticktext": [escaped(row.label) for row in info.ratios],
            "range": [len(places) - 0.5, -0.5],
            "showgrid": False,
        },
        legend={"y": -60 / figure.layout.height},
    )
    return figure


def _close_axis(info: CompareInfo, ratios: Sequence[float]) -> dict[str, Any]:
    """Return the axis of differences in %, which reaches at least one per cent either way."""
    reach = 1.15 * max(1.0, *(100 * abs(ratio - 1) for ratio in ratios))
    return {
        "title": {"text": f"difference to {info.names[0]}, %"},
        "range": [-reach, reach],
        "tickformat": "+~g",
        "nticks": 9,
    }


def _wide_axis(info: CompareInfo) -> dict[str, Any]:
    return {
        "type": "log",
        "title": {"text": f"times as much as {info.names[0]}"},
        "dtick": "D2",
        "tickformat": "~g",
    }
