"""The Tune run: a searcher that proposes the controller's jobs, and a scheduler that passes their news on.

Only the driver's process imports this module, and with it Ray.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from search.engines.events import CANCELLED
from search.engines.ray.bridge import JobBridge
from search.engines.ray.plan import DIED, NO_MEMORY
from workers.runners.messages import MessageKind
from workers.runners.ray_worker import TuneWorker

IDLE_WAIT_S = 1.0  # for a job, while no trial runs


class SubmittedJobs(Searcher):  # type: ignore[misc]  # Ray has no type information
    """Proposes what the study's controller submitted: it has asked, priced and gated already."""

    def __init__(self, bridge: JobBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next job as the config of a trial; None while there is none."""
        try:
            serial, job = self._bridge.jobs.get(not self._bridge.open, IDLE_WAIT_S)
        except queue.Empty:
            return None
        self._bridge.open[trial_id] = (serial, job["number"], job["attempt"])
        return {"job": self._bridge.plan.job_message(serial, job)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Leave nothing open when Tune closes a trial for reasons of its own."""
        self._bridge.end(trial_id, MessageKind.LOST, "Ray Tune gave the trial up")

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a Tune run is disposable."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class NewsScheduler(FIFOScheduler):  # type: ignore[misc]
    """Passes a trial's news on to the controller, and obeys its commands for trials that have no worker yet."""

    def __init__(self, bridge: JobBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the news of a result on; end the trial once its attempt has ended."""
        self._bridge.pass_on(trial.trial_id, result["news"])
        return str(self.CONTINUE if trial.trial_id in self._bridge.open else self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Pass the news of the last result on."""
        if trial.trial_id in self._bridge.open:
            self._bridge.pass_on(trial.trial_id, result["news"])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Say that a trial lost its worker, and why."""
        self._bridge.end_without_servers()
        self._bridge.end(trial.trial_id, MessageKind.LOST, reason_of(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the choice to Tune; end waiting trials that are stopped or cancelled, keep the others alive."""
        bridge = self._bridge
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        bridge.tick_pending([trial.trial_id for trial in pending])
        for trial in pending if bridge.commands else ():
            command = bridge.commands.get(bridge.open.get(trial.trial_id, (-1,))[0])
            if command == "stop":
                bridge.end(trial.trial_id, MessageKind.STOPPED, None)
            elif command == "cancel":
                bridge.end(trial.trial_id, MessageKind.FAILED, CANCELLED)
            if command is not None:
                tune_controller.stop_trial(trial)


def run_tune(bridge: JobBridge) -> None:
    """Run the jobs of the bridge as trials of one endless Tune run.

    Raises:
        RuntimeError: the run ended by itself.
    """
    plan = bridge.plan
    _outlive_kills_for_memory()
    tune.run(
        TuneWorker,
        name="run",
        num_samples=-1,
        search_alg=SubmittedJobs(bridge),
        scheduler=NewsScheduler(bridge),
        resources_per_trial={"cpu": plan.threads} | ({"gpu": plan.gpus} if plan.gpus else {}),
        storage_path=str(Path(plan.folder) / "tune"),
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
    """Have Tune treat a worker that Ray killed because memory ran out as a dead one.

    When a node's memory is nearly full, Ray's monitor kills its workers, the newest first, until enough is free (its
    policy since 2.56). Tune in Ray 2.60 doesn't expect this end of an actor: it ends the whole run ("Caught unexpected
    exception", in ray.air.execution._internal.actor_manager), and all other trials with it. A Ray without these methods
    stays unchanged.
    """

    def as_dead(handle: Callable[..., None]) -> Callable[..., None]:
        def plain(argument: Any) -> Any:
            killed = isinstance(argument, OutOfMemoryError)
            return RayActorError(error_msg=f"{NO_MEMORY}, Ray killed it") if killed else argument

        def handle_plain(*arguments: Any, **named: Any) -> None:
            handle(*map(plain, arguments), **{name: plain(argument) for name, argument in named.items()})

        return handle_plain

    for name in ("_actor_start_failed", "_actor_task_failed"):
        if handle := getattr(RayActorManager, name, None):
            setattr(RayActorManager, name, as_dead(handle))


def reason_of(trial: Any) -> str:
    """Return in one line why Tune lost a trial."""
    error: Any = None
    with contextlib.suppress(Exception):
        error = Path(trial.error_file).read_text(encoding="utf-8")
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())  # written by this process
    lines = [line.strip() for line in str(error or "for no reason given").splitlines() if line.strip()]
    died = type(error).__name__.startswith(("RayActor", "ActorDied"))
    return DIED + (lines[0] if died else lines[-1])
