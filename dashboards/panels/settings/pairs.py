"""Two settings and an outcome: which ones a chart shows, where their values stand, and why they can't be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dashboards.data.columns import Floats, Mask, StudyColumns, View
from dashboards.data.quantities import Quantity, quantity_of
from dashboards.formats import one_line
from dashboards.panels.settings.dimensions import OUTCOMES, Dimension, dimensions_of, says_the_same, varies
from dashboards.panels.study.macs_latency import rank_correlation
from space.errors import InvalidSettings
from workers.wording import agreeing, counted

LEAST_TRIALS = 10
MOST_DISTINCT = 12  # values of a setting that each have a place of their own; of more, the axis is continuous
GRID = 12  # places of a continuous axis at which a prediction is made
Asked = tuple[str | None, str | None]


@dataclass(frozen=True, eq=False)
class PairInfo:
    """The trained networks over two settings and one outcome; arrays are (k,)."""

    settings: tuple[Dimension, ...]  # two, or none where there is a reason
    outcome: Quantity
    values: Floats  # of the outcome
    number: Floats
    on_front: Mask
    choices: tuple[tuple[str, str], ...] = ()  # key and name of every setting that can be chosen
    reason: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the settings shown."""
        return tuple(setting.key for setting in self.settings)


def pair_of(columns: StudyColumns, view: View, asked: Asked, outcome: str) -> PairInfo:
    """Return two settings that vary, those asked for or else those that go along with the outcome most.

    Raises:
        InvalidSettings: a setting or an outcome of this name isn't there.
    """
    quantity = quantity_of(columns, view, outcome)
    values = np.where(columns.trained, quantity.values, np.nan)
    places = np.flatnonzero(np.isfinite(values))
    every = [one for one in dimensions_of(columns, view) if one.key not in (*OUTCOMES, "bits")]
    varied = [replace(one, values=one.values[places]) for one in every]
    varied = [one for one in varied if len(places) and varies(one.values) and np.isfinite(one.plotted).all()]
    _check(asked, [one.key for one in every])
    none = PairInfo((), quantity, np.empty(0), np.empty(0), np.empty(0, dtype=bool))
    if len(places) < LEAST_TRIALS:
        have = agreeing(len(places), "has", "have")
        trained = f"only {counted(len(places), 'trained network')} {have} a {one_line(quantity.name, 60)}"
        return replace(
            none, reason=f"It takes {LEAST_TRIALS} trained networks, but {trained}: wait for the next trainings."
        )
    if len(varied) < 2:
        return replace(
            none, reason="Fewer than two settings vary among the trained networks: widen [space] in a new study."
        )
    same = [name for name in asked if name is not None and name not in {one.key for one in varied}]
    if same:
        others = ", ".join(one.key for one in varied)
        return replace(none, reason=f"{same[0]} is the same in all trained networks; choose one of {others}.")
    return PairInfo(
        _chosen(varied, asked, values[places]),
        quantity,
        values[places],
        columns.number[places].astype(np.float64),
        columns.front(view.group)[places],
        tuple((one.key, one.label) for one in varied),
    )


def _check(asked: Asked, known: Sequence[str]) -> None:
    for key in asked:
        if key is not None and key not in known:
            raise InvalidSettings(f"a setting is one of {', '.join(known)}, but got {one_line(key, 60)!r}.")
    if asked[0] is not None and asked[0] == asked[1]:
        raise InvalidSettings(f"two different settings are needed, but got {asked[0]} twice.")


def _chosen(varied: Sequence[Dimension], asked: Asked, values: Floats) -> tuple[Dimension, ...]:
    """Return the settings asked for; in place of one that wasn't, the one that goes along with the outcome most."""
    strength = {one.key: abs(rank_correlation(one.values, values) or 0.0) for one in varied}
    by_strength = sorted(varied, key=lambda one: -strength[one.key])
    named = {one.key: one for one in varied}
    chosen = [None if key is None else named[key] for key in asked]
    for place in (0, 1):
        if chosen[place] is None:
            other = chosen[1 - place]
            # One that always goes along with the other, as the growths of two stages may, says nothing more.
            alike = [] if other is None else [one for one in varied if says_the_same(one.values, other.values)]
            free = [one for one in by_strength if one is not other]
            chosen[place] = next((one for one in free if one not in alike), free[0])
    return tuple(one for one in chosen if one is not None)


@dataclass(frozen=True, eq=False)
class Places:
    """Where a setting's values stand on an axis: few ones evenly, each with its name; many as their scale has them."""

    setting: Dimension
    grid: Floats  # the values at which something is predicted
    at: Floats  # where these stand
    discrete: bool

    @classmethod
    def of(cls, setting: Dimension) -> Places:
        """Return the places of a setting's values."""
        distinct = np.unique(setting.values)
        if len(distinct) <= MOST_DISTINCT:
            return cls(setting, distinct, np.arange(len(distinct), dtype=np.float64), True)
        plotted = setting.plotted
        at = np.linspace(plotted.min(), plotted.max(), GRID)
        return cls(setting, 10**at if setting.log else at, at, False)

    @property
    def points(self) -> Floats:
        """Where the trained networks stand, (k,)."""
        if self.discrete:
            return np.searchsorted(self.grid, self.setting.values).astype(np.float64)
        return self.setting.plotted

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return places and texts of the axis's ticks."""
        if self.discrete:
            return self.at.tolist(), [self.setting.text(value) for value in self.grid]
        return self.setting.ticks()
