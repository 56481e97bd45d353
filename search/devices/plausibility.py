"""Whether a report can be true: sensors fail, clocks jump, files get mixed up, and anyone may hold a token.

A doubtful report is kept whole, in quarantine, and never counts. The limits are far from anything real: a result that
is merely surprising passes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.store.queue_facts import difference, processor
from search.store.vocabulary import MeasurementMode
from workers.latency.agent.disturbance import disturbed
from workers.wording import agreeing, counted

MACS_PER_S = 1e12  # per thread: 20 times the fastest core there is
MACS_PER_INSTRUCTION = 64  # a vector multiply-add does 4; Winograd's algorithm and others save a few times as many
TIME_LEAST_MS = 1e-6  # no clock ticks faster, and no network takes less
ANCHOR_FACTOR = 20.0
TIME_SLACK = 1.05  # the hub's clock and the device's may run at slightly different speeds
TIME_SLACK_S = 5.0
LOOP_SHARE = 0.01  # at least this share of the requested seconds is spent in runs; the rest are pauses between them
LOOP_MOST = 10.0  # times the requested seconds: a device makes more runs than requested only to fill these
ANCHOR_MACS = 4_965_632  # of `search.pricing.pricer.ANCHOR`, which never changes
MACS_LEAST_PER_S = 1e7  # of the anchor: a twentieth of the slowest core that runs 64-bit Linux
SLOW_FACTOR = 100.0  # times the anchor's time, for as many macs or fewer; a deep and narrow network takes 15 times


@dataclass(frozen=True)
class Expected:
    """What a report must agree with."""

    model_sha256: str
    mode: MeasurementMode
    runtime: str
    threads: int
    macs: int | None = None
    elapsed_s: float | None = None  # from lease to report by the hub's clock; None when the clock was set back
    policy: Mapping[str, Any] = field(default_factory=dict)  # as requested
    facts: Mapping[str, Any] = field(default_factory=dict)  # with which its device enrolled; {}: not known
    anchors_ms: Sequence[float] = ()  # of accepted results of the same queue, anchor, runtime and threads


def doubts(report: Mapping[str, Any], expected: Expected) -> list[str]:
    """Return why a report can't be true, one line for each reason; an empty list for a plausible report.

    Args:
        report: as the agent sends it; its shape has been checked, its numbers may be anything.
        expected: what the hub knows of the job.
    """
    mismatches = []
    for name, value in (
        ("mode", str(expected.mode)),
        ("runtime", expected.runtime),
        ("threads", expected.threads),
        ("sha256", expected.model_sha256),
    ):
        if report.get(name) != value:
            mismatches.append(f"{name} is {report.get(name)!r}, asked for was {value!r}")
    if expected.mode == MeasurementMode.WALL and (other := _another_device(report, expected.facts)) is not None:
        mismatches.append(other)
    if expected.mode == MeasurementMode.COUNTS:
        return mismatches + _doubts_of_counts(report.get("counts") or [], expected)
    times = _doubts_of_times(report.get("processes") or [], expected)
    return mismatches + (times or _doubts_of_thoroughness(report, expected.policy))


def _another_device(report: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Return how a report is another device's than the one that enrolled; None if it isn't."""
    enrolled, identity = facts.get("identity"), report.get("identity")
    if enrolled is None:
        return None
    if identity is None:
        return "it doesn't say of which device it is"
    if processor(report.get("cpu_model", "")) != processor(facts.get("cpu_model", "")):
        return f"it is of {report.get('cpu_model')!r}, the device enrolled as {facts.get('cpu_model')!r}"
    differs = difference(identity, enrolled)
    return None if differs is None else f"it is of another device than the one that enrolled: {differs}"


def _doubts_of_thoroughness(report: Mapping[str, Any], policy: Mapping[str, Any]) -> list[str]:
    """Hold a report to the requested policy: a few samples must not pass for a whole measurement."""
    doubts, processes = [], report.get("processes") or []
    label, least_processes = policy.get("label"), policy.get("processes", 1)
    if label is not None and report.get("policy") != label:
        doubts.append(f"policy is {report.get('policy')!r}, asked for was {label!r}")
    if len(processes) < least_processes:
        asked = f"asked for {agreeing(least_processes, 'was', 'were')} {least_processes}"
        doubts.append(f"{counted(len(processes), 'process', 'processes')}, {asked}")
    return (
        doubts
        + _doubts_of_runs(processes, policy.get("runs", 1))
        + _doubts_of_duration(processes, policy)
        + _doubts_of_repeats(processes, policy)
        + _doubts_of_drift(report, policy)
    )


