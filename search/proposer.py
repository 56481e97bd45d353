"""The Optuna side of a search: proposals come from here, outcomes go back here.

Our tables are the truth and are written first; what Optuna is told follows from a trial's row alone, so it can be told
again after a crash. A trial that is done is COMPLETE; a refused one is PRUNED with its constraints, from which TPE
learns; a duplicate, a failure and a trial outside the space are FAIL, which samplers pass over.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import optuna
from optuna.trial import TrialState

from search.sampler import distributions, make_sampler
from search.store.reader import TrialRow
from search.store.store import NewTrial, Wish
from search.study import OpenStudy
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.domains import Value
from space.errors import InvalidConfig, InvalidSettings
from workers.settings import TrainingSettings
from workers.trial import trial_identity


class Proposer:
    """Asks Optuna for candidates, records them, and tells it how they ended."""

    def __init__(self, study: OpenStudy) -> None:
        self.settings, self.store, self._study = study.settings, study.store, study.optuna_study
        self.space, self.training_space = self.settings.search_space(), self.settings.training_space()
        self._distributions = distributions({**self.space.domains, **self.training_space.domains})
        self._minimised = frozenset(self.settings.latency.minimised)
        self._open: dict[int, optuna.Trial] = {}  # Optuna's objects of trials that have not ended
        self._at_random = False
        self._distinct: set[str] = set()  # identities proposed from inside the space

    def ask(self, wish: Wish | None) -> TrialRow:
        """Get one proposal, or the trial of an enqueued config, and record it as `asked`."""
        seed = self.settings.study.seed
        self._study.sampler = make_sampler(self.settings.search, seed, self.store.next_number(), self._at_random)
        self._at_random = False
        with _quiet_optuna():
            if wish is None:
                trial = self._study.ask(self._distributions)
                config, training = self.space.from_params(trial.params), self.training_space.from_params(trial.params)
            else:
                config, training = wish.config, TrainingSettings.model_validate(wish.training)
                params = self._params(config, training)
                if params is not None:
                    self._study.enqueue_trial(params)
                trial = self._study.ask(None if params is None else self._distributions)
        new = NewTrial(
            number=trial.number,
            optuna_trial_id=trial._trial_id,
            origin="sampled" if wish is None else "enqueued",
            config=config,
            training=training.model_dump(mode="json"),
            seed=seed,
            identity=trial_identity(config, training, self.settings.data, seed),
            cost=cost_of(config),
        )
        self.store.add_trial(new, wish)
        self._open[new.number] = trial
        row = self.store.trial(new.number)
        self.count(row)
        return row

    def next_at_random(self) -> None:
        """Draw the next proposal at random: a sampler that repeats itself would do so for ever."""
        self._at_random = True

    def _params(self, config: CondenseNetConfig, training: TrainingSettings) -> dict[str, Value] | None:
        """Return Optuna's parameters of a trial; None for one outside the space."""
        try:
            params = {**self.space.to_params(config), **self.training_space.to_params(training)}
        except (InvalidConfig, InvalidSettings):
            return None
        return {name: value for name, value in params.items() if name in self._distributions}

    def _inside(self, row: TrialRow) -> bool:
        """Whether the space can propose this trial; what a user enqueued need not lie in it."""
        return row.origin == "sampled" or self._params(row.config, TrainingSettings(**row.training)) is not None

    def count(self, row: TrialRow) -> None:
        """Count a trial towards those that use up the space."""
        if self._inside(row):
            self._distinct.add(row.identity)

    @property
    def exhausted(self) -> bool:
        """Whether every distinct trial of the space has been proposed."""
        choices = [domain.enumerate() for domain in self.training_space.domains.values()]
        if self.space.size is None or any(values is None for values in choices):
            return False
        return len(self._distinct) >= self.space.size * math.prod(len(values or ()) for values in choices)

    def constrain(self, row: TrialRow, excesses: Mapping[str, float]) -> None:
        """Tell Optuna by which fraction each limit is exceeded (0 or less: inside)."""
        trial = self._open.get(row.number)
        if trial is None:  # opened by an earlier controller
            self._study.sampler = optuna.samplers.RandomSampler(seed=0)  # it has nothing to propose here
            trial = self._open[row.number] = optuna.Trial(self._study, row.optuna_trial_id)
        with _quiet_optuna():  # a repeated step finds them set
            for name, value in excesses.items():
                trial.set_constraint(name, value)

    def tell(self, row: TrialRow) -> None:
        """Tell Optuna how a trial ended; telling it again changes nothing."""
        values, state = None, TrialState.FAIL
        if not self._inside(row):
            pass  # it has no parameters, and samplers model only those that all trials they see have in common
        elif row.state == "done" and row.top1 is not None and self._minimised <= row.latencies.keys():
            medians = [row.latencies[device].median_ms for device in self.settings.latency.minimised]
            values, state = [row.top1, *medians, float(row.macs)], TrialState.COMPLETE
        elif row.state == "infeasible":
            state = TrialState.PRUNED
        with _quiet_optuna():
            self._study.tell(row.number, values, state, skip_if_finished=True)
        self.store.mark_told(row.number)
        self._open.pop(row.number, None)

    def drop_unrecorded(self, known: set[int]) -> None:
        """End trials that a controller asked for and died before recording: nothing was done for them yet."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
