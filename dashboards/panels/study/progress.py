"""Progress: whether the search still gains, what it has saved, who works on it, and what failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.data.columns import Floats, Ints, StudyColumns, View
from dashboards.data.curves import LastEpoch
from dashboards.data.time_left import study_left_s
from dashboards.formats import (
    count,
    digits_ms,
    duration,
    epoch_text,
    images_rate,
    milliseconds,
    one_line,
    percent,
    whole_duration,
)
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.hypervolume import hypervolumes
from dashboards.panels.study.points import why_no_points
from dashboards.panels.style import FRONT, drawable, empty_figure, scatter, slim
from search.devices.registry import DeviceState
from search.store.rows import AttemptRow
from search.store.vocabulary import TrialState
from workers.processes import host_and_pid
from workers.wording import of_wanted

if TYPE_CHECKING:
    from dashboards.data.liveness import Liveness

RATE_WINDOW_S = 3600.0  # trials per hour are counted over the last hour
LONGEST_REASON = 160  # characters that are shown


@dataclass(frozen=True)
class Failure:
    """Failures whose reasons are the same but for the numbers in them."""

    reason: str  # of the newest failure
    times: int
    newest: int  # number of the trial that failed last


@dataclass(frozen=True, eq=False)
class ProgressInfo:
    """A search's progress; `number` and `hypervolume` are (k,), in the order in which the trainings ended."""

    number: Ints  # of the trials
    hypervolume: Floats  # 0..1, after each training
    axis: str  # what the score is plotted against, in words
    score_name: str
    facts: tuple[tuple[str, str], ...]  # (name, value), for a list
    failures: tuple[Failure, ...]  # the most frequent first
    workers: DataTable
    devices: DataTable
    notes: tuple[str, ...] = ()
    reason: str | None = None  # why there is no hypervolume; there are facts in any case

    def table(self) -> DataTable:
        """Return the trainings that raised the hypervolume, the newest first."""
        gained = np.flatnonzero(np.diff(self.hypervolume, prepend=0.0) > 0)[::-1]
        lines = ((str(place + 1), str(self.number[place]), f"{self.hypervolume[place]:.4f}") for place in gained)
        return DataTable.of(("training", "trial", "hypervolume"), lines, len(gained))

    @property
    def tables(self) -> tuple[tuple[str, DataTable], ...]:
        """What is shown beside the chart, by title."""
        return (("Failures", self.failures_table()), ("Workers", self.workers), ("Devices", self.devices))

    def failures_table(self) -> DataTable:
        """Return what failed, and how often."""
        lines = [(f"{failure.times:,}", failure.reason, str(failure.newest)) for failure in self.failures]
        return DataTable.of(("times", "reason", "newest trial"), lines, len(lines))


def progress_info(
    columns: StudyColumns,
    view: View,
    liveness: Liveness | None = None,
    last_epochs: Mapping[int, LastEpoch] | None = None,
) -> ProgressInfo:
    """Return a study's progress; the score is plotted against the view's axis.

    Args:
        columns: the study.
        view: what the score is plotted against.
        liveness: who works and what waits; None leaves workers and devices out, as in a report that is read later.
        last_epochs: of the trials that aren't done, which say how many epochs they trained.
    """
    cost = columns.axis_values(view)
    members = np.flatnonzero(columns.trained & np.isfinite(cost) & (cost > 0))
    members = members[np.argsort(np.nan_to_num(columns.finished_at[members]), kind="stable")]
    chance = 1 / _classes(columns)
    most = float(cost[members].max()) if members.size else np.nan
    return ProgressInfo(
        number=columns.number[members],
        hypervolume=hypervolumes(cost[members], columns.score[members], most, chance),
        axis={"latency": "latency", "macs": "macs", "params": "params"}[view.axis],
        score_name=columns.score_name,
        facts=(*_facts(columns, last_epochs or {}), *_liveness_facts(liveness)),
        failures=_failures(columns),
        workers=_workers(liveness),
        devices=_devices(liveness),
        notes=_notes(columns, view, chance, most) if members.size else (),
        reason=None if members.size else _why_none(columns, view),
    )


def _classes(columns: StudyColumns) -> int:
    classes = (columns.study.data_info or {}).get("num_classes")
    return classes if isinstance(classes, int) and classes > 1 else 10