def _doubts_of_runs(processes: Sequence[Mapping[str, Any]], least_runs: int) -> list[str]:
    """Return the doubt about the first process with too few runs, or too few samples of its runs."""
    for process in processes:
        runs, stride, samples = process.get("runs", 0), max(process.get("stride", 1), 1), len(process["samples_ms"])
        if runs < least_runs:
            asked = f"asked for {agreeing(least_runs, 'was', 'were')} {least_runs}"
            return [f"a process of {counted(runs, 'run')}, {asked}"]
        if samples < -(-runs // stride):
            return [f"{counted(samples, 'sample')} of {counted(runs, 'run')}, of which 1 in {stride} is kept"]
    return []


def _doubts_of_duration(processes: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]) -> list[str]:
    """Hold the runs' times to the seconds that they were repeated for: a clock that is a thousand times off shows here.

    This needs no knowledge of the device. The longest process counts: a busy machine may pause between two runs, but
    not between the runs of every process.
    """
    seconds = [statistics.fmean(process["samples_ms"]) * process.get("runs", 0) / 1e3 for process in processes]
    requested_s = policy.get("run_s", 0.0)
    if not seconds or max(seconds) >= requested_s * LOOP_SHARE:
        return []
    return [f"its runs took {max(seconds):.4g} s a process, asked for were at least {requested_s} s"]


def _doubts_of_repeats(processes: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]) -> list[str]:
    """Doubt extra runs that take long: a device makes more than the requested runs only to fill the requested seconds.

    This needs no clock but the device's own: times that were multiplied after the loop show here, however late the
    report comes.
    """
    requested_s, least_runs = policy.get("run_s") or math.inf, policy.get("runs", 1)
    for process in processes:
        runs, typical_ms = process.get("runs", 0), statistics.median(process["samples_ms"])
        if runs > least_runs and runs * typical_ms / 1e3 > requested_s * LOOP_MOST:
            return [f"{runs} runs of about {typical_ms:.4g} ms, but from {least_runs} on it ends after {requested_s} s"]
    return []


def _doubts_of_drift(report: Mapping[str, Any], policy: Mapping[str, Any]) -> list[str]:
    """Check the anchor's drift, and that a result that is called steady is: by its times and by what else ran."""
    drift = report.get("anchor_drift", 0.0)
    if not (math.isfinite(drift) and drift >= 0):
        return [f"the anchor's drift is {drift}; it is finite and >= 0"]
    tolerance = policy.get("anchor_tolerance")
    if not report.get("steady") or tolerance is None:
        return []
    measured, spread = anchor_drift(report["processes"]), _own_spread(report["processes"])
    if measured > tolerance * TIME_SLACK:
        return [f"called steady, but its anchor moved by {measured:.1%} (at most {tolerance:.0%})"]
    if spread > tolerance * TIME_SLACK:
        return [f"called steady, but its processes differ by {spread:.1%} (at most {tolerance:.0%})"]
    by = next((by for process in report["processes"] if (by := disturbed(process)) is not None), None)
    return [] if by is None else [f"called steady, but a process was disturbed: {by}"]


def _own_spread(processes: Sequence[Mapping[str, Any]]) -> float:
    """Return how far the model's own medians differ between processes, relative to the fastest."""
    medians = [float(statistics.median(process["samples_ms"])) for process in processes]
    return (max(medians) - min(medians)) / min(medians)


def _doubts_of_times(processes: Sequence[Mapping[str, Any]], expected: Expected) -> list[str]:
    samples = [list(process["samples_ms"]) for process in processes]
    every = [ms for process in samples for ms in process]
    if not samples or not all(samples):
        return ["a process has no samples"]
    wrong = next((ms for ms in every if not _is_time(ms)), None)
    if wrong is not None:
        return [f"a sample is {wrong} ms; a time is finite and at least {TIME_LEAST_MS} ms"]
    doubts = []
    total_s = sum(_spent_ms(process) for process in processes) / 1e3
    if expected.elapsed_s is not None and total_s > expected.elapsed_s * TIME_SLACK + TIME_SLACK_S:
        doubts.append(
            f"its runs add up to {total_s:.4g} s, but the report came {expected.elapsed_s:.4g} s after the lease"
        )
    if expected.macs is not None:
        fastest_ms = min(statistics.median(process) for process in samples)
        if expected.macs > MACS_PER_S * expected.threads * fastest_ms / 1e3:
            threads = counted(expected.threads, "thread")
            doubts.append(f"{expected.macs} macs in {fastest_ms:.4g} ms on {threads}: no core does that")
    return doubts + (_doubts_of_anchor(processes, expected) or _doubts_of_slowness(processes, expected.macs))


