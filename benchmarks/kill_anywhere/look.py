"""Watches what a search is doing, by its tables, files and processes, every few milliseconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.kill_anywhere.forms import EPOCHS, OF_SEARCH, PHASES, Form
from benchmarks.kill_anywhere.processes import Process, children, command_of, cpu_s, is_dead, last_with, pid_of, tail
from search.store.vocabulary import OPEN_JOB_STATES, LeaseActivity, TrialState
from workers.file_names import CHECKPOINTS, LOG_FILE, trial_folder

TROUBLES_MOST = 3  # a device that was lost this often with a job is spared: at 5 the hub rightly gives the job up


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
    """What the processes of a study are doing at one moment."""

    at: float
    away: bool
    controller: int | None
    pricing: bool
    trainings: tuple[Training, ...]
    device: str
    troubles: int  # of an open job, at most

    @property
    def of_search(self) -> list[str]:
        phases = {training.phase for training in self.trainings} | ({"pricing"} if self.pricing else set())
        return [phase for phase in OF_SEARCH if phase in phases]


class Lookout:
    """Watches one study; reads only."""

    def __init__(self, form: Form, folder: Path, url: str, mark: str) -> None:
        self.form, self.folder, self.mark = form, folder, mark
        self.files = folder / "files" / "digits"
        self.processes: dict[str, Process] = {}
        self.is_away = False  # PostgreSQL was stopped
        more: dict[str, Any] = {"pool_size": 1} if form.database == "PostgreSQL" else {"poolclass": sa.NullPool}
        self._reading = sa.create_engine(url, **more)
        # By attempt: its phase and checkpoint, and the seconds of its processor when it came to them.
        self._cpu: dict[tuple[int, int], tuple[tuple[str, int], float]] = {}
        self._last_seen: Seen | None = None

    def forget(self) -> None:
        """Close what is open: of a server that is stopped, or at the end."""
        self._reading.dispose()

    def look(self) -> Seen:
        """Read from tables and files what the study is doing, and follow the checkpoints."""
        rows: dict[str, Any] | None = None
        if not self.is_away:
            with contextlib.suppress(sa.exc.DBAPIError):
                rows = self._read()
        if rows is None:
            before = self._last_seen
            trainings = (
                () if before is None else tuple(self._training(t.number, t.attempt, t.pid) for t in before.trainings)
            )
            controller = None if before is None or is_dead(before.controller) else before.controller
            seen = Seen(time.monotonic(), self.is_away, controller, False, trainings, "waiting", 0)
        else:
            launched = {process.pid for name, process in self.processes.items() if name.startswith("launch")}
            controller = rows["controller"] if rows["controller"] in launched else None
            running = [self._training(*row) for row in rows["running"]] if controller else []
            pricing = bool(controller and rows["asked"]) and any(self.files.glob("pricing-*"))
            device = self._device(rows["doing"])
            seen = Seen(time.monotonic(), False, controller, pricing, tuple(running), device, rows["troubles"])
        for training in seen.trainings:
            key, used = (training.number, training.attempt), cpu_s(training.pid)
            if used is not None and self._cpu.get(key, (None,))[0] != (training.phase, training.checkpoint):
                self._cpu[key] = ((training.phase, training.checkpoint), used)
        self._last_seen = seen
        return seen

    def _read(self) -> dict[str, Any] | None:
        if self.form.database == "SQLite" and not (self.folder / "study.db").exists():
            return None
        with self._reading.connect() as connection:
            owner = connection.exec_driver_sql("SELECT controller FROM condensery_study").scalar()
            trials = connection.exec_driver_sql(
                "SELECT t.number, t.state, t.attempt, a.worker FROM condensery_trial t LEFT JOIN condensery_attempt a "
                "ON a.trial_id = t.id AND a.attempt = t.attempt "
                f"WHERE t.state IN ('{TrialState.ASKED}', '{TrialState.RUNNING}')"
            ).all()
            doing, troubles = [], 0
            if self.form.devices:
                query = "SELECT doing FROM condensery_device_lease WHERE outcome IS NULL"
                doing = list(connection.exec_driver_sql(query).scalars())
                states = ", ".join(f"'{state}'" for state in OPEN_JOB_STATES)
                query = f"SELECT max(troubles) FROM condensery_device_job WHERE state IN ({states})"
                troubles = connection.exec_driver_sql(query).scalar() or 0
        return {
            "controller": None if owner is None else pid_of(owner),
            "asked": any(row.state == TrialState.ASKED for row in trials),
            "running": [(r.number, r.attempt, pid_of(r.worker)) for r in trials if r.state == TrialState.RUNNING],
            "doing": doing,
            "troubles": troubles,
        }

    def _device(self, activities: Sequence[str]) -> str:
        if any((self.folder / "agent" / "unsent").glob("*/*.json")):
            return "uploading"
        if any(activity in (LeaseActivity.MEASURING, LeaseActivity.COOLING) for activity in activities):
            return "measuring"
        return "fetching" if activities else "waiting"

    def _training(self, number: int, attempt: int, pid: int | None) -> Training:
        folder = self.files / trial_folder(number)
        steps = [
            int(path.stem.partition("-")[2].partition(".")[0])
            for path in (folder / CHECKPOINTS).glob("checkpoint-*.json")
        ]
        lines = tail(folder / LOG_FILE)
        phase = "beginning"
        for place, line in enumerate(lines[last_with(lines, f", attempt {attempt}: ") :]):
            if place and ", attempt " in line:  # the next one's
                break
            begun = line.partition(" training from step ")[2].split(" of ")
            if f" epoch {EPOCHS}: " in line or (len(begun) == 2 and begun[0] == begun[1]):
                phase = "finishing"
            elif len(begun) == 2:
                phase = "training"
        return Training(number, attempt, pid, phase, max(steps, default=-1))

    def marked(self) -> dict[int, str]:
        """Return the live processes of this run, with their command lines."""
        commands = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (folder / "environ").read_bytes() and not is_dead(int(folder.name)):
                        commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        return commands

    def phases(self, role: str, seen: Seen) -> list[str]:
        """Return the phases that a kill of this role would hit now."""
        here = (
            self._phases_of_search(role, seen) if role not in ("hub", "agent") else self._phases_of_device(role, seen)
        )
        return [phase for phase in here if (role, phase) in self.form.cells]

    def _phases_of_search(self, role: str, seen: Seen) -> list[str]:
        waits = [process for process in self.launches() if process.pid != seen.controller]
        if role == "stand-by":
            waiting = ["standing by" in process.says() for process in waits if seen.controller]
            return ["waiting" if is_waiting else "starting" for is_waiting in waiting]
        if role == "postgres" and seen.away:
            return []
        if seen.controller is None:
            return ["starting"] if waits and role in ("controller", "postgres") and not seen.away else []
        if seen.away:
            return ["away"] if role != "worker" or self.workers_in(seen, "away") else []
        if role == "worker":
            return [phase for phase in PHASES[role] if phase != "away" and self.workers_in(seen, phase)]
        if role == "ray" and not self.ray():
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

    def launches(self) -> list[Process]:
        return [process for name, process in self.processes.items() if name.startswith("launch") and process.pid]

    def workers_in(self, seen: Seen, phase: str) -> list[int]:
        """The worker processes in a phase; with PostgreSQL away, those that have a job."""
        if phase != "idle":
            return [t.pid for t in seen.trainings if t.pid and phase in (t.phase, "away") and not is_dead(t.pid)]
        busy = {training.pid for training in seen.trainings}
        servers = [pid for pid in children(seen.controller) if "multiprocessing.forkserver" in command_of(pid)]
        return [pid for server in servers for pid in children(server) if pid not in busy]

    def ray(self) -> dict[int, str]:
        """Ray's processes by what they are; spawned are the driver of Tune and its supervisor."""
        kinds = ("raylet/raylet", "gcs_server", "ray::TuneWorker", "ray::Mailbox", "ray::", "spawn_main")
        kind_of = {}
        for pid, command in self.marked().items():
            kind = next((kind for kind in kinds if kind in command.split(" --")[0]), None)
            if kind is not None:
                kind_of[pid] = kind
        return kind_of

    def losses(
        self, trainings: Sequence[Training], used: Mapping[int | None, float | None], patience_s: float
    ) -> list[dict[str, Any]]:
        """Return what a kill cost each training, once its worker is gone; for a live worker, what it would cost."""
        deadline, losses = time.monotonic() + patience_s, dict[int, dict[str, Any]]()
        while len(losses) < len(trainings):
            is_late = time.monotonic() >= deadline
            for training in trainings:
                is_gone = is_dead(training.pid)
                if training.number not in losses and (is_gone or is_late):
                    losses[training.number] = self._loss(training, used[training.pid], is_gone)
            time.sleep(0.002)
        return [losses[training.number] for training in trainings]

    def _loss(self, training: Training, used: float | None, is_gone: bool) -> dict[str, Any]:
        after = self._training(training.number, training.attempt, training.pid)
        last_place, cpu_then = self._cpu.get((training.number, training.attempt), (None, 0.0))
        is_same = last_place == (after.phase, after.checkpoint) and after.phase == "training" and used is not None
        redone = (used or 0.0) - cpu_then if is_same else 0.0
        return {
            "trial": training.number,
            "attempt": training.attempt,
            "phase": after.phase,
            "checkpoint": after.checkpoint,
            "redone_cpu_s": round(redone, 3),
            "killed": is_gone,
        }
