"""Studies that travel: archive, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.common import Storage, StudyName, database_url, open_named, say, stored_settings
from workers.wording import counted

Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def archive(
    study: StudyName = None,
    out: Annotated[
        Path | None, typer.Argument(help="The file to write.", show_default="STUDY.zip", metavar="[OUT]")
    ] = None,
    force: Force = False,
    storage: Storage = None,
) -> None:
    """Write a study into one file: all of its rows, and all of its files with their hashes."""
    from search.travel.archive import archive as write

    engine, row, url = open_named(study, storage)
    archived = write(engine, row, stored_settings(row), url, out or Path(f"{row.name}.zip"), force, say)
    what = f"{counted(archived.trials, 'trial')}, {counted(archived.files, 'file')}, {archived.size / 1e6:.1f} MB"
    say(f"archived study {row.name!r} ({what}) as {archived.path}")


def restore(
    file: Annotated[Path, typer.Argument(help="The file that `condensery archive` wrote.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option(help="Folder of a database of its own, DIR/condensery.db.", metavar="DIR")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the study is called.", show_default="as it was")] = None,
    force: Force = False,
    storage: Storage = None,
) -> None:
    """Put an archived study into a database; its files are checked by their hashes."""
    from search.store.connection.printed_commands import printed_command
    from search.travel.restore import restore as put
    from workers.files import disk_errors

    if to is not None:
        with disk_errors(to):
            to.mkdir(parents=True, exist_ok=True)
    url = database_url(storage) if to is None else f"sqlite:///{to.absolute() / 'condensery.db'}"
    restored = put(file, url, name, force)
    say(f"restored study {restored.name!r} ({counted(restored.trials, 'trial')}); its files are in {restored.files}")
    if restored.is_code:
        say(f"note: its images come of {restored.images}, which pick and launch --resume call; look at it first")
    say(f"see: {printed_command(['condensery', 'pareto', restored.name], url)}")
