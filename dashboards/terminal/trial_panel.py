"""What `show` prints: everything about one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.data.metrics import class_lines, metric_lines
from dashboards.formats import (
    NOTHING,
    STARRED,
    common_label,
    count,
    digits_ms,
    duration,
    images_rate,
    interval_text,
    latency_label,
    one_line,
    percent,
    place_label,
    progress_text,
)
from dashboards.terminal.tables import facts_table, plain_table, state_text
from search.results.remarks import NOTHING_SEEN, Seen
from search.store.replayed import replayed_note
from search.store.rows import TrialRow
from space.config import code_legend
from workers.latency.record import LatencyRecord
from workers.metrics import NAMES, Objective, Predictions
from workers.training.reporting import ProgressReport
from workers.wording import counted

CLASS_ROWS = 12  # so many classes are shown
CURVE_ROWS = 12  # so many epochs of a longer learning curve are shown


def trial_panel(
    row: TrialRow,
    curve: Sequence[Mapping[str, Any]],
    latencies: Sequence[LatencyRecord],
    artifacts: Mapping[str, Mapping[str, Any]],
    report: ProgressReport | None = None,
    *,
    replayed: str | None = None,
    why: Sequence[str] = (),
    seen: Seen = NOTHING_SEEN,
) -> RenderableType:
    """Return everything about one trial: architecture, cost, outcome, measurements, learning curve, files.

    `report` is how far a running one is, `replayed` the table that stands in for its training, `why` the reasons for
    which it was proposed, `seen` what its network said of the images.
    """
    facts = _trial_facts(row, report)
    facts[2:2] = [("" if place else "proposed", text) for place, text in enumerate(why)]
    if replayed is not None:
        facts.append(("", replayed_note(replayed)))
    facts += [("" if place else "note", text) for place, text in enumerate(seen.remarks)]
    parts: list[RenderableType] = [facts_table(facts)]
    if seen.validation is not None:
        parts += [Text("\nClasses, validation images", style="bold"), _classes_table(seen.validation, seen.class_names)]
    if latencies:
        parts += [Text("\nMeasurements", style="bold"), _latencies_table(latencies)]
    if curve:
        parts += [Text("\nLearning curve", style="bold"), _curve_table(curve, row.objective)]
    if artifacts:
        parts += [Text("\nFiles", style="bold"), _artifacts_list(artifacts)]
    return Group(*parts)


def _trial_facts(row: TrialRow, report: ProgressReport | None) -> list[tuple[str, str | Text]]:
    facts: list[tuple[str, str | Text]] = [
        ("trial", Text(str(row.number), style="bold")),
        ("state", state_text(row.state)),
        *([("shortlist", STARRED)] if row.starred else []),
        *[("" if place else "your note", line) for place, line in enumerate(row.note.splitlines())],
        *([("progress", progress_text(report, row.training.get("epochs")))] if report is not None else []),
        ("config", str(row.config)),
        ("", Text(code_legend([str(row.config)]), style="dim")),
        (
            "images",
            f"{'x'.join(map(str, row.config.input_shape))}, {counted(row.config.num_classes, 'class', 'classes')}",
        ),
        ("macs", f"{count(row.macs)} ({row.macs:,})"),
        ("params", f"{count(row.params)} ({row.params:,})"),
    ]
    if row.latency is not None:
        facts += [
            ("latency", f"{digits_ms(row.latency.median_ms, 4)} ms, 95 % interval {interval_text(row.latency)}"),
            ("", f"{latency_label(row.latency)}, on {place_label(row.latency)}"),
        ]
    for other in row.others:
        facts += [
            ("and", f"{digits_ms(other.median_ms, 4)} ms, 95 % interval {interval_text(other)}"),
            ("", f"{latency_label(other)}, on {place_label(other)}"),
        ]
    if row.top1 is not None:
        facts.append(("top-1", f"{percent(row.top1)} of the validation images, deployed network"))
        facts += [(name, value) for name, value in metric_lines(row) if name != NAMES["top1"]]
    if row.test_top1 is not None:
        facts.append(("", f"{percent(row.test_top1)} of the test images"))
    if row.reason:
        facts.append(("reason", row.reason))
    if row.duplicate_of is not None:
        facts.append(("same as", f"trial {row.duplicate_of}"))
    if row.continues is not None:
        facts.append(("continues", f"trial {row.continues}, which had been ended early, as one training"))
    facts.append(("training", ", ".join(f"{name} {value}" for name, value in row.training.items()) or NOTHING))
    facts.append(("seed", f"{row.seed} ({row.origin}, attempt {row.attempt})"))
    if row.train_seconds is not None:
        facts.append(("took", duration(row.train_seconds)))
    return facts


def _classes_table(predictions: Predictions, names: Sequence[str]) -> RenderableType:
    table = plain_table("~class", ">images", ">recall", ">precision", "~most often taken for")
    lines = class_lines(predictions, names, CLASS_ROWS)
    for line in lines:
        table.add_row(*map(Text, line))
    classes = int((predictions.images_of_class > 0).sum())
    if len(lines) == classes:
        return table
    rest = (
        f"the {len(lines)} least recognised of {classes:,} classes; all of them, and the confusion matrix, with --json"
    )
    return Group(table, Text(rest, style="dim"))


def _latencies_table(latencies: Sequence[LatencyRecord]) -> Table:
    table = plain_table("purpose", ">median ms", ">95 % interval", ">p90 ms", "~kind", "~device")
    for latency in latencies:
        outside = "\nextrapolated" if latency.extrapolates else ""
        table.add_row(
            Text(one_line(latency.purpose)),
            digits_ms(latency.median_ms, 4),
            interval_text(latency),
            digits_ms(latency.p90_ms, 4),
            Text(common_label(latency) + ("" if latency.steady else "\nnot steady") + outside),
            Text(one_line(latency.device)),
        )
    return table


def _curve_table(curve: Sequence[Mapping[str, Any]], objective: Objective) -> RenderableType:
    table = plain_table(
        ">epoch", f">{NAMES[objective]}", ">val loss", ">train loss", ">stage", "form", ">images/s", ">after"
    )
    rows = [row for index, row in enumerate(curve) if _is_shown(index, curve)]
    for row in rows:
        table.add_row(
            str(row["epoch"]),
            percent(row[f"val_{objective}"]),
            f"{row['val_loss']:.4f}",
            f"{row['train_loss']:.4f}",
            str(row["condensing_stage"]),
            Text(one_line(row["form"])),
            images_rate(row["images_per_s"]).removesuffix(" images/s"),
            duration(row["seconds"]),
        )
    if len(rows) == len(curve):
        return table
    return Group(table, Text(f"{len(rows)} of {len(curve)} epochs shown; all of them with --json", style="dim"))


def _is_shown(index: int, curve: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an epoch of a long curve is shown: ends, evenly spaced ones, the first of each stage and form."""
    last = len(curve) - 1
    if last < CURVE_ROWS or index in (0, last) or index % (len(curve) // CURVE_ROWS + 1) == 0:
        return True
    before, here = curve[index - 1], curve[index]
    return any(before[name] != here[name] for name in ("condensing_stage", "form"))


def _artifacts_list(artifacts: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Return one file a line, never wrapped: a path is there to be copied."""
    lines = [
        f"{entry['path']}{' (removed by the retention rule)' if entry['removed'] else ''}"
        for _, entry in sorted(artifacts.items())
    ]
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")
