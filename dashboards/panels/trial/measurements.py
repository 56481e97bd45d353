"""Every latency of one trial with its raw samples: a row for each, its processes one above the other.

Latencies that can't be compared (other kind, device, runtime, runtime version or thread count) never share an axis:
each group of them has a strip of its own. A diamond is the median, the bar its 95 % interval. Samples beyond
`MOST_SAMPLES` of a process are thinned evenly, and the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, LatencyGroup
from dashboards.data.trial_detail import NO_TRIAL, TrialDetail
from dashboards.formats import digits_ms, milliseconds, one_line, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import COLOURS, GREY, STAR, SYMBOLS, empty_figure, escaped, message, scatter, slim
from workers.latency.record import LatencyPurpose, LatencyRecord, Measurement, kind_words

MOST_SAMPLES = 300  # of a process that are drawn
ROW_PX, STRIP_PX, LEAST_PX = 46, 74, 200
HEADERS = ("of", "when", "median ms", "95 % interval, ms", "p90 ms", "anchor moved", "samples", "processes", "remarks")
PURPOSES = {LatencyPurpose.PRICE: "before training", LatencyPurpose.VERIFY: "trained file"}


@dataclass(frozen=True, eq=False)
class SamplesInfo:
    """One latency with its samples as they are drawn, in ms by process."""

    label: str  # "before training, standard"
    processes: tuple[Floats, ...]
    timed: int  # how many samples all processes recorded
    measurement: Measurement
    judges: bool  # whether the trial is judged by it


@dataclass(frozen=True)
class StripInfo:
    """Latencies that may be compared, the oldest first."""

    label: str  # "measured on pi5 (Cortex-A76, onnxruntime 1.23.0, 1 thread)"
    rows: tuple[SamplesInfo, ...]


@dataclass(frozen=True)
class MeasurementsInfo:
    """All latencies of one trial."""

    strips: tuple[StripInfo, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return every latency with its figures."""
        rows = (_row(strip, row) for strip in self.strips for row in strip.rows)
        return DataTable(HEADERS, tuple(rows))


def measurements_info(detail: TrialDetail | None) -> MeasurementsInfo:
    """Return a trial's latencies with their samples; `detail` is None while no trial is chosen."""
    if detail is None:
        return MeasurementsInfo(reason=NO_TRIAL)
    if not detail.measurements:
        return MeasurementsInfo(reason=f"Trial {detail.row.number} is {detail.row.state} and has no latency yet.")
    by_group: dict[str, list[SamplesInfo]] = {}
    for measurement in detail.measurements:
        processes = tuple(_thinned(samples) for samples in measurement.samples_ms)
        label = f"{PURPOSES[measurement.purpose]}, {measurement.policy}"
        timed = sum(map(len, measurement.samples_ms))
        row = SamplesInfo(label, processes, timed, measurement, detail.is_judged_by(measurement))
        by_group.setdefault(_group(measurement), []).append(row)
    return MeasurementsInfo(tuple(StripInfo(label, tuple(rows)) for label, rows in by_group.items()))


def _group(latency: LatencyRecord) -> str:
    runtime = f"{latency.runtime} {latency.runtime_version}"
    return one_line(LatencyGroup(latency.target, kind_words(latency), latency.device, runtime, latency.threads), 160)


def _thinned(samples: Sequence[float]) -> Floats:
    values = np.asarray(samples, dtype=np.float64)
    if len(values) <= MOST_SAMPLES:
        return values
    thinned: Floats = values[np.linspace(0, len(values) - 1, MOST_SAMPLES).astype(int)]
    return thinned


def _row(strip: StripInfo, row: SamplesInfo) -> tuple[str, ...]:
    measurement = row.measurement
    interval = f"{digits_ms(measurement.interval_low_ms, 4)} to {digits_ms(measurement.interval_high_ms, 4)}"
    drawn = sum(map(len, row.processes))
    samples = f"{row.timed:,}" + ("" if drawn == row.timed else f" ({drawn:,} drawn)")
    return (
        strip.label,
        row.label,
        digits_ms(measurement.median_ms, 4),
        interval,
        digits_ms(measurement.p90_ms, 4),
        percent(measurement.anchor_drift, 1),
        samples if row.timed else "none: nothing was timed",
        str(len(row.processes)),
        _remarks(row) or "-",
    )


def _remarks(row: SamplesInfo) -> str:
    remarks = ["the trial is judged by it"] * row.judges
    remarks += ["the machine was not steady"] * (not row.measurement.steady)
    remarks += ["outside the calibrated range"] * row.measurement.extrapolates
    return ", ".join(remarks)


# ---- the figure -----------------------------------------------------------------------------------------


def measurements_figure(info: MeasurementsInfo) -> Any:
    """Return a strip for each group of latencies."""
    if info.reason is not None:
        return message(info.reason)
    rows = sum(len(strip.rows) for strip in info.strips)
    height = max(LEAST_PX, 60 + STRIP_PX * len(info.strips) + ROW_PX * rows)
    figure = empty_figure(height)
    points = sum(len(samples) for strip in info.strips for row in strip.rows for samples in row.processes)
    trace = scatter(points)
    for number, (strip, domain) in enumerate(zip(info.strips, _domains(info, height), strict=True), 1):
        _add_strip(figure, trace, strip, number)
        _style_strip(figure, strip, number, domain)
    figure.update_layout(margin={"l": 60, "t": 30}, legend={"y": -60 / height})
    return figure


