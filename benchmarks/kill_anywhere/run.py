"""A search whose processes are killed at chosen moments: start them, see what they are at, kill, start them again.

Notable choices:
- What runs is what users run: `condensery launch`, `condensery devices serve`, the agent's file, a PostgreSQL server.
- Moments are chosen by what is going on, read from the study's tables and the trials' files every few milliseconds:
  the cell (role, phase) that was hit least is waited for, and struck at a random moment of it.
- A killed process is started again at once, as systemd or an operator would, until the study is finished.
- What a kill costs is counted in seconds of the worker's processor since its newest checkpoint: neither a busy machine
  nor a pause for a measurement changes that.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.kill_anywhere.forms import CHECKPOINT_EVERY_S, EPOCHS, STUDY, Cell, Form, Kill
from benchmarks.kill_anywhere.look import Lookout, Seen
from benchmarks.kill_anywhere.processes import Postgres, Process, cpu_s, parent_of
from search.devices import registry
from search.store.connection.database import open_for_writing
from space.errors import DatabaseUnavailable
from workers.latency.agent_file import agent_command

ROOT = Path(__file__).parents[2]
CONDENSERY = [sys.executable, "-m", "condensery"]
# How long after a phase was seen to begin the kill comes, at most; it counts for the phase that it then hits.
SPAN_S = {"starting": 6.0, "training": 1.5, "pricing": 1.5, "measuring": 1.5, "waiting": 1.0, "finishing": 0.2}
LOOK_S = 0.02
AGAIN_S = 1.0  # before what ended by itself is started again
ENDS_S = 30.0  # for every process to be gone in the end; Ray's agents follow their raylet, later on a busy machine
STUCK_S = 300.0  # a run that has not finished so long after its last kill will not
PATIENCE_S = 12.0  # so long the rarest cells are waited for, then those hit once more, and so on
MORE_TRAININGS = 2  # whenever a study finishes before its kills were made


class Run:
    """One study from its start to its end, under fire."""

    def __init__(self, form: Form, folder: Path, trainings: int, seed: int, postgres: Postgres | None = None) -> None:
        self.form, self.folder, self.trainings, self.postgres = form, folder, trainings, postgres
        self.rng = random.Random(seed)
        self.epochs, self.files = EPOCHS, folder / "files" / "digits"
        self.kills: list[Kill] = []
        self.violations: list[str] = []
        self.gave_up: list[str] = []  # processes that ended by themselves because PostgreSQL was away as they started
        self.taken_over = 0
        self.mark = f"CONDENSERY_KILLED={secrets.token_hex(8)}"
        self._postgres_back_at: float | None = None
        self._was_away_at = -1e9
        is_postgres = postgres is not None and form.database == "PostgreSQL"
        self.url = postgres.new_database() if postgres and is_postgres else f"sqlite:///{folder / 'study.db'}"
        self.lookout = Lookout(form, folder, self.url, self.mark)
        self.processes = self.lookout.processes = self._processes(seed)

    def _processes(self, seed: int) -> dict[str, Process]:
        values = {
            "trainings": self.trainings,
            "seed": seed,
            "files": self.files.parent,
            "epochs": EPOCHS,
            "device": "board" if self.form.devices else "host",
            "engine": self.form.engine,
            "every_s": CHECKPOINT_EVERY_S,
        }
        (self.folder / "study.toml").write_text(STUDY.format(**values))
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", name: value}
        processes: dict[str, Process] = {}

        def add(role: str, command: list[str], **more: str) -> None:
            processes[role] = Process(role, command, self.folder / f"{role}.log", environment | more)

        launch = [*CONDENSERY, "launch", "study.toml", "--storage", self.url]
        for number in range(1 + self.form.stand_by):
            add(f"launch {number + 1}", [*launch, "--stand-by" if self.form.stand_by else "--resume"])
        if self.form.devices:
            engine = open_for_writing(self.url)
            token = registry.add_device(engine, "board")
            engine.dispose()
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            add("hub", [*CONDENSERY, "devices", "serve", "--port", str(port), "--storage", self.url])
            hub = f"http://127.0.0.1:{port}"
            command = [*agent_command(), "run", "--hub", hub, "--folder", str(self.folder / "agent")]
            add("agent", command, CONDENSERY_TOKEN=token, no_proxy="127.0.0.1")
        return processes

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
                seen = self.lookout.look()
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
                self._postgres_back_at, self.lookout.is_away = None, False
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
                if code != 0 and not (code == -signal.SIGTERM and not _began(process.says())):  # it was just starting
                    self.violations.append(f"{name} ended with exit code {code} when asked to")

    def _close(self) -> None:
        for process in self.processes.values():
            if process.pid is not None:
                process.kill()
        if self._postgres_back_at is not None and self.postgres is not None:
            self.postgres.start()
        self.lookout.forget()
        ends_at = time.monotonic() + ENDS_S
        while left := self.lookout.marked():
            if time.monotonic() > ends_at:
                break
            time.sleep(0.1)
        if left:
            self.violations.append(
                f"processes left behind: {[f'{pid} of {parent_of(pid)}: {left[pid]}' for pid in sorted(left)[:8]]}"
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- killing --

    def _choose(self, seen: Seen, table: Counter[Cell], patience: int) -> Cell | None:
        """The cell hit least of those that could be hit now, if it is (nearly) the rarest of all."""
        least = min(table[cell] for cell in self.form.cells)
        here = [(role, phase) for role in self.form.roles for phase in self.lookout.phases(role, seen)]
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
            leads_to = [other for other in self.form.cells if other[1] == "away"]
        return min(table[other] for other in [cell, *leads_to] if other in self.form.cells)

    def _strike(self, seen: Seen, aim: Cell, table: Counter[Cell]) -> Kill | None:
        """Kill the role aimed at, in the phase it is in now; return None when it isn't there any more."""
        role, phases = aim[0], self.lookout.phases(aim[0], seen)
        if not phases:
            return None
        phase = aim[1] if aim[1] in phases else min(phases, key=lambda phase: table[(role, phase)])
        kill = Kill(role, phase, time.time(), "")
        hit = [training for training in seen.trainings if training.pid]
        used = {training.pid: cpu_s(training.pid) for training in hit}
        if role == "postgres":
            assert self.postgres is not None
            self.lookout.is_away = True
            self.lookout.forget()
            self.postgres.crash()
            down_s = self.rng.uniform(0.5, 6.0)
            self._postgres_back_at = time.monotonic() + down_s
            kill.detail = f"for {down_s:.1f} s"
        elif role in ("hub", "agent"):
            self.processes[role].kill()
            hit = []
        elif role == "worker":
            pid = self.rng.choice(self.lookout.workers_in(seen, phase))
            hit, kill.pid = [training for training in hit if training.pid == pid], pid
            os.kill(pid, signal.SIGKILL)
        elif role == "ray":
            pid, kill.detail = self.rng.choice(sorted(self.lookout.ray().items()))
            os.kill(pid, signal.SIGKILL)
        else:
            launches = {process.pid: process for process in self.lookout.launches()}
            if role == "controller" and seen.controller in launches:
                launch = launches.pop(seen.controller)
                self.taken_over += bool(launches)
            else:
                launches.pop(seen.controller, None)
                launch, hit = self.rng.choice(list(launches.values())), []
            launch.kill()
        patience_s = 0.0 if role == "postgres" else 10.0  # its workers live on
        kill.trainings = self.lookout.losses(hit, used, patience_s)
        lost = [training["redone_cpu_s"] for training in kill.trainings if training["killed"]]
        if lost:
            kill.detail += f"{' ' if kill.detail else ''}{max(lost):.2f} s of training lost"
        self.kills.append(kill)
        table[(role, phase)] += 1
        return kill


def _began(text: str) -> bool:
    """Whether a launch or a hub had come to its work, by what it says: from then on it waits for its database."""
    return any(word in text for word in ("Digits (scikit-learn)", "hub at "))
