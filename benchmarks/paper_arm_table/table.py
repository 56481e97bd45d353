"""One row for each network: built, exported, checked, counted, estimated and timed, and the table of all rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from scipy.stats import spearmanr

from benchmarks.paper_arm_table.networks import NETWORKS, PAPER, PaperRow, check_model, macs_of, save_model, settled
from space.errors import MeasurementFailed
from workers.latency.agent.files import sha256_of
from workers.latency.measurement import FailedMeasurement, LatencyProbe, Measurement
from workers.latency.profiles import Estimate, Profile

NAME = "paper_arm_table"
REFERENCE = "condensenet-74-g8"  # ratios are to this network
PROFILE = "raspberry-pi-5"
UNSAID = ("skipped", "no counts")  # reasons that the table shows without words


# ---- one row ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """Executed aarch64 instructions of one run, by class and `all`: the median of `runs`, each class by itself."""

    instructions: dict[str, float]
    runs: int
    runtime: str
    runtime_version: str


@dataclass(frozen=True)
class Timed:
    """A latency on this host in ms, one thread: median, its 95 % interval and whether the machine kept still."""

    latency_ms: float
    interval_low_ms: float
    interval_high_ms: float
    policy: str
    steady: bool


@dataclass(frozen=True)
class Row:
    """One network's figures; what is None is explained in `missing`, by the field's name."""

    network: str
    title: str
    macs: int
    params: int
    model_sha256: str
    model_mb: float
    difference: float
    paper: PaperRow | None
    counted: Counted | None = None
    estimated: Estimate | None = None
    host: Timed | None = None
    missing: dict[str, str] = field(default_factory=dict)


class Counter(Protocol):
    """The ARM device in software, `workers.latency.emulated.virtual_arm.VirtualArm`, as far as it is used here."""

    def count(self, models: Sequence[Path], runs: int = 5) -> Sequence[Any]:
        """Return for each model its Counts, or its FailedMeasurement."""
        ...


@dataclass(frozen=True)
class Devices:
    """What prices a network: the counter (with its profile) and, unless skipped, this host."""

    arm: Callable[[], Counter]  # sets it up where needed; not called when all counts are known
    profile: Profile
    host: LatencyProbe | None
    runs: int
    known: dict[tuple[str, str], Counted]  # of earlier runs, by model's SHA-256 and runtime's version


def say(text: str) -> None:
    """Write a line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def row_of(name: str, folder: Path, devices: Devices) -> Row:
    """Build, export, check, count and time one network; its file is gone afterwards."""
    chosen, path = NETWORKS[name], folder / f"{name}.onnx"
    say(f"{chosen.title}: building and exporting")
    network = settled(chosen.build)
    macs, params = macs_of(network), sum(parameter.numel() for parameter in network.parameters())
    try:
        save_model(network, path)
        difference = check_model(network, path)
        del network  # VGG-16's half a gigabyte
        digest, model_mb = sha256_of(path), path.stat().st_size / 1e6
        missing: dict[str, str] = {}
        counted = _counted(path, digest, min(devices.runs, chosen.most_runs), devices, missing)
        estimated = _estimated(counted, devices.profile, missing)
        host = _timed(path, devices.host, missing)
    finally:
        path.unlink(missing_ok=True)
    paper = PAPER.get(name)
    figures = (macs, params, digest, round(model_mb, 1), difference)
    return Row(name, chosen.title, *figures, paper, counted, estimated, host, missing)


def _counted(path: Path, digest: str, runs: int, devices: Devices, missing: dict[str, str]) -> Counted | None:
    saved = devices.known.get((digest, version("onnxruntime")))
    if saved is not None and saved.runs >= runs:
        say("  counts: those of the saved result, for an equal file")
        return saved
    say(f"  counting {runs} runs on the ARM device in software")
    (counts,) = devices.arm().count([path], runs=runs)
    if isinstance(counts, FailedMeasurement):
        missing["counted"] = counts.reason
        return None
    return Counted(dict(counts.median), len(counts.runs), counts.runtime, counts.runtime_version)


def _estimated(counted: Counted | None, profile: Profile, missing: dict[str, str]) -> Estimate | None:
    if counted is None:
        missing["estimated"] = "no counts"
        return None
    try:
        return profile.estimate(counted.instructions)
    except MeasurementFailed as error:
        missing["estimated"] = str(error)
        return None


