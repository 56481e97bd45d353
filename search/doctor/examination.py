"""Examining a study by every check, and repairing what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from search.doctor.database_checks import damage, left_open, unwanted_jobs
from search.doctor.file_checks import broken_curves, damaged_files, damaged_predictions, stray_files
from search.doctor.findings import Finding, StudyUnderCheck
from search.doctor.optuna_checks import unequal_trials
from search.store.connection.printed_commands import printed_command
from search.store.store import StudyStore
from search.store.vocabulary import StudyEvent
from space.errors import StudyBusy


def examine(study: StudyUnderCheck) -> list[Finding]:
    """Return what is wrong, changing nothing. What a live controller is working on is left out."""
    damaged = list(damage(study.engine))
    if damaged:
        return damaged  # nothing else that is read from such a file can be trusted
    rows, idle = study.store.trials(), not study.store.is_running()
    findings = [*left_open(study, rows)] if idle else []
    findings += unequal_trials(study, rows, idle)
    if study.opened.settings.replay.table is None:  # a replayed trial has no files
        findings += damaged_files(study, rows)
    findings += damaged_predictions(study, rows)
    findings += broken_curves(study, rows)
    findings += stray_files(study, rows) if idle else []
    findings += unwanted_jobs(study)
    return findings


def repair(study: StudyUnderCheck, findings: Sequence[Finding]) -> None:
    """Make every repair that there is, each with its event in one transaction.

    Raises:
        StudyBusy: a controller runs the study.
    """
    store, repairs = study.store, [(finding, finding.repair) for finding in findings if finding.repair is not None]
    if not repairs:
        return
    store.claim()
    with store.kept():
        for finding, make in repairs:
            store.transact(partial(_repair, store, finding, make))


def _repair(store: StudyStore, finding: Finding, make: Callable[[], object]) -> None:
    make()
    store.note_event(StudyEvent.REPAIRED, f"{finding.problem}: {finding.remedy}", finding.trial)


def refuse_while_running(study: StudyUnderCheck) -> None:
    """Raise StudyBusy if a live controller runs the study: it must not be repaired meanwhile."""
    if study.store.is_running():
        stop = printed_command(["condensery", "stop", study.opened.settings.study.name], study.opened.url)
        raise StudyBusy(f"this study is being run; stop it first (`{stop}`), or only look, with --dry-run.")
