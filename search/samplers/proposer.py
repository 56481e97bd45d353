"""The Optuna side of a search: Optuna proposes the candidates here, and learns here how they ended.

Notable choices:
- Our tables are the truth. Optuna's study lives in this process's memory and is built from a study's rows at the start
  (`replay`): no crash leaves it half written, no abandoned trial misleads its sampler, and no ask waits for a database.
- A trial that is done is COMPLETE; one that was refused or ended early is PRUNED with its constraints, from which TPE
  learns; a duplicate, a failure and a trial outside the space are FAIL, which samplers ignore.
- Of a trial that was ended early the price-aware sampler learns the score that it was expected to end with, as if its
  last epoch had shown it. That was predicted once, when it was ended, and is recorded: whoever goes on with the study
  reads the same number.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import optuna
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaState

from search.budget import Budget, excess
from search.samplers.bounded_history import BoundedHistory
from search.samplers.candidate_prices import CandidatePrices
from search.samplers.observations import Observation
from search.samplers.optuna_samplers import distributions, make_sampler
from search.samplers.price_aware.belief import Belief, Choice
from search.samplers.price_aware.past import ENQUEUED, NOT_TRIED, PROPOSAL
from search.samplers.price_aware.sampler import PriceAwareSampler
from search.samplers.supply import Supply
from search.settings import StudySettings
from search.store.rows import BeliefRow, Believed, EnqueuedConfig, NewTrial, Proposal, TrialRow
from search.store.vocabulary import OPTUNA_CONSTRAINT, TrialOrigin, TrialState
from search.study import objectives
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.domains import Value
from space.errors import InvalidConfig, InvalidSettings
from workers.settings import TrainingSettings
from workers.training.job import trial_identity

UNTRIED = (TrialState.CANCELLED, TrialState.DUPLICATE)  # to Optuna they have failed, as what can't be trained has


@dataclass(frozen=True)
class OptunaRecord:
    """A trial that has ended, in Optuna's terms."""

    state: OptunaState
    values: Sequence[float] | None
    params: Mapping[str, Value]
    constraints: Mapping[str, float]  # the fraction by which each limit is exceeded


