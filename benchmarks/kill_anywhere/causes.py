"""Whether a recorded kill explains everything out of the ordinary in a study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from benchmarks.kill_anywhere.forms import Kill
from search.store.rows import AttemptRow, EventRow
from search.store.vocabulary import AttemptOutcome, StudyEvent
from workers.processes import pid_of

GIVEN_UP = (AttemptOutcome.LOST, AttemptOutcome.STOPPED)  # how an attempt ends that is followed by another
DISPATCH_S = 2.0  # a worker that was idle when it was killed may be given a trial in that very moment
RAY_ENDS_S = 20.0  # the rest of Ray follows one of its processes; what is dispatched meanwhile is lost with it
ENDS_ALL = ("controller", "ray", "postgres")  # killing one of these may lose every attempt under way


def strange_attempts(attempts: Sequence[AttemptRow], kills: Sequence[Kill]) -> Iterator[str]:
    """Yield the attempts beyond a trial's first that follow no kill, or no attempt that was given up."""
    for before, after in _pairs(attempts):
        name = f"attempt {after.attempt} of trial {after.number}"
        if before.outcome not in GIVEN_UP:
            yield f"{name} follows one that is {before.outcome}"
        elif not causes(before, after, kills):
            yield f"{name} has no kill behind it"


def strange_events(events: Sequence[EventRow], attempts: Sequence[AttemptRow], kills: Sequence[Kill]) -> Iterator[str]:
    """Yield the events that no kill explains: reports of an attempt that was not given up, false losses, take-overs."""
    given_up = {
        (before.number, before.attempt): before.outcome
        for before, after in _pairs(attempts)
        if before.outcome in GIVEN_UP and causes(before, after, kills)
    }
    for event in events:
        outcome = given_up.get((event.number or 0, event.attempt or 0))
        expected = {
            StudyEvent.LATE: outcome is not None,
            StudyEvent.LOST: outcome == AttemptOutcome.LOST,
            StudyEvent.TAKEN_OVER: any(kill.role == "controller" and kill.at <= event.at for kill in kills),
        }
        if not expected.get(event.kind, False):
            of = "" if event.number is None else f" of trial {event.number}, attempt {event.attempt}"
            yield f"event {str(event.kind)!r}{of} without a cause: {event.detail}"


def causes(before: AttemptRow, after: AttemptRow, kills: Sequence[Kill]) -> list[Kill]:
    """Return the kills in an attempt's time that may have ended it: of its worker, or of what ends every worker."""
    until = after.started_at if before.ended_at is None else before.ended_at
    likely = [
        kill
        for kill in kills
        if kill.at <= until
        and (
            (kill.role in ENDS_ALL and kill.at >= before.started_at)
            or (kill.role == "ray" and kill.at >= until - RAY_ENDS_S)
            or (_is_of(kill, before) and kill.at >= before.started_at - DISPATCH_S)
        )
    ]
    return likely + [kill for kill in kills if names(kill, before) and kill not in likely]


def names(kill: Kill, attempt: AttemptRow) -> bool:
    """Whether a kill was seen to end this attempt's worker."""
    return any(
        hit["killed"] and (hit["trial"], hit["attempt"]) == (attempt.number, attempt.attempt) for hit in kill.trainings
    )


def only_the_database(before: AttemptRow, after: AttemptRow, kills: Sequence[Kill]) -> bool:
    """Whether an attempt ended for a database that was away, and for nothing else."""
    likely = causes(before, after, kills)
    return bool(likely) and all(kill.role == "postgres" for kill in likely)


def _is_of(kill: Kill, attempt: AttemptRow) -> bool:
    """Whether it was this attempt's worker that was killed, which had been idle when it was seen."""
    return kill.pid is not None and attempt.worker is not None and pid_of(attempt.worker) == kill.pid


def _pairs(attempts: Sequence[AttemptRow]) -> Iterator[tuple[AttemptRow, AttemptRow]]:
    """Yield each attempt of each trial with the next."""
    for _, of_trial in groupby(attempts, key=lambda attempt: attempt.number):
        yield from pairwise(of_trial)


def pairs_by_attempt(attempts: Sequence[AttemptRow]) -> dict[tuple[int, int], tuple[AttemptRow, AttemptRow]]:
    """Return each attempt that was followed by another, by trial and attempt."""
    return {(before.number, before.attempt): (before, after) for before, after in _pairs(attempts)}
