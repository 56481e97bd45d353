"""What the read commands print: rich tables that fit 80 columns and stay plain text where there is no terminal.

Everything from files or users goes in as `Text`, never as markup. What latencies have in common (kind, policy, device)
stands once below a table; where they differ, every row says its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.formats import (
    NOTHING,
    STATE_STYLES,
    budget_text,
    count,
    digits_ms,
    duration,
    interval_text,
    latency_label,
    latency_text,
    one_line,
    percent,
    place_label,
    shared_label,
)
from search.store.reader import AttemptRow, EventRow, StudyRow, StudyStatus, TrialRow
from search.store.vocabulary import STATES

CURVE_ROWS = 12  # of a longer learning curve, so many are shown


def plain_table(*headers: str) -> Table:
    """A table of columns that keep their width; `>` marks right-aligned ones, `~` those that fold where narrow."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        folds = header.startswith("~")
        table.add_column(
            header.lstrip(">~"),
            justify="right" if header.startswith(">") else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
        )
    return table


def _with_note(table: Table, rows: Sequence[TrialRow], empty: str) -> RenderableType:
    if not rows:
        return Text(empty)
    shared = shared_label(rows)
    if not shared:
        return table
    return Group(table, Text(f"latency: median [95 % interval] in ms, {shared}", style="dim"))


def _latency_cell(row: TrialRow, mixed: bool) -> Text:
    cell = Text(latency_text(row.latency))
    if mixed and row.latency is not None:
        cell.append(f"\n{latency_label(row.latency)}", style="dim")
    for other in row.others:
        label = f", {latency_label(other)}" if mixed else ""
        cell.append(f"\n{latency_text(other)}\non {one_line(other.target, 24)}{label}", style="dim")
    return cell


def _config_cell(row: TrialRow, mixed: bool) -> Text:
    cell = Text(str(row.config))
    if row.duplicate_of is not None:
        cell.append(f"\nsame as trial {row.duplicate_of}", style="dim")
    elif row.reason:
        cell.append(f"\n{one_line(row.reason, 160)}", style="dim")
    if mixed and row.latency is not None:
        cell.append(f"\non {place_label(row.latency)}", style="dim")
    return cell


def state_text(state: str) -> Text:
    """Return a state in its calm colour."""
    return Text(one_line(state, 20), style=STATE_STYLES.get(state, ""))


def trials_table(rows: Sequence[TrialRow]) -> RenderableType:
    """Return the trials, one row each; a reason stands under the config it is about."""
    table = plain_table(">#", "~config", ">macs", ">latency ms", ">top-1", "state")
    mixed = shared_label(rows) is None
    for row in rows:
        table.add_row(
            str(row.number),
            _config_cell(row, mixed),
            count(row.macs),
            _latency_cell(row, mixed),
            percent(row.top1),
            state_text(row.state),
        )
    return _with_note(table, rows, "No trials.")


def pareto_table(rows: Sequence[TrialRow]) -> RenderableType:
    """Return the front, in the order given: each network is beaten by no other in all of top-1, latency and macs."""
    table = plain_table(">#", "~config", ">top-1", ">latency ms", ">macs", ">params")
    mixed = shared_label(rows) is None
    for row in rows:
        table.add_row(
            str(row.number),
            _config_cell(row, mixed),
            percent(row.top1),
            _latency_cell(row, mixed),
            count(row.macs),
            count(row.params),
        )
    return _with_note(table, rows, "The front is empty: no trained network has a latency yet.")


def studies_table(rows: Sequence[StudyRow]) -> RenderableType:
    """Return the studies, one row each."""
    if not rows:
        return Text("No studies.")
    table = plain_table("~study", "created (UTC)", ">trainings", "~data", "~budget", "~run by")
    for row in rows:
        part = row.settings.get("study") or {}
        table.add_row(
            Text(one_line(row.name)),
            moment(row.created_at),
            str(part.get("trainings", NOTHING)),
            Text(dataset_text(row)),
            budget_text(row.settings),
            Text(one_line((row.controller or "nobody").partition("@")[0], 40)),
        )
    return table


