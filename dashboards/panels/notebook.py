"""A study's figures in one line, for notebooks and `condensery plot`; each is complete by itself: titled and named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dashboards.data.columns import Axis, StudyColumns, View
from search.budget import Budget
from space.errors import DeviceNotFound

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dashboards.panels.study.front_contents import FrontInfo

PLOTS = tuple("front macs-latency parallel importance contour slice curves progress timeline belief".split())


@dataclass(frozen=True)
class PlotOptions:
    """What a plot shows; what a plot has no use for is ignored.

    An axis is named by its quantity's key: score, latency, macs, params, memory, file, time, a metric's name, or
    latency@DEVICE.
    """

    budget_ms: float | None = None  # in place of the study's own limit on the device
    axis: Axis = "latency"  # what the score is set against in progress and belief, and in the front unless `x` is given
    x: str | None = None  # of the front
    y: str | None = None
    log: bool | None = None  # the front's x axis; None: as its values call for it
    device: str | None = None  # as the study names it; None: its first one with latencies
    kind: str | None = None  # measured, estimated or predicted; None: what the device has most of
    trials: Sequence[int] = ()  # whose learning curves
    settings: tuple[str, ...] = ()  # the two settings of contour and slice, by their keys
    outcome: str = "score"  # what these two show: score, latency, macs, ...
    front_only: bool = False  # whether parallel coordinates show the front alone


def study_figures(
    name: str | None = None, storage: str | None = None, *, device: str | None = None, kind: str | None = None
) -> StudyFigures:
    """Return the figures of a study as it is now; read-only.

        study_figures("digits").front(budget_ms=0.4)

    Args:
        name: the study; None = the only one of the database.
        storage: the database's URL; None = the environment's CONDENSERY_STORAGE, else sqlite:///condensery.db.
        device: whose latencies are shown, as the study names it; None = the first one that has any.
        kind: measured, estimated or predicted; None = what the device has most of.

    Raises:
        StudyNotFound: there is no such study, or more than one and no name.
    """
    from search.store.connection.database import DEFAULT_STORAGE, open_for_reading
    from search.store.reader import list_studies
    from space.errors import StudyNotFound

    engine = open_for_reading(storage or os.environ.get("CONDENSERY_STORAGE") or DEFAULT_STORAGE)
    if name is None:
        names = [row.name for row in list_studies(engine)]
        if len(names) != 1:
            raise StudyNotFound(f"name a study: {', '.join(map(repr, names[:10])) or 'the database holds none yet'}.")
        name = names[0]
    return StudyFigures(engine, name, device, kind)


class StudyFigures:
    """The figures of one study, as it was when the first was asked for; each method returns a Plotly figure.

    Each raises ChartUnavailable where the chart can't be computed, and DeviceNotFound for a device or a kind that the
    study has no latencies of.
    """

    def __init__(self, engine: sa.Engine, name: str, device: str | None = None, kind: str | None = None) -> None:
        """Draw from a database that is open for reading."""
        self.engine, self.name, self.device, self.kind = engine, name, device, kind

    def __repr__(self) -> str:
        return f"StudyFigures({self.name!r}): {', '.join(name.replace('-', '_') for name in PLOTS)}"

    @cached_property
    def columns(self) -> StudyColumns:
        """The study."""
        from dashboards.data.column_reader import read_columns

        return read_columns(self.engine, self.name)

    def front(
        self,
        budget_ms: float | None = None,
        axis: Axis = "latency",
        *,
        x: str | None = None,
        y: str | None = None,
        log: bool | None = None,
    ) -> Any:
        """Return the score against a cost, or any two quantities; `budget_ms` in place of the study's own limit."""
        from dashboards.panels.study.front_drawing import front_figure

        options = PlotOptions(budget_ms, axis, x, y, log)
        info = self._front_info(options, self.recommended(budget_ms))
        return self._complete("front", front_figure(info), "latency" in info.axes[0].key + info.axes[1].key)

    def front_picture(self, number: int, budget_ms: float | None = None) -> str:
        """Return the front as an SVG document that marks one trial, without a browser; for arguments see `front`."""
        from dashboards.panels.study.front_svg import front_svg

        info = self._front_info(PlotOptions(budget_ms), number)
        return front_svg(info, f"The networks of study {self.name}")

    def _front_info(self, options: PlotOptions, recommended: int | None) -> FrontInfo:
        from dashboards.data.curves import read_last_epochs
        from dashboards.data.quantities import Further
        from dashboards.panels.study.front import FrontOptions, front_info
        from search.results.trained_files import file_sizes

        x, y = options.x or options.axis, options.y or "score"
        limits = self._limits(options.budget_ms)
        shown = FrontOptions(
            limits.get(x),
            recommended,
            read_last_epochs(self.engine, self.columns.study.id),
            x=x,
            y=y,
            log=(options.log, None),
            further=Further(
                file_sizes(self.engine, self.columns.study, self.columns.number[self.columns.trained].tolist())
                if "file" in (x, y)
                else {}
            ),
            budget_y=limits.get(y),
        )
        return front_info(self.columns, self._view(options.axis), shown)

    def macs_latency(self, budget_ms: float | None = None) -> Any:
        """Return latency against macs."""
        from dashboards.panels.study.macs_latency import macs_latency_figure, macs_latency_info

        limit = self._limits(budget_ms).get("latency")
        info = macs_latency_info(self.columns, self._view(), limit, self.recommended(budget_ms))
        return self._complete("macs-latency", macs_latency_figure(info))

    def parallel(self, front_only: bool = False) -> Any:
        """Return the trained networks in parallel coordinates, or the front alone."""
        from dashboards.panels.settings.parallel import parallel_figure, parallel_info

        return self._complete("parallel", parallel_figure(parallel_info(self.columns, self._view(), front_only)))

    def importance(self) -> Any:
        """Return what matters for accuracy, latency and macs."""
        from dashboards.panels.settings.importance import importance_figure, importance_info

        return self._complete("importance", importance_figure(importance_info(self.columns, self._view())))

    def contour(self, first: str | None = None, second: str | None = None, outcome: str = "score") -> Any:
        """Return what is predicted of each pair of two settings' values; by itself it takes those that matter most."""
        from dashboards.panels.settings.contour import contour_figure, contour_info

        info = contour_info(self.columns, self._view(), (first, second), outcome)
        return self._complete("contour", contour_figure(info), outcome.startswith("latency"))

    def slice(self, first: str | None = None, second: str | None = None, outcome: str = "score") -> Any:
        """Return what the trained networks reached for each value of two settings; for arguments see `contour`."""
        from dashboards.panels.settings.slices import slice_figure, slice_info

        info = slice_info(self.columns, self._view(), (first, second), outcome)
        return self._complete("slice", slice_figure(info), outcome.startswith("latency"))

    def curves(self, *numbers: int) -> Any:
        """Return the learning curves of some trials; without numbers, of the most accurate on the front."""
        from dashboards.data.curves import read_curves
        from dashboards.panels.study.curves import MOST_CURVES, curve_numbers, curves_figure, curves_info

        chosen = curve_numbers(self.columns, self._view(), numbers)
        curves = read_curves(self.engine, self.columns.study.id, chosen[:MOST_CURVES])
        return self._complete("curves", curves_figure(curves_info(self.columns, curves, chosen)), False)

    def progress(self, axis: Axis = "latency") -> Any:
        """Return the hypervolume over the trainings."""
        from dashboards.panels.study.progress import progress_figure, progress_info

        figure = progress_figure(progress_info(self.columns, self._view(axis)))
        return self._complete("progress", figure, axis == "latency")

    def timeline(self) -> Any:
        """Return what ran on which worker and device, and when."""
        from dashboards.data.timeline import read_timeline
        from dashboards.panels.study.timeline import timeline_figure, timeline_info

        read = read_timeline(self.engine, self.columns.study.id, list(self.columns.latencies))
        return self._complete("timeline", timeline_figure(timeline_info(self.columns, read)), False)

    def belief(self, axis: Axis = "latency") -> Any:
        """Return what the study's sampler believes: the predicted front and the next candidates."""
        from dashboards.data.beliefs import read_study_belief
        from dashboards.panels.study.belief import belief_figure, belief_info

        believed = read_study_belief(self.engine, self.columns.study.id)
        figure = belief_figure(belief_info(self.columns, self._view(axis), believed))
        return self._complete("belief", figure, axis == "latency")

    def plot(self, name: str, options: PlotOptions | None = None) -> Any:
        """Return one of `PLOTS` by its name."""
        options = options or PlotOptions()
        if (options.device, options.kind) != (None, None):
            there = StudyFigures(self.engine, self.name, options.device, options.kind)
            return there.plot(name, replace(options, device=None, kind=None))
        draw: dict[str, Callable[[], Any]] = {
            "front": lambda: self.front(options.budget_ms, options.axis, x=options.x, y=options.y, log=options.log),
            "macs-latency": lambda: self.macs_latency(options.budget_ms),
            "parallel": lambda: self.parallel(options.front_only),
            "importance": self.importance,
            "contour": lambda: self.contour(*_two(options.settings), options.outcome),
            "slice": lambda: self.slice(*_two(options.settings), options.outcome),
            "curves": lambda: self.curves(*options.trials),
            "progress": lambda: self.progress(options.axis),
            "timeline": self.timeline,
            "belief": lambda: self.belief(options.axis),
        }
        return draw[name]()

    def recommended(self, budget_ms: float | None = None) -> int | None:
        """Return the trial to deploy inside the study's limits, `budget_ms` in place of the one on the shown device."""
        from dashboards.budget.table import BudgetTable

        return BudgetTable.of(self.columns, self._budget(budget_ms)).recommended

    def _complete(self, name: str, figure: Any, of_latencies: bool = True) -> Any:
        """Return a figure that says by itself what it shows: title, study, whose latencies, and if it was replayed."""
        from dashboards.panels.style import headed
        from dashboards.panels.titles import TITLES, heading_of

        return headed(figure, heading_of(self.columns, self._view(), TITLES[name][0], of_latencies))

    def _target(self) -> str:
        """Return the device that is shown, or would be if it had latencies."""
        group = self._view().group
        return next(iter(self.columns.latencies)) if group is None else self.columns.latency_groups[group].target

    def _budget(self, budget_ms: float | None) -> Budget:
        from dashboards.data.study_settings import budget_of

        budget = budget_of(self.columns.study.settings)
        if budget_ms is None:
            return budget
        return budget.with_limits_ms({self._target(): budget_ms}, next(iter(self.columns.latencies)))

    def _limits(self, budget_ms: float | None) -> Mapping[str, float]:
        """Return the limit on each quantity that has one, by the quantity's key."""
        budget, first = self._budget(budget_ms), next(iter(self.columns.latencies))
        limits_ms = budget.limits_ms(first)
        of_devices = {f"latency@{name}": limit for name, limit in limits_ms.items()}
        limits = {"latency": limits_ms.get(self._target()), "macs": budget.max_macs, "params": budget.max_params}
        return {key: limit for key, limit in {**of_devices, **limits}.items() if limit is not None}

    def _view(self, axis: Axis = "latency") -> View:
        """Return the latencies to show.

        Raises:
            DeviceNotFound: the study has none of the device or the kind that were asked for.
        """
        columns = self.columns
        if self.device is None and self.kind is None:
            return View(columns.default_group, axis)
        groups = [
            (int((columns.latencies[group.target].group == place).sum()), -place)
            for place, group in enumerate(columns.latency_groups)
            if self.device in (None, group.target) and self.kind in (None, group.kind.partition(",")[0])
        ]
        if not groups:
            there = ", ".join(dict.fromkeys(f"{one.kind} on {one.target}" for one in columns.latency_groups))
            asked = " ".join(filter(None, (self.kind, f"on {self.device}" if self.device else "")))
            raise DeviceNotFound(f"study {self.name!r} has no latencies {asked}; it has: {there or 'none yet'}.")
        return View(-max(groups)[1], axis)


def _two(settings: Sequence[str]) -> tuple[str | None, str | None]:
    first, second, *_ = (*settings, None, None)
    return first, second
