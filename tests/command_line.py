"""Condensery's commands in processes of their own, which begin with its libraries imported.

- Importing torch, Optuna and the others takes a command longer than all it does. One process a session imports them,
  and every command is a fork of it (`multiprocessing`'s fork server).
- Only libraries are imported there. What Condensery imports itself, and in which order, every command does anew.
- Workers of a search that a test runs itself are forks of the same process: Python has one such server a process.
- One process measures for the quick policy (`measure_briefly`).
- All else is as in a shell: arguments, folder, environment, output, exit code, signals, a process group of its own.

Where being a process isn't what is tested, `run_here` runs a command in the tests' own process, which takes a tenth.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from workers.latency.policy import MeasurementPolicy

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "workers.runners.dying_with_parent",
    "__main__",
    "alembic.command",
    "dash",
    "dash_ag_grid",
    "fastapi",
    "httpx",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna.samplers",
    "optuna.storages",
    "plotly.graph_objects",
    "psycopg",
    "pydantic",
    "rich.console",
    "rich.table",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.gaussian_process",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "torch.utils.data",
    "torchvision.transforms.v2",
    "typer",
    "uvicorn",
    "waitress",
)
_lock = threading.Lock()


def measure_briefly() -> MeasurementPolicy:
    """Let one process measure where the quick policy asks for four to eight; return that policy as it was.

    On a machine that runs tests beside each other all eight are disturbed, and whoever else measures waits for them.
    `tests/workers/latency` tests how several processes agree, by policies of its own.
    """
    from workers.latency.policy import QUICK

    shipped = QUICK.model_copy()
    vars(QUICK).update(processes=1, attempts=1)  # it is frozen, and imported by its name
    return shipped


def hear_interrupts() -> None:
    """Let Ctrl-C through in a process just forked: its server is deaf if a search began it (`interrupts_blocked`)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def be_condensery(words: list[str], folder: str, environment: dict[str, str], files: tuple[str, str]) -> None:
    """Run the command line here, in a process just forked; `files` take what it prints: output, then errors."""
    hear_interrupts()
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = [str(ROOT / "condensery.py"), *words]
    sys.warnoptions.append("ignore")  # as `python -W ignore`, for processes it starts too
    warnings.simplefilter("ignore")
    measure_briefly()
    try:
        runpy.run_module("condensery", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing's ends without them


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Return the context whose processes begin with the libraries imported."""
    context = multiprocessing.get_context("forkserver")
    with _lock, mock.patch.dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"):
        context.set_forkserver_preload(list(LIBRARIES))
        forkserver.ensure_running()
    return context


class StartedCommand:
    """A command that runs: what tests use of `subprocess.Popen`, and the file of what it prints."""

    def __init__(self, *words: str | Path, cwd: Path, log: Path, errors: Path | None = None, **environment: str):
        """Start a command in the folder `cwd`; `log` takes what it prints, `errors` its standard error if given."""
        self.log = log
        self.args = ["condensery", *map(str, words)]
        files = (str(log), str(errors or log))
        for path in files:
            Path(path).touch()
        shell = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        arguments = (self.args[1:], str(cwd), shell, files)
        self._process = fork_server().Process(target=be_condensery, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, not its group."""
        self.send_signal(signal.SIGKILL)


def run_command(
    *words: str | Path, cwd: Path, timeout_s: float = 120.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does; `environment` is added to the tests' own.

    Raises:
        subprocess.TimeoutExpired: it ran past `timeout_s`, and was killed.
    """
    with tempfile.TemporaryDirectory(prefix="command-") as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = StartedCommand(*words, cwd=cwd, log=out, errors=err, **(environment or {}))
        try:
            process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.wait(), out.read_text(), err.read_text())


def run_here(
    *words: str | Path, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, by the front door: what it prints, its one line of error, its code.

    Only the streams differ from a shell's: they are in memory, so nothing opens or drops this process's own.
    """
    import condensery

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    line = ["condensery", *map(str, words)]
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, {"COLUMNS": "80", **(environment or {})}),  # as where there is no terminal
        mock.patch.multiple(condensery, open_streams=lambda: None, drop_output=lambda: None),
        mock.patch.object(sys, "argv", line),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action="ignore"),
    ):
        try:
            condensery.main()
        except SystemExit as end:
            code = end.code
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(line, int(code or 0), said, complained)
