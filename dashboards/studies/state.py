"""In which state a study is, in a word and a sentence, and the command to run next: page and terminal say the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from dashboards.data.liveness import ALIVE_S
from dashboards.formats import whole_duration
from search.results.replayed import training_command
from search.store.replayed import replayed_from
from search.store.rows import StudyRow
from workers.processes import host_and_pid, is_alive

STUCK_AFTER_S = 3600.0  # of a study whose settings don't say it: notify.stuck_after_s


class StudyState(StrEnum):
    """What a study is doing."""

    SEARCHING = "searching"  # a controller runs it
    STOPPING = "stopping"  # it was asked to stop, and its controller ends
    STUCK = "stuck"  # a controller runs it, and nothing has happened for long
    INTERRUPTED = "interrupted"  # its controller died, or isn't heard of any more
    STOPPED = "stopped"  # no one runs it, and it has fewer trainings than it was to have
    FINISHED = "finished"
    NOT_BEGUN = "not begun"  # no one runs it, and it has no trials


UNDER_WAY = (StudyState.SEARCHING, StudyState.STOPPING, StudyState.STUCK)


@dataclass(frozen=True)
class Activity:
    """How far a study is: what its state follows from, beside its row."""

    trials: int
    trainings: int  # that have ended, early or not
    newest_at: float | None  # UTC seconds since 1970, of the last proposal, epoch, end of a trial or event


@dataclass(frozen=True)
class Step:
    """What to do next: a command as it works in a shell, and what is to be known of it."""

    command: str  # "" where it follows from what isn't read yet
    note: str


def wanted_trainings(study: StudyRow) -> int | None:
    """Return how many trainings a study is to have; None of a damaged row."""
    part = study.settings.get("study")
    wanted = part.get("trainings") if isinstance(part, dict) else None
    return wanted if isinstance(wanted, int) else None


def state_of(study: StudyRow, activity: Activity, now: float) -> StudyState:
    """Return the state of a study at `now`, UTC seconds since 1970 by its database's clock."""
    if study.controller is not None:
        if not _controller_lives(study, now):
            return StudyState.INTERRUPTED
        if study.stop_requested:
            return StudyState.STOPPING
        silent = now - (activity.newest_at or study.created_at) > _stuck_after_s(study)
        return StudyState.STUCK if silent else StudyState.SEARCHING
    if not activity.trials:
        return StudyState.NOT_BEGUN
    wanted = wanted_trainings(study)
    return StudyState.FINISHED if wanted is not None and activity.trainings >= wanted else StudyState.STOPPED


def _controller_lives(study: StudyRow, now: float) -> bool:
    """Return whether a study's controller lives: here by its process, elsewhere by its heartbeat."""
    try:
        alive = is_alive(study.controller or "")
    except ValueError:  # a name that someone edited
        alive = None
    if alive is None:
        return study.controller_seen_at is not None and now - study.controller_seen_at < ALIVE_S
    return alive


def _stuck_after_s(study: StudyRow) -> float:
    part = study.settings.get("notify")
    value = part.get("stuck_after_s") if isinstance(part, dict) else None
    return float(value) if isinstance(value, int | float) else STUCK_AFTER_S


def state_note(study: StudyRow, state: StudyState, activity: Activity, now: float) -> str:
    """Return what a state means for this study, in a sentence."""
    by = host_and_pid(study.controller or "")
    if state == StudyState.INTERRUPTED:
        seen_at = study.controller_seen_at
        ago = "" if seen_at is None else f", {whole_duration(max(0.0, now - seen_at))} ago"
        return f"Its process {by} ended without a word{ago}; --resume goes on from its checkpoints."
    if state == StudyState.STUCK:
        silent_s = now - (activity.newest_at or study.created_at)
        return f"{by} runs it, but nothing was proposed, trained or ended for {whole_duration(silent_s)}."
    return {
        StudyState.SEARCHING: f"{by} runs it.",
        StudyState.STOPPING: f"{by} was asked to stop and ends the step under way.",
        StudyState.STOPPED: "No one runs it, and it has fewer trainings than it was to have.",
        StudyState.FINISHED: "It has all of its trainings.",
        StudyState.NOT_BEGUN: "No one runs it, and it has no trials yet.",
    }[state]


def next_step(
    study: StudyRow, state: StudyState, best: int | None, command_words: str = "", is_read: bool = True
) -> Step:
    """Return what to do next with a study.

    Args:
        study: its row.
        state: see `state_of`.
        best: number of the best trial within its budget; None: there is none.
        command_words: what names the database in a command.
        is_read: whether its networks are read, so that None says that no trial is best.
    """

    def command(verb: str, *words: str) -> str:
        return " ".join(filter(None, ("condensery", verb, shlex.quote(study.name), command_words, *words)))

    if state in UNDER_WAY:
        return Step(command("status"), "Shows who works on it, and how long it still takes.")
    if best is None and not is_read and state in (StudyState.STOPPED, StudyState.FINISHED):
        return Step("", "It is shown once the study's networks are read.")
    if state in (StudyState.INTERRUPTED, StudyState.NOT_BEGUN) or (state == StudyState.STOPPED and best is None):
        words = " ".join(filter(None, ("condensery launch study.toml --resume", command_words)))
        return Step(words, "Goes on with it; give the study file that it was launched with.")
    if best is None:
        return Step(command("trials"), "Shows why no network is within its budget.")
    if replayed_from(study.settings) is not None:
        note = f"Trains trial {best} for real, since the study was replayed."
        return Step(training_command(study.name, str(best), command_words), note)
    return Step(command("pick", "--out", "bundle"), f"Measures trial {best} again, tests it, and writes its bundle.")