def _notes(columns: StudyColumns, view: View, chance: float, most: float) -> tuple[str, ...]:
    cost = milliseconds(most) if view.axis == "latency" else f"{count(most)} {view.axis}"
    return (
        "How much of what could be reached the networks trained so far dominate. Where it is flat, nothing was gained.",
        f"What could be reached is the rectangle from {100 * chance:.3g} % {columns.score_name} (guessing) and {cost} "
        "(the largest of a trained network) to 100 % and 0.",
    )


def _why_none(columns: StudyColumns, view: View) -> str:
    if columns.trained.any():
        return f"No trained network has a {view.axis} to be judged by; look at another cost."
    if not len(columns):
        return why_no_points(columns, view)
    return "No training has finished yet: the first point comes with it, and `condensery status` says what runs."


# ---- facts ----------------------------------------------------------------------------------------------


def _facts(columns: StudyColumns, last: Mapping[int, LastEpoch]) -> tuple[tuple[str, str], ...]:
    counts = columns.counts
    wanted = (columns.study.settings.get("study") or {}).get("trainings")
    ended = columns.is_state(TrialState.DONE, TrialState.PRUNED)
    trainings = int((ended & ~np.isfinite(columns.continues)).sum())  # one with what takes it up again
    early = trainings - int(columns.is_state(TrialState.DONE).sum())
    rate = trials_per_hour(columns)
    saved = saved_epochs(columns, last)
    all_saved = sum(saved.values())
    words = ", ".join(f"{number:,} {cause}" for cause, number in saved.items() if number)
    facts = [
        ("trainings", _trainings_text(trainings, early, wanted)),
        ("trials", ", ".join(f"{number:,} {state}" for state, number in counts.items()) or "none yet"),
        ("trials per hour", "-" if rate is None else digits_ms(rate)),
        ("epochs saved", f"{all_saved:,}" + (f": {words}" if words else "")),
    ]
    return tuple(facts)


def _trainings_text(trainings: int, early: int, wanted: Any) -> str:
    """Return "12 of 16, 3 of them ended early"."""
    words = of_wanted(trainings, wanted) if isinstance(wanted, int) else f"{trainings:,}"
    return words + (f", {early:,} of them ended early" if early else "")


def saved_epochs(columns: StudyColumns, last: Mapping[int, LastEpoch]) -> dict[str, int]:
    """Return how many epochs of their schedules weren't trained, by why: trials refused, repeated or stopped."""
    schedule = np.array([_epochs(columns, training) for training in columns.training], dtype=np.int64)
    done = np.zeros(len(columns), dtype=np.int64)
    for number, epoch in last.items():
        if (place := columns.index_of(number)) is not None:
            done[place] = epoch.epoch
    left = np.maximum(schedule - done, 0)
    left[np.isin(columns.number, columns.continues)] = 0  # its rest is the other trial's
    causes = {
        TrialState.INFEASIBLE: "over a budget",
        TrialState.DUPLICATE: "duplicates",
        TrialState.PRUNED: "ended early",
        TrialState.CANCELLED: "cancelled",
    }
    return {cause: int(left[columns.is_state(state)].sum()) for state, cause in causes.items()}


def _epochs(columns: StudyColumns, training: Mapping[str, Any]) -> int:
    epochs = training.get("epochs", (columns.study.settings.get("training") or {}).get("epochs"))
    return epochs if isinstance(epochs, int) else 0


def trials_per_hour(columns: StudyColumns) -> float | None:
    """Return how many trials ended per hour in the search's last hour; None before two have."""
    ended = np.sort(columns.finished_at[np.isfinite(columns.finished_at)])
    ended = ended[ended >= ended[-1] - RATE_WINDOW_S] if ended.size else ended
    if ended.size < 2 or ended[-1] <= ended[0]:
        return None
    return float(3600 * (ended.size - 1) / (ended[-1] - ended[0]))


def _failures(columns: StudyColumns) -> tuple[Failure, ...]:
    times: Counter[str] = Counter()
    newest: dict[str, tuple[str, int]] = {}
    for place in np.flatnonzero(columns.is_state(TrialState.FAILED)):
        reason = one_line(columns.reason[place] or "no reason was recorded", LONGEST_REASON)
        alike = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", reason)
        times[alike] += 1
        newest[alike] = (reason, int(columns.number[place]))
    return tuple(Failure(newest[alike][0], number, newest[alike][1]) for alike, number in times.most_common())


