"""Condensery's command line: one command per verb; nothing heavy is imported until a command runs.

Data goes to stdout, everything else to stderr. A user's mistake is one line and has its own exit code
(`space.errors`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from commands import database, deploying, devices, inspecting, plotting, running
from commands.common import INTERRUPTED
from space.errors import CondenseryError


def _print_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"condensery {_version()}\n")
        raise typer.Exit


def _version() -> str:
    """Return the version of the checkout that runs, or of the installed package where there is no checkout."""
    import tomllib
    from importlib.metadata import version

    project = Path(__file__).with_name("pyproject.toml")
    if project.exists():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return version("condensery")


app = typer.Typer(
    name="condensery",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the CondenseNet to deploy: the most accurate one inside your device's latency budget."""


db_app = typer.Typer(help="Look after the study database.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(devices.app, name="devices")

for verb in (
    running.init,
    running.check,
    running.launch,
    running.enqueue,
    running.stop,
    running.cancel,
    inspecting.status,
    inspecting.trials,
    inspecting.show,
    inspecting.pareto,
    inspecting.logs,
    inspecting.tensorboard,
    deploying.pick,
    deploying.export,
    inspecting.dashboard,
    inspecting.report,
    plotting.plot,
    database.doctor,
    database.delete,
):
    app.command()(verb)
db_app.command()(database.upgrade)


def main() -> NoReturn:
    """Run the command line; an error of ours becomes one line and its exit code."""
    try:
        app()
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        ours = _our_error(error)
        if ours is None:
            raise
        sys.stderr.write(f"error: {' '.join(str(ours).split())}\n")
        sys.exit(ours.exit_code)
    sys.exit(0)


def _our_error(error: BaseException | None) -> CondenseryError | None:
    """Return the error of ours that an exception is, or that a driver's or system's error inside it stands for."""
    while error is not None:
        if isinstance(error, CondenseryError):
            return error
        ours = _disk_error(error) or _database_error(error)
        if ours is not None:
            return ours
        error = error.__cause__ or error.__context__
    return None


def _disk_error(error: BaseException) -> CondenseryError | None:
    """Return our error for a full disk or a folder that can't be written; None for any other system error."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    from workers.files import disk_errors

    try:
        with disk_errors(Path(error.filename or ".")):
            raise error
    except CondenseryError as ours:
        return ours
    except OSError:
        return None


def _database_error(error: BaseException) -> CondenseryError | None:
    """Return our error for a database driver's error; None for any other."""
    if "sqlalchemy" not in sys.modules:  # not imported here: an error without it comes from no database
        return None
    from sqlalchemy.exc import DBAPIError

    from search.store.connection.database_errors import database_errors

    if not isinstance(error, DBAPIError):
        return None
    try:
        with database_errors("sqlite://"):
            raise error
    except CondenseryError as ours:
        return ours


if __name__ == "__main__":
    main()
