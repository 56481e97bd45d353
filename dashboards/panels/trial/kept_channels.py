"""Which input channels each group of each 1x1 kept: what a network learned about its own connections.

Two pictures of the trained file's indices: all layers at once (a row for each layer, a column for each source of its
inputs: the stem or an earlier layer), and one layer exactly (a row for each group, a column for each input channel).
Channels are in the order in which they are made: the stem's first, then each layer's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.trial_detail import INDEX, NO_TRIAL, TrainedNetwork
from dashboards.formats import one_line
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import COLOURS, GREY, SCALE, empty_figure, message
from space.config import CondenseNetConfig, LayerShape
from workers.wording import agreeing

Index = NDArray[np.int64]
FAINT = "rgba(132,139,150,0.28)"  # of dropped channels: visible, but in the background
LAYER_ROW_PX, LEAST_PX, MOST_PX = 8, 320, 860
GROUP_ROW_PX = 30
STAGE_NAME_SHARE = 0.12  # of a layer's channels: the width of a stage's name
HEADERS = ("layer", "group", "kept", "input channels, counted from 0")
GAPS_UP_TO_CHANNELS = 160  # of a layer; more cells leave no room for gaps between them


@dataclass(frozen=True)
class KeptLayer:
    """One layer's choice: `kept` is (groups, in_channels / C), the channels ascending in each group."""

    shape: LayerShape
    kept: Index

    @property
    def name(self) -> str:
        """The layer's name for people; stages and layers count from 1."""
        return f"stage {self.shape.stage + 1}, layer {self.shape.index + 1}"

    @property
    def by_group(self) -> NDArray[np.bool_]:
        """(groups, in_channels): whether a group kept a channel."""
        mask = np.zeros((len(self.kept), self.shape.in_channels), dtype=bool)
        np.put_along_axis(mask, self.kept, True, axis=1)
        return mask

    @property
    def times(self) -> NDArray[np.int64]:
        """(in_channels,): how many groups kept each channel."""
        return np.bincount(self.kept.reshape(-1), minlength=self.shape.in_channels)


@dataclass(frozen=True, eq=False)
class KeptChannelsInfo:
    """Every layer's choice; `sources` are the names and first channels of what made the channels."""

    config: CondenseNetConfig | None
    layers: tuple[KeptLayer, ...] = ()
    sources: tuple[tuple[str, int], ...] = ()  # without the last layer, whose channels go into no 1x1
    reason: str | None = None

    @property
    def groups(self) -> int:
        """Groups of each 1x1."""
        return 0 if self.config is None else self.config.groups

    @cached_property
    def shares(self) -> NDArray[np.float32]:
        """(layers, sources): the mean share of a source's channels that a layer's groups kept; NaN: no input."""
        firsts = [first for _, first in self.sources]
        cells = np.full((len(self.layers), len(self.sources)), np.nan, dtype=np.float32)
        for place, (row, layer) in enumerate(zip(cells, self.layers, strict=True)):
            starts = firsts[: place + 1]  # the stem and the layers before this one
            sizes = np.diff([*starts, layer.shape.in_channels])
            row[: place + 1] = np.add.reduceat(layer.times, starts) / (sizes * len(layer.kept))
        return cells

    def table(self) -> DataTable:
        """Return the channels that each group of each layer kept, as ranges."""
        rows = (row for layer in self.layers for row in _rows(layer))
        return DataTable.of(HEADERS, rows, sum(len(layer.kept) for layer in self.layers))

    def layer_table(self, layer: int) -> DataTable:
        """Return the channels that each group of one layer (by its place, from 0) kept."""
        return DataTable(HEADERS, tuple(_rows(self.layers[layer])) if self.layers else ())

    def sentence(self) -> str:
        """Return what the picture shows, in words."""
        if self.reason is not None or self.config is None:
            return self.reason or ""
        by_none = np.array([(layer.times == 0).mean() for layer in self.layers])
        by_all = np.array([(layer.times == len(layer.kept)).mean() for layer in self.layers])
        if self.config.condense_factor == 1:
            return "With C=1 nothing is condensed: every group reads all of its inputs."
        groups = agreeing(self.groups, "The one group", f"Each of {self.groups} groups")
        return (
            f"{groups} keeps 1/{self.config.condense_factor} of a layer's inputs. On average "
            f"{100 * by_none.mean():.0f} % of a layer's inputs are kept by no group, "
            f"{100 * by_all.mean():.0f} % by all."
        )


def kept_channels_info(config: CondenseNetConfig | None, trained: TrainedNetwork | None) -> KeptChannelsInfo:
    """Return which channels a trained network's groups kept, or why that can't be known.

    Args:
        config: of the network; None: none is chosen.
        trained: what the network's file says (`dashboards.data.trial_detail.read_trained_network`).
    """
    if config is None or trained is None:
        return KeptChannelsInfo(config, reason=NO_TRIAL)
    if trained.indices is None:
        return KeptChannelsInfo(config, reason=f"The kept channels can't be shown. {trained.reason}")
    try:
        layers = tuple(_layers(config, trained.indices))
    except (KeyError, ValueError) as error:  # the recorded file, but not one of this config
        cause = one_line(error, 200)
        return KeptChannelsInfo(config, reason=f"The kept channels can't be shown: the file is damaged ({cause}).")
    return KeptChannelsInfo(config, layers, tuple(_sources(config)))


