"""What the `devices` commands print, for people and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from dashboards.formats import DAGGER_NOTE, NOTHING, duration, is_number, moment, one_line, threads_text
from dashboards.terminal.documents import plain
from dashboards.terminal.tables import facts_table, plain_table, with_reasons
from search.devices.registry import DeviceState
from search.store.connection.printed_commands import printed_command
from search.store.vocabulary import JobState, Verdict
from workers.wording import counted

if TYPE_CHECKING:
    from search.devices.history import JobLine
    from search.devices.registry import DeviceRow
    from search.pricing.device_fit import DeviceFit
    from workers.latency.measurement import FailedMeasurement, Measurement
    from workers.latency.profiles import Profile

STATE_COLOURS: dict[str, str] = {
    DeviceState.ONLINE: "green",
    DeviceState.OFFLINE: "yellow",
    DeviceState.REVOKED: "red",
    JobState.DONE: "green",
    JobState.FAILED: "red",
    JobState.LEASED: "cyan",
}
CELSIUS = (-40.0, 150.0)  # a processor that works is between these
COUNTING = ("condensery", "devices", "virtual", "--count")
LONGEST_REASON = 160  # characters that are shown


def devices_table(rows: Sequence[DeviceRow]) -> RenderableType:
    """Return the devices, one row each."""
    if not rows:
        return Text("No devices. Register one with `condensery devices add NAME`.")
    table = plain_table("~device", "state", "~processor", "~runtimes", ">°C", ">waiting + leased", ">quarantined")
    for row in rows:
        facts, conditions = row.facts or {}, row.conditions or {}
        name = Text(one_line(row.name))
        if row.queue != row.name:
            name.append(f"\nqueue {one_line(row.queue)}", style="dim")
        if row.profile is not None:
            name.append(f"\nvirtual, {one_line(row.profile)}", style="dim")
        state = Text(row.state, style=STATE_COLOURS.get(row.state, "dim"))
        if row.doing is not None:
            state.append(f", {one_line(row.doing)}")
        if row.seen_s_ago is not None:
            state.append(f"\n{duration(max(0.0, row.seen_s_ago))} ago", style="dim")
        cores = facts.get("cores")
        processor = Text(one_line(facts.get("cpu_model") or NOTHING, 60))
        if cores:
            processor.append(f"\n{counted(cores, 'core') if is_number(cores) else one_line(cores, 20)}", style="dim")
        runtimes = "\n".join(
            one_line(f"{name} {version}", 40) for name, version in (facts.get("runtimes") or {}).items()
        )
        temperature = _celsius(conditions.get("temperature_c"))
        quarantined = Text(str(row.quarantined), style="red" if row.quarantined else "")
        table.add_row(
            name, state, processor, runtimes or NOTHING, temperature, f"{row.waiting} + {row.leased}", quarantined
        )
    return table


def _celsius(value: Any) -> str:
    """Return a temperature that an agent sent in whole degrees; "-" if no processor has it: a sensor may be broken."""
    believable = is_number(value) and not isinstance(value, bool) and CELSIUS[0] < value < CELSIUS[1]
    return f"{value:.0f}" if believable else NOTHING


def devices_document(rows: Sequence[DeviceRow]) -> list[dict[str, Any]]:
    """Return the devices as plain JSON values."""
    return [{name: plain(value) for name, value in dataclasses.asdict(row).items()} for row in rows]


def jobs_table(rows: Sequence[JobLine]) -> RenderableType:
    """Return measurement jobs, one row each, with what went wrong below."""
    if not rows:
        return Text("No measurement jobs.")
    table = plain_table(">job", "queue", "~measurement", "state", ">attempts", "~device", "submitted (UTC)")
    reasons: list[tuple[str, str | Text]] = []
    for row in rows:
        measurement = Text(
            f"{row.mode}, {row.runtime}, {threads_text(row.threads)}, {row.policy}, {row.model_sha256[:12]}"
        )
        quarantines = [text for text in row.history if text.startswith(Verdict.QUARANTINED)]
        reason = row.reason or "; ".join(quarantines)
        if reason:
            reasons.append((str(row.id), Text(one_line(reason, LONGEST_REASON), style="dim")))
        table.add_row(
            str(row.id),
            one_line(row.queue),
            measurement,
            Text(row.state, style=STATE_COLOURS.get(row.state, "")),
            str(row.attempt),
            one_line(row.device or NOTHING),
            moment(row.submitted_at),
        )
    return with_reasons(table, reasons, ">job")


def jobs_document(rows: Sequence[JobLine]) -> list[dict[str, Any]]:
    """Return measurement jobs as plain JSON values."""
    return [{name: plain(value) for name, value in dataclasses.asdict(row).items()} for row in rows]


def estimates_table(models: Sequence[Path], measurements: Sequence[Measurement | FailedMeasurement]) -> RenderableType:
    """Return counted models with their estimated latency."""
    table = plain_table("~model", ">M instructions", ">estimated ms", ">95 % interval")
    outside, reasons = False, list[tuple[str, str | Text]]()
    for path, measurement in zip(models, measurements, strict=True):
        cells, reason, extrapolates = _estimate_cells(measurement)
        table.add_row(one_line(path.name), *cells)
        if reason:
            reasons.append((one_line(path.name), reason))
        outside |= extrapolates
    shown = with_reasons(table, reasons, "model")
    return Group(shown, Text(DAGGER_NOTE, style="dim")) if outside else shown


def _estimate_cells(measurement: Any) -> tuple[tuple[str, ...], str | Text, bool]:
    """Return a model's cells, what is to be said about it, and whether it lies outside the calibrated range."""
    if getattr(measurement, "reason", None) is not None:
        reason = Text(one_line(measurement.reason, LONGEST_REASON), style="red")
        return (NOTHING, NOTHING, NOTHING), reason, False
    conditions = measurement.conditions
    cells = (
        f"{conditions['counts']['all'] / 1e6:,.3f}",
        f"{measurement.median_ms:.4g}{' †' if measurement.extrapolates else ''}",
        f"{measurement.interval_low_ms:.4g} to {measurement.interval_high_ms:.4g}",
    )
    why = one_line(str(conditions.get("why") or ""), LONGEST_REASON)
    return cells, "" if why == NOTHING else why, bool(measurement.extrapolates)


