"""Looking after the database: delete, db upgrade."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.common import Storage, open_named, say, stored_settings


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
    from search.settings import DEFAULT_STORAGE
    from search.store.database import upgrade as run
    from search.study import optuna_storage

    url = storage or DEFAULT_STORAGE
    before, after = run(url)
    optuna_storage(url).engine.dispose()  # makes Optuna's tables: who launches may not have the right to
    what = ", nothing to do" if before == after else f" (was {before})" if before else " (new)"
    say(f"the database is at version {after}{what}")
