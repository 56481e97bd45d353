"""Condensery's front door: one command per verb, nothing heavy imported until a command runs.

Data goes to stdout, everything else to stderr. A user's mistake is one line and its own exit code (`space.errors`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from commands import database, deploying, devices, inspecting, plotting, running, showing
from commands.common import INTERRUPTED
from space.errors import CondenseryError

app = typer.Typer(
    name="condensery",
    help="Find the CondenseNet to deploy: the most accurate one inside your device's latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    deploying.pick,
    deploying.export,
    showing.dashboard,
    showing.report,
    plotting.plot,
    database.doctor,
    database.delete,
):
    app.command()(verb)
db_app.command()(database.upgrade)


def main() -> NoReturn:
    """Run the command line; every error of ours ends in one line and its exit code."""
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        ours = _as_ours(error)
        if ours is None:
            raise
        sys.stderr.write(f"error: {' '.join(str(ours).split())}\n")
        sys.exit(ours.exit_code)
    sys.exit(0)


def _as_ours(error: BaseException | None) -> CondenseryError | None:
    """Find the error of ours that an exception is, or that a driver's exception inside it stands for."""
    while error is not None:
        if isinstance(error, CondenseryError):
            return error
        if isinstance(error, OSError) and error.errno is not None:
            from workers.files import disk_errors

            try:
                with disk_errors(Path(error.filename or ".")):
                    raise error
            except CondenseryError as ours:
                return ours
            except OSError:
                pass
        if "sqlalchemy" in sys.modules:
            from sqlalchemy.exc import DBAPIError

            from search.store.database_errors import database_errors

            if isinstance(error, DBAPIError):
                try:
                    with database_errors("sqlite://"):
                        raise error
                except CondenseryError as ours:
                    return ours
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