def status_panel(study: StudyRow, standing: StudyStatus, now: float | None = None) -> RenderableType:
    """Return how a study stands: trials by state, who runs it, what every worker is at, what went wrong last.

    Ages are those at `now`, UTC seconds since 1970; None = this moment.
    """
    at, counts, waiting = time.time() if now is None else now, standing.counts, standing.waiting
    wanted = (study.settings.get("study") or {}).get("trainings")
    facts: list[tuple[str, str | Text]] = [
        ("study", Text(one_line(study.name), style="bold")),
        ("created", f"{moment(study.created_at)} UTC"),
        ("data", dataset_text(study)),
        ("budget", budget_text(study.settings)),
        ("trainings", _trainings_text(counts, wanted)),
        ("trials", _counts_text(counts)),
    ]
    if waiting:
        facts.append(("waiting", f"{waiting} enqueued {'config' if waiting == 1 else 'configs'}"))
    if study.controller:
        ago = "" if study.controller_seen_at is None else f", last seen {_age(study.controller_seen_at, at)} ago"
        facts.append(("run by", f"{study.controller.partition('@')[0]}{ago}"))
    else:
        facts.append(("run by", "nobody at the moment"))
    if study.stop_requested:
        facts.append(("stop", "asked for"))
    parts: list[RenderableType] = [_facts(facts)]
    if standing.running:
        parts += [Text("\nRunning", style="bold"), _running_table(standing.running, at)]
    if standing.events:
        parts += [Text("\nNewest events", style="bold"), _events_table(standing.events, at)]
    return Group(*parts)


def _trainings_text(counts: Mapping[str, int], wanted: int | None) -> str:
    """Return "12 of 16 done, 3 of them ended early"."""
    done, early = counts.get("done", 0) + counts.get("pruned", 0), counts.get("pruned", 0)
    of, which = f" of {wanted}" if wanted else "", f", {early} of them ended early" if early else ""
    return f"{done}{of} done{which}"


def _running_table(running: Sequence[AttemptRow], now: float) -> Table:
    table = plain_table(">trial", ">attempt", "~worker", "~controller", ">heard", ">epochs")
    for one in running:
        table.add_row(
            str(one.number),
            str(one.attempt),
            Text(one_line(one.worker or NOTHING)),
            Text(one_line(one.owner.partition("@")[0])),
            f"{_age(one.heartbeat_at, now)} ago",
            str(one.epochs),
        )
    return table


def _events_table(events: Sequence[EventRow], now: float) -> Table:
    table = plain_table(">ago", "kind", ">trial", "~detail")
    for one in events:
        number = NOTHING if one.number is None else str(one.number)
        table.add_row(_age(one.at, now), Text(one_line(one.kind, 20)), number, Text(one_line(one.detail, 300)))
    return table


def _age(then: float, now: float) -> str:
    return duration(max(0.0, now - then))  # the clocks of two hosts may differ


def trial_panel(
    row: TrialRow,
    curve: Sequence[Mapping[str, Any]],
    latencies: Sequence[Mapping[str, Any]],
    artifacts: Mapping[str, Mapping[str, Any]],
) -> RenderableType:
    """Return everything about one trial: architecture, cost, outcome, measurements, learning curve, files."""
    parts: list[RenderableType] = [_facts(_trial_facts(row))]
    if latencies:
        parts += [Text("\nMeasurements", style="bold"), _latencies_table(latencies)]
    if curve:
        parts += [Text("\nLearning curve", style="bold"), _curve_table(curve)]
    if artifacts:
        parts += [Text("\nFiles", style="bold"), _artifacts_list(artifacts)]
    return Group(*parts)


