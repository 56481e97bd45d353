"""How numbers and words look wherever people read them: terminal, tables, figures, page and report.

A value that isn't there (None, NaN, infinite) is shown as "-". Text from files or users is made one safe line first.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from search.results.latency_labels import doubts_text
from search.results.pareto import latency_key
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.latency.record import LatencyRecord, kind_words
from workers.training.reporting import ProgressReport
from workers.wording import counted

NOTHING = "-"
STAR_MARK = "⚑"  # of a trial on the shortlist; a star is the recommended network
STARRED = f"{STAR_MARK} starred"
STATE_STYLES: Mapping[str, str] = {  # of rich, for each state of a trial
    TrialState.ASKED: "dim",
    TrialState.QUEUED: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.DONE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.INFEASIBLE: "yellow",
    TrialState.DUPLICATE: "dim",
    TrialState.FAILED: "red",
    TrialState.CANCELLED: "magenta",
}

STAR_NOTE = "* the machine was not steady during this measurement"
DAGGER_NOTE = "† outside the range that the estimate was calibrated on"


def is_number(value: Any) -> bool:
    """Whether the value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return 0.972 as "97.20 %"."""
    return NOTHING if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{digits}f} %"


def count(number: float | None) -> str:
    """Return macs or params with three digits: 917504 as "0.92 M", 12345 as "12.3 k"."""
    if number is None or not math.isfinite(number):
        return NOTHING
    for limit, unit, name in ((1e9, 1e9, "G"), (1e5, 1e6, "M"), (1e3, 1e3, "k")):
        if abs(number) >= limit:
            scaled = number / unit
            return f"{scaled:.{2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0}f} {name}"
    return f"{number:.0f}"


def digits_ms(value_ms: float | None, digits: int = 3) -> str:
    """Return milliseconds with `digits` significant digits and no unit: "0.312", "12.3", "1250"."""
    if value_ms is None or not math.isfinite(value_ms):
        return NOTHING
    text = f"{value_ms:#.{digits}g}"
    return f"{value_ms:.0f}" if "e" in text and abs(value_ms) >= 1 else text.removesuffix(".")


def milliseconds(value_ms: float | None) -> str:
    """Return "0.312 ms"."""
    text = digits_ms(value_ms)
    return text if text == NOTHING else f"{text} ms"


def interval_text(latency: LatencyRecord) -> str:
    """Return "[0.3091, 0.3152]", the 95 % interval in ms."""
    return ends_text(latency.interval_low_ms, latency.interval_high_ms)


def ends_text(low_ms: float, high_ms: float) -> str:
    """Return the ends of an interval, in ms: "[0.3091, 0.3152]"."""
    return f"[{digits_ms(low_ms, 4)}, {digits_ms(high_ms, 4)}]"


def latency_text(latency: LatencyRecord | None) -> str:
    """Return "0.3120 [0.3091, 0.3152]": median and 95 % interval in ms; see `latency_label` for what it is.

    A star follows where the machine wasn't steady (`STAR_NOTE`), a dagger where an estimate or a prediction lies
    outside the range that it was calibrated on (`DAGGER_NOTE`).
    """
    if latency is None:
        return NOTHING
    marks = marks_text(latency.steady, latency.extrapolates)
    return f"{digits_ms(latency.median_ms, 4)} {interval_text(latency)}{marks}"


def latency_label(latency: LatencyRecord) -> str:
    """Return what kind of number a latency is: "measured", "measured, quick, not steady", "estimated, extrapolated"."""
    return one_line(kind_words(latency) + doubts_text(latency), 60)


def marks_text(steady: bool, extrapolates: bool) -> str:
    """Return what follows a latency in a table: " *" (`STAR_NOTE`), " †" (`DAGGER_NOTE`), both or nothing."""
    return ("" if steady else " *") + (" †" if extrapolates else "")


def threads_text(threads: int) -> str:
    """Return "1 thread" or "2 threads"."""
    return counted(threads, "thread")


def place_label(latency: LatencyRecord) -> str:
    """Return where a latency was found: "host:some-cpu, onnxruntime 1.23.0, 1 thread"."""
    place = f"{latency.device}, {latency.runtime} {latency.runtime_version}, {threads_text(latency.threads)}"
    return one_line(place, 200)


def common_label(latency: LatencyRecord) -> str:
    """Return kind and policy alone: what all rows must share for one note to describe them."""
    return one_line(f"{kind_words(latency)}{', quick' if latency.policy == 'quick' else ''}", 60)


def shared_label(rows: Sequence[TrialRow]) -> str | None:
    """Return kind, policy and place where all latencies agree on them, else None ("" where there is no latency)."""
    latencies = [row.latency for row in rows if row.latency is not None]
    if not latencies:
        return ""
    if len({(latency_key(latency), common_label(latency)) for latency in latencies}) > 1:
        return None
    marked = [*latencies, *(other for row in rows for other in row.others)]  # those on further devices have marks, too
    star = "" if all(latency.steady for latency in marked) else f"; {STAR_NOTE}"
    dagger = f"; {DAGGER_NOTE}" if any(latency.extrapolates for latency in marked) else ""
    return f"{common_label(latencies[0])}, on {place_label(latencies[0])}{star}{dagger}"


def duration(seconds: float | None) -> str:
    """Return "12.3 s" below a minute, and above it what `whole_duration` says."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    return f"{seconds:.1f} s" if seconds < 59.95 else whole_duration(seconds)


