"""What `status` prints: the studies of a database, or the status of one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.data.study_settings import budget_text, dataset_text
from dashboards.data.time_left import study_left_s
from dashboards.formats import (
    NOTHING,
    STATE_STYLES,
    digits_ms,
    duration,
    epoch_text,
    images_rate,
    moment,
    one_line,
    percent,
    whole_duration,
)
from dashboards.studies.overview import Summary
from dashboards.terminal.tables import facts_table, plain_table
from search.store.reader import objective_of
from search.store.replayed import replayed_from, replayed_note, replayed_words
from search.store.rows import AttemptRow, EnqueuedConfig, EventRow, StudyRow, StudyStatus
from search.store.vocabulary import STATES, TrialState
from space.config import code_legend
from workers.metrics import NAMES
from workers.processes import host_and_pid
from workers.wording import counted, of_wanted


def studies_table(studies: Sequence[Summary]) -> RenderableType:
    """Return the studies, one row each, as the page lists them."""
    if not studies:
        return Text("No studies.")
    table = plain_table("~study", "state", ">best", ">its ms", ">trainings", ">newest", "~data")
    for one in studies:
        row, best = one.study, one.best
        trainings = one.activity.trainings
        table.add_row(
            Text(one_line(row.name)),
            str(one.state),
            NOTHING if best is None else percent(best.score),
            NOTHING if best is None else digits_ms(best.latency_ms, 4),
            str(trainings) if one.wanted is None else f"{trainings} of {one.wanted}",
            f"{_largest_unit(time.time() - (one.activity.newest_at or row.created_at))} ago",
            Text(", ".join(filter(None, (dataset_text(row), replayed_words(replayed_from(row.settings)))))),
        )
    note = "best: the best network within the study's own budget, by what it maximises, and its median latency"
    return Group(table, Text(note, style="dim"))


def status_panel(study: StudyRow, status: StudyStatus, now: float | None = None, state: str = "") -> RenderableType:
    """Return a study's status: trials by state, who runs it, what each worker does, what went wrong last.

    Ages are those at `now`, UTC seconds since 1970; None = this moment. `state` is its state in words.
    """
    at, counts, waiting = time.time() if now is None else now, status.counts, status.waiting
    wanted = (study.settings.get("study") or {}).get("trainings")
    replayed = replayed_note(replayed_from(study.settings))
    facts: list[tuple[str, str | Text]] = [
        ("study", Text(one_line(study.name), style="bold")),
        *([("state", state)] if state else []),
        ("created", f"{moment(study.created_at)} UTC"),
        ("data", dataset_text(study)),
        *([("", replayed)] if replayed else []),
        ("maximises", NAMES[objective_of(study.settings)]),
        ("budget", budget_text(study.settings)),
        ("trainings", _trainings_text(status, wanted)),
        ("trials", _counts_text(counts)),
    ]
    if waiting:
        facts.append(("waiting", counted(waiting, "enqueued config")))
    if study.controller:
        ago = "" if study.controller_seen_at is None else f", last seen {_age(study.controller_seen_at, at)} ago"
        facts.append(("run by", f"{host_and_pid(study.controller)}{ago}"))
    else:
        facts.append(("run by", "no one at the moment"))
    left_s = study_left_s(study, status)
    if study.controller and left_s is not None:
        facts.append(("time left", f"about {whole_duration(left_s)}, at the speed of its trainings so far"))
    if study.stop_requested:
        facts.append(("stop", "asked for"))
    parts: list[RenderableType] = [facts_table(facts)]
    if status.running:
        parts += [Text("\nRunning", style="bold"), _running_table(status.running, at)]
        if any(attempt.report for attempt in status.running):
            parts += [Text("\nProgress", style="bold"), _progress_table(status.running)]
    if status.events:
        parts += [Text("\nNewest events", style="bold"), _events_table(status.events, at)]
    return Group(*parts)


def _trainings_text(status: StudyStatus, wanted: int | None) -> str:
    """Return "12 of 16 done, 3 of them ended early"."""
    early = status.trainings - status.counts.get(TrialState.DONE, 0)
    done = f"{status.trainings} done" if not wanted else of_wanted(status.trainings, wanted, verb="done")
    return done + (f", {early} of them ended early" if early else "")


def queue_table(waiting: Sequence[EnqueuedConfig]) -> RenderableType:
    """Return the configs that wait to be tried."""
    if not waiting:
        return Text("No enqueued config waits.")
    shown = ("epochs", "batch_size", "learning_rate")
    table = plain_table(">number", "~config", ">epochs", ">batch", ">rate", "enqueued")
    for one in waiting:
        settings = (one.training.get(name) for name in shown)
        texts = (NOTHING if value is None else f"{value:g}" for value in settings)
        table.add_row(str(one.id), Text(str(one.config)), *texts, moment(one.created_at))
    legend = f"config: {code_legend(str(one.config) for one in waiting)}"
    return Group(table, Text(legend, style="dim"))


def _running_table(running: Sequence[AttemptRow], now: float) -> Table:
    table = plain_table(">trial", ">attempt", "~worker", "~controller", ">heard", ">epochs")
    for attempt in running:
        table.add_row(
            str(attempt.number),
            str(attempt.attempt),
            Text(one_line(attempt.worker or NOTHING)),
            Text(one_line(host_and_pid(attempt.owner))),
            f"{_age(attempt.heartbeat_at, now)} ago",
            str(attempt.epochs),
        )
    return table


def _progress_table(running: Sequence[AttemptRow]) -> Table:
    """Return how far each training was a few seconds ago."""
    table = plain_table(">trial", ">epoch", ">schedule", ">images/s", ">trained for", ">about left")
    for attempt in running:
        report = attempt.report
        if report is not None:
            table.add_row(
                str(attempt.number),
                epoch_text(report.progress, attempt.schedule_epochs).removeprefix("epoch "),
                percent(report.progress, 1),
                images_rate(report.images_per_s).removesuffix(" images/s"),
                duration(report.seconds),
                NOTHING if report.left_s is None else whole_duration(report.left_s),
            )
    return table


def _events_table(events: Sequence[EventRow], now: float) -> Table:
    table = plain_table(">ago", "kind", ">trial", "~detail")
    for event in events:
        number = NOTHING if event.number is None else str(event.number)
        table.add_row(_age(event.at, now), Text(one_line(event.kind, 20)), number, Text(one_line(event.detail, 300)))
    return table


def _largest_unit(seconds: float) -> str:
    """Return "46 min" of 46 minutes and some seconds."""
    return " ".join(whole_duration(seconds).split()[:2])


def _age(then: float, now: float) -> str:
    return duration(max(0.0, now - then))  # the clocks of two hosts may differ


def _counts_text(counts: Mapping[TrialState, int]) -> Text:
    text = Text()
    for state in STATES:
        if counts.get(state):
            text.append(", " if text else "")
            text.append(f"{counts[state]} {state}", style=STATE_STYLES[state])
    return text or Text("none yet")