def _layers(config: CondenseNetConfig, indices: Mapping[str, Index]) -> list[KeptLayer]:
    layers = []
    for place, shape in enumerate(config.layer_shapes):
        index = np.asarray(indices[f"layers.{place}{INDEX}"], dtype=np.int64)
        kept = index.reshape(config.groups, shape.in_channels // config.condense_factor)
        if kept.min() < 0 or kept.max() >= shape.in_channels or (np.diff(kept, axis=1) <= 0).any():
            raise ValueError(f"layer {place + 1} names channels that it doesn't have, or a channel twice")
        layers.append(KeptLayer(shape, kept))
    return layers


def _sources(config: CondenseNetConfig) -> list[tuple[str, int]]:
    layers = [(f"stage {s.stage + 1}, layer {s.index + 1}", s.in_channels) for s in config.layer_shapes[:-1]]
    return [("the stem", 0), *layers]


def _rows(layer: KeptLayer) -> list[tuple[str, ...]]:
    channels = layer.shape.in_channels
    return [
        (layer.name, str(group), f"{len(kept)} of {channels}", ranges(kept.tolist()))
        for group, kept in enumerate(layer.kept, 1)
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers as "0-3, 7, 9-11"."""
    if not numbers:
        return ""
    breaks = [place for place, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    runs = [numbers[a:b] for a, b in pairwise((0, *breaks, len(numbers)))]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


# ---- the figures ----------------------------------------------------------------------------------------


def kept_channels_figure(info: KeptChannelsInfo) -> Any:
    """Return the picture of all layers: how much each kept of what the stem and each earlier layer made."""
    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(min(MOST_PX, max(LEAST_PX, 150 + LAYER_ROW_PX * len(info.layers))))
    figure.add_heatmap(
        z=info.shares,
        x=[name for name, _ in info.sources],
        y=[layer.name for layer in info.layers],
        zmin=0,
        zmax=math.ceil(10 * float(np.nanmax(info.shares)) - 1e-6) / 10,
        colorscale=[(0.0, FAINT), (1e-6, SCALE[0][1]), *((float(at), colour) for at, colour in SCALE[1:])],
        colorbar={"title": {"text": "kept", "side": "right"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        hoverongaps=False,
        xgap=1,
        ygap=1,
        hovertemplate="<b>%{y}</b> keeps %{z:.0%} of what<br>%{x} made (mean of its groups)<extra></extra>",
    )
    middles = [layer for layer in info.layers if layer.shape.index == _layers_of(info, layer) // 2]
    names, stages = [layer.name for layer in middles], [f"stage {layer.shape.stage + 1}" for layer in middles]
    figure.update_layout(
        showlegend=False,
        xaxis={
            "title": {"text": "made by"},
            "tickvals": [info.sources[0][0], *names],
            "ticktext": ["stem", *stages],
            "tickangle": -45,
            "showgrid": False,
        },
        yaxis={"title": {"text": "kept by"}, "tickvals": names, "ticktext": stages, "autorange": "reversed"},
    )
    figure.layout.yaxis.showgrid = False
    return figure


def kept_layer_figure(info: KeptChannelsInfo, layer: int) -> Any:
    """Return the picture of one layer (by its place, from 0): a row for each group, a column for each input channel."""
    if info.reason is not None:
        return message(info.reason)
    chosen = info.layers[min(max(layer, 0), len(info.layers) - 1)]
    mask = chosen.by_group
    cells = (mask * np.arange(1, len(mask) + 1)[:, None]).astype(np.uint8)  # 0: dropped, g: kept by group g
    colours = [FAINT, *(COLOURS[group % len(COLOURS)] for group in range(len(mask)))]
    gap = 1 if mask.shape[1] <= GAPS_UP_TO_CHANNELS else 0
    figure = empty_figure(130 + GROUP_ROW_PX * len(mask))
    figure.add_heatmap(
        z=cells,
        y=[f"group {group}" for group in range(1, len(mask) + 1)],
        zmin=-0.5,
        zmax=len(mask) + 0.5,
        colorscale=_steps(colours),
        showscale=False,
        xgap=gap,
        ygap=3,
        hovertemplate="%{y}, channel %{x}<extra></extra>",
    )
    _mark_stages(figure, info, chosen.shape.in_channels)
    title = f"input channels of {chosen.name}: coloured = kept by the group, grey = dropped"
    figure.update_layout(
        showlegend=False,
        xaxis={"title": {"text": title}, "showgrid": False},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    return figure


def _layers_of(info: KeptChannelsInfo, layer: KeptLayer) -> int:
    """Return how many layers a layer's stage has."""
    assert info.config is not None
    return info.config.stages[layer.shape.stage]


def _mark_stages(figure: Any, info: KeptChannelsInfo, channels: int) -> None:
    """Draw where each stage's channels begin, named where there is room for it."""
    named = -channels
    for name, first in info.sources:
        if not 0 < first < channels or not name.endswith("layer 1"):
            continue
        line = {"color": GREY, "dash": "dot", "width": 1}
        figure.add_shape(type="line", x0=first - 0.5, x1=first - 0.5, y0=0, y1=1, yref="paper", line=line)
        if first - named > STAGE_NAME_SHARE * channels:
            text, named = name.partition(",")[0], first
            figure.add_annotation(x=first, y=1, yref="paper", yanchor="bottom", text=text, showarrow=False)


def _steps(colours: Sequence[str]) -> list[tuple[float, str]]:
    """Return a colour scale of equal steps."""
    edges = np.linspace(0, 1, len(colours) + 1).tolist()
    return [(at, colour) for colour, ends in zip(colours, pairwise(edges), strict=True) for at in ends]
