"""The fronts of up to four studies beside each other: their networks, the front of all, and the best inside a limit.

Conventions: studies are in the order in which they were chosen. A cost is in ms, macs or params; a score is a fraction.
A front is over the score, the view's cost and macs. Only studies that can be compared (`common_ground`) have networks
here; of the others there is a sentence that says why.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dashboards.budget.table import limit_text
from dashboards.data.columns import Axis, Floats, Ints, Latencies, Mask, StudyColumns
from dashboards.data.latency_marks import kind_words
from dashboards.data.study_settings import budget_of
from dashboards.formats import NOTHING, count, digits_ms, ends_text, one_line, percent
from dashboards.studies.common_ground import CommonGround, CostView, common_ground, group_in, key_of
from search.results.pareto import non_dominated
from workers.metrics import NAMES, Objective, wilson_interval


@dataclass(frozen=True)
class Network:
    """One trained network of a comparison."""

    number: int
    score: float
    interval: tuple[float, float] | None  # 95 %, of top-1; None where the number of images isn't known
    cost: float  # in the unit of the view's axis: the median, of a latency
    low: float  # lower end of a latency's interval; else the cost
    high: float  # what must be inside a limit: the upper end of the interval, of a latency; infinite where unknown
    latency: str  # "0.312 [0.309, 0.315]" in ms; "-" where the view has none
    kind: str  # what the latency is: "measured, not steady"; "" where there is none
    macs: int
    params: int
    config: str
    on_combined: bool = False  # whether it is on the front of all studies

    def cells(self) -> tuple[str, ...]:
        """Return it as a line of a table; see `NETWORK_HEADERS`."""
        return (
            str(self.number),
            percent(self.score),
            self.latency,
            self.kind,
            interval_text(self.interval),
            count(self.macs),
            count(self.params),
            self.config,
        )


NETWORK_HEADERS = ("trial", "score", "latency, ms", "kind", "95 % interval", "macs", "params", "config")


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return "93.9 % to 95.2 %"."""
    return NOTHING if interval is None else f"{percent(interval[0], 1)} to {percent(interval[1], 1)}"


@dataclass(frozen=True)
class StudyFront:
    """One study in a comparison."""

    name: str
    front: tuple[Network, ...]  # cheapest first; none where the study can't be compared
    offers: tuple[Network, ...]  # the networks that are its best inside some limit, best first
    trained: int
    refusal: str  # why it can't be compared in this view; "" where it can

    def best(self, limit: float | None) -> Network | None:
        """Return its best network inside a limit on the view's cost; None: none is inside."""
        ceiling = math.inf if limit is None else limit
        return next((offer for offer in self.offers if offer.high <= ceiling), None)

    @property
    def on_combined(self) -> int:
        """How many of its networks are on the front of all studies."""
        return sum(network.on_combined for network in self.front)


@dataclass(frozen=True)
class Comparison:
    """Several studies in one view."""

    view: CostView
    views: tuple[CostView, ...]  # to choose from
    score_name: str
    studies: tuple[StudyFront, ...]
    limit: float | None  # on the view's cost, the one to open with
    doubts: tuple[str, ...]

    @property
    def reason(self) -> str | None:
        """Why there is nothing to compare; None where two studies or more can be compared."""
        if sum(not study.refusal for study in self.studies) > 1:
            return None
        if len(self.studies) == 1:
            return "Choose a second study to compare it with."
        return "These studies can't be compared."

    def sentences(self, limit: float | None) -> list[str]:
        """Return what a limit gets, and who can't be compared; `assets/studies_compared.js` says the same."""
        refused = [f"{study.name}: {study.refusal}" for study in self.studies if study.refusal]
        return [self.reason or self._best_sentence(limit), *refused, *self.doubts]

    def _best_sentence(self, limit: float | None) -> str:
        found = [(study, best) for study in self.studies if (best := study.best(limit)) is not None]
        inside = "at any cost" if limit is None else f"inside {self.limit_words(limit)}"
        if not found:
            return (
                f"No trained network of these studies is {inside}." if limit else "None of these studies has a network."
            )
        study, best = leader(found)
        words = f"The best {inside} is trial {best.number} of {study.name}, {percent(best.score)} {self.score_name}"
        equal = [other.name for other, network in found if other is not study and overlap(best, network)]
        return (
            f"{words}; by their 95 % intervals the best of {', '.join(equal)} may be as good." if equal else f"{words}."
        )

    def limit_words(self, limit: float) -> str:
        """Return a limit as people read it: "0.4 ms", "1.2 M macs"."""
        return f"{limit_text(limit)} ms" if self.view.axis == "latency" else f"{count(limit)} {self.view.axis}"


