"""The Ray driver: one Tune run in a process of its own, which runs the jobs that come through a pipe.

Notable choices:
- The run has no state of its own to save: Tune's trials, checkpoints and tables are thrown away with it. What
  matters is in the study's tables and in the trials' folders.
- Ray ends the whole process when it loses its own servers, so the process is not the controller's.
- Only a process of `search.engines.ray.supervisor` imports this module, and with it Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from search.engines.base import CANCELLED
from search.engines.ray.supervisor import PAUSES
from workers.processes import children_of, lives

OBJECT_STORE_BYTES = 150 * 2**20  # hardly used: a job is a few kilobytes
PULSE_S = 0.5
DEAD_AFTER_S = 45.0  # without an answer from the switchboard, which is on this machine
IDLE_WAIT_S = 1.0
TOKEN = "token"  # file in the run's folder: what a Ray of ours asks of everyone
DIED, NO_MEMORY = "the worker died: ", "out of memory"  # how a reason begins; what it says when Ray killed for memory
PENDING_TICK_S = 2.0  # between two signs of life of trials that have no worker yet


@dataclass(frozen=True)
class Plan:
    """What the driver needs to know; plain values."""

    folder: str  # of this run's files, removed with it; short, because sockets' paths are limited
    host: str
    workers: int
    threads: int
    gpus: float  # of each worker
    address: str | None
    exchange: str | None
    cores: tuple[int, ...] | None  # that workers on this machine keep to

    def order(self, serial: int, job: dict[str, Any]) -> str:
        """Return what a worker is told: the job and its surroundings."""
        pauses = str(Path(self.folder) / PAUSES)
        surroundings = {"host": self.host, "pauses": pauses, "cores": self.cores, "threads": self.threads}
        return json.dumps({"serial": serial, "job": job, "exchange": self.exchange} | surroundings)


def drive(pipe: Connection, plan: Plan) -> None:
    """Start or join Ray, then run jobs until the process is killed; says over the pipe what happens."""
    threads = {f"{library}_NUM_THREADS": str(plan.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ |= quiet | {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
        "TUNE_MAX_PENDING_TRIALS_PG": str(plan.workers),
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }
    if plan.address is None:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(Path(plan.folder) / TOKEN)}
        os.environ.pop("RAY_AUTH_TOKEN", None)  # the user's, of some cluster: it would win
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: Ray's servers listen on loopback only
    elif plan.address != "auto":
        answers(plan.address)
    # How long a call to a dead worker waits to hear why it died; else memory's kills would pass for lost connections.
    os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", "10000")
    import ray

    own: dict[str, Any] = {
        "num_cpus": plan.workers * plan.threads,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": dashboard_is_installed(),
        "dashboard_host": "127.0.0.1",
        "_temp_dir": str(Path(plan.folder) / "r"),
    }
    context = ray.init(
        address=plan.address or "local",
        namespace=Path(plan.folder).name,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": threads | quiet},
        **(own if plan.address is None else {}),
    )
    desk = JobBridge(pipe, plan, own_servers() if plan.address is None else {})
    board = desk.open_switchboard()
    pipe.send(("ready", getattr(context, "dashboard_url", "") or "", dict(ray.cluster_resources())))
    threading.Thread(target=desk.listen, daemon=True).start()
    threading.Thread(target=desk.pulse, args=(board,), daemon=True).start()
    _run_tune(desk)


def dashboard_is_installed() -> bool:
    """Whether what Ray's dashboard needs beside Ray is there."""
    return find_spec("aiohttp_cors") is not None and find_spec("opencensus") is not None


