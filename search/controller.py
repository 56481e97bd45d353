"""The controller: one process that asks, prices, gates, dispatches and records.

Notable choices:
- Every step is written to our tables before the next begins, and every step may be repeated: a controller that dies at
  any instruction is followed by one that reads the tables (`_reconcile`) and goes on from there.
- Our tables are the truth; Optuna is told afterwards and re-told when a crash came between.
- Candidates are priced in batches, one batch ahead of the workers, so the anchor is shared and no worker waits for a
  measurement that could have been made before.
- A duplicate, a failure or a trial outside the space is a FAIL for Optuna, which its samplers pass over; a refused
  candidate is PRUNED with its constraints, from which TPE learns.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState

from search.engines.base import Engine, EngineEvent
from search.gate import Budget, excess, refusal
from search.pareto import pareto_front
from search.pricing import price
from search.sampler import distributions, make_sampler
from search.store.reader import TrialRow
from search.store.store import NewTrial, Wish
from search.study import OpenStudy
from search.view import LaunchView
from space.config import CondenseNetConfig
from space.cost import Cost, cost_of
from space.domains import Value
from space.errors import (
    BudgetUnreachable,
    CondenseryError,
    DataNotFound,
    DiskFull,
    InvalidConfig,
    InvalidSettings,
    ReadOnlyFolder,
    SearchFailed,
    UnreadableImage,
)
from workers.latency.probes import FailedMeasurement, LatencyProbe, default_core
from workers.settings import TrainingSettings
from workers.trial import NETWORK_FILE, ONNX_FILE, TrialJob, trial_identity

POLL_S = 0.25
WIND_DOWN_POLLS = 480  # two minutes for every worker to write its checkpoint
# A worker that meets one of these would meet it in every trial: the search stops and the trial stays open.
FATAL = {error.exit_code: error for error in (DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage)}

Ending = Literal["finished", "stopped", "exhausted"]


@dataclass(frozen=True)
class Surroundings:
    """What a controller works with, beside the study."""

    engine: Engine
    probe: LatencyProbe
    view: LaunchView
    files: Path  # of this study
    cache: Path  # where the images are
    stop: threading.Event  # set by Ctrl-C


class Controller:
    """Runs one study to its number of trainings; see the module."""

    def __init__(self, study: OpenStudy, around: Surroundings) -> None:
        settings = study.settings
        self.settings, self.store, self.optuna_study = settings, study.store, study.optuna_study
        self.around, self.engine, self.view = around, around.engine, around.view
        self.space, self.training_space = settings.search_space(), settings.training_space()
        self.budget = Budget(**settings.budget.model_dump())
        self.distributions = distributions({**self.space.domains, **self.training_space.domains})
        self.wanted = settings.study.trainings
        self.batch = settings.search.batch or settings.engine.workers
        self.core = default_core() if settings.latency.core is None else settings.latency.core
        self._asked: dict[int, optuna.Trial] = {}  # Optuna's objects of open trials
        self._unpriced: list[TrialRow] = []
        self._queue: deque[TrialRow] = deque()
        self._running: dict[int, TrialRow] = {}
        self._progress: dict[int, float] = {}
        self._cancelled: set[int] = set()
        self._done = self._failures_in_a_row = self._refusals_in_a_row = 0
        self._at_random = False
        self._distinct: set[str] = set()
        self._fatal: CondenseryError | None = None

    def run(self) -> Ending:
        """Search until the trainings are done, the space is used up, or someone stops it.

        Raises:
            BudgetUnreachable: proposal after proposal was refused and nothing was ever trained.
            SearchFailed: the same after some trainings, or one training after another failed.
            DiskFull, ReadOnlyFolder, DataNotFound, UnreadableImage: a worker can't go on; nothing recorded is lost.
        """
        self._reconcile()
        while True:
            self.view.progress(self._done, self.wanted)
            if self._fatal is not None:
                self._wind_down()
                raise self._fatal
            if self.store.heartbeat() or self.around.stop.is_set():
                self._wind_down()
                return "stopped"
            self._obey_cancels()
            self._dispatch()
            missing = self.wanted - self._done - len(self._running) - len(self._queue)
            if missing <= 0 and not self._running and not self._queue:
                return "finished"
            exhausted = self._exhausted()
            if exhausted and not self._running and not self._queue:
                return "exhausted"
            if missing > 0 and not self._queue and not exhausted:
                self._propose(min(self.batch, missing))
                self._take(self.engine.poll(0.0))
            else:
                self._take(self.engine.poll(POLL_S))

    # -- proposing and pricing --

    def _propose(self, count: int) -> None:
        """Ask for candidates until `count` need measuring (or a good many were refused), then price and gate them."""
        candidates, self._unpriced = self._unpriced, []
        wishes = deque(self.store.waiting_wishes())
        for _ in range(50):
            if len(candidates) >= count or self.around.stop.is_set() or self._exhausted():
                break
            row = self._ask(wishes.popleft() if wishes else None)
            if row is not None and not self._refused_unmeasured(row):
                candidates.append(row)
        candidates = [row for row in candidates if row.number not in self._cancelled]
        if candidates:
            self._price(candidates)
        self._give_up_if_hopeless()

    def _ask(self, wish: Wish | None) -> TrialRow | None:
        """Get one proposal and record it; None for a wish that makes no valid config."""
        number_hint = self.store.next_number()
        search = self.settings.search
        self.optuna_study.sampler = make_sampler(search, self.settings.study.seed, number_hint, self._at_random)
        self._at_random = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if wish is None:
                trial = self.optuna_study.ask(self.distributions)
                config, training = self.space.from_params(trial.params), self.training_space.from_params(trial.params)
            else:
                config, training = wish.config, TrainingSettings.model_validate(wish.training)
                params = self._params(config, training)
                if params is not None:
                    self.optuna_study.enqueue_trial(params)
                trial = self.optuna_study.ask(None if params is None else self.distributions)
        images = self.settings.data
        new = NewTrial(
            number=trial.number,
            optuna_trial_id=trial._trial_id,
            origin="sampled" if wish is None else "enqueued",
            config=config,
            training=training.model_dump(mode="json"),
            seed=self.settings.study.seed,
            identity=trial_identity(config, training, images, self.settings.study.seed),
            cost=cost_of(config),
        )
        self.store.add_trial(new, wish)
        self._asked[new.number] = trial
        row = self.store.trial(new.number)
        self.view.trial(row)
        return row

    def _params(self, config: CondenseNetConfig, training: TrainingSettings) -> dict[str, Value] | None:
        """Return Optuna's parameters of a trial; None for one outside the space."""
        try:
            params = {**self.space.to_params(config), **self.training_space.to_params(training)}
        except (InvalidConfig, InvalidSettings):
            return None
        return {name: value for name, value in params.items() if name in self.distributions}

    def _inside(self, row: TrialRow) -> bool:
        """Whether the space can propose this trial; what a user enqueued need not lie in it."""
        return row.origin == "sampled" or self._params(row.config, TrainingSettings(**row.training)) is not None

    def _refused_unmeasured(self, row: TrialRow) -> bool:
        """Refuse what needs no measurement: a duplicate, or macs or params over the budget."""
        self._count_distinct(row)
        same = self.store.find_same(row.identity, row.number)
        if same is not None:
            self._at_random = True
            self._close(row, "duplicate", reason=f"same as trial {same}", duplicate_of=same)
        elif why := refusal(self.budget, _cost(row), None):
            self._constrain(row, None)
            self._close(row, "infeasible", reason=why)
        else:
            return False
        self._refusals_in_a_row += 1
        return True

    def _price(self, candidates: Sequence[TrialRow]) -> None:
        """Measure the candidates together on the quiet processor, then let them through or refuse them."""
        with self.engine.quiet(self.core):
            prices = price([row.config for row in candidates], self.around.probe, self.around.files)
        for row, measured in zip(candidates, prices, strict=True):
            if isinstance(measured, FailedMeasurement):
                self._fail(row, f"latency could not be measured: {measured.reason}")
                continue
            self.store.add_latency(row.number, measured, "price")
            priced = self.store.trial(row.number)
            high_ms = measured.summary.interval_high_ms
            self._constrain(priced, high_ms)
            if why := refusal(self.budget, _cost(priced), priced.latency):
                self._refusals_in_a_row += 1
                self._close(priced, "infeasible", reason=why)
            else:
                self._refusals_in_a_row = 0
                self.store.set_queued(row.number)
                self._queue.append(self.store.trial(row.number))
                self.view.trial(self._queue[-1])

    def _constrain(self, row: TrialRow, latency_high_ms: float | None) -> None:
        """Tell Optuna by how much each limit is exceeded (0 or less: inside)."""
        trial = self._optuna_trial(row)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a repeated step finds them set
            for name, value in excess(self.budget, row.macs, row.params, latency_high_ms).items():
                trial.set_constraint(name, value)

    def _optuna_trial(self, row: TrialRow) -> optuna.Trial:
        if row.number not in self._asked:  # opened by an earlier controller
            self.optuna_study.sampler = optuna.samplers.RandomSampler(seed=0)  # it has nothing to propose here
            self._asked[row.number] = optuna.Trial(self.optuna_study, row.optuna_trial_id)
        return self._asked[row.number]

    def _count_distinct(self, row: TrialRow) -> None:
        if self._inside(row):
            self._distinct.add(row.identity)

    def _exhausted(self) -> bool:
        """Whether every distinct trial of the space has been proposed."""
        return self._size is not None and len(self._distinct) >= self._size

    @property
    def _size(self) -> int | None:
        trainings = [domain.enumerate() for domain in self.training_space.domains.values()]
        if self.space.size is None or any(values is None for values in trainings):
            return None
        size = self.space.size
        for values in trainings:
            size *= len(values or ())
        return size

    def _give_up_if_hopeless(self) -> None:
        if self._refusals_in_a_row < self.settings.search.give_up_after or self._running or self._queue:
            return
        rows = self.store.trials()
        smallest = min((row.latency.interval_high_ms for row in rows if row.latency), default=None)
        reached = [f"smallest macs seen {min(row.macs for row in rows):,}"]
        if smallest is not None:
            reached.append(f"smallest latency seen {smallest:.4g} ms")
        text = (
            f"{self._refusals_in_a_row} proposals in a row were refused or repeated (budget {self.budget}; "
            f"{', '.join(reached)}); widen the space or the budget."
        )
        raise SearchFailed(text) if self._done else BudgetUnreachable(text)

    # -- running --

    def _dispatch(self) -> None:
        while self._queue and self.engine.free_slots() > 0:
            row = self._queue.popleft()
            if row.number in self._cancelled:
                continue
            attempt = self.store.set_running(row.number)
            limits, engine = self.settings.limits, self.settings.engine
            self._running[row.number] = self.store.trial(row.number)
            self.engine.submit(
                TrialJob(
                    study=self.settings.study.name,
                    number=row.number,
                    attempt=attempt,
                    config=row.config,
                    training=TrainingSettings.model_validate(row.training),
                    data=self.settings.data,
                    seed=row.seed,
                    folder=str(self.trial_folder(row.number)),
                    cache=str(self.around.cache),
                    device=engine.device,
                    time_limit_s=limits.trial_time_s,
                    checkpoint_every_s=limits.checkpoint_every_s,
                    keep_checkpoints=self.settings.retention.checkpoints == "last",
                )
            )
            self.view.trial(self._running[row.number])

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return self.around.files / f"trial-{number:05d}"

    def _take(self, events: Sequence[EngineEvent]) -> None:
        for event in events:
            row = self._running.get(event.number)
            if row is None or row.attempt != event.attempt:
                continue  # news of an attempt that was given up
            if event.kind == "curve":
                self.store.add_curve_row(event.number, event.payload)
                self.view.curve(event.number, event.payload)
                continue
            del self._running[event.number]
            if event.kind == "done":
                self._finish(row, event.payload)
            elif event.kind == "stopped":
                self.store.set_queued(event.number)
                self.view.trial(self.store.trial(event.number))
            else:
                self._lose(row, *event.payload)

    def _finish(self, row: TrialRow, result: dict[str, float | str]) -> None:
        folder = self.trial_folder(row.number).absolute()
        files = {NETWORK_FILE: result["network_sha256"], ONNX_FILE: result["onnx_sha256"]}
        self.store.add_artifacts(row.number, {name: (str(folder / name), str(sha)) for name, sha in files.items()})
        self._done += 1
        self._failures_in_a_row = 0
        names = ("top1", "val_loss", "train_seconds", "peak_memory_mb")
        self._close(row, "done", **{name: result[name] for name in names})
        if self.settings.retention.networks == "front":
            self._remove_dominated()

    def _lose(self, row: TrialRow, reason: str, exit_code: int) -> None:
        """A training failed: record why, or, when every trial would meet the same, leave it open and stop."""
        if row.number in self._cancelled:
            self._close(row, "cancelled", reason="cancelled by the user")
        elif exit_code in FATAL:
            self.store.set_queued(row.number)
            self._fatal = FATAL[exit_code](reason)
        else:
            self._fail(row, reason)

    def _fail(self, row: TrialRow, reason: str) -> None:
        self._close(row, "failed", reason=reason)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self.settings.limits.failures_in_a_row:
            self._fatal = SearchFailed(f"{self._failures_in_a_row} trials in a row failed, the last because: {reason}")

    def _remove_dominated(self) -> None:
        """Retention `front`: the files of finished trials that are not on the front go; their figures stay."""
        done = self.store.trials(("done",))
        front = {row.number for row in pareto_front(done)}
        for row in done:
            folder = self.trial_folder(row.number)
            if row.number not in front and folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
                self.store.mark_removed(row.number)

    # -- endings --

    def _close(self, row: TrialRow, state: str, **values: object) -> None:
        """Record a final state, then tell Optuna."""
        self.store.finish(row.number, state, **values)
        closed = self.store.trial(row.number)
        self._tell(closed)
        self.view.trial(closed)

    def _tell(self, row: TrialRow) -> None:
        values, state = None, TrialState.FAIL
        if not self._inside(row):
            pass  # it has no parameters, and samplers model only those that all trials they see have in common
        elif row.state == "done" and row.top1 is not None and row.latency is not None:
            values, state = [row.top1, row.latency.median_ms, float(row.macs)], TrialState.COMPLETE
        elif row.state == "infeasible":
            state = TrialState.PRUNED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.optuna_study.tell(row.number, values, state, skip_if_finished=True)
        self.store.mark_told(row.number)
        self._asked.pop(row.number, None)

    def _obey_cancels(self) -> None:
        for number in self.store.cancel_wishes():
            if number in self._cancelled:
                continue
            self._cancelled.add(number)
            if number in self._running:
                self.engine.cancel(number)
            else:
                self._close(self.store.trial(number), "cancelled", reason="cancelled by the user")

    def _wind_down(self) -> None:
        """Let every worker write its checkpoint; what can't in time is resumed from an earlier one."""
        if not self._running:
            return
        self.view.note(f"stopping: {len(self._running)} running trials write their checkpoints …")
        self.engine.stop()
        for _ in range(WIND_DOWN_POLLS):
            self._take(self.engine.poll(POLL_S))
            if not self._running:
                return

    def _reconcile(self) -> None:
        """Read the tables and put everything an earlier controller left open back in its place."""
        rows = self.store.trials()
        known = {row.number for row in rows}
        for trial in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:  # it died between asking and recording: nothing was done for it yet
                self.optuna_study.tell(trial.number, state=TrialState.FAIL)
        for row in rows:
            self._count_distinct(row)
            if row.state == "done":
                self._done += 1
            if row.state == "asked":
                if not self._refused_unmeasured(row):
                    self._unpriced.append(row)
            elif row.state in ("queued", "running"):
                self.store.set_queued(row.number)
                self._queue.append(row)
            elif not row.told:
                self._tell(row)
        left_open = len(self._unpriced) + len(self._queue)
        if rows:
            self.view.note(f"resuming: {self._done} trainings done, {left_open} trials to go on with")
        for row in itertools.chain(rows[-20:]):
            self.view.trial(row)


def _cost(row: TrialRow) -> Cost:
    return cost_of(row.config)