def _domains(info: MeasurementsInfo, height: int) -> list[tuple[float, float]]:
    """Return the position of each strip, the first on top; strips with more rows are higher."""
    room = height - 30 - 50
    sizes = [(STRIP_PX + ROW_PX * len(strip.rows)) / room for strip in info.strips]
    scale = 1 / sum(sizes)
    domains, top = [], 1.0
    for size in sizes:
        bottom = top - size * scale
        head = 0.45 * STRIP_PX / room * scale
        foot = 0.55 * STRIP_PX / room * scale if len(sizes) > 1 else 0.0
        domains.append((max(0.0, bottom + foot), top - head))
        top = bottom
    return domains


def _add_strip(figure: Any, trace: Any, strip: StripInfo, number: int) -> None:
    axes = {"xaxis": f"x{number}", "yaxis": f"y{number}", "showlegend": number == 1}
    for process in range(max((len(row.processes) for row in strip.rows), default=0)):
        x, y = _of_process(strip, process)
        colour = COLOURS[2 + process % 4]
        figure.add_trace(
            trace(
                x=slim(x),
                y=slim(y),
                mode="markers",
                name=f"process {process + 1}",
                legendgroup=f"process {process + 1}",
                marker={
                    "symbol": f"{SYMBOLS[process % 3]}-open",
                    "size": 6,
                    "color": colour,
                    "line": {"width": 1, "color": colour},
                },
                hovertemplate="%{x:.4~g} ms<extra>process " + f"{process + 1}</extra>",
                **axes,
            )
        )
    _add_medians(figure, trace, strip, axes)


def _add_medians(figure: Any, trace: Any, strip: StripInfo, axes: dict[str, Any]) -> None:
    """Add a strip's medians with their intervals, above the samples."""
    measurements = [row.measurement for row in strip.rows]
    intervals = {
        "type": "data",
        "symmetric": False,
        "array": slim([latency.interval_high_ms - latency.median_ms for latency in measurements]),
        "arrayminus": slim([latency.median_ms - latency.interval_low_ms for latency in measurements]),
        "color": STAR,
        "thickness": 2,
        "width": 6,
    }
    figure.add_trace(
        trace(
            x=slim([latency.median_ms for latency in measurements]),
            y=slim(np.arange(len(strip.rows))),
            error_x=intervals,
            mode="markers",
            name="median and 95 % interval",
            legendgroup="median",
            marker={"symbol": "diamond", "size": 10, "color": STAR},
            text=[_hover(row) for row in strip.rows],
            hovertemplate="%{text}<extra></extra>",
            **axes,
        )
    )


def _of_process(strip: StripInfo, process: int) -> tuple[Floats, Floats]:
    """Return x and y of one process's samples in all rows; each process is a little lower than the one before."""
    xs, ys = [np.empty(0)], [np.empty(0)]
    for place, row in enumerate(strip.rows):
        if process < len(row.processes):
            samples = row.processes[process]
            lane = (process + 1) / (len(row.processes) + 1) - 0.5
            xs.append(samples)
            ys.append(np.full(len(samples), place + 0.75 * lane))
    return np.concatenate(xs), np.concatenate(ys)


def _hover(row: SamplesInfo) -> str:
    measurement = row.measurement
    remarks = _remarks(row)
    interval = f"[{digits_ms(measurement.interval_low_ms, 4)}, {digits_ms(measurement.interval_high_ms, 4)}]"
    lines = (f"<b>{escaped(row.label)}</b>", f"{milliseconds(measurement.median_ms)} {interval}", escaped(remarks))
    return "<br>".join(line for line in lines if line)


def _style_strip(figure: Any, strip: StripInfo, number: int, domain: tuple[float, float]) -> None:
    suffix = "" if number == 1 else str(number)
    ticks = {"tickvals": list(range(len(strip.rows))), "ticktext": [escaped(row.label) for row in strip.rows]}
    framed = {"zeroline": False, "showline": True, "linecolor": GREY, "automargin": True}
    figure.update_layout(
        {
            f"xaxis{suffix}": {
                **framed,
                "gridcolor": GREY,
                "griddash": "dot",
                "gridwidth": 0.5,
                "anchor": f"y{suffix}",
                "domain": [0, 1],
                "title": {"text": "ms", "standoff": 4},
            },
            f"yaxis{suffix}": {
                **framed,
                **ticks,
                "anchor": f"x{suffix}",
                "domain": list(domain),
                "range": [len(strip.rows) - 0.5, -0.5],
                "showgrid": False,
            },
        }
    )
    figure.add_annotation(
        x=0,
        y=domain[1],
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        text=f"<b>{escaped(strip.label)}</b>",
        font={"size": 12},
    )