def leader(found: Sequence[tuple[StudyFront, Network]]) -> tuple[StudyFront, Network]:
    """Return the best of several studies' best networks: score first, then cost, macs, and the order of the studies."""
    return min(found, key=lambda pair: (-pair[1].score, pair[1].cost, pair[1].macs))


def overlap(one: Network, other: Network) -> bool:
    """Return whether the 95 % intervals of two networks' accuracies have anything in common."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval[0] <= other.interval[1] and other.interval[0] <= one.interval[1]


def compare(
    studies: Sequence[StudyColumns],
    view: CostView | None = None,
    limit: float | None = None,
    ground: CommonGround | None = None,
) -> Comparison:
    """Return studies beside each other.

    Args:
        studies: in the order chosen; the first is what the others are compared with.
        view: one of their common ground's; None, or another: the first of these.
        limit: to open with; None: the smallest limit that the studies have themselves.
        ground: what they can be compared by, where it is known already.
    """
    ground = ground or common_ground(studies)
    view = view if view in ground.views else ground.views[0]
    without = {**ground.refused, **ground.without[view]}
    fronts = [
        StudyFront(one_line(columns.study.name, 100), (), (), int(columns.trained.sum()), without[place])
        if place in without
        else _front_of(columns, view, ground.objective)
        for place, columns in enumerate(studies)
    ]
    kept = [columns for place, columns in enumerate(studies) if place not in without]
    return Comparison(
        view=view,
        views=ground.views,
        score_name=NAMES[ground.objective],
        studies=tuple(_with_combined(fronts)),
        limit=own_limit(kept, view) if limit is None else limit,
        doubts=ground.doubts,
    )


def compare_on(
    studies: Sequence[StudyColumns], axis: Axis | None = None, device: str | None = None, limit_ms: float | None = None
) -> list[Comparison]:
    """Return studies beside each other in every view that compares two or more of them; one at least.

    Args:
        studies: in the order chosen.
        axis: of the first view; None: what most of the studies share.
        device: of the latencies in the first view, by its name in the first study that has them; None: any.
        limit_ms: on latencies; None: the smallest that the studies have themselves.
    """
    ground = common_ground(studies)
    axis = "latency" if axis is None and device is not None else axis

    def is_wanted(view: CostView) -> bool:
        of_device = device is None or (view.group is not None and view.group.target == device)
        return view.axis == axis and (of_device or axis != "latency")

    views = sorted(ground.views, key=lambda view: not is_wanted(view))
    found = [compare(studies, view, limit_ms if view.axis == "latency" else None, ground) for view in views]
    return [
        one for place, one in enumerate(found) if one.reason is None or (not place and is_wanted(one.view))
    ] or found[:1]


def own_limit(studies: Sequence[StudyColumns], view: CostView) -> float | None:
    """Return the smallest limit on a view's cost that studies were searched under; None where none has one."""
    limits = [limit for columns in studies if (limit := _limit_of(columns, view)) is not None]
    return min(limits, default=None)


def _limit_of(columns: StudyColumns, view: CostView) -> float | None:
    budget = budget_of(columns.study.settings)
    if view.axis != "latency":
        return budget.max_macs if view.axis == "macs" else budget.max_params
    group = group_in(columns, view)
    if group is None:
        return None
    target = columns.latency_groups[group].target
    return budget.limits_ms(next(iter(columns.latencies), target)).get(target)