def estimates_document(
    models: Sequence[Path], measurements: Sequence[Measurement | FailedMeasurement]
) -> list[dict[str, Any]]:
    """Return counted models with their estimated latency as plain JSON values."""
    return [
        {"model": str(path), **{name: plain(value) for name, value in dataclasses.asdict(measurement).items()}}
        for path, measurement in zip(models, measurements, strict=True)
    ]


def fit_panel(fitted: DeviceFit) -> RenderableType:
    """Return how well a device's latency is predicted."""
    return facts_table(
        (
            ("device", f"{one_line(fitted.device)}, {fitted.runtime}, {threads_text(fitted.threads)}, {fitted.kind}"),
            ("networks", f"{fitted.networks}, each left out in turn"),
            (
                "error",
                f"median {fitted.median_error:.1%}, 90 % below {fitted.p90_error:.1%}, at most {fitted.max_error:.1%}",
            ),
            ("intervals", f"{fitted.coverage_95:.0%} of the latencies lie inside their 95 % interval"),
            (
                "rank correlation",
                f"{_rank(fitted.spearman)} with the predictor, {_rank(fitted.macs_spearman)} with macs alone",
            ),
        )
    )


def _rank(correlation: float | None) -> str:
    return NOTHING if correlation is None else f"{correlation:.3f}"


def fit_document(fitted: DeviceFit) -> dict[str, Any]:
    """Return a fit as plain JSON values."""
    return {name: plain(value) for name, value in dataclasses.asdict(fitted).items()}


def profile_panel(profile: Profile, path: Path) -> RenderableType:
    """Return what a calibration found and how to use it."""
    error = profile.estimate_leave_one_out
    return facts_table(
        (
            ("profile", Text(str(path))),
            (
                "calibrated on",
                f"{counted(profile.networks, 'network')}, {profile.runtime}, {threads_text(profile.threads)}",
            ),
            ("error", f"each left out in turn: median {error.median_error:.1%}, at most {error.max_error:.1%}"),
            (
                "use",
                Text(printed_command([*COUNTING, "MODEL.onnx", "--profile", path])),
            ),
            ("in a study", Text(f'latency.devices = ["virtual:{path.stem}"], launched from {path.absolute().parent}')),
        )
    )
