"""Contour: what an outcome is predicted to be for each pair of two settings' values, and which pairs were trained.

The prediction is a random forest's, which learned from the trained networks. For each pair of values it is averaged
over the other settings of these networks (partial dependence; Friedman, "Greedy function approximation", 2001). So it
says what the two settings do by themselves, and far from trained networks it is no more than a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.formats import one_line
from dashboards.panels.data_table import DataTable
from dashboards.panels.settings.dimensions import OUTCOMES, dimensions_of, varies
from dashboards.panels.settings.forest import SEED, fitted, judge
from dashboards.panels.settings.pairs import Asked, PairInfo, Places, pair_of
from dashboards.panels.style import SCALE, drawable, empty_figure, escaped
from workers.wording import counted

MOST_ROWS = 1000  # trained networks that the forest learns from
BACKGROUND = 100  # of them, over whose other settings a prediction is averaged
LEAST_R2 = 0.05


@dataclass(frozen=True, eq=False)
class ContourInfo:
    """A grid of predictions over two settings."""

    pair: PairInfo
    predicted: Floats  # (second setting's values, first setting's values), in the outcome's unit
    spread: Floats  # standard deviation among the forest's trees, of the same shape
    r2: float | None  # of the forest on trials held out
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def places(self) -> tuple[Places, Places]:
        """Where the values of both settings stand."""
        first, second = (Places.of(setting) for setting in self.pair.settings)
        return first, second

    def trained(self) -> tuple[Floats, Floats, Floats]:
        """Return where networks were trained and how many there: x, y, number."""
        x, y = (places.points for places in self.places)
        pairs, numbers = np.unique(np.stack((x, y), axis=1), axis=0, return_counts=True)
        return pairs[:, 0], pairs[:, 1], numbers.astype(np.float64)

    def table(self) -> DataTable:
        """Return one line for each pair of values, the best predicted first."""
        if self.reason is not None:
            return DataTable(("predicted",))
        (first, second), sign = self.places, -1.0 if self.pair.outcome.more_is_better else 1.0
        order = np.argsort(sign * self.predicted, axis=None, kind="stable")
        headers = (first.setting.label, second.setting.label, f"predicted {self.pair.outcome.title}", "trees' spread")
        lines = []
        for place in order.tolist():
            row, column = divmod(place, self.predicted.shape[1])
            values = first.setting.text(float(first.grid[column])), second.setting.text(float(second.grid[row]))
            lines.append((*values, f"{self.predicted[row, column]:.4g}", f"± {self.spread[row, column]:.2g}"))
        return DataTable.of(headers, lines, len(lines))


def contour_info(columns: StudyColumns, view: View, asked: Asked = (None, None), outcome: str = "score") -> ContourInfo:
    """Return what is predicted for each pair of two settings' values; equal columns give equal results.

    Raises:
        InvalidSettings: a setting or an outcome of this name isn't there.
    """
    pair = pair_of(columns, view, asked, outcome)
    none = np.empty((0, 0))
    if pair.reason is not None:
        return ContourInfo(pair, none, none, None, reason=pair.reason)
    rows, names = _rows(columns, view, pair)
    chosen = np.random.default_rng(SEED).permutation(len(rows))[:MOST_ROWS]
    rows, values = rows[chosen], pair.values[chosen]
    r2 = judge(rows, values).r2
    if r2 < LEAST_R2:
        what = one_line(pair.outcome.name, 80)
        reason = (
            f"The settings that were varied don't predict {what} (R² {r2:.2f} on trials held out): train more "
            "networks, or choose another outcome."
        )
        return ContourInfo(pair, none, none, r2, reason=reason)
    predicted, spread = _predict(rows, values, [names.index(key) for key in pair.keys], pair)
    notes = (
        f"Predicted by a random forest from {counted(len(rows), 'trained network')}; circles: what was trained.",
        f"On networks it had not seen its R² is {r2:.2f}: 1 would be right every time, 0 no better than their mean.",
        "A colour is the mean over the other settings of the trained networks: what these two do by themselves.",
        "Where there is no circle near, nothing was trained, and the prediction is a guess.",
    )
    return ContourInfo(pair, predicted, spread, r2, notes)


def _rows(columns: StudyColumns, view: View, pair: PairInfo) -> tuple[Any, list[str]]:
    """Return the settings of the pair's networks, (k, settings that vary), and their keys."""
    places = np.searchsorted(columns.number, pair.number.astype(np.int64))
    settings = [one for one in dimensions_of(columns, view) if one.key not in (*OUTCOMES, "bits")]
    varied = [one for one in settings if varies(one.values[places])]
    table = np.stack([np.nan_to_num(one.values[places]) for one in varied], axis=1)
    return table.astype(np.float32), [one.key for one in varied]


