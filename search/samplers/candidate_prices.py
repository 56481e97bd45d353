"""What a study knows of candidates before training: macs and params exactly, latencies from those it has measured.

Notable choices:
- Whatever was priced teaches, refused candidates too, so latencies are known long before accuracies are. Two Gaussian
  processes for each device, over settings, macs and params: one of the median, one of the upper end of the interval,
  by which a limit is judged. A candidate that is chosen is measured before it is trained, as ever.
- The models depend on the rows learnt alone. They are fitted again each time these have grown by a tenth, on those that
  were learnt by then, so that a study which goes on in another process proposes the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.settings import StudySettings
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidConfig, InvalidSettings

Array = NDArray[np.float64]
Params = Mapping[str, Any]

LEAST = 4  # latencies without which a device's are taken to grow with macs
MOST = 300  # latencies that a model sees, the newest
GROWTH = 1.1  # the factor by which latencies must grow in number before they are modelled again
REMEMBERED = 20_000  # candidates whose networks are kept


@dataclass(frozen=True)
class Candidate:
    """A proposal, read as what would be trained."""

    config: CondenseNetConfig
    training: tuple[Hashable, ...]  # its training settings, as far as they are searched
    macs: float
    params: float
    settings: Mapping[str, Any]  # the proposal without what its network doesn't have, as trials are recorded


@dataclass(frozen=True)
class _Latency:
    """One network's latency on one device."""

    candidate: Params
    macs: float
    params: float
    logs_ms: tuple[float, float]  # of the median, and of what is held to a limit


