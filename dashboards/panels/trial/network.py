"""A drawing of one network and what each of its parts costs.

A bar for each part, left to right as images pass them, as high as the channels that it hands on: what each group kept
(1/C) of what it may read, what no single group reads, and what the layer adds. Below stands each part's share of the
latency, where a fit of the device foretells it, else of the macs; either is called what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.trial_detail import NO_TRIAL
from dashboards.formats import count, milliseconds, one_line, percent, threads_text
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import FRONT, GREY, STAR, empty_figure, escaped, message, slim
from search.pricing.layer_shares import LayerShares
from space.config import CondenseNetConfig
from space.cost import NetworkPart, cost_of, parts_of

PREDICTED, OF_MACS = "predicted share of latency", "share of macs"
RUN = "a run, whatever the network"


@dataclass(frozen=True)
class StageInfo:
    """One dense stage; `first` and `last` are places among the parts."""

    layers: int
    growth: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    first: int
    last: int


@dataclass(frozen=True)
class NetworkInfo:
    """A network's stages, its parts with their exact costs, and what share of the latency (or macs) each has."""

    title: str
    config: CondenseNetConfig | None
    stages: tuple[StageInfo, ...] = ()
    parts: tuple[NetworkPart, ...] = ()
    shares: tuple[float, ...] = ()  # of `share_of`, by part
    share_of: str = OF_MACS
    run_share: float = 0.0  # of the latency, that belongs to no part
    macs: int = 0
    params: int = 0
    share_note: str = ""  # what the shares are worth, or why there are none of the latency
    reason: str | None = None

    def table(self) -> DataTable:
        """Return all parts and their sum: layers are many, but none may be missing from a sum."""
        headers = ("part", "channels in", "channels out", "size", "macs", "params", self.share_of)
        rows = [
            (
                part.name,
                f"{part.in_channels:,}",
                f"{part.out_channels:,}",
                f"{part.height} x {part.width}",
                f"{part.macs:,}",
                f"{part.params:,}",
                percent(share, 1),
            )
            for part, share in zip(self.parts, self.shares, strict=True)
        ]
        if self.share_of == PREDICTED:
            rows.append((RUN, "", "", "", "", "", percent(self.run_share, 1)))
        if self.parts:
            rows.append(("whole network", "", "", "", f"{self.macs:,}", f"{self.params:,}", percent(1.0, 1)))
        return DataTable(headers, tuple(rows))

    def sentence(self) -> str:
        """Return the drawing in words."""
        if self.config is None:
            return self.reason or ""
        config, stem = self.config, self.parts[0]
        size = "x".join(map(str, config.input_shape))
        stages = "; ".join(
            f"stage {number}: {_layers(stage)} of growth {stage.growth} at {stage.height}x{stage.width}, "
            f"{stage.in_channels} to {stage.out_channels} channels"
            for number, stage in enumerate(self.stages, 1)
        )
        return (
            f"Images of {size}, a stem of {stem.out_channels} channels, then {stages}; 2x2 average pooling between "
            f"stages. Each 1x1 has {_groups(config.groups)} that keep 1/{config.condense_factor} of the channels each "
            f"and make {config.bottleneck} x growth; each 3x3 has {_groups(config.conv3x3_groups)}. The classifier "
            f"reads {config.classifier_inputs} of {config.num_features} features for {config.num_classes} classes. "
            f"In all {self.macs:,} macs and {self.params:,} params."
        )


def network_info(
    config: CondenseNetConfig | None, shares: LayerShares | str | None = None, title: str = ""
) -> NetworkInfo:
    """Return the drawing of a network.

    Args:
        config: of the network; None: none is chosen.
        shares: of its latency by part; a text says why there are none.
        title: what the network is called.
    """
    if config is None:
        return NetworkInfo(title, None, reason=NO_TRIAL)
    parts, cost = parts_of(config), cost_of(config)
    predicted = shares if isinstance(shares, LayerShares) else None
    return NetworkInfo(
        title=title or str(config),
        config=config,
        stages=tuple(_stages(config, parts)),
        parts=parts,
        shares=tuple(part.macs / cost.macs for part in parts) if predicted is None else predicted.of_parts,
        share_of=OF_MACS if predicted is None else PREDICTED,
        run_share=0.0 if predicted is None else predicted.of_run,
        macs=cost.macs,
        params=cost.params,
        share_note=_note(shares),
    )


def _stages(config: CondenseNetConfig, parts: Sequence[NetworkPart]) -> list[StageInfo]:
    found = []
    for stage, (layers, growth) in enumerate(zip(config.stages, config.growth, strict=True)):
        places = [place for place, part in enumerate(parts) if part.kind == "layer" and part.stage == stage]
        first, last = parts[places[0]], parts[places[-1]]
        size = (first.height, first.width)
        found.append(
            StageInfo(layers, growth, first.in_channels, last.out_channels, *size, first=places[0], last=places[-1])
        )
    return found


def _note(shares: LayerShares | str | None) -> str:
    if not isinstance(shares, LayerShares):
        why = f", because {shares}" if shares else ""
        why = why if why.endswith(".") or not why else f"{why}."
        return f"Shares of the latency can't be computed{why or '.'} Shown are shares of macs."
    error = (
        "nobody has cross-validated it yet"
        if shares.median_error is None
        else f"its median error is {percent(shares.median_error, 1)}"
    )
    device = one_line(shares.device, 100)
    unlike = f" This network is unlike those: {shares.extrapolates}." if shares.extrapolates else ""
    return (
        f"Predicted from {shares.networks} networks {shares.kind} on {device} with {shares.runtime} "
        f"and {threads_text(shares.threads)}; {error}. The prediction for the whole is "
        f"{milliseconds(shares.predicted_ms)}. A part with no share has no price of its own in the fit.{unlike}"
    )


