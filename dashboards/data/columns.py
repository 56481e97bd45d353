"""A study as columns: arrays with one element for each trial, in the order of trial numbers.

Ten thousand trials are slow to read and large to hold as objects; as columns they are neither. Conventions:
- `n` trials; every array has shape (n,) unless it says otherwise. A float that isn't there is NaN.
- Latencies that can't be compared (other kind, device, runtime, runtime version or thread count) belong to different
  `LatencyGroup`s, and every chart of latencies shows one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dashboards.formats import one_line, threads_text
from search.results.pareto import non_dominated
from search.store.reader import objective_of
from search.store.rows import Noted, PointRow, StudyRow
from search.store.vocabulary import STATES, TrialState
from workers.latency.record import LatencyRecord, LatencyStatistic, kind_words
from workers.metrics import NAMES, Objective

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Axis = Literal["latency", "macs", "params"]
LONGEST_REASON = 300  # characters of a reason that a table shows


@dataclass(frozen=True)
class LatencyGroup:
    """Latencies that may be compared with each other: one kind, device, runtime and thread count."""

    target: str  # the device as the study names it
    kind: str  # measured, estimated or predicted; "estimated, replayed" from a table: see `kind_words`
    device: str
    runtime: str  # name and version
    threads: int

    def __str__(self) -> str:
        return f"{self.kind} on {self.target} ({self.device}, {self.runtime}, {threads_text(self.threads)})"


@dataclass(frozen=True, eq=False)
class Latencies:
    """The trials' latencies on one device, in ms; the interval is 95 %."""

    target: str
    group: NDArray[np.int16]  # index into `StudyColumns.latency_groups`; -1: no latency
    median_ms: Floats
    low_ms: Floats
    high_ms: Floats
    quick: Mask  # measured with the quick policy
    steady: Mask
    extrapolates: Mask  # an estimate or prediction outside its calibrated range
    p90_ms: Floats  # of the runs; NaN where nothing was timed
    verified: Mask  # measured again by `pick`, on the trained file; shown in the place of the price
    priced_ms: Floats  # the median of the price, by which equally good networks are ranked
    held_ms: Mapping[LatencyStatistic, Floats]  # what `pick` holds against a limit; NaN where it isn't known
    int8: Mask  # of the network in 8 bits, which was the faster one, not of the one in fp32
    memory_mb: Floats  # at most, of the process that ran the network; 10^6 bytes

    def only(self, group: int) -> Latencies:
        """Return the latencies of one group; the others are NaN."""
        out = self.group != group
        return replace(
            self,
            group=np.where(out, np.int16(-1), self.group),
            median_ms=np.where(out, np.nan, self.median_ms),
            low_ms=np.where(out, np.nan, self.low_ms),
            high_ms=np.where(out, np.nan, self.high_ms),
            p90_ms=np.where(out, np.nan, self.p90_ms),
            priced_ms=np.where(out, np.nan, self.priced_ms),
            held_ms={name: np.where(out, np.nan, values) for name, values in self.held_ms.items()},
            int8=self.int8 & ~out,
            memory_mb=np.where(out, np.nan, self.memory_mb),
        )


@dataclass(frozen=True)
class View:
    """What the reader looks at: one group of latencies (None: there is none), and what the score is plotted against."""

    group: int | None = None
    axis: Axis = "latency"