class CandidatePrices:
    """Prices candidates of one study; it learns from every trial that is priced."""

    def __init__(self, settings: StudySettings, distributions: Mapping[str, BaseDistribution]) -> None:
        self._space, self._training_space = settings.search_space(), settings.training_space()
        self._budget, self._first = settings.search_budget(), settings.latency.devices[0]
        self._minimised = settings.latency.minimised
        self._names = tuple(sorted(distributions))
        self._encoding = Encoding({name: one for name, one in distributions.items() if name in self._space.domains})
        self._latencies: dict[str, dict[int, _Latency]] = {device: {} for device in settings.latency.devices}
        self._models: dict[str, tuple[int, GaussianProcess, GaussianProcess]] = {}
        self._read: dict[Hashable, Candidate | None] = {}
        self._before: dict[Hashable, Candidate | None] = {}  # read longer ago

    def learn(self, row: TrialRow, params: Params | None) -> None:
        """Learn the latencies of a trial; learning them again changes nothing."""
        if params is None:
            return
        for device, latency in row.latencies.items():
            known = self._latencies.get(device)
            if known is not None and latency.median_ms > 0:
                judged_ms = self._budget.judged_ms(latency) or latency.interval_high_ms  # a prediction has no p90
                logs_ms = (float(np.log(latency.median_ms)), float(np.log(judged_ms)))
                known[row.number] = _Latency(dict(params), float(row.macs), float(row.params), logs_ms)

    # -- what the sampler asks --

    def key(self, params: Params) -> Hashable:
        """Return what two proposals have in common that would train the same network in the same way."""
        candidate = self._candidate(params)
        return tuple(sorted(params.items())) if candidate is None else (candidate.config, candidate.training)

    def canonical(self, params: Params) -> Params:
        """Return a proposal without the settings that its network doesn't have; an invalid one as it is."""
        candidate = self._candidate(params)
        return params if candidate is None else candidate.settings

    def price(self, candidates: Sequence[Params]) -> Array:
        """Return the median latency on each minimised device, then macs, (n, devices + 1); NaN of an invalid one."""
        known = self._candidates(candidates)
        columns = [self._latencies_ms(device, candidates, known)[0] for device in self._minimised]
        return np.column_stack([*columns, [one.macs if one else np.nan for one in known]])

    def excess(self, candidates: Sequence[Params]) -> Array:
        """Return the largest fraction by which candidates are believed to exceed a limit, (n,); 0 or less is inside."""
        known = self._candidates(candidates)
        macs, params = (
            np.array([getattr(one, name) if one else np.nan for one in known]) for name in ("macs", "params")
        )
        over = [np.full(len(candidates), -1.0)]
        limits = ((macs, self._budget.max_macs), (params, self._budget.max_params))
        over += [values / limit - 1.0 for values, limit in limits if limit is not None]
        for device, limit in self._budget.limits_ms(self._first).items():
            if limit is not None:
                over.append(self._latencies_ms(device, candidates, known)[1] / limit - 1.0)
        largest: Array = np.nan_to_num(np.max(over, axis=0), nan=np.inf)
        return largest

    def features(self, candidates: Sequence[Params]) -> Array:
        """Return what else may tell accuracies apart: the logarithm of params, (n, 1)."""
        return np.array([[np.log(one.params) if one else 0.0] for one in self._candidates(candidates)])

    # -- what is said of candidates --

    def latencies_ms(self, candidates: Sequence[Params]) -> dict[str, Array]:
        """Return the median latencies that are predicted on each device, (n,); none on a device that measured none."""
        known = self._candidates(candidates)
        devices = [device for device, latencies in self._latencies.items() if latencies]
        return {device: self._latencies_ms(device, candidates, known)[0] for device in devices}

    def candidate(self, params: Params) -> Candidate:
        """Return what would be trained for a proposal, which must be valid."""
        candidate = self._candidate(params)
        assert candidate is not None
        return candidate

    # -- reading candidates --

    def _candidates(self, candidates: Sequence[Params]) -> list[Candidate | None]:
        return [self._candidate(params) for params in candidates]

    def _candidate(self, params: Params) -> Candidate | None:
        name = tuple(map(params.get, self._names))  # whatever the order in which they are given
        if name in self._read:
            return self._read[name]
        if len(self._read) >= REMEMBERED:  # what is asked for again and again moves on, the rest is forgotten
            self._before, self._read = self._read, {}
        self._read[name] = self._before[name] if name in self._before else self._as_trained(params)
        return self._read[name]

    def _as_trained(self, params: Params) -> Candidate | None:
        try:
            config, training = self._space.from_params(params), self._training_space.from_params(params)
        except (InvalidConfig, InvalidSettings):
            return None
        searched = tuple(getattr(training, name, None) for name in self._training_space.domains)
        cost = cost_of(config)
        settings = {**self._space.to_params(config), **self._training_space.to_params(training)}
        settings = {name: settings[name] for name in self._names if name in settings}
        return Candidate(config, searched, float(cost.macs), float(cost.params), settings)

    # -- latencies --

    def _latencies_ms(
        self, device: str, candidates: Sequence[Params], known: Sequence[Candidate | None]
    ) -> tuple[Array, Array]:
        """Return the median and what is held to a limit, as expected on a device; (n,) each, NaN of an invalid one."""
        macs = np.array([one.macs if one else np.nan for one in known])
        latencies = self._latencies[device]
        if len(latencies) < LEAST:
            sums = np.array([(one.macs, *np.exp(one.logs_ms)) for one in latencies.values()]).sum(axis=0, initial=0.0)
            median, high = sums[1:] / sums[0] if len(latencies) else (1e-9, 0.0)  # nothing is refused unmeasured
            return macs * median, macs * high
        median_model, high_model = self._model(device)
        features = self._features(candidates, macs, np.array([one.params if one else np.nan for one in known]))
        valid = np.isfinite(macs)
        medians_ms, highs_ms = np.full(len(macs), np.nan), np.full(len(macs), np.nan)
        if valid.any():
            medians_ms[valid] = np.exp(median_model.predict(features[valid])[0])
            highs_ms[valid] = np.exp(high_model.predict(features[valid])[0])
        return medians_ms, np.maximum(highs_ms, medians_ms)

    def _model(self, device: str) -> tuple[GaussianProcess, GaussianProcess]:
        latencies = self._latencies[device]
        size = LEAST
        while (larger := max(size + 1, int(size * GROWTH))) <= len(latencies):
            size = larger
        fitted = self._models.get(device)
        if fitted is None or fitted[0] != size:
            rows = [latencies[number] for number in sorted(latencies)[:size][-MOST:]]
            features = self._features(
                [row.candidate for row in rows],
                np.array([row.macs for row in rows]),
                np.array([row.params for row in rows]),
            )
            groups = np.concatenate([self._encoding.groups, self._encoding.groups.max(initial=-1) + np.array([1, 2])])
            medians, highs = (np.array(column) for column in zip(*(row.logs_ms for row in rows), strict=True))
            models = (GaussianProcess(features, groups, medians), GaussianProcess(features, groups, highs))
            fitted = self._models[device] = (size, *models)
        return fitted[1], fitted[2]

    def _features(self, candidates: Sequence[Params], macs: Array, params: Array) -> Array:
        costs = np.log(np.column_stack([macs, params])) / np.log(100.0)  # a factor of 100 is a distance of 1
        return np.concatenate([self._encoding.features(candidates), costs], axis=1)