def _liveness_facts(liveness: Liveness | None) -> tuple[tuple[str, str], ...]:
    if liveness is None:
        return ()
    status, devices = liveness.status, liveness.devices
    queued, asked = (status.counts.get(state, 0) for state in (TrialState.QUEUED, TrialState.ASKED))
    queue = f"{queued:,} priced, {asked:,} to be priced"
    if status.waiting:
        queue += f", {status.waiting:,} enqueued by hand"
    alive = sum(liveness.is_alive(attempt.heartbeat_at) for attempt in status.running)
    online = sum(device.state == DeviceState.ONLINE for device in devices)
    left_s = study_left_s(liveness.study, status) if liveness.study.controller else None
    return (
        ("queue", queue),
        ("run by", _controller_text(liveness)),
        (
            "time left",
            "-" if left_s is None else f"about {whole_duration(left_s)}, at the speed of its trainings so far",
        ),
        ("workers alive", f"{alive} of {len(status.running)} training" if status.running else "none is training"),
        ("devices online", f"{online} of {len(devices)}" if devices else "none registered"),
    )


def _controller_text(liveness: Liveness) -> str:
    """Return "desk:4711, seen 2.0 s ago"."""
    controller, seen_at = liveness.study.controller, liveness.study.controller_seen_at
    if controller is None:
        return "no one runs this study now"
    name = one_line(host_and_pid(controller), 60)
    ago = "never seen" if seen_at is None else f"seen {_age(seen_at, liveness)}"
    return f"{name}, {ago}" if liveness.is_alive(seen_at) else f"{name} is silent, {ago}"


def _age(seen_at: float, liveness: Liveness) -> str:
    return f"{duration(max(0.0, liveness.at - seen_at))} ago"


def _workers(liveness: Liveness | None) -> DataTable:
    headers = ("trial", "worker", "epoch", "schedule", "images/s", "about left", "last heard of", "")
    if liveness is None:
        return DataTable(headers)
    lines = (
        (
            str(attempt.number),
            one_line(attempt.worker or "not known yet", 80),
            *_progress_cells(attempt),
            _age(attempt.heartbeat_at, liveness),
            "alive" if liveness.is_alive(attempt.heartbeat_at) else "silent",
        )
        for attempt in liveness.status.running
    )
    return DataTable.of(headers, lines, len(liveness.status.running))


def _progress_cells(attempt: AttemptRow) -> tuple[str, ...]:
    """Return a running training's epoch, share of the schedule, images a second and time that is left."""
    report = attempt.report
    if report is None:
        return ("-",) * 4
    return (
        epoch_text(report.progress, attempt.schedule_epochs).removeprefix("epoch "),
        percent(report.progress, 1),
        images_rate(report.images_per_s).removesuffix(" images/s"),
        "-" if report.left_s is None else whole_duration(report.left_s),
    )


def _devices(liveness: Liveness | None) -> DataTable:
    headers = ("device", "state", "last seen", "waiting jobs", "leased jobs", "quarantined results")
    if liveness is None:
        return DataTable(headers)
    lines = (
        (
            one_line(device.name, 80),
            device.state,
            "-" if device.last_seen_at is None else _age(device.last_seen_at, liveness),
            str(device.waiting),
            str(device.leased),
            str(device.quarantined),
        )
        for device in liveness.devices
    )
    return DataTable.of(headers, lines, len(liveness.devices))


# ---- the figure -----------------------------------------------------------------------------------------


def progress_figure(info: ProgressInfo) -> Any:
    """Return the hypervolume over the trainings, as steps.

    Raises:
        ChartUnavailable: no training has ended, or none has the cost that the score is set against.
    """
    drawable(info)
    figure = empty_figure(300)
    total = len(info.number)
    trace = scatter(total)
    figure.add_trace(
        trace(
            x=np.arange(1, total + 1, dtype=np.int32),
            y=slim(info.hypervolume),
            mode="lines+markers" if total <= 60 else "lines",
            line={"shape": "hv", "color": FRONT, "width": 2},
            marker={"size": 5, "color": FRONT},
            name="hypervolume",
            customdata=info.number.astype(np.int32),
            hovertemplate="training %{x}, trial %{customdata}<br>hypervolume %{y:.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "trainings finished"}, rangemode="nonnegative")
    figure.update_yaxes(title={"text": f"hypervolume ({info.score_name}, {info.axis})"})
    figure.update_layout(showlegend=False)
    return figure