def whole_duration(seconds: float) -> str:
    """Return "12 s", "2 min 5 s", "1 h 2 min" or "3 d 4 h": the two largest units, without one that is nothing."""
    whole_s, minutes, hours = (math.floor(max(0.0, seconds) / unit_s + 0.5) for unit_s in (1, 60, 3600))
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return _two_units(whole_s, 60, "min", "s")
    return _two_units(minutes, 60, "h", "min") if minutes < 24 * 60 else _two_units(hours, 24, "d", "h")


def _two_units(parts: int, parts_of_one: int, unit: str, part: str) -> str:
    units, rest = divmod(parts, parts_of_one)
    return f"{units:,} {unit} {rest} {part}" if rest else f"{units:,} {unit}"


def images_rate(images_per_s: float | None) -> str:
    """Return "1,234 images/s": "12.3 images/s" below a hundred."""
    if images_per_s is None or not math.isfinite(images_per_s):
        return NOTHING
    return f"{images_per_s:,.{1 if images_per_s < 100 else 0}f} images/s"


def epoch_under_way(progress: float, epochs: int) -> tuple[int, float]:
    """Return which epoch (1-based) a training of so many `epochs` is in, and how much of that is done, 0..1.

    Exactly between two epochs it is in the one that has ended.
    """
    done = min(max(progress, 0.0), 1.0) * epochs
    whole = round(done) if abs(done - round(done)) < 1e-6 else math.ceil(done)
    number = max(whole, 1)
    return number, min(max(done - (number - 1), 0.0), 1.0)


def epoch_text(progress: float | None, epochs: Any) -> str:
    """Return "epoch 9 of 20", or the percentage of the schedule where the number of epochs isn't known."""
    if progress is None or not math.isfinite(progress):
        return NOTHING
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        return percent(progress, 0)
    return f"epoch {epoch_under_way(progress, epochs)[0]} of {epochs}"


def progress_text(report: ProgressReport, epochs: Any) -> str:
    """Return "epoch 9 of 20, 43 %, 1,234 images/s, about 2 min 5 s left"; `epochs` is the schedule's number of them."""
    parts = [epoch_text(report.progress, epochs), percent(report.progress, 0)]
    if report.images_per_s is not None:
        parts.append(images_rate(report.images_per_s))
    if report.left_s is not None:
        parts.append(f"about {whole_duration(report.left_s)} left")
    return ", ".join(dict.fromkeys(parts))


def moment(unix_s: float | None) -> str:
    """Return a time as "2026-01-31 13:05" in UTC."""
    return NOTHING if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")


def spreadsheet_text(text: str) -> str:
    """Return a CSV's text so that no spreadsheet takes it for a formula and runs it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def one_line(text: Any, longest: int = 1000) -> str:
    """Return text as one line without control characters, cut to `longest` characters."""
    visible = (c for c in str(text) if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    safe = " ".join("".join(visible).split())
    return safe if len(safe) <= longest else safe[: longest - 3].rstrip() + "..."
