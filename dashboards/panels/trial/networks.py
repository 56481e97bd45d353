"""Networks side by side: one lane for each, its parts from the first to the last downwards, as wide as their channels.

All lanes have one scale, so that a wider or deeper network looks so. See `network` for one of them alone, with its
costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import count, one_line
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import FRONT, GREY, STAR, empty_figure, message, slim
from space.config import CondenseNetConfig
from space.cost import NetworkPart, parts_of
from workers.wording import counted

LEAST_PX, MOST_PX, PART_PX = 240, 620, 11  # heights of the figure, and of a part in it


@dataclass(frozen=True)
class NetworkLane:
    """One network: what it is called, its config and its parts."""

    name: str
    config: CondenseNetConfig
    parts: tuple[NetworkPart, ...]


@dataclass(frozen=True)
class NetworksInfo:
    """Networks in the order in which they were chosen."""

    lanes: tuple[NetworkLane, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return one line for each stage, and one for each further setting."""
        stages = max((len(lane.config.stages) for lane in self.lanes), default=0)
        rows = [(f"stage {place + 1}", *(_stage_words(lane, place) for lane in self.lanes)) for place in range(stages)]
        rows += [
            ("1x1", *(f"G={one.config.groups} C={one.config.condense_factor}" for one in self.lanes)),
            ("bottleneck", *(f"{lane.config.bottleneck} x growth" for lane in self.lanes)),
            ("features", *(f"{lane.config.num_features:,}" for lane in self.lanes)),
        ]
        return DataTable(("", *(lane.name for lane in self.lanes)), tuple(rows) if self.lanes else ())

    def sentence(self) -> str:
        """Return what the drawing shows, in words."""
        parts = "; ".join(
            f"{lane.name}: {counted(sum(lane.config.stages), 'layer')}, up to "
            f"{max(part.out_channels for part in lane.parts):,} channels"
            for lane in self.lanes
        )
        return f"{parts}. From the first part to the last downwards; a dotted line is a pooling."


def _stage_words(lane: NetworkLane, place: int) -> str:
    if place >= len(lane.config.stages):
        return "-"
    return f"{counted(lane.config.stages[place], 'layer')}, +{lane.config.growth[place]}"


def networks_info(details: Sequence[TrialDetail]) -> NetworksInfo:
    """Return the networks of some trials, in the order given."""
    if not details:
        return NetworksInfo(reason="Choose two to four trials to see their networks side by side.")
    return NetworksInfo(
        tuple(NetworkLane(detail.name, detail.row.config, parts_of(detail.row.config)) for detail in details)
    )


def networks_figure(info: NetworksInfo) -> Any:
    """Return the lanes."""
    if info.reason is not None:
        return message(info.reason)
    deepest = max(len(lane.parts) for lane in info.lanes)
    widest = max(part.out_channels for lane in info.lanes for part in lane.parts)
    figure = empty_figure(int(np.clip(96 + PART_PX * deepest, LEAST_PX, MOST_PX)))
    for place, lane in enumerate(info.lanes):
        _add_lane(figure, lane, place)
        _style_lane(figure, info, place, 1.06 * widest)
    figure.update_layout(
        barmode="stack",
        bargap=0.08,
        margin={"t": 58, "l": 8, "r": 8, "b": 30},
        legend={"y": -0.12},
        yaxis={"range": [deepest - 0.4, -0.6], "visible": False},
    )
    return figure


def _add_lane(figure: Any, lane: NetworkLane, place: int) -> None:
    axis = "x" if place == 0 else f"x{place + 1}"
    depth = np.arange(len(lane.parts))
    layers = [part.kind == "layer" for part in lane.parts]
    read = [part.in_channels if is_layer else 0 for part, is_layer in zip(lane.parts, layers, strict=True)]
    added = [
        part.out_channels - part.in_channels if is_layer else 0
        for part, is_layer in zip(lane.parts, layers, strict=True)
    ]
    ends = [0 if is_layer else part.out_channels for part, is_layer in zip(lane.parts, layers, strict=True)]
    words = [
        f"{part.name}: {part.in_channels:,} to {part.out_channels:,} channels at {part.height}x{part.width}<br>"
        f"{count(part.macs)} macs, {count(part.params)} params"
        for part in lane.parts
    ]
    for name, values, colour in (
        ("channels read", read, FRONT),
        ("added: growth", added, STAR),
        ("stem, pooling, classifier", ends, GREY),
    ):
        figure.add_bar(
            x=slim(np.array(values)),
            y=slim(depth),
            orientation="h",
            xaxis=axis,
            name=name,
            legendgroup=name,
            showlegend=place == 0,
            marker={"color": colour, "line": {"width": 0}},
            text=words,
            textposition="none",
            hovertemplate=f"<b>{one_line(lane.name, 40)}</b>, %{{text}}<extra></extra>",
        )


def _style_lane(figure: Any, info: NetworksInfo, place: int, widest: float) -> None:
    """Give a lane its part of the width, its name above it, and a line where pooling ends a stage."""
    lane, lanes = info.lanes[place], len(info.lanes)
    name, axis = ("xaxis", "x") if place == 0 else (f"xaxis{place + 1}", f"x{place + 1}")
    gap = 0.04
    start = place * (1 + gap) / lanes
    style = {"domain": [start, start + (1 + gap) / lanes - gap], "range": [0, widest], "nticks": 3, "anchor": "y"}
    figure.layout[name] = {**figure.layout.xaxis.to_plotly_json(), **style}
    text = f"<b>{lane.name}</b>"
    figure.add_annotation(
        x=0, y=1, xref=f"{axis} domain", yref="paper", xanchor="left", yanchor="bottom", showarrow=False, text=text
    )
    for depth, part in enumerate(lane.parts):
        if part.kind == "pooling":
            line = {"color": GREY, "dash": "dot", "width": 1}
            figure.add_shape(type="line", x0=0, x1=1, xref=f"{axis} domain", y0=depth, y1=depth, line=line)
