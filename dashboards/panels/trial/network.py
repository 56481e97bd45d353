"""A drawing of one network and what each of its parts costs.

There is a bar for each part, from left to right as images pass them, as high as the channels that the part hands on:
the share (1/C) that each group kept of what it may read, the rest of that, and what the layer adds. Below is each
part's share of the latency where a fit of the device predicts it, else its share of the macs; the axis says which.
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
from workers.wording import agreeing, counted

PREDICTED, OF_MACS = "predicted share of latency", "share of macs"
RUN = "each run, whatever the network"


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
    shares: tuple[float, ...] = ()  # of each part; `share_of` says of what
    share_of: str = OF_MACS
    run_share: float = 0.0  # of the latency that belongs to no part
    macs: int = 0
    params: int = 0
    share_note: str = ""  # how far the shares can be trusted, or why there are none of the latency
    reason: str | None = None

    def table(self) -> DataTable:
        """Return all parts and their sum. However many layers there are, all are listed: they must add up."""
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
        """Return what the drawing shows, in words."""
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
            f"stages. Each 1x1 has {_groups(config.groups)}; "
            f"{agreeing(config.groups, 'it keeps', 'each keeps')} 1/{config.condense_factor} of the channels. "
            f"A 1x1 makes {config.bottleneck} x growth channels; each 3x3 has {_groups(config.conv3x3_groups)}. "
            f"The classifier reads {config.classifier_inputs} of {config.num_features} features for "
            f"{config.num_classes} classes. "
            f"In all {self.macs:,} macs and {self.params:,} params."
        )


def network_info(
    config: CondenseNetConfig | None, shares: LayerShares | str | None = None, title: str = ""
) -> NetworkInfo:
    """Return the drawing of a network.

    Args:
        config: of the network; None: none is chosen.
        shares: of its latency, by part; a text says why there are none.
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
    stages = []
    for stage, (layers, growth) in enumerate(zip(config.stages, config.growth, strict=True)):
        places = [place for place, part in enumerate(parts) if part.kind == "layer" and part.stage == stage]
        first, last = parts[places[0]], parts[places[-1]]
        size = (first.height, first.width)
        stages.append(
            StageInfo(layers, growth, first.in_channels, last.out_channels, *size, first=places[0], last=places[-1])
        )
    return stages


def _note(shares: LayerShares | str | None) -> str:
    if not isinstance(shares, LayerShares):
        cause = f", because {shares.rstrip('.')}" if shares else ""
        return f"Shares of the latency can't be computed{cause}. These are shares of macs."
    error = (
        "it hasn't been cross-validated yet"
        if shares.median_error is None
        else f"its median error is {percent(shares.median_error, 1)}"
    )
    device = one_line(shares.device, 100)
    unlike = f" This network differs from those: {shares.extrapolates}." if shares.extrapolates else ""
    return (
        f"Predicted from {counted(shares.networks, 'network')} {shares.kind} on {device} with {shares.runtime} "
        f"and {threads_text(shares.threads)}; {error}. The prediction for the whole is "
        f"{milliseconds(shares.predicted_ms)}. A part with no share has no price of its own in the fit.{unlike}"
    )


def _layers(stage: StageInfo) -> str:
    return counted(stage.layers, "layer")


def _groups(number: int) -> str:
    return counted(number, "group")


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
    _mark_stages(figure, info)
    _style(figure, info)
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
    """Return (name, heights by part, marker) of the stacked bars, the lowest first."""
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


def _mark_stages(figure: Any, info: NetworkInfo) -> None:
    """Write each stage's name above it, and draw where pooling ends it."""
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


def _style(figure: Any, info: NetworkInfo) -> None:
    """Give the figure its title, its legend and its axes."""
    config = info.config
    assert config is not None
    top = max(part.out_channels for part in info.parts)
    names = {"stem": "stem", "pooling": "pool", "classifier": "classes"}  # there is no room for the norm's name
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
