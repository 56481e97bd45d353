"""A study's figures in one line, for notebooks and `condensery plot`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dashboards.data.columns import Axis, StudyColumns, View
from search.budget import Budget

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dashboards.panels.study.front import FrontInfo

PLOTS = ("front", "macs-latency", "parallel", "importance", "curves", "progress", "timeline", "belief")


def study_figures(name: str | None = None, storage: str | None = None) -> StudyFigures:
    """Return the figures of a study as it is now; read-only.

        study_figures("digits").front(budget_ms=0.4)

    Args:
        name: the study; None = the only one of the database.
        storage: the database's URL; None = the environment's CONDENSERY_STORAGE, else sqlite:///condensery.db.

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
    return StudyFigures(engine, name)


class StudyFigures:
    """The figures of one study, as it was when the first was asked for; each method returns a Plotly figure."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        """Draw from a database that is open for reading."""
        self.engine, self.name = engine, name

    def __repr__(self) -> str:
        return f"StudyFigures({self.name!r}): {', '.join(name.replace('-', '_') for name in PLOTS)}"

    @cached_property
    def columns(self) -> StudyColumns:
        """The study."""
        from dashboards.data.column_reader import read_columns

        return read_columns(self.engine, self.name)

    def front(self, budget_ms: float | None = None, axis: Axis = "latency") -> Any:
        """Return accuracy against latency, macs or params; `budget_ms` in place of the study's own limit."""
        from dashboards.panels.study.front_drawing import front_figure

        return self._marked(front_figure(self._front_info(budget_ms, axis, self.recommended(budget_ms))))

    def front_picture(self, number: int, budget_ms: float | None = None) -> str:
        """Return the front as an SVG document that marks one trial, without a browser; for arguments see `front`."""
        from dashboards.panels.study.front_svg import front_svg

        info = self._front_info(budget_ms, "latency", number)
        return front_svg(info, f"The networks of study {self.name}")

    def _front_info(self, budget_ms: float | None, axis: Axis, recommended: int | None) -> FrontInfo:
        from dashboards.data.curves import read_last_epochs
        from dashboards.panels.study.front import FrontOptions, front_info

        view, budget = self._view(axis), self._budget(budget_ms)
        limit = {"latency": budget.max_latency_ms, "macs": budget.max_macs, "params": budget.max_params}[view.axis]
        last = read_last_epochs(self.engine, self.columns.study.id)
        return front_info(self.columns, view, FrontOptions(limit, recommended, last))

    def macs_latency(self, budget_ms: float | None = None) -> Any:
        """Return latency against macs."""
        from dashboards.panels.study.macs_latency import macs_latency_figure, macs_latency_info

        limit = self._budget(budget_ms).max_latency_ms
        info = macs_latency_info(self.columns, self._view(), limit, self.recommended(budget_ms))
        return self._marked(macs_latency_figure(info))

    def parallel(self) -> Any:
        """Return the trained networks in parallel coordinates."""
        from dashboards.panels.study.parallel import parallel_figure, parallel_info

        return self._marked(parallel_figure(parallel_info(self.columns, self._view())))

    def importance(self) -> Any:
        """Return what matters for accuracy, latency and macs."""
        from dashboards.panels.study.importance import importance_figure, importance_info

        return self._marked(importance_figure(importance_info(self.columns, self._view())))

    def curves(self, *numbers: int) -> Any:
        """Return the learning curves of some trials; without numbers, of the most accurate on the front."""
        from dashboards.data.curves import read_curves
        from dashboards.panels.study.curves import MOST_CURVES, curve_numbers, curves_figure, curves_info

        chosen = curve_numbers(self.columns, self._view(), numbers)
        curves = read_curves(self.engine, self.columns.study.id, chosen[:MOST_CURVES])
        return self._marked(curves_figure(curves_info(self.columns, curves, chosen)))

    def progress(self, axis: Axis = "latency") -> Any:
        """Return the hypervolume over the trainings."""
        from dashboards.panels.study.progress import progress_figure, progress_info

        return self._marked(progress_figure(progress_info(self.columns, self._view(axis))))

    def timeline(self) -> Any:
        """Return what ran on which worker and device, and when."""
        from dashboards.data.timeline import read_timeline
        from dashboards.panels.study.timeline import timeline_figure, timeline_info

        read = read_timeline(self.engine, self.columns.study.id, list(self.columns.latencies))
        return self._marked(timeline_figure(timeline_info(self.columns, read)))

    def belief(self, axis: Axis = "latency") -> Any:
        """Return what the study's sampler believes: the predicted front and the next candidates."""
        from dashboards.data.beliefs import read_study_belief
        from dashboards.panels.study.belief import belief_figure, belief_info

        believed = read_study_belief(self.engine, self.columns.study.id)
        return self._marked(belief_figure(belief_info(self.columns, self._view(axis), believed)))

    def plot(
        self, name: str, budget_ms: float | None = None, axis: Axis = "latency", trials: Sequence[int] = ()
    ) -> Any:
        """Return one of `PLOTS` by its name; arguments that a plot has no use for are ignored."""
        if name == "front":
            return self.front(budget_ms, axis)
        if name == "macs-latency":
            return self.macs_latency(budget_ms)
        if name == "curves":
            return self.curves(*trials)
        return getattr(self, name)(axis) if name in ("progress", "belief") else getattr(self, name)()

    def recommended(self, budget_ms: float | None = None) -> int | None:
        """Return the trial to deploy inside the study's limits, `budget_ms` in place of the one on its first device."""
        from dashboards.budget.table import BudgetTable

        return BudgetTable.of(self.columns, self._budget(budget_ms)).recommended

    def _marked(self, figure: Any) -> Any:
        """Return a figure that says so if the study was replayed."""
        from dashboards.panels.style import marked
        from search.store.replayed import replayed_from, replayed_words

        return marked(figure, replayed_words(replayed_from(self.columns.study.settings)))

    def _budget(self, budget_ms: float | None) -> Budget:
        from dashboards.data.study_settings import budget_of

        budget = budget_of(self.columns.study.settings)
        return budget if budget_ms is None else replace(budget, max_latency_ms=budget_ms)

    def _view(self, axis: Axis = "latency") -> View:
        return View(self.columns.default_group, axis)
