"""One trial in tables: its outcome, its exact settings, its curve, its files, its attempts and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dashboards.data.beliefs import origin_text, reached_text
from dashboards.data.metrics import CLASS_HEADERS, class_lines, metric_lines
from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import (
    count,
    duration,
    images_rate,
    latency_label,
    latency_text,
    moment,
    one_line,
    percent,
    place_label,
)
from dashboards.panels.data_table import DataTable
from workers.metrics import NAMES
from workers.processes import host_and_pid

LONGEST = 300  # characters of a reason, a path or a value


def trial_tables(detail: TrialDetail) -> dict[str, DataTable]:
    """Return the tables of a trial by their titles, in the order in which a page shows them."""
    return {
        "Outcome": outcome_table(detail),
        "Classes": classes_table(detail),
        "Settings": settings_table(detail),
        "Learning curve": curve_table(detail),
        "Files": files_table(detail),
        "Attempts": attempts_table(detail),
        "Events": events_table(detail),
    }


def outcome_table(detail: TrialDetail) -> DataTable:
    """Return how a trial went."""
    row = detail.row
    lines = [
        ("state", row.state if row.duplicate_of is None else f"{row.state} of trial {row.duplicate_of}"),
        *([] if row.continues is None else [("continues", f"trial {row.continues}, as one training with it")]),
        ("reason", one_line(row.reason or "-", LONGEST)),
        ("config", str(row.config)),
        ("origin", row.origin),
        ("why it was proposed", origin_text(row, detail.proposal, detail.settings)),
        ("against that prediction", reached_text(row, detail.proposal) or "-"),
        ("top-1, validation", f"{percent(row.top1)}, of the deployed network"),
        *((f"{name}, validation", value) for name, value in metric_lines(row) if name != NAMES["top1"]),
        ("loss, validation", "-" if row.val_loss is None else f"{row.val_loss:.4f}"),
        ("top-1, test", "not tested" if row.test_top1 is None else percent(row.test_top1)),
        ("macs", f"{row.macs:,} ({count(row.macs)})"),
        ("params", f"{row.params:,} ({count(row.params)})"),
        ("paper FLOPs", f"{row.paper_flops:,} (macs, ReLU elements, pooling and bias, as in the paper's tables)"),
    ]
    for target, latency in row.latencies.items():
        label = f"{latency_text(latency)} ms, {latency_label(latency)}, {place_label(latency)}"
        lines.append((one_line(f"latency on {target}", 120), label))
    if row.expected_score is not None:
        name = f"{NAMES[row.objective]}, expected"
        lines.append((name, f"{percent(row.expected_score)}, had it been trained to its end"))
    lines += [
        ("training time", duration(row.train_seconds)),
        ("peak memory", "-" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f} MB"),
        ("asked, started, finished", ", ".join(moment(at) for at in (row.asked_at, row.started_at, row.finished_at))),
    ]
    return DataTable(("", detail.name), tuple(lines))


def classes_table(detail: TrialDetail) -> DataTable:
    """Return what the network makes of each class of the validation images, the least recognised first."""
    predictions = detail.seen.validation
    if predictions is None:
        return DataTable(CLASS_HEADERS)
    classes = len(predictions.images_of_class)
    lines = class_lines(predictions, detail.seen.class_names, classes)
    return DataTable.of(CLASS_HEADERS, lines, len(lines))


def settings_table(detail: TrialDetail) -> DataTable:
    """Return everything that decides a trial's result; a trial with all of this is its duplicate."""
    row = detail.row
    sections: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("config", row.config.to_dict()),
        ("training", row.training),
        ("data", detail.data),
        ("", {"seed": row.seed, "identity": row.identity}),
    )
    rows = [
        (section, one_line(name, 80), _json(value)) for section, values in sections for name, value in values.items()
    ]
    return DataTable(("", "setting", "value"), tuple(rows))


def settings_json(detail: TrialDetail) -> str:
    """Return the exact settings as JSON, to be copied."""
    row = detail.row
    exact = {"config": row.config.to_dict(), "training": row.training, "data": dict(detail.data), "seed": row.seed}
    return json.dumps(exact, indent=2, ensure_ascii=False, default=str)


def curve_table(detail: TrialDetail) -> DataTable:
    """Return the learning curve, epoch by epoch."""
    shown = tuple(dict.fromkeys((detail.row.objective, "top1")))
    headers = (
        "epoch",
        *(f"{NAMES[name]}, validation" for name in shown),
        "loss, validation",
        "loss, training",
        "learning rate",
        "stage",
        "form",
        "images/s",
    )
    rows = (
        (
            str(epoch["epoch"]),
            *(percent(epoch[f"val_{name}"]) for name in shown),
            f"{epoch['val_loss']:.4f}",
            f"{epoch['train_loss']:.4f}",
            f"{epoch['learning_rate']:.4g}",
            str(epoch["condensing_stage"]),
            one_line(epoch["form"], 20),
            images_rate(epoch["images_per_s"]).removesuffix(" images/s"),
        )
        for epoch in detail.curve
    )
    return DataTable.of(headers, rows, len(detail.curve))


def files_table(detail: TrialDetail) -> DataTable:
    """Return the files, and whether the retention rule removed them."""
    fate = {True: "removed by the retention rule", False: "kept"}
    rows = (
        (one_line(file.name, 100), one_line(file.path, LONGEST), file.sha256, fate[bool(file.removed)])
        for file in detail.files
    )
    return DataTable(("file", "path", "SHA-256", ""), tuple(rows))


def attempts_table(detail: TrialDetail) -> DataTable:
    """Return who trained the trial when, and how each attempt ended."""
    headers = ("attempt", "controller", "worker", "started", "ended", "epochs", "outcome", "reason")
    rows = (
        (
            str(attempt.attempt),
            one_line(host_and_pid(attempt.owner), 100),
            one_line(attempt.worker or "-", 100),
            moment(attempt.started_at),
            moment(attempt.ended_at),
            str(attempt.epochs),
            attempt.outcome or "running",
            one_line(attempt.reason or "-", LONGEST),
        )
        for attempt in detail.attempts
    )
    return DataTable(headers, tuple(rows))


def events_table(detail: TrialDetail) -> DataTable:
    """Return what went wrong with the trial, the newest first."""
    rows = (
        (moment(event.at), one_line(event.kind, 40), str(event.attempt or "-"), one_line(event.detail, LONGEST))
        for event in detail.events
    )
    return DataTable(("when (UTC)", "event", "attempt", "detail"), tuple(rows))


def _json(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str), LONGEST)
