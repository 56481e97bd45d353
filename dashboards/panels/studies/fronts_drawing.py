"""The figure of several studies' fronts; `dashboards.studies.fronts` says what is in it.

Each study has a colour and a mark of its own, which the tables beside the chart show too. The front of all studies is a
broad grey band below the others, and its networks have rings. The limit and the best inside it are drawn by the
reader's browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats
from dashboards.panels.study.front import best_line
from dashboards.panels.style import (
    COLOURS,
    DASHES,
    GREY,
    STAR,
    SYMBOLS,
    empty_figure,
    escaped,
    is_log,
    message,
    style_axis,
)
from dashboards.studies.documents import comparison_document, unit_of
from dashboards.studies.fronts import Comparison, Network, StudyFront
from workers.wording import agreeing

HEIGHT_PX = 470


@dataclass(frozen=True)
class Look:
    """How a study looks in a comparison."""

    colour: str
    symbol: str
    dash: str


# Not STAR, which is the best inside the limit.
LOOKS = tuple(Look(COLOURS[colour], SYMBOLS[place], DASHES[place]) for place, colour in enumerate((0, 2, 3, 4)))


def drawn(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain JSON values, with its figure: what `assets/studies_compared.js` shows."""
    figure = None if comparison.reason is not None else json.loads(fronts_figure(comparison).to_json())
    looks = [{"colour": look.colour, "symbol": look.symbol} for look in LOOKS[: len(comparison.studies)]]
    return {**comparison_document(comparison), "figure": figure, "caption": caption_of(comparison), "looks": looks}


def caption_of(comparison: Comparison) -> str:
    """Return what the chart shows, in two sentences at most."""
    combined = sum(study.on_combined for study in comparison.studies)
    networks = agreeing(combined, "network is", "networks are")
    score, axis = comparison.score_name, comparison.view.axis
    costs = f"{score} and macs" if axis == "macs" else f"{score}, {axis} and macs"
    text = f"{combined} {networks} on the front of all studies (rings): none beats one of these in"
    bars = " Bars are 95 % intervals of the latencies." if axis == "latency" else ""
    return f"{text} {costs} at once.{bars}"


def fronts_figure(comparison: Comparison) -> Any:
    """Return the chart of a comparison."""
    if comparison.reason is not None:
        return message(comparison.reason)
    figure = empty_figure(HEIGHT_PX)
    unit, scale = unit_of(comparison)
    shown = [(study, LOOKS[place]) for place, study in enumerate(comparison.studies) if study.front]
    everything = [network for study, _ in shown for network in study.front]
    _add_combined(figure, everything, scale)
    for study, look in shown:
        _add_study(figure, comparison, study, look)
    for study, look in shown:
        _add_best(figure, study, look)
    style_axis(figure.layout.xaxis, is_log(_costs(everything, 1.0)))
    group = comparison.view.group
    figure.layout.xaxis.title.text = (
        unit if group is None else f"{escaped(group.kind)} latency<br>on {escaped(group.device)}, ms"
    )
    figure.layout.yaxis.title.text = f"{comparison.score_name}, %"
    figure.update_layout(
        legend={"y": 1.02, "yanchor": "bottom"},
        margin={"t": 60, "b": 56},
        shapes=[
            {
                "name": "limit",
                "type": "line",
                "visible": False,
                "line": {"color": STAR, "dash": "dash", "width": 1.5},
                **{"x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper"},
            }
        ],
    )
    return figure


def _costs(networks: Sequence[Network], scale: float) -> Floats:
    return np.array([network.cost / scale for network in networks], dtype=np.float64)


def _steps(networks: Sequence[Network], scale: float) -> tuple[Floats, Floats]:
    """Return cost and score in % of the networks that are better than every cheaper one: the corners of a step line."""
    scores = np.array([100 * network.score for network in networks], dtype=np.float64)
    return best_line(_costs(networks, scale), scores, (False, True))


def _add_combined(figure: Any, networks: Sequence[Network], scale: float) -> None:
    """Add the front of all studies: its band, and a ring around each of its networks."""
    import plotly.graph_objects as go

    best = [network for network in networks if network.on_combined]
    x, y = _steps(best, scale)
    line = {"shape": "hv", "color": GREY, "width": 9}
    name = "front of all"
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line=line, opacity=0.28, name=name, hoverinfo="skip", legendgroup=name)
    )
    ring = {"symbol": "circle-open", "size": 20, "color": GREY, "line": {"width": 1.5, "color": GREY}}
    figure.add_trace(
        go.Scatter(
            x=_costs(best, scale),
            y=[100 * network.score for network in best],
            mode="markers",
            marker=ring,
            name=name,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
    )


def _add_study(figure: Any, comparison: Comparison, study: StudyFront, look: Look) -> None:
    import plotly.graph_objects as go

    _, scale = unit_of(comparison)
    x, y = _steps(study.front, scale)
    line = {"shape": "hv", "color": look.colour, "width": 2, "dash": look.dash}
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, legendgroup=study.name)
    )
    costs = _costs(study.front, scale)
    highs = np.array([min(network.high, 1e300) / scale for network in study.front]) - costs
    bars = {"type": "data", "symmetric": False, "color": look.colour, "thickness": 1.2, "width": 3}
    lows = np.array([network.low for network in study.front]) / scale
    figure.add_trace(
        go.Scatter(
            x=costs,
            y=[100 * network.score for network in study.front],
            error_x={**bars, "array": highs, "arrayminus": costs - lows} if comparison.view.axis == "latency" else None,
            mode="markers",
            marker={"symbol": look.symbol, "size": 10, "color": look.colour},
            name=escaped(study.name, 40),
            legendgroup=study.name,
            text=[_hover(study, network, comparison.score_name) for network in study.front],
            customdata=[network.number for network in study.front],
            meta={"study": study.name},
            hovertemplate="%{text}<extra></extra>",
        )
    )


def _hover(study: StudyFront, network: Network, score_name: str) -> str:
    number, score, latency, kind, interval, macs, params, config = map(escaped, network.cells())
    lines = [f"<b>{escaped(study.name, 60)}, trial {number}</b>: {score} {escaped(score_name)}"]
    lines += [] if network.interval is None else [f"95 % interval {interval}"]
    lines += [config]
    lines += [f"{latency} ms ({kind})"] if kind else []
    lines += [f"{macs} macs, {params} params"]
    return "<br>".join([*lines, *(["on the front of all studies"] if network.on_combined else [])])


def _add_best(figure: Any, study: StudyFront, look: Look) -> None:
    """Add the star of a study's best inside the limit, empty; it has the study's colour and the edge of a star."""
    import plotly.graph_objects as go

    marker = {"symbol": "star", "size": 19, "color": look.colour, "line": {"color": STAR, "width": 2}}
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker=marker,
            meta={"best": study.name},
            name=f"best of {escaped(study.name, 40)}",
            showlegend=False,
            hoverinfo="skip",
            legendgroup=study.name,
        )
    )