def _front_of(columns: StudyColumns, view: CostView, objective: Objective) -> StudyFront:
    networks = _networks_of(columns, view, objective)
    kept = non_dominated(_objectives(networks)) if networks else np.zeros(0, dtype=bool)
    front = [network for network, stays in zip(networks, kept, strict=True) if stays]
    return StudyFront(
        name=one_line(columns.study.name, 100),
        front=tuple(sorted(front, key=lambda network: (network.cost, -network.score, network.number))),
        offers=tuple(_offers(networks)),
        trained=int(columns.trained.sum()),
        refusal="",
    )


def _objectives(networks: Sequence[Network]) -> Floats:
    """Return what a front is over, (n, 3), all minimised."""
    return np.array([(-network.score, network.cost, network.macs) for network in networks], dtype=np.float64)


def _networks_of(columns: StudyColumns, view: CostView, objective: Objective) -> list[Network]:
    """Return the trained networks that are on the front or are the best inside some limit."""
    score = columns.top1 if objective == "top1" else columns.metrics[objective]
    group = group_in(columns, view)
    latencies = None if group is None else columns.of_group(group)
    counts = columns.macs if view.axis == "macs" else columns.params
    cost = counts.astype(np.float64) if latencies is None else latencies.median_ms
    low = cost if latencies is None else np.where(np.isnan(latencies.low_ms), cost, latencies.low_ms)
    high = cost if latencies is None else np.where(np.isnan(latencies.high_ms), np.inf, latencies.high_ms)
    places = np.flatnonzero(columns.trained & np.isfinite(score) & np.isfinite(cost))
    places = places[_worth_showing(score[places], cost[places], high[places], columns.macs[places])]
    images = columns.validation_images if objective == "top1" else None
    return [
        Network(
            number=int(columns.number[place]),
            score=float(score[place]),
            interval=wilson_interval(float(score[place]), images) if images else None,
            cost=float(cost[place]),
            low=float(low[place]),
            high=float(high[place]),
            latency=NOTHING if latencies is None else _latency_text(latencies, place),
            kind="" if latencies is None else kind_words(columns, latencies, place),
            macs=int(columns.macs[place]),
            params=int(columns.params[place]),
            config=columns.config_text[place],
        )
        for place in places.tolist()
    ]


def _worth_showing(score: Floats, cost: Floats, high: Floats, macs: Ints) -> Mask:
    """Return which networks are on the front, or are the best inside some limit: of ten thousand, a few dozen."""
    on_front = non_dominated(np.stack((-score, cost, macs.astype(np.float64)), axis=1))
    return on_front | non_dominated(np.stack((-score, high), axis=1))


def _latency_text(latencies: Latencies, place: int) -> str:
    interval = ends_text(latencies.low_ms[place], latencies.high_ms[place])
    return f"{digits_ms(latencies.median_ms[place], 4)} {interval}"


def _offers(networks: Sequence[Network]) -> list[Network]:
    """Return the networks that are the best inside some limit, best first: each needs less than all better ones."""
    offers: list[Network] = []
    for network in sorted(networks, key=lambda one: (-one.score, one.cost, one.macs, one.number)):
        if not offers or network.high < offers[-1].high:
            offers.append(network)
    return offers


def _with_combined(fronts: Sequence[StudyFront]) -> list[StudyFront]:
    """Return the studies with their networks marked that no network of any of them beats."""
    pairs = [(place, index) for place, study in enumerate(fronts) for index in range(len(study.front))]
    if not pairs:
        return list(fronts)
    kept = non_dominated(_objectives([fronts[place].front[index] for place, index in pairs]))
    marked = {pair: bool(stays) for pair, stays in zip(pairs, kept, strict=True)}
    return [
        replace(
            study,
            front=tuple(
                replace(network, on_combined=marked[place, index]) for index, network in enumerate(study.front)
            ),
        )
        for place, study in enumerate(fronts)
    ]


def views_by_name(views: Sequence[CostView]) -> Mapping[str, CostView]:
    """Return views by the short words that name them in an address: "macs", "params", or a group's token."""
    return {token_of(view): view for view in views}


def token_of(view: CostView) -> str:
    """Return the short word that names a view in addresses."""
    if view.group is None:
        return view.axis
    return hashlib.sha1(json.dumps(key_of(view.group)).encode(), usedforsecurity=False).hexdigest()[:8]
