"""One trial in tables: how it went, its exact settings, its files, its attempts and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import count, duration, latency_label, latency_text, moment, one_line, percent, place_label
from dashboards.panels.data_table import DataTable
from search.store.transactions import shown

LONGEST = 300


def trial_tables(detail: TrialDetail) -> dict[str, DataTable]:
    """Return the tables of a trial by their titles, in the order in which a page shows them."""
    return {
        "Outcome": outcome_table(detail),
        "Settings": settings_table(detail),
        "Learning curve": curve_table(detail),
        "Files": files_table(detail),
        "Attempts": attempts_table(detail),
        "Events": events_table(detail),
    }


def outcome_table(detail: TrialDetail) -> DataTable:
    """How a trial went."""
    row = detail.row
    lines = [
        ("state", row.state if row.duplicate_of is None else f"{row.state} of trial {row.duplicate_of}"),
        ("why", one_line(row.reason or "-", LONGEST)),
        ("config", str(row.config)),
        ("origin", row.origin),
        ("top-1, validation", f"{percent(row.top1)}, of the deployed network"),
        ("loss, validation", "-" if row.val_loss is None else f"{row.val_loss:.4f}"),
        ("top-1, test", "not tested" if row.test_top1 is None else percent(row.test_top1)),
        ("macs", f"{row.macs:,} ({count(row.macs)})"),
        ("params", f"{row.params:,} ({count(row.params)})"),
        ("paper FLOPs", f"{row.paper_flops:,} (macs, ReLU elements, pooling and bias, as in the paper's tables)"),
    ]
    for target, latency in row.latencies.items():
        label = f"{latency_text(latency)} ms, {latency_label(latency)}, {place_label(latency)}"
        lines.append((one_line(f"latency on {target}", 120), label))
    lines += [
        ("training time", duration(row.train_seconds)),
        ("peak memory", "-" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f} MB"),
        ("asked, started, finished", ", ".join(_when(at) for at in (row.asked_at, row.started_at, row.finished_at))),
    ]
    return DataTable(("", detail.name), tuple(lines))


def settings_table(detail: TrialDetail) -> DataTable:
    """Everything that decides a trial's result: what another one must have to be its duplicate."""
    row = detail.row
    parts: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("config", row.config.to_dict()),
        ("training", row.training),
        ("data", detail.data),
        ("", {"seed": row.seed, "identity": row.identity}),
    )
    rows = [(part, one_line(name, 80), _json(value)) for part, values in parts for name, value in values.items()]
    return DataTable(("", "setting", "value"), tuple(rows))


def settings_json(detail: TrialDetail) -> str:
    """Return the exact settings as JSON, to copy."""
    row = detail.row
    exact = {"config": row.config.to_dict(), "training": row.training, "data": dict(detail.data), "seed": row.seed}
    return json.dumps(exact, indent=2, ensure_ascii=False, default=str)


def curve_table(detail: TrialDetail) -> DataTable:
    """The learning curve by epoch."""
    headers = ("epoch", "top-1, validation", "loss, validation", "loss, training", "learning rate", "stage", "form")
    rows = (
        (
            str(one["epoch"]),
            percent(one["val_top1"]),
            f"{one['val_loss']:.4f}",
            f"{one['train_loss']:.4f}",
            f"{one['learning_rate']:.4g}",
            str(one["condensing_stage"]),
            one_line(one["form"], 20),
        )
        for one in detail.curve
    )
    return DataTable.of(headers, rows, len(detail.curve))


def files_table(detail: TrialDetail) -> DataTable:
    """The files, and whether a rule removed them."""
    fate = {True: "removed by the retention rule", False: "kept"}
    rows = (
        (one_line(one.name, 100), one_line(one.path, LONGEST), one.sha256, fate[bool(one.removed)])
        for one in detail.files
    )
    return DataTable(("file", "path", "SHA-256", ""), tuple(rows))


def attempts_table(detail: TrialDetail) -> DataTable:
    """Who trained it, when, and how each attempt ended."""
    headers = ("attempt", "controller", "worker", "started", "ended", "epochs", "outcome", "why")
    rows = (
        (
            str(one.attempt),
            one_line(shown(one.owner), 100),
            one_line(one.worker or "-", 100),
            _when(one.started_at),
            _when(one.ended_at),
            str(one.epochs),
            one.outcome or "running",
            one_line(one.reason or "-", LONGEST),
        )
        for one in detail.attempts
    )
    return DataTable(headers, tuple(rows))


def events_table(detail: TrialDetail) -> DataTable:
    """What went wrong with it, the newest first."""
    rows = (
        (_when(one.at), one_line(one.kind, 40), str(one.attempt or "-"), one_line(one.detail, LONGEST))
        for one in detail.events
    )
    return DataTable(("when (UTC)", "what", "attempt", "detail"), tuple(rows))


def _when(at: float | None) -> str:
    return "-" if at is None else moment(at)


def _json(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str), LONGEST)