def _predict(rows: Any, values: Floats, places: list[int], pair: PairInfo) -> tuple[Floats, Floats]:
    """Return the forest's mean (second, first) over a sample of the networks, and the spread of its trees."""
    forest = fitted(rows, values)
    first, second = (Places.of(setting).grid for setting in pair.settings)
    background = rows[:BACKGROUND]
    grid = np.tile(background, (len(second) * len(first), 1, 1))  # (pairs, background, settings)
    grid[:, :, places[0]] = np.tile(first, len(second))[:, None]
    grid[:, :, places[1]] = np.repeat(second, len(first))[:, None]
    flat = grid.reshape(-1, rows.shape[1])
    by_tree = np.stack([tree.predict(flat).reshape(len(grid), -1).mean(axis=1) for tree in forest.estimators_])
    shape = len(second), len(first)
    return by_tree.mean(axis=0).reshape(shape), by_tree.std(axis=0).reshape(shape)


# ---- the figure -----------------------------------------------------------------------------------------


def contour_figure(info: ContourInfo) -> Any:
    """Return the predictions as colours, and circles where networks were trained.

    Raises:
        ChartUnavailable: nothing can be predicted.
    """
    import plotly.graph_objects as go

    drawable(info)
    figure, (first, second), outcome = empty_figure(440), info.places, info.pair.outcome
    named = f"predicted {outcome.title}"
    figure.add_trace(
        go.Heatmap(
            x=first.at,
            y=second.at,
            z=info.predicted.astype(np.float32),
            customdata=info.spread.astype(np.float32),
            text=_pair_texts(first, second),
            colorscale=SCALE if outcome.more_is_better else [(1 - at, colour) for at, colour in reversed(SCALE)],
            opacity=0.85,
            colorbar={
                "title": {"text": f"<i>predicted</i> {escaped(outcome.title)}", "side": "right"},
                "thickness": 12,
            },
            hovertemplate=f"%{{text}}<br>{escaped(named)}: %{{z:.4~g}} ± %{{customdata:.2~g}} among the trees"
            "<extra></extra>",
            name="predicted",
        )
    )
    x, y, numbers = info.trained()
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            name="trained networks",
            marker={
                "symbol": "circle-open",
                "size": 5 + 4 * np.sqrt(numbers / max(1.0, float(np.median(numbers)))).clip(0.5, 3),
                "color": "#FFFFFF",
                "line": {"width": 1.5, "color": "#FFFFFF"},
            },
            hoverinfo="skip",
        )
    )
    for axis, places in ((figure.layout.xaxis, first), (figure.layout.yaxis, second)):
        tickvals, ticktext = places.ticks()
        axis.update(tickvals=tickvals, ticktext=ticktext, title={"text": escaped(places.setting.label)}, showgrid=False)
    figure.update_layout(showlegend=False)
    return figure


def _pair_texts(first: Places, second: Places) -> list[list[str]]:
    """Return what each cell is of: "growth 1: 8, G: 2"."""

    def words(places: Places) -> list[str]:
        label = escaped(places.setting.label)
        return [f"{label}: {places.setting.text(value)}" for value in places.grid.tolist()]

    return [[f"{x}, {y}" for x in words(first)] for y in words(second)]
