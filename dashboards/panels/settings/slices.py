"""Slices: what the trained networks reached for each value of a setting, for two settings side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Mask, StudyColumns, View
from dashboards.panels.data_table import DataTable
from dashboards.panels.settings.pairs import Asked, PairInfo, Places, pair_of
from dashboards.panels.style import GREY, MARKS, drawable, empty_figure, escaped, scatter, slim
from workers.wording import counted

BINS = 8  # of a continuous setting, each with a median
JITTER = 0.22  # of the way to the next value: networks with equal settings lie beside each other


@dataclass(frozen=True, eq=False)
class SliceInfo:
    """The trained networks over each of two settings."""

    pair: PairInfo
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return one line for each value, or range of values, of each setting: networks, median and extremes."""
        lines = [line for setting in self.pair.settings for line in _lines(Places.of(setting), self.pair.values)]
        unit = self.pair.outcome.title
        return DataTable.of(("setting", "value", "networks", f"median {unit}", "lowest", "highest"), lines, len(lines))


def slice_info(columns: StudyColumns, view: View, asked: Asked = (None, None), outcome: str = "score") -> SliceInfo:
    """Return the trained networks over two settings; for arguments see `contour_info`.

    Raises:
        InvalidSettings: a setting or an outcome of this name isn't there.
    """
    pair = pair_of(columns, view, asked, outcome)
    if pair.reason is not None:
        return SliceInfo(pair, reason=pair.reason)
    notes = (
        f"{counted(len(pair.values), 'trained network')}; lines are medians, diamonds networks on the front.",
        "Other settings vary along: what a median does may be theirs. The contour takes them apart, by a prediction.",
    )
    return SliceInfo(pair, notes)


def _groups(places: Places) -> Iterator[tuple[str, float, float, Mask]]:
    """Yield each value or range of values: its name, where it begins and ends on the axis, which networks have it."""
    points = places.points
    if places.discrete:
        for at, value in zip(places.at.tolist(), places.grid.tolist(), strict=True):
            yield places.setting.text(value), at - JITTER - 0.1, at + JITTER + 0.1, points == at
        return
    edges = np.unique(np.quantile(points, np.linspace(0, 1, BINS + 1)))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = (points >= low) & ((points < high) | (high == edges[-1]))
        values = places.setting.values[inside]
        if len(values):
            name = f"{places.setting.text(float(values.min()))} to {places.setting.text(float(values.max()))}"
            yield name, low, high, inside


def _lines(places: Places, values: Floats) -> Iterator[tuple[str, ...]]:
    for name, _, _, inside in _groups(places):
        of = values[inside]
        if len(of):
            figures = (f"{figure:.4g}" for figure in (np.median(of), of.min(), of.max()))
            yield places.setting.label, name, f"{len(of):,}", *figures


# ---- the figure -----------------------------------------------------------------------------------------


def slice_figure(info: SliceInfo) -> Any:
    """Return two charts side by side, with one axis of the outcome.

    Raises:
        ChartUnavailable: there are too few networks, or settings that vary.
    """
    drawable(info)
    figure, pair = empty_figure(400), info.pair
    trace = scatter(2 * len(pair.values))
    domains = ([0.0, 0.485], [0.515, 1.0])
    for number, (setting, domain) in enumerate(zip(pair.settings, domains, strict=True), start=1):
        places, axis = Places.of(setting), "xaxis" if number == 1 else "xaxis2"
        _add_networks(figure, trace, info, places, number)
        tickvals, ticktext = places.ticks()
        style = figure.layout.xaxis.to_plotly_json() if number > 1 else {}
        figure.update_layout(
            {
                axis: style
                | {
                    "domain": domain,
                    "tickvals": tickvals,
                    "ticktext": ticktext,
                    "title": {"text": escaped(setting.label), "standoff": 10},
                    "anchor": "y",
                }
            }
        )
    figure.update_yaxes(title={"text": escaped(pair.outcome.title)})
    return figure


def _add_networks(figure: Any, trace: Any, info: SliceInfo, places: Places, number: int) -> None:
    pair, xaxis = info.pair, "x" if number == 1 else "x2"
    shift = _jitter(pair.number) if places.discrete else 0.0
    x = places.points + shift
    for name, key, chosen in (("other trained", "trained", ~pair.on_front), ("on the front", "front", pair.on_front)):
        label = escaped(places.setting.label)
        texts = [f"{label}: {places.setting.text(value)}" for value in places.setting.values[chosen].tolist()]
        figure.add_trace(
            trace(
                x=slim(x[chosen]),
                y=slim(pair.values[chosen]),
                xaxis=xaxis,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=number == 1,
                marker=MARKS[key].marker(**({"size": 6, "opacity": 0.5} if key == "trained" else {"size": 9})),
                customdata=slim(pair.number[chosen])[:, None],
                text=texts,
                hovertemplate="<b>trial %{customdata[0]:d}</b>: %{y:.4~g} "
                + pair.outcome.unit
                + "<br>%{text}<extra></extra>",
            )
        )
    ends = [
        (low, high, float(np.median(pair.values[inside]))) for _, low, high, inside in _groups(places) if inside.any()
    ]
    figure.add_trace(
        trace(
            x=[at for low, high, _ in ends for at in (low, high, None)],
            y=[at for _, _, middle in ends for at in (middle, middle, None)],
            xaxis=xaxis,
            mode="lines",
            name="median",
            legendgroup="median",
            showlegend=number == 1,
            line={"color": GREY, "width": 3},
            hoverinfo="skip",
        )
    )


def _jitter(numbers: Floats) -> Floats:
    """Return a small step aside for each trial, the same every time: fractions of the golden ratio's multiples."""
    return JITTER * (2 * np.modf(numbers * 0.6180339887498949)[0] - 1)
