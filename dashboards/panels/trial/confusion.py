"""Which classes a network takes for which: the confusion matrix of the validation images, in shares of each class.

A row is a true class, a column what its images were taken for. With many classes only those are shown that are confused
most, and the table beside the chart has every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.metrics import CLASS_HEADERS, class_lines
from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import FRONT, empty_figure, escaped, message, slim
from search.results.class_figures import class_names
from workers.metrics import Ints

MOST_CLASSES = 30  # that a chart shows
ROW_PX, AROUND_PX = 22, 150
SHARES = ((0.0, "rgba(132,139,150,0.06)"), (0.5, "#8A6FD0"), (1.0, FRONT))  # by lightness, on either background


@dataclass(frozen=True, eq=False)
class ConfusionInfo:
    """A network's confusion matrix."""

    names: tuple[str, ...] = ()  # of the classes shown
    counts: Ints | None = None  # images of each class shown (rows) by what they were taken for (columns)
    of_class: Ints | None = None  # all images of each class shown
    classes: int = 0  # that have images
    lines: DataTable = DataTable(CLASS_HEADERS)  # noqa: RUF009  frozen
    reason: str | None = None

    def table(self) -> DataTable:
        """Return every class with its recall and precision, the least recognised first."""
        return self.lines

    def sentence(self) -> str:
        """Return the chart in words."""
        shown = f", the {len(self.names)} that are confused most" if len(self.names) < self.classes else ""
        worst = self.lines.rows[0]
        return (
            f"Each row is a class, each column what its validation images were taken for{shown}. Least recognised: "
            f"{worst[0]}, {worst[2]} of {worst[1]} images."
        )


def confusion_info(detail: TrialDetail) -> ConfusionInfo:
    """Return which classes a trial's network takes for which."""
    predictions = detail.seen.validation
    if predictions is None:
        return ConfusionInfo(reason=_why_none(detail))
    matrix = predictions.confusion
    errors = matrix - np.diag(np.diagonal(matrix))
    confused = errors.sum(axis=0) + errors.sum(axis=1)
    places = np.sort(np.argsort(-confused, kind="stable")[:MOST_CLASSES])
    names = class_names(len(matrix), detail.seen.class_names)
    lines = class_lines(predictions, names, len(matrix))
    return ConfusionInfo(
        names=tuple(names[place] for place in places),
        counts=matrix[np.ix_(places, places)],
        of_class=matrix.sum(axis=1)[places],
        classes=len(lines),
        lines=DataTable.of(CLASS_HEADERS, lines, len(lines)),
    )


def _why_none(detail: TrialDetail) -> str:
    if detail.row.top1 is None:
        return "What it makes of each class is known once it is trained."
    return "What it makes of each class wasn't recorded: it was replayed, or trained by an earlier version."


def confusion_figure(info: ConfusionInfo) -> Any:
    """Return the matrix as a map of shares; the number of images is shown under the pointer."""
    import plotly.graph_objects as go

    if info.reason is not None or info.counts is None or info.of_class is None:
        return message(info.reason or "")
    places, names = list(range(len(info.names))), [escaped(name, 24) for name in info.names]
    shares: NDArray[np.float64] = info.counts / np.maximum(info.of_class, 1)[:, None]
    figure = empty_figure(AROUND_PX + ROW_PX * max(len(names), 6))
    figure.add_trace(
        go.Heatmap(
            z=slim(100 * shares),
            customdata=slim(info.counts),
            text=[[percent(share, 0) if share >= 0.005 else "" for share in row] for row in shares.tolist()],
            texttemplate="%{text}" if len(names) <= 12 else None,
            colorscale=SHARES,
            zmin=0,
            zmax=100,
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="%{customdata} images (%{z:.1f} %) of class %{y} taken for class %{x}<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "taken for"}, tickvals=places, ticktext=names, showgrid=False)
    figure.update_yaxes(
        title={"text": "class"}, tickvals=places, ticktext=names, showgrid=False, range=[len(names) - 0.5, -0.5]
    )
    return figure