@dataclass(frozen=True, eq=False)
class StudyColumns:
    """A study at one moment; its `revision` is a new one whenever anything that is shown could have changed."""

    study: StudyRow
    revision: str
    number: Ints
    state: NDArray[np.int8]  # index into `STATES`
    top1: Floats  # fraction, of the deployed network on the validation images
    val_loss: Floats
    test_top1: Floats
    macs: Ints
    params: Ints
    attempt: Ints
    train_seconds: Floats
    asked_at: Floats  # UTC seconds since 1970, as the next two
    started_at: Floats
    finished_at: Floats
    duplicate_of: Floats  # number of the trial that has the result
    continues: Floats  # number of the trial, ended early, that it takes up again
    reason: tuple[str | None, ...]
    config_text: tuple[str, ...]
    config_json: tuple[str, ...]  # canonical
    groups_1x1: Ints  # G
    condense_factor: Ints  # C
    bottleneck: Ints
    groups_3x3: Ints
    layers: Ints  # dense layers of all stages
    stages: Floats  # (n, S), dense layers of each; NaN beyond a config's last stage
    growth: Floats  # (n, S)
    training: tuple[Mapping[str, Any], ...]
    latencies: Mapping[str, Latencies]  # by device as the study names it; the first is the one trials are judged by
    latency_groups: tuple[LatencyGroup, ...]
    # Further figures of the deployed network on the validation images, by their names in `workers.metrics`.
    metrics: Mapping[str, Floats] = field(default_factory=dict)
    # The verification that `pick` shows, by a trial's place and the device as the study names it.
    verified: Mapping[tuple[int, str], LatencyRecord] = field(default_factory=dict)
    points: tuple[PointRow, ...] = ()  # networks in other precisions than fp32, by number
    shortlist: Mapping[int, Noted] = field(default_factory=dict)  # trials that a user starred or noted, by number
    _fronts: dict[int | None, Mask] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.number)

    def index_of(self, number: int) -> int | None:
        """Return a trial's place in the columns; None if the study has no trial of this number."""
        place = int(np.searchsorted(self.number, number))
        return place if place < len(self) and self.number[place] == number else None

    def is_state(self, *states: TrialState) -> Mask:
        """Return which trials are in one of these states."""
        return np.isin(self.state, [STATES.index(state) for state in states])

    def reason_of(self, place: int) -> str:
        """Return why the trial at a place has no result of its own, or which one it continues, as one line; or ""."""
        same = self.duplicate_of[place]
        if np.isfinite(same):
            return f"same as trial {same:.0f}"
        begun, why = self.continues[place], self.reason[place] or ""
        parts = ([f"continues trial {begun:.0f}"] if np.isfinite(begun) else []) + ([why] if why else [])
        return one_line("; ".join(parts), LONGEST_REASON)

    @cached_property
    def objective(self) -> Objective:
        """What the study maximises."""
        return objective_of(self.study.settings)

    @property
    def validation_images(self) -> int | None:
        """How many images a network's score is of; None where that isn't known."""
        images = (self.study.data_info or {}).get("validation_images")
        return images if isinstance(images, int) and images > 0 else None

    @property
    def score_name(self) -> str:
        """What people call the objective: "top-1", "macro-F1"."""
        return NAMES[self.objective]

    @property
    def score(self) -> Floats:
        """The objective's value: a fraction, of the deployed network on the validation images."""
        return self.top1 if self.objective == "top1" else self.metrics[self.objective]

    @cached_property
    def trained(self) -> Mask:
        """Which trials are done with a finite score."""
        return self.is_state(TrialState.DONE) & np.isfinite(self.score)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state; states without trials are left out."""
        numbers = np.bincount(self.state, minlength=len(STATES))
        return {name: int(number) for name, number in zip(STATES, numbers, strict=True) if number}

    @cached_property
    def default_group(self) -> int | None:
        """The group to show unless another is chosen: the fullest of the first device that has latencies."""
        groups = (self.fullest_group(target) for target in self.latencies)
        return next((group for group in groups if group is not None), None)

    def fullest_group(self, target: str) -> int | None:
        """Return the group that most of a device's latencies belong to; None where it has none."""
        groups = self.latencies[target].group
        groups = groups[groups >= 0]
        return int(np.bincount(groups).argmax()) if groups.size else None

    def of_group(self, group: int) -> Latencies:
        """Return the latencies of a group."""
        return self.latencies[self.latency_groups[group].target].only(group)

    def winning_points(self, group: int | None) -> list[tuple[int, PointRow]]:
        """Return the points of a group that no trained network or other point beats in score and latency, by place."""
        if group is None:
            return []
        shown = self.latency_groups[group]
        own = [(place, one) for one in self.points if (place := self.index_of(one.number)) is not None]
        own = [(place, one) for place, one in own if _group_of(one) == shown]
        if not own:
            return []
        ms = np.concatenate(([one.latency.median_ms for _, one in own], self.of_group(group).median_ms[self.trained]))
        scores = np.concatenate(([one.score for _, one in own], self.score[self.trained]))
        kept = non_dominated(np.stack((-scores, ms), axis=1))
        return [pair for pair, stays in zip(own, kept, strict=False) if stays]

    def axis_values(self, view: View) -> Floats:
        """Return what the view plots the score against: ms of its group, macs or params; NaN where there is none."""
        if view.axis == "latency":
            return np.full(len(self), np.nan) if view.group is None else self.of_group(view.group).median_ms
        return (self.macs if view.axis == "macs" else self.params).astype(np.float64)

    def front(self, group: int | None) -> Mask:
        """Return which trials are on the front over the score, a group's latency and macs (`search.results.pareto`).

        Without a group (no latency is known) the front is over the score and macs.
        """
        if group not in self._fronts:
            columns = [-self.score, self.macs.astype(np.float64)]
            if group is not None:
                columns.insert(1, self.of_group(group).median_ms)
            members = np.flatnonzero(self.trained & ~np.isnan(columns).any(axis=0))
            mask = np.zeros(len(self), dtype=bool)
            mask[members[non_dominated(np.stack(columns, axis=1)[members])]] = True
            self._fronts[group] = mask
        return self._fronts[group]


def _group_of(one: PointRow) -> LatencyGroup:
    latency = one.latency
    runtime = f"{latency.runtime} {latency.runtime_version}"
    return LatencyGroup(latency.target, kind_words(latency), latency.device, runtime, latency.threads)
