"""Condensery's command line: one command per verb; nothing heavy is imported until a command runs.

`load_bundle` is for programs: a bundle's network as a function.

Data goes to stdout, everything else to stderr. A user's mistake is one line and has its own exit code
(`space.errors`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from commands import (
    comparing,
    database,
    deploying,
    devices,
    inspecting,
    measuring,
    plotting,
    queueing,
    running,
    shortlisting,
    travelling,
)
from commands.common import INTERRUPTED
from search.store.connection.printed_commands import STORAGE
from space.errors import CondenseryError, DiskFull, InvalidSettings, ReadOnlyFolder
from workers.latency.agent.streams import STDOUT_NAME, drop_output, open_streams

if TYPE_CHECKING:
    from workers.bundled.loading import BundledNetwork

LONGEST_ERROR = 2_000  # letters


def load_bundle(folder: str | Path, model: str = "") -> BundledNetwork:
    """Return a bundle's network as a function: `load_bundle("bundle")(["photo.jpg"])` gives logits, (1, classes).

    See `workers.bundled.loading.BundledNetwork` for arguments and errors; it loads neither torch nor the study.
    """
    from workers.bundled.loading import BundledNetwork

    return BundledNetwork(folder, model)


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
    _refuse_odd_names()


def _refuse_odd_names() -> None:
    """Raise unless the current folder is there, and its name and all that the user named is UTF-8.

    What we write names folders and files: databases, pages and JSON hold text, and no other bytes.
    """
    try:
        folder = os.getcwd()  # noqa: PTH109  as bytes that aren't UTF-8 would be in it, too
    except FileNotFoundError:
        raise ReadOnlyFolder("the current folder was removed; change to one that is there.") from None
    named = {"the current folder": folder, STORAGE: os.environ.get(STORAGE, "")}
    for what, text in (*named.items(), *(("an argument", word) for word in sys.argv[1:])):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidSettings(f"{what} must be UTF-8, but is {os.fsencode(text)!r}; rename it.") from None


db_app = typer.Typer(help="Look after the study database.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.add_typer(devices.app, name="devices")

for verb in (
    running.init,
    running.check,
    running.launch,
    queueing.enqueue,
    queueing.queue,
    queueing.withdraw,
    running.stop,
    running.cancel,
    inspecting.status,
    inspecting.trials,
    inspecting.show,
    shortlisting.note,
    inspecting.pareto,
    inspecting.logs,
    inspecting.tensorboard,
    travelling.mlflow,
    travelling.wandb,
    deploying.pick,
    deploying.verify,
    deploying.export,
    deploying.crossvalidate,
    inspecting.dashboard,
    inspecting.report,
    plotting.plot,
    measuring.reprice,
    measuring.quantize,
    comparing.compare,
    comparing.baselines,
    database.doctor,
    database.delete,
    travelling.archive,
    travelling.restore,
):
    app.command()(verb)
db_app.command()(database.upgrade)


def main() -> NoReturn:
    """Run the command line; an error of ours becomes one line and its exit code."""
    open_streams()
    try:
        _run()
    except BrokenPipeError:  # the reader of our output has closed it
        drop_output()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        ours = _our_error(error)
        if ours is None:
            raise
        sys.stderr.write(f"error: {_one_line(str(ours))}\n")
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        drop_output()
        sys.exit(ours.exit_code)
    sys.exit(0)


def _one_line(text: str) -> str:
    """Return an error's message as one line; of a very long one, in which there is a value of the user's, two parts."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_ERROR else f"{line[: LONGEST_ERROR // 2]} … {line[-LONGEST_ERROR // 2 :]}"


def _run() -> None:
    """Run the command, and see that all of its output was taken while an error can still be told."""
    try:
        app()
    except SystemExit:
        sys.stdout.flush()
        raise


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
    if error.filename == STDOUT_NAME:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ReadOnlyFolder
        return kind(f"{STDOUT_NAME} can't be written ({error.strerror}); send it somewhere else.")
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
