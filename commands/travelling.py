"""Studies that travel: archive, restore, and to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.common import Storage, StudyName, database_url, open_named, say, stored_settings
from workers.wording import counted

if TYPE_CHECKING:
    from search.travel.tracking import TrackedRun

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


def mlflow(
    study: StudyName = None,
    to: Annotated[
        str, typer.Option(help="MLflow's tracking URI: a database or a server.", metavar="URI")
    ] = "sqlite:///mlflow.db",
    storage: Storage = None,
) -> None:
    """Write a study's trainings as MLflow's runs, in an experiment of its name; those that are there stay."""
    from search.store.connection.database_errors import url_shown
    from search.travel.tracking import write_mlflow

    name, runs = _runs(study, storage)
    new = write_mlflow(name, runs, to)
    say(f"wrote {counted(new, 'run')} into {url_shown(to)}; {_there_already(len(runs) - new)}")


def wandb(
    study: StudyName = None,
    out: Annotated[Path, typer.Option(help="The folder that gets W&B's folder wandb.", metavar="DIR")] = Path(),
    storage: Storage = None,
) -> None:
    """Write a study's trainings as W&B's offline runs; nothing is sent before `wandb sync`."""
    from search.store.connection.printed_commands import printed_command
    from search.travel.tracking import write_wandb
    from workers.files import disk_errors

    name, runs = _runs(study, storage)
    with disk_errors(out):
        new = write_wandb(name, runs, out)
    say(f"wrote {counted(new, 'run')}; {_there_already(len(runs) - new)}")
    say(f"to send them: {printed_command(['wandb', 'sync', out / 'wandb'])}/offline-run-*")


def _runs(study: str | None, storage: str | None) -> tuple[str, list[TrackedRun]]:
    from search.store import reader
    from search.store.replayed import replayed_from
    from search.travel.tracking import runs_of

    engine, row, _ = open_named(study, storage)
    rows = reader.read_trials(engine, row.id)
    return row.name, runs_of(rows, lambda trial: reader.read_curve(engine, trial.id), replayed_from(row.settings))


def _there_already(count: int) -> str:
    return f"{counted(count, 'run')} {'was' if count == 1 else 'were'} there already"