def moment(unix_s: float | None) -> str:
    """Return a time as "2026-01-31 13:05" in UTC."""
    return NOTHING if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def _trial_facts(row: TrialRow) -> list[tuple[str, str | Text]]:
    facts: list[tuple[str, str | Text]] = [
        ("trial", Text(str(row.number), style="bold")),
        ("state", state_text(row.state)),
        ("config", str(row.config)),
        ("images", f"{'x'.join(map(str, row.config.input_shape))}, {row.config.num_classes} classes"),
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
    if row.test_top1 is not None:
        facts.append(("", f"{percent(row.test_top1)} of the test images"))
    if row.reason:
        facts.append(("reason", row.reason))
    if row.duplicate_of is not None:
        facts.append(("same as", f"trial {row.duplicate_of}"))
    facts.append(("training", ", ".join(f"{name} {value}" for name, value in row.training.items()) or NOTHING))
    facts.append(("seed", f"{row.seed} ({row.origin}, attempt {row.attempt})"))
    if row.train_seconds is not None:
        facts.append(("took", duration(row.train_seconds)))
    return facts


def _facts(facts: Sequence[tuple[str, str | Text]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, value if isinstance(value, Text) else Text(one_line(value)))
    return grid


def _counts_text(counts: Mapping[str, int]) -> Text:
    text = Text()
    for state in STATES:
        if counts.get(state):
            text.append(", " if text else "")
            text.append(f"{counts[state]} {state}", style=STATE_STYLES[state])
    return text or Text("none yet")


def dataset_text(study: StudyRow, longest: int = 60, nothing: str = NOTHING) -> str:
    """Return what a study's images are called, as one line; `nothing` where that isn't known."""
    name = (study.settings.get("data") or {}).get("dataset")
    return one_line((study.data_info or {}).get("dataset") or name or nothing, longest)


def study_subtitle(study: StudyRow) -> str:
    """Return what stands below a study's name: "Digits · budget: latency 0.4 ms · begun 2026-01-31 13:05 UTC"."""
    data, budget = dataset_text(study, 80, ""), f"budget: {budget_text(study.settings)}"
    return " · ".join(filter(None, (data, budget, f"begun {moment(study.created_at)} UTC")))


def _latencies_table(latencies: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table("purpose", ">median ms", ">95 % interval", ">p90 ms", "~kind", "~device")
    for entry in latencies:
        interval = f"[{digits_ms(entry['interval_low_ms'], 4)}, {digits_ms(entry['interval_high_ms'], 4)}]"
        kind = entry["kind"] + (", quick" if entry["policy"] == "quick" else "")
        outside = "\nextrapolated" if entry["extrapolates"] else ""
        table.add_row(
            Text(one_line(entry["purpose"])),
            digits_ms(entry["median_ms"], 4),
            interval,
            digits_ms(entry["p90_ms"], 4),
            Text(one_line(kind) + ("" if entry["steady"] else "\nnot steady") + outside),
            Text(one_line(entry["device"])),
        )
    return table


def _curve_table(curve: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = plain_table(">epoch", ">top-1", ">val loss", ">train loss", ">stage", "form", ">after")
    shown = [row for index, row in enumerate(curve) if _is_shown(index, curve)]
    for row in shown:
        table.add_row(
            str(row["epoch"]),
            percent(row["val_top1"]),
            f"{row['val_loss']:.4f}",
            f"{row['train_loss']:.4f}",
            str(row["condensing_stage"]),
            Text(one_line(row["form"])),
            duration(row["seconds"]),
        )
    if len(shown) == len(curve):
        return table
    return Group(table, Text(f"{len(shown)} of {len(curve)} epochs shown; all of them with --json", style="dim"))


def _is_shown(index: int, curve: Sequence[Mapping[str, Any]]) -> bool:
    """Of a long curve: the ends, evenly spaced epochs, and each first epoch of a condensing stage or form."""
    last = len(curve) - 1
    if last < CURVE_ROWS or index in (0, last) or index % (len(curve) // CURVE_ROWS + 1) == 0:
        return True
    before, here = curve[index - 1], curve[index]
    return any(before[name] != here[name] for name in ("condensing_stage", "form"))


def _artifacts_list(artifacts: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """One file a line, never broken: a path is there to be copied."""
    lines = [
        f"{entry['path']}{' (removed by the retention rule)' if entry['removed'] else ''}"
        for _, entry in sorted(artifacts.items())
    ]
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")