def _spent_ms(process: Mapping[str, Any]) -> float:
    """Return about how long a process's runs took in all, ms: the kept samples, and the median for each left out.

    The mean would multiply a single pause that was kept by the number of runs that were left out.
    """
    samples = process["samples_ms"]
    left_out = max(0, process.get("runs", 0) - len(samples))
    return float(sum(samples) + left_out * statistics.median(samples))


def _doubts_of_slowness(processes: Sequence[Mapping[str, Any]], macs: int | None) -> list[str]:
    """Hold a network's time to the anchor's, and the first anchor of a queue to the slowest core there is."""
    reference_ms = anchor_ms(processes)
    assert reference_ms is not None  # or `_doubts_of_anchor` had doubts
    if MACS_LEAST_PER_S * reference_ms / 1e3 > ANCHOR_MACS:
        return [f"the anchor took {reference_ms:.4g} ms for its {ANCHOR_MACS} macs: no core is that slow"]
    if macs is None:
        return []
    fastest_ms = min(statistics.median(process["samples_ms"]) for process in processes)
    if fastest_ms > SLOW_FACTOR * reference_ms * max(1.0, macs / ANCHOR_MACS):
        return [
            f"{macs} macs in {fastest_ms:.4g} ms, where the anchor took {reference_ms:.4g} ms for {ANCHOR_MACS}: "
            "out of all proportion"
        ]
    return []


def _doubts_of_anchor(processes: Sequence[Mapping[str, Any]], expected: Expected) -> list[str]:
    measured_ms = anchor_ms(processes)
    if measured_ms is None:
        return [f"the anchor's times are missing, or not finite and at least {TIME_LEAST_MS} ms"]
    if not expected.anchors_ms:
        return []
    usual_ms = statistics.median(expected.anchors_ms)
    if max(measured_ms / usual_ms, usual_ms / measured_ms) > ANCHOR_FACTOR:
        return [
            f"the anchor took {measured_ms:.4g} ms, on this queue it takes {usual_ms:.4g} ms: another kind of device, "
            "or not the anchor; give another kind a queue of its own"
        ]
    return []


def anchor_ms(processes: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the median of the anchor's times, ms; None if one is missing or can't be a time."""
    times = [ms for process in processes for ms in process.get("anchor_ms") or [None]]
    if not times or not all(_is_time(ms) for ms in times):
        return None
    return float(statistics.median(times))


def anchor_drift(processes: Sequence[Mapping[str, Any]]) -> float:
    """Return how far the anchor moved within and between processes, relative to its fastest time.

    Every anchor time must be a valid time; `doubts` checks that.
    """
    times = [ms for process in processes for ms in process["anchor_ms"]]
    return float((max(times) - min(times)) / min(times))


def _doubts_of_counts(counts: Sequence[Mapping[str, float]], expected: Expected) -> list[str]:
    if not counts:
        return ["nothing was counted"]
    for run in counts:
        wrong = next((name for name, value in run.items() if not (math.isfinite(value) and value >= 0)), None)
        if wrong is not None:
            return [f"the count of {wrong} is {run[wrong]}; a count is finite and >= 0"]
        total = run.get("all", 0)
        more = next((name for name, value in run.items() if value > total), None)
        if total <= 0 or more is not None:
            return [f"{total:.4g} instructions in all" + (f", but {run[more]:.4g} of class {more}" if more else "")]
    total = statistics.median(run["all"] for run in counts)
    if expected.macs is not None and expected.macs > total * MACS_PER_INSTRUCTION:
        return [f"{total:.4g} instructions are too few for {expected.macs} macs"]
    return []


def _is_time(ms: Any) -> bool:
    return isinstance(ms, int | float) and math.isfinite(ms) and ms >= TIME_LEAST_MS