class Proposer:
    """Asks Optuna for candidates and tells it how they ended."""

    def __init__(self, settings: StudySettings, observations: Sequence[Observation] = ()) -> None:
        """Begin a study's proposals; `observations` are what the price-aware sampler is told of an earlier study."""
        self.settings, self._observations = settings, observations
        self.space, self.training_space = self.settings.search_space(), self.settings.training_space()
        self.distributions = distributions({**self.space.domains, **self.training_space.domains})
        self._minimised = frozenset(self.settings.latency.minimised)
        self._budget = self.settings.search_budget()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        aims = list(objectives(self.settings).values())
        # NSGA-II needs whole generations, and is quick; random looks at nothing; price-aware asks for nothing twice.
        history = BoundedHistory() if self.settings.search.sampler in ("tpe", "gp") else InMemoryStorage()
        self._study = optuna.create_study(storage=history, study_name="memory", directions=aims)
        self._next = 0  # number of the next trial
        self._prices = CandidatePrices(settings, self.distributions)
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._doubts: list[str] = []  # sentences of the sampler that no one has taken yet
        self._price_aware = self._price_aware_sampler()
        self._open: dict[int, optuna.Trial] = {}  # Optuna's objects of trials that have not ended
        self._at_random = False
        self._said_after: int | None = None  # the trainings on which the last belief that was said rests
        self.supply = Supply(self.space, self.training_space, self._budget)

    # -- at the start --

    def replay(self, rows: Sequence[TrialRow]) -> None:
        """Give Optuna every trial of the study, in order of number; called once, before anything else."""
        storage = self._study._storage
        for row in rows:
            while self._next < row.number:  # a number that was never recorded
                self._study.add_trial(optuna.trial.create_trial(state=OptunaState.FAIL))
                self._next += 1
            params = self._params(row.config, TrainingSettings.model_validate(row.training)) or {}
            self._prices.learn(row, params or None)
            values, state = self.outcome_for_optuna(row) if row.finished_at is not None else (None, OptunaState.RUNNING)
            template = optuna.trial.create_trial(
                state=state,
                values=values,
                params=params,
                distributions={name: self.distributions[name] for name in params},
                intermediate_values=self._expected(row) if state == OptunaState.PRUNED else None,
                system_attrs={
                    PROPOSAL: params,
                    **({ENQUEUED: params} if row.is_promised else {}),
                    **({NOT_TRIED: True} if row.state in UNTRIED else {}),
                    **{OPTUNA_CONSTRAINT + name: value for name, value in self._excess(row).items()},
                },
            )
            storage.create_new_trial(self._study._study_id, template_trial=template)
            self._next += 1
            self.count(row)

    # -- asking --

    def ask(self, enqueued: EnqueuedConfig | None) -> NewTrial:
        """Return the sampler's proposal, or a trial of the enqueued config; nothing is recorded yet."""
        self._study.sampler = self._sampler()
        self._at_random = False
        with _quiet_optuna():
            if enqueued is None:
                trial = self._study.ask(self.distributions)
                config, training = self.space.from_params(trial.params), self.training_space.from_params(trial.params)
            else:
                config, training = enqueued.config, TrainingSettings.model_validate(enqueued.training)
                params = self._params(config, training)
                if params is not None:
                    self._study.enqueue_trial(params)
                trial = self._study.ask(None if params is None else self.distributions)
            self._keep_as_trained(trial, config, training)
        self._open[trial.number] = trial
        self._next = trial.number + 1
        return NewTrial(
            number=trial.number,
            origin=TrialOrigin.SAMPLED if enqueued is None else TrialOrigin.ENQUEUED,
            config=config,
            training=training.model_dump(mode="json"),
            seed=self.settings.training_seed,
            identity=trial_identity(config, training, self.settings.data, self.settings.training_seed),
            cost=cost_of(config),
            proposal=self._proposal() if enqueued is None else None,
        )

    def take_up(self, row: TrialRow) -> NewTrial:
        """Return a new trial that goes on where one that was ended early left off; nothing is recorded yet.

        In Optuna a trial that has ended can't be changed.
        """
        new = self.ask(EnqueuedConfig(-1, row.config, row.training))
        return replace(new, origin=row.origin, seed=row.seed, identity=row.identity, continues=row.number)

    def _keep_as_trained(self, trial: optuna.Trial, config: CondenseNetConfig, training: TrainingSettings) -> None:
        """Keep only those parameters of a proposal that its network has, the only ones that are recorded.

        So the price-aware sampler sees of it what it will see after a resume. Optuna's samplers keep the others: they
        model only parameters that all trials have.
        """
        params, storage = self._params(config, training), self._study._storage
        if self.settings.search.sampler == "price-aware" and params is not None:
            assert isinstance(storage, InMemoryStorage)
            known = storage.get_trial(trial._trial_id)
            known.params, known.distributions = params, {name: self.distributions[name] for name in params}
            known.system_attrs = {**known.system_attrs, PROPOSAL: params}
            storage._set_trial(trial._trial_id, known)

    def _proposal(self) -> Proposal | None:
        """Return why the last candidate was proposed; None if it was drawn at random, or its sampler doesn't say."""
        choice = self._price_aware.choice
        return None if choice is None else _proposal_of(choice)

    def doubts(self) -> list[str]:
        """Return what the sampler says is wrong with the study, each sentence once."""
        said, self._doubts[:] = list(self._doubts), []
        return said

    # -- saying what is believed --

    def belief(self, at: float) -> BeliefRow | None:
        """Return what was believed at the last proposal; None if the sampler has nothing new to say."""
        return self._news(self._price_aware.belief(), at)

    def outlook(self, at: float) -> BeliefRow | None:
        """Return what is believed now, with what would be proposed next; None if the sampler has nothing new to say."""
        if self.settings.search.sampler != "price-aware":
            return None
        if self.supply.left <= 0:  # what the sampler would propose next is over the limits
            done = self._study.get_trials(deepcopy=False, states=[OptunaState.COMPLETE])
            return self._news(Belief(len(done), (), ()), at)
        return self._news(self._price_aware.outlook(self._study, self._next), at)

    def _news(self, belief: Belief | None, at: float) -> BeliefRow | None:
        if belief is None or belief.trainings == self._said_after:
            return None
        self._said_after = belief.trainings
        return BeliefRow(belief.trainings, at, self._believed(belief.front), self._believed(belief.ahead))

    def _believed(self, choices: Sequence[Choice]) -> tuple[Believed, ...]:
        """Return candidates with the costs that they are believed to have."""
        if not choices:
            return ()
        latencies_ms = self._prices.latencies_ms([choice.params for choice in choices])
        believed = []
        for place, choice in enumerate(choices):
            candidate = self._prices.candidate(choice.params)
            searched = zip(self.training_space.domains, candidate.training, strict=True)
            believed.append(
                Believed(
                    " ".join([str(candidate.config), *(f"{name}={value}" for name, value in searched)]),
                    candidate.macs,
                    candidate.params,
                    {device: float(medians[place]) for device, medians in latencies_ms.items()},
                    _proposal_of(choice),
                )
            )
        return tuple(believed)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        settings = self.settings
        if settings.search.sampler == "price-aware":  # never repeats itself
            return self._price_aware
        return make_sampler(settings.search, settings.study.seed, self._next, self._at_random, self._common)

    def _price_aware_sampler(self) -> PriceAwareSampler:
        prices = self._prices
        return PriceAwareSampler(
            prices.price,
            search_space=self.distributions,
            excess=prices.excess if self._budget != Budget() else None,
            key=prices.key,
            canonical=prices.canonical,
            features=prices.features,
            exact=False,  # latencies are learnt
            warn=self._doubts.append,
            startup=self.settings.search.startup,
            seed=self.settings.study.seed,
            observations=[
                ({name: value for name, value in one.params.items() if name in self.distributions}, one.score)
                for one in self._observations
            ],
        )

    def next_at_random(self) -> None:
        """Draw the next proposal at random: a sampler that repeated itself once would do so again."""
        self._at_random = True

    def _params(self, config: CondenseNetConfig, training: TrainingSettings) -> dict[str, Value] | None:
        """Return Optuna's parameters of a trial; None for one outside the space."""
        try:
            params = {**self.space.to_params(config), **self.training_space.to_params(training)}
        except (InvalidConfig, InvalidSettings):
            return None
        return {name: value for name, value in params.items() if name in self.distributions}

    def _inside(self, row: TrialRow) -> bool:
        """Whether the space can propose this trial; an enqueued config need not lie in it."""
        return (
            row.origin == TrialOrigin.SAMPLED or self._params(row.config, TrainingSettings(**row.training)) is not None
        )

    def count(self, row: TrialRow) -> None:
        """Count a trial of the space as proposed."""
        if self._inside(row):
            self.supply.count(row)

    # -- telling --

    def constrain(self, row: TrialRow) -> None:
        """Tell Optuna the fraction by which a priced trial exceeds each limit (0 or less: inside)."""
        trial = self._open.get(row.number)
        if trial is None:  # opened by an earlier controller
            self._study.sampler = optuna.samplers.RandomSampler(seed=0)  # not used: nothing is proposed here
            trial = self._open[row.number] = optuna.Trial(self._study, self._key(row))
        self._prices.learn(row, self._params(row.config, TrainingSettings.model_validate(row.training)))
        with _quiet_optuna():  # Optuna warns when a repeated step sets them again
            for name, value in self._excess(row).items():
                trial.set_constraint(name, value)

    def _key(self, row: TrialRow) -> int:
        """Return the id of a trial in Optuna's memory."""
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, row.number)

    def _excess(self, row: TrialRow) -> Mapping[str, float]:
        """Return the constraints of a trial; none before it is priced."""
        if row.latency is None and row.state != TrialState.INFEASIBLE:
            return {}
        return excess(self._budget, row.macs, row.params, row.latency, row.others)

    def tell(self, row: TrialRow) -> None:
        """Tell Optuna how a trial ended; telling it again changes nothing."""
        values, state = self.outcome_for_optuna(row)
        if state == OptunaState.PRUNED:
            self.constrain(row)
            for step, score in self._expected(row).items():
                self._study._storage.set_trial_intermediate_value(self._open[row.number]._trial_id, step, score)
        storage = self._study._storage
        if row.state in UNTRIED and not storage.get_trial(self._key(row)).state.is_finished():
            storage.set_trial_system_attr(self._key(row), NOT_TRIED, True)
        with _quiet_optuna():
            self._study.tell(row.number, values, state, skip_if_finished=True)
        self._open.pop(row.number, None)

    def _expected(self, row: TrialRow) -> dict[int, float]:
        """Return what a sampler may learn of a trial that was ended early: by its last epoch, the score expected.

        {} for samplers of Optuna's: in a study of several objectives none of them may read such values.
        """
        if self.settings.search.sampler != "price-aware" or row.expected_score is None:
            return {}
        return {TrainingSettings.model_validate(row.training).epochs: row.expected_score}

    def outcome_for_optuna(self, row: TrialRow) -> tuple[list[float] | None, OptunaState]:
        """Return the values and the state that Optuna gets for a trial that has ended."""
        if not self._inside(row):  # it has no parameters, and samplers model only those that all trials have in common
            return None, OptunaState.FAIL
        if row.state == TrialState.DONE and row.score is not None and self._minimised <= row.latencies.keys():
            medians = [row.latencies[device].median_ms for device in self.settings.latency.minimised]
            return [row.score, *medians, float(row.macs)], OptunaState.COMPLETE
        return None, OptunaState.PRUNED if row.state in (TrialState.INFEASIBLE, TrialState.PRUNED) else OptunaState.FAIL

    def record_for_optuna(self, row: TrialRow) -> OptunaRecord:
        """Return all that Optuna gets for a trial that has ended."""
        values, state = self.outcome_for_optuna(row)
        params = self._params(row.config, TrainingSettings.model_validate(row.training)) or {}
        return OptunaRecord(state, values, params, self._excess(row) if params else {})


def _proposal_of(choice: Choice) -> Proposal:
    return Proposal(choice.reason, choice.mean, choice.deviation, choice.gain)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
