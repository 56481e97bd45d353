"""Looking after the database: doctor, delete, db upgrade."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from commands.common import AsJson, Storage, StudyName, open_named, print_json, say, stored_settings
from space.errors import StudyDamaged


def doctor(
    study: StudyName = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; nothing is changed.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Find what crashes, full disks and hands in its files have left wrong with a study, and mend what can be."""
    from dashboards.formats import one_line
    from search import doctor as surgery
    from search.launch import study_files
    from search.store.store import StudyStore
    from search.study import OpenStudy

    engine, found, url = open_named(study, storage, write=not dry_run)
    settings = stored_settings(found)
    opened = OpenStudy(settings, url, engine, StudyStore(engine, found.id), found.optuna_study_id)
    patient = surgery.StudyUnderCheck(opened, study_files(settings, url))
    if not dry_run:
        surgery.refuse_while_run(patient)
    findings = surgery.examine(patient)
    if not dry_run:
        surgery.mend(patient, findings)
    left = [one for one in findings if dry_run or one.repair is None]
    if as_json:
        rows = [
            {
                "check": one.check,
                "trial": one.trial,
                "found": one.found,
                "remedy": one.remedy,
                "repairable": one.repair is not None,
                "repaired": one.repair is not None and not dry_run,
            }
            for one in findings
        ]
        print_json({"study": found.name, "dry_run": dry_run, "findings": rows, "left": len(left)})
    for one in [] if as_json else findings:
        word = "left" if one.repair is None else "would mend" if dry_run else "mended"
        sys.stdout.write(f"{word}: {one_line(one.found)}; {one_line(one.remedy)}\n")
    if left:
        raise StudyDamaged(f"{len(left)} of {len(findings)} findings in study {found.name!r} are not mended.")
    if not as_json:
        say(f"study {found.name!r}: {f'{len(findings)} findings, all mended' if findings else 'nothing is wrong'}")


def delete(
    study: Annotated[str, typer.Argument(help="The study's name or its study.toml.")],
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave networks and logs on disk.")] = False,
) -> None:
    """Delete a study: its rows, Optuna's rows and its files."""
    import shutil

    _, found, url = open_named(study, storage)
    if not yes:
        typer.confirm(f"Delete study {found.name!r} and its files for good?", abort=True)
    from search.launch import study_files
    from search.study import remove_study

    remove_study(url, found.name)
    files = study_files(stored_settings(found), url)
    if not keep_files and files.exists():
        shutil.rmtree(files)
    say(f"deleted study {found.name!r}")


def upgrade(storage: Storage = None) -> None:
    """Bring the database's tables to this version; make those that are missing."""
    from search.store.database import DEFAULT_STORAGE
    from search.store.database import upgrade as run
    from search.study import optuna_storage

    url = storage or DEFAULT_STORAGE
    before, after = run(url)
    optuna_storage(url).engine.dispose()  # makes Optuna's tables: who launches may not have the right to
    what = ", nothing to do" if before == after else f" (was {before})" if before else " (new)"
    say(f"the database is at version {after}{what}")