def _layers(stage: StageInfo) -> str:
    return "1 layer" if stage.layers == 1 else f"{stage.layers} layers"


def _groups(number: int) -> str:
    return "1 group" if number == 1 else f"{number} groups"


# ---- the figure -----------------------------------------------------------------------------------------


def network_figure(info: NetworkInfo) -> Any:
    """Return the drawing: channels above, shares below."""
    if info.reason is not None or info.config is None:
        return message(info.reason or "")
    figure, places = empty_figure(470), np.arange(len(info.parts))
    hover = {"customdata": _hover(info), "hovertemplate": _TEMPLATE}
    for name, heights, marker in _bars(info):
        figure.add_bar(x=places, y=slim(heights), name=name, marker=marker, width=0.92, **hover)
    share = {"color": FRONT, "line": {"width": 0}}
    figure.add_bar(
        x=places,
        y=slim([100 * share for share in info.shares]),
        yaxis="y2",
        name=info.share_of,
        marker=share,
        showlegend=False,
        width=0.92,
        **hover,
    )
    _label(figure, info)
    return figure


_TEMPLATE = (
    "<b>%{customdata[0]}</b><br>%{customdata[1]} channels in, %{customdata[2]} out, at %{customdata[3]}"
    "<br>%{customdata[4]} macs, %{customdata[5]} params<br>%{customdata[6]} %{customdata[7]}<extra></extra>"
)


def _hover(info: NetworkInfo) -> list[tuple[str, ...]]:
    return [
        (
            part.name,
            f"{part.in_channels:,}",
            f"{part.out_channels:,}",
            f"{part.height}x{part.width}",
            count(part.macs),
            count(part.params),
            percent(share, 1),
            info.share_of,
        )
        for part, share in zip(info.parts, info.shares, strict=True)
    ]


def _bars(info: NetworkInfo) -> list[tuple[str, list[float], dict[str, Any]]]:
    """Return (name, heights by part, marker) of the stacked bars, lowest first."""
    assert info.config is not None
    factor = info.config.condense_factor
    layers = [part if part.kind == "layer" else None for part in info.parts]
    kept = [0.0 if part is None else part.in_channels / factor for part in layers]
    rest = [0.0 if part is None else part.in_channels - part.in_channels / factor for part in layers]
    new = [0.0 if part is None else part.out_channels - part.in_channels for part in layers]
    ends = [float(part.out_channels) if layer is None else 0.0 for part, layer in zip(info.parts, layers, strict=True)]
    plain = {"line": {"width": 0}}
    hatched = {"color": "rgba(0,0,0,0)", "line": {"color": GREY, "width": 1}}
    bars = [
        (f"kept by each group: 1/{factor} of its inputs", kept, {"color": FRONT, **plain}),
        ("inputs that a group dropped", rest, {**hatched, "pattern": {"shape": "/", "fgcolor": GREY, "size": 5}}),
        ("added by the layer: growth", new, {"color": STAR, **plain}),
        ("stem, pooling, norm, classifier", ends, {"color": GREY, **plain}),
    ]
    return bars if factor > 1 else [bar for bar in bars if bar[1] is not rest]


def _label(figure: Any, info: NetworkInfo) -> None:
    """Name stages, poolings and axes."""
    config = info.config
    assert config is not None
    top = max(part.out_channels for part in info.parts)
    for number, stage in enumerate(info.stages, 1):
        figure.add_annotation(
            x=(stage.first + stage.last) / 2,
            y=stage.out_channels,
            yanchor="bottom",
            showarrow=False,
            text=f"<b>stage {number}</b><br>{_layers(stage)}, +{stage.growth}<br>{stage.height}x{stage.width}",
            font={"size": 12},
        )
    for place, part in enumerate(info.parts):
        if part.kind == "pooling":
            line = {"color": GREY, "dash": "dot", "width": 1}
            figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, yref="paper", line=line, layer="below")
    names = {"stem": "stem", "pooling": "pool", "classifier": "classes"}  # the norm stands too near to be named
    ticks = {place: names[part.kind] for place, part in enumerate(info.parts) if part.kind in names}
    groups = f"1x1: {_groups(config.groups)}, C={config.condense_factor}, {config.bottleneck} x growth"
    figure.update_layout(
        barmode="stack",
        bargap=0.08,
        margin={"t": 54},
        title={
            "text": f"{escaped(info.title)}<br><sup>{groups}; 3x3: {_groups(config.conv3x3_groups)}</sup>",
            "font": {"size": 14},
            "x": 0.02,
        },
        legend={"y": -0.14},
        xaxis={
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "tickangle": -45,
            "showgrid": False,
            "anchor": "y2",
            "range": [-0.7, len(info.parts) - 0.3],
        },
        yaxis={"title": {"text": "channels"}, "domain": [0.34, 1.0], "range": [0, 1.3 * top]},
        yaxis2={**figure.layout.yaxis.to_plotly_json(), "title": {"text": _axis_title(info)}, "domain": [0.0, 0.24]},
    )


def _axis_title(info: NetworkInfo) -> str:
    return "macs, %" if info.share_of == OF_MACS else "predicted<br>latency, %"