def answers(address: str) -> None:
    """Raise ConnectionError when nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(f"nothing answers there ({error})") from error


class JobBridge:
    """What the driver's threads share: jobs that wait, words for trials, the way back to the controller."""

    def __init__(self, pipe: Connection, plan: Plan, servers: dict[int, str]) -> None:
        self.plan = plan
        self._servers = servers
        self.jobs: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self.words: dict[int, str] = {}  # by the jobs' serial numbers
        self.open: dict[str, tuple[int, int, int]] = {}  # Tune's trial: serial, number, attempt; until its end was told
        self._pipe = pipe
        self._sending = threading.Lock()
        self._ticked_at = -1e9

    def send(self, kind: str, *payload: Any) -> None:
        """Send a message to the controller; several threads may."""
        with self._sending:
            self._pipe.send((kind, *payload))

    def end(self, trial_id: str, kind: str, payload: Any) -> None:
        """Tell the end of a trial, unless it was told."""
        if trial_id in self.open:
            serial, number, attempt = self.open.pop(trial_id)
            self.words.pop(serial, None)
            self.send("events", [(kind, number, attempt, payload)])

    def tick_pending(self, trial_ids: Sequence[str]) -> None:
        """Say of trials without a worker that they are not forgotten: Tune lists them, and its loop turns."""
        if time.monotonic() - self._ticked_at >= PENDING_TICK_S:
            self._ticked_at = time.monotonic()
            for trial_id in trial_ids:
                if trial_id in self.open:
                    self.send("tick", *self.open[trial_id][1:])

    def take(self, trial_id: str, news: list[tuple[str, int, int, Any]]) -> None:
        """Pass a worker's news on; none at all is a sign of life."""
        _, number, attempt = self.open[trial_id]
        self.send("tick", number, attempt)
        if not news:
            return
        *before, (kind, _, _, payload) = news
        if kind in ("started", "earlier", "curve"):
            self.send("events", news)
        else:
            if before:
                self.send("events", before)
            self.end(trial_id, kind, payload)

    def listen(self) -> None:
        """Take the controller's messages; the keeper sees when it is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if message[0] == "job":
                    self.jobs.put(message[1:])
                else:
                    self.words[message[1]] = message[2]

    def open_switchboard(self) -> Any:
        """Start the actor that workers ask for words, on this machine where the driver has a node of its own."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from workers.runners.mailbox import MAILBOX, Mailbox

        here = ray.get_runtime_context().get_node_id()
        board = (
            ray.remote(Mailbox)
            .options(
                name=MAILBOX,
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )
        ray.get(board.say.remote({}), timeout=120)
        return board

    def pulse(self, board: Any) -> None:
        """Say all words again and again, so that nothing is lost with a restarted switchboard; end when Ray is dead."""
        import ray

        answered, said = time.monotonic(), 0.0
        sent: dict[int, str] = {}
        while time.monotonic() - answered < DEAD_AFTER_S:
            time.sleep(PULSE_S)
            self.end_without_servers()
            if self.words == sent and time.monotonic() - said < 5.0:
                answered = time.monotonic()
                continue
            try:
                sent = dict(self.words)
                ray.get(board.say.remote(sent), timeout=15.0)
                answered = said = time.monotonic()
            except Exception:
                traceback.print_exc()
                sent = {}
        self._exit("it doesn't answer any more")

    def end_without_servers(self) -> None:
        """End this process when one of the servers that it started is dead: no job would come to an end any more."""
        for pid, name in self._servers.items():
            if not lives(pid):
                self._exit(f"its {name} died")

    def _exit(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.send("ended", reason)
        os._exit(1)


def own_servers() -> dict[int, str]:
    """Return Ray's servers among this process's children (Linux), without which it can't go on."""
    servers = {}
    for pid in children_of(os.getpid()):
        with contextlib.suppress(OSError):
            name = Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
            if name in ("raylet", "gcs_server"):
                servers[pid] = name
    return servers


def _run_tune(desk: JobBridge) -> None:
    from ray import tune
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    from workers.runners.ray_worker import TuneWorker

    class Jobs(Searcher):  # type: ignore[misc]  # Ray has no type information
        """Proposes what the study's controller submitted: it has asked, priced and gated already."""

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            try:
                serial, job = desk.jobs.get(not desk.open, IDLE_WAIT_S)
            except queue.Empty:
                return None
            desk.open[trial_id] = (serial, job["number"], job["attempt"])
            return {"order": desk.plan.order(serial, job)}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Nothing is left open when Tune closes a trial for reasons of its own."""
            desk.end(trial_id, "lost", "Ray Tune gave the trial up")

        def save(self, checkpoint_path: str) -> None:
            """Save nothing: a Tune run is disposable."""

        def restore(self, checkpoint_path: str) -> None:
            """Restore nothing."""

    class StoppingRule(FIFOScheduler):  # type: ignore[misc]
        """Hands a trial's news to the controller and carries out its words for trials that have no worker yet."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            desk.take(trial.trial_id, result["news"])
            return str(self.CONTINUE if trial.trial_id in desk.open else self.STOP)

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            if trial.trial_id in desk.open:
                desk.take(trial.trial_id, result["news"])

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            desk.end_without_servers()
            desk.end(trial.trial_id, "lost", reason_of(trial))

        def choose_trial_to_run(self, tune_controller: Any) -> None:
            """Leave the choice to Tune; of those that wait, end the unwanted and give a sign of life of the others."""
            pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
            desk.tick_pending([trial.trial_id for trial in pending])
            for trial in pending if desk.words else ():
                word = desk.words.get(desk.open.get(trial.trial_id, (-1,))[0])
                if word == "stop":
                    desk.end(trial.trial_id, "stopped", None)
                elif word == "cancel":
                    desk.end(trial.trial_id, "failed", CANCELLED)
                if word is not None:
                    tune_controller.stop_trial(trial)

    _outlive_kills_for_memory()
    tune.run(
        TuneWorker,
        name="run",
        num_samples=-1,
        search_alg=Jobs(),
        scheduler=StoppingRule(),
        resources_per_trial={"cpu": desk.plan.threads} | ({"gpu": desk.plan.gpus} if desk.plan.gpus else {}),
        storage_path=str(Path(desk.plan.folder) / "tune"),
        trial_name_creator=lambda trial: str(trial.trial_id),
        trial_dirname_creator=lambda trial: str(trial.trial_id),
        max_failures=0,
        raise_on_failed_trial=False,
        reuse_actors=True,
        verbose=0,
        _remote=False,  # here, also when Ray is reached as a client
    )
    raise RuntimeError("the Tune run ended by itself")


def _outlive_kills_for_memory() -> None:
    """Have Tune take a worker that Ray killed for want of memory as what it is, a dead one.

    Ray's monitor kills workers of a node that is about to be full, the newest first, until enough is free (its policy
    since 2.56). Tune in Ray 2.60 doesn't know this end of an actor: it ends the whole run ("Caught unexpected
    exception", in ray.air.execution._internal.actor_manager), and all other trials with it. A Ray without these methods
    is left as it is.
    """
    from ray.air.execution._internal import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    def as_dead(handle: Callable[..., None]) -> Callable[..., None]:
        def plain(word: Any) -> Any:
            killed = isinstance(word, OutOfMemoryError)
            return RayActorError(error_msg=f"{NO_MEMORY}, Ray killed it") if killed else word

        def told(*words: Any, **named: Any) -> None:
            handle(*map(plain, words), **{name: plain(word) for name, word in named.items()})

        return told

    for name in ("_actor_start_failed", "_actor_task_failed"):
        if handle := getattr(RayActorManager, name, None):
            setattr(RayActorManager, name, as_dead(handle))


def reason_of(trial: Any) -> str:
    """Return in one line why Tune lost a trial."""
    from ray import cloudpickle

    error: Any = None
    with contextlib.suppress(Exception):
        error = Path(trial.error_file).read_text(encoding="utf-8")
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())  # written by this process
    lines = [line.strip() for line in str(error or "for no reason given").splitlines() if line.strip()]
    died = type(error).__name__.startswith(("RayActor", "ActorDied"))
    return DIED + (lines[0] if died else lines[-1])