def _timed(path: Path, host: LatencyProbe | None, missing: dict[str, str]) -> Timed | None:
    if host is None:
        missing["host"] = "skipped"
        return None
    say("  timing on this host")
    (result,) = host.measure([path])
    if not isinstance(result, Measurement):
        missing["host"] = result.reason
        return None
    return Timed(result.median_ms, result.interval_low_ms, result.interval_high_ms, result.policy, result.steady)


# ---- the table -------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[Row], float | None]] = {
    "macs": lambda row: row.macs,
    "instructions": lambda row: row.counted.instructions["all"] if row.counted else None,
    "estimated": lambda row: row.estimated.latency_ms if row.estimated else None,
    "host": lambda row: row.host.latency_ms if row.host else None,
    "paper": lambda row: row.paper.seconds if row.paper else None,
}


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return each network's cost over that of `REFERENCE`, by column; only where both are known."""
    reference = next((row for row in rows if row.network == REFERENCE), None)
    if reference is None:
        return {}
    ratio_of: dict[str, dict[str, float]] = {}
    for row in rows:
        pairs = {name: (value(row), value(reference)) for name, value in COLUMNS.items()}
        ratio_of[row.network] = {name: ours / base for name, (ours, base) in pairs.items() if ours and base}
    return ratio_of


def rank_correlations(rows: Sequence[Row]) -> dict[str, float]:
    """Return Spearman's rank correlation of each column with the paper's seconds, over the networks that have both."""
    correlations = {}
    for name, value in COLUMNS.items():
        pairs = [(value(row), row.paper.seconds) for row in rows if row.paper is not None and value(row) is not None]
        if name != "paper" and len(pairs) >= 3:
            correlations[name] = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return correlations


def _interval(seen: Estimate | Timed | None, mark: str = "") -> str:
    if seen is None:
        return "–"
    return f"{seen.latency_ms:.1f} [{seen.interval_low_ms:.1f}–{seen.interval_high_ms:.1f}]{mark}"


def _cells(row: Row, times: dict[str, float]) -> list[str]:
    paper = row.paper
    counted = f"{row.counted.instructions['all'] / 1e6:,.0f} ({row.counted.runs})" if row.counted else "–"
    figures = [
        row.title,
        f"{row.macs / 1e6:,.0f}",
        f"{row.params / 1e6:.2f}",
        counted,
        _interval(row.estimated, "*" if row.estimated and row.estimated.extrapolates else ""),
        _interval(row.host, "" if row.host is None or row.host.steady else "?"),
        *((f"{paper.macs_millions:,}", f"{paper.top1_error_pct}", f"{paper.seconds:g}") if paper else ("–",) * 3),
    ]
    return figures + [f"{times[name]:.2f}" if name in times else "–" for name in COLUMNS if name != "instructions"]


HEADER = [
    *("network", "M macs", "M params", "M instr. (runs)", "Pi 5 est. ms", "host ms"),
    *("paper M", "err %", "s", "x macs", "x est.", "x host", "x paper"),
]


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table's lines; what is not known is a dash, and said below."""
    times = ratios(rows)
    cells = [HEADER, *(_cells(row, times.get(row.network, {})) for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(HEADER))]
    lines = []
    for first, *others in cells:
        figures = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *figures]))
    reference = NETWORKS[REFERENCE].title
    lines.append(f"x: as many times that of {reference}; paper M, err % and s: CVPR 2018, its ARM table")
    lines.append("*: estimated outside of what the profile was calibrated on; ?: the host did not keep still")
    for row in rows:
        if row.estimated is not None and row.estimated.extrapolates:
            lines.append(f"  {row.title}: {row.estimated.reason}")
        lines += [
            f"  {row.title}, no {column}: {reason}" for column, reason in row.missing.items() if reason not in UNSAID
        ]
    for name, value in rank_correlations(rows).items():
        lines.append(f"rank correlation with the paper's seconds, {name}: {value:.2f}")
    return lines


def known_counts(path: Path) -> dict[tuple[str, str], Counted]:
    """Return the counts that a saved result holds, by model's SHA-256 and runtime's version."""
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())["result"]["rows"]
    counts = {row["model_sha256"]: Counted(**row["counted"]) for row in rows if row["counted"]}
    return {(digest, counted.runtime_version): counted for digest, counted in counts.items()}


def result_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what is saved: rows as plain data, and what was computed from them."""
    plain = [asdict(row) for row in rows]
    return {"rows": plain, "ratios": ratios(rows), "rank_correlations": rank_correlations(rows)}
