"""What a chart of the front holds, before it is drawn; the module `front` fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dashboards.data.columns import Floats, Mask
from dashboards.data.quantities import Quantity
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.baselines import Baseline
from dashboards.panels.study.points import Points, headers

OBJECTIVES = ("score", "latency", "macs")  # of the front


@dataclass(frozen=True, eq=False)
class FrontInfo:
    """Trials over two quantities, every group of points from the lowest x on."""

    x: Quantity
    y: Quantity
    latencies: Mapping[str, Any]  # target, kind and group of the latencies shown, units of counts
    front: Points
    trained: Points  # not on the front
    infeasible: Points  # refused for a budget, never trained
    stopped: Points  # ended early, failed or cancelled, at the score of their last epoch
    running: Points  # at the score of their newest epoch
    int8: Points  # networks in 8 bits that no other beats; none where another cost than latency is shown
    fp16: Points  # the same in 16 bits
    line: tuple[Floats, Floats]  # x and y of the networks that no other beats in both
    on_line: Mask  # which of `front` are
    baselines: tuple[Baseline, ...]  # published networks that fit into the chart
    far_baselines: tuple[Baseline, ...]  # and those that don't
    budget: float | None  # limit on the x axis, in its unit
    budget_y: float | None  # and on the y axis
    recommended: int | None  # number of the trial to deploy
    recommended_name: str  # what the legend calls it
    bottom_pct: float | None  # the lowest score that the chart opens with; None = all are seen
    right: float | None  # how far the x axis opens; None = all are seen
    log: tuple[bool | None, bool | None] = (None, None)  # whether x and y are logarithmic; None: as values call for it
    notes: tuple[str, ...] = ()  # sentences for the caption
    reason: str | None = None  # why there is nothing to see
    roles: Mapping[str, Points] = field(default_factory=dict)  # all groups of points by what a table calls them

    @property
    def axis(self) -> str:
        """The key of the x axis's quantity."""
        return self.x.key

    @property
    def axes(self) -> tuple[Quantity, Quantity]:
        """Both axes."""
        return self.x, self.y

    @property
    def title(self) -> str:
        """What the x axis says."""
        return self.x.title

    @property
    def beyond(self) -> int:
        """How many points lie beyond what the x axis opens with."""
        if self.right is None:
            return 0
        return sum(int((points.along(self.x.key) > self.right).sum()) for points in self.roles.values())

    def table(self) -> DataTable:
        """Return the points, the front first."""
        further = [axis for axis in self.axes if axis.key in self.front.further]
        lines = (
            (role, *points.row(index), *(f"{axis.values_text(points.further[axis.key][index])}" for axis in further))
            for role, points in self.roles.items()
            for index in points
        )
        axis = self.x.key
        marks = (baseline.row(axis, self.front.units) for baseline in (*self.baselines, *self.far_baselines))
        total = sum(map(len, self.roles.values()))
        names = headers(self.front.score_name, self.front.units)
        table = DataTable.of(("", *names, *(axis.title for axis in further)), lines, total)
        empty = ("-",) * len(further)
        return replace(table, rows=(*table.rows, *((*mark, *empty) for mark in marks)))
