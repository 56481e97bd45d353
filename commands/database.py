"""Looking after the database: doctor, delete, db upgrade."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.common import AsJson, Storage, StudyName, open_named, print_json, say, stored_settings
from space.errors import DatabaseUnavailable, StudyDamaged

if TYPE_CHECKING:
    from search.doctor import Finding


def doctor(
    study: StudyName = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; nothing is changed.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Find what crashes, full disks and hand-edited files left wrong with a study, and repair what can be repaired."""
    from search.doctor import StudyUnderCheck, examine, refuse_while_running, repair
    from search.store.store import StudyStore
    from search.study import OpenStudy
    from search.study_folders import refuse_anothers, study_files
    from workers.wording import agreeing, counted

    try:
        engine, stored, url = open_named(study, storage, write=not dry_run)
    except DatabaseUnavailable as error:
        open_named(study, storage)  # or it can't be read either
        raise DatabaseUnavailable(f"{error} To only look at the study: condensery doctor --dry-run.") from error
    settings = stored_settings(stored)
    opened = OpenStudy(settings, url, engine, StudyStore(engine, stored.id), stored.optuna_study_id)
    checked = StudyUnderCheck(opened, study_files(settings, url))
    if not dry_run:
        refuse_while_running(checked)
        refuse_anothers(checked.files, url)
    findings = examine(checked)
    if not dry_run:
        repair(checked, findings)
    remaining = [finding for finding in findings if dry_run or finding.repair is None]
    if as_json:
        print_json(_doctor_document(stored.name, findings, dry_run, len(remaining)))
    else:
        _print_findings(findings, dry_run)
    if remaining:
        are = agreeing(len(remaining), "is", "are")
        of = f"{len(remaining)} of {counted(len(findings), 'finding')}"
        raise StudyDamaged(f"{of} in study {stored.name!r} {are} not repaired.")
    if not as_json:
        all_repaired = f"{counted(len(findings), 'finding')}, all repaired"
        say(f"study {stored.name!r}: {all_repaired if findings else 'nothing is wrong'}")


def _doctor_document(study: str, findings: Sequence[Finding], dry_run: bool, remaining: int) -> dict[str, Any]:
    rows = [
        {
            "check": finding.check,
            "trial": finding.trial,
            "found": finding.problem,
            "remedy": finding.remedy,
            "repairable": finding.repair is not None,
            "repaired": finding.repair is not None and not dry_run,
        }
        for finding in findings
    ]
    return {"study": study, "dry_run": dry_run, "findings": rows, "left": remaining}


def _print_findings(findings: Sequence[Finding], dry_run: bool) -> None:
    from dashboards.formats import one_line

    for finding in findings:
        word = "left" if finding.repair is None else "would repair" if dry_run else "repaired"
        sys.stdout.write(f"{word}: {one_line(finding.problem)}; {one_line(finding.remedy)}\n")


def delete(
    study: Annotated[str, typer.Argument(help="The study's name or its study.toml.")],
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave networks and logs on disk.")] = False,
) -> None:
    """Delete a study: its rows, Optuna's rows and its files."""
    import shutil

    _, stored, url = open_named(study, storage)
    if not yes:
        typer.confirm(f"Delete study {stored.name!r} and its files for good?", abort=True)
    from search.study import remove_study
    from search.study_folders import is_owned, study_files

    files = study_files(stored_settings(stored), url)
    anothers = files.exists() and not is_owned(files, url)  # of the database that this one is a copy of
    keep_files = keep_files or anothers
    remove_study(url, stored.name)
    if files.is_symlink():  # what it leads to may be used by others
        place = files.resolve()
        if not keep_files:
            files.unlink()
        say(f"deleted study {stored.name!r}; its files stay in {place}, where {files} led")
        return
    if not keep_files and files.exists():
        shutil.rmtree(files)
    stay = f"; {files} belongs to the database that this one is a copy of, and stays" if anothers else ""
    say(f"deleted study {stored.name!r}{stay}")


def upgrade(storage: Storage = None) -> None:
    """Bring the database's tables to this version; make those that are missing."""
    from search.store.connection.database import DEFAULT_STORAGE
    from search.store.connection.database import upgrade as run
    from search.study import optuna_storage

    url = storage or DEFAULT_STORAGE
    before, after = run(url)
    optuna_storage(url).engine.dispose()  # makes Optuna's tables: the role that launches studies may lack the right to
    change = ", nothing to do" if before == after else f" (was {before})" if before else " (new)"
    say(f"the database is at version {after}{change}")
