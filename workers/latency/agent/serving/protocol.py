"""What a job may contain, field by field.

Nothing that a hub sends reaches a shell, a path or an import: every field is checked against a rule here before it is
used. The limits of a policy are those of the project's `MeasurementPolicy`, which a test compares with these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from workers.latency.agent.batch import WITHIN
from workers.latency.agent.runtimes import RUNTIMES, installed_runtimes
from workers.latency.agent.sensors import usable_cores
from workers.latency.agent.serving.errors import DeviceFault
from workers.latency.agent.serving.journal import plain

PROTOCOL = 3  # the hub refuses an agent that speaks another one
LARGEST_MODEL = 1 << 30


class Limits(NamedTuple):
    """The kind and range of a number; `is_open` leaves the lower end of the range out."""

    kind: type
    low: float
    high: float
    is_open: bool = False


POLICY_LIMITS: dict[str, Limits] = {  # every other key of a job's policy is ignored
    "warmup_runs": Limits(int, 1, 100_000),
    "warmup_s": Limits(float, 0, 600),
    "runs": Limits(int, 1, 100_000),
    "run_s": Limits(float, 0, 600),
    "processes": Limits(int, 1, 100),
    "anchor_tolerance": Limits(float, 0, 10, is_open=True),
    "interval_within": Limits(float, 0, 10, is_open=True),
    "attempts": Limits(int, 1, 100),
    "cooldown_s": Limits(float, 0, 3600),
    "samples_kept": Limits(int, 1, 1_000_000),
    "timeout_s": Limits(float, 0, 86_400, is_open=True),
    "pause_above_c": Limits(float, 20, 150),
    "resume_below_c": Limits(float, 10, 150),
    "cool_for_s": Limits(float, 0, 3600, is_open=True),
}
POLICY_MAY_BE_NULL = ("pause_above_c",)
POLICY_DEFAULTS = {"interval_within": WITHIN}  # where a hub's queue holds jobs from before there was such a field


@dataclass(frozen=True)
class Model:
    """A model file, named by its hash."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Task:
    """What all jobs of a batch have in common."""

    mode: str
    anchor: Model | None
    runtime: str
    threads: int
    policy: dict[str, Any]


@dataclass(frozen=True)
class Ticket:
    """One attempt at one job, as the hub numbers it."""

    job: int
    attempt: int


@dataclass(frozen=True)
class Job:
    """One model to measure, as part of a task."""

    ticket: Ticket
    model: Model
    task: Task


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Raise DeviceFault unless the rule of a job's field holds."""
    if not holds:
        raise DeviceFault(f"this agent takes jobs whose {name} is {rule}, but got {plain(repr(value), 80)}")


def _number(value: Any, name: str, limits: Limits) -> Any:
    kind, low, high, is_open = limits
    fits = type(value) is int or (kind is float and type(value) is float)
    fits = fits and low <= value <= high and not (is_open and value == low)
    rule = f"a{'n int' if kind is int else ' number'} in {low:g}..{high:g}{f', above {low:g}' if is_open else ''}"
    require(fits, name, rule, value)
    return value


def read_ticket(raw: Any) -> Ticket | None:
    """Return which attempt at which job this is; None where even that is missing, so that it can't be answered."""
    if not isinstance(raw, dict):
        return None
    job, attempt = raw.get("id"), raw.get("attempt")
    if type(job) is int and type(attempt) is int and 0 <= job < 1 << 63 and 0 <= attempt < 1 << 63:
        return Ticket(job, attempt)
    return None


def _read_model(raw: Any, name: str) -> Model:
    require(isinstance(raw, dict), name, "an object with sha256 and size", raw)
    sha256 = raw.get("sha256")
    require(
        isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None, name, "named by 64 hex", sha256
    )
    return Model(sha256, _number(raw.get("size"), f"{name}'s size", Limits(int, 1, LARGEST_MODEL)))


def _read_policy(raw: Any) -> dict[str, Any]:
    require(isinstance(raw, dict), "policy", "an object", raw)
    policy: dict[str, Any] = {}
    for name, limits in POLICY_LIMITS.items():
        value = raw.get(name, POLICY_DEFAULTS.get(name))
        if value is not None or name not in POLICY_MAY_BE_NULL:
            value = _number(value, f"policy's {name}", limits)
        policy[name] = value
    label = raw.get("label")
    is_word = isinstance(label, str) and re.fullmatch("[a-z0-9_-]{1,40}", label) is not None
    require(is_word, "policy's label", "a word", label)
    return {**policy, "label": label}


def read_job(raw: dict[str, Any], ticket: Ticket, virtual: bool) -> Job:
    """Return a job whose every field was checked; DeviceFault if this device must not or can't do it."""
    mode, runtime = raw.get("mode"), raw.get("runtime")
    wanted = "counts" if virtual else "wall"  # emulated time is no latency, and counting needs an emulator
    require(mode == wanted, "mode", repr(wanted), mode)
    require(isinstance(runtime, str) and runtime in RUNTIMES, "runtime", f"one of {sorted(RUNTIMES)}", runtime)
    installed = installed_runtimes()
    require(runtime in installed, "runtime", f"installed ({sorted(installed)})", runtime)
    threads = _number(raw.get("threads"), "number of threads", Limits(int, 1, 1 if virtual else len(usable_cores())))
    precision = raw.get("precision")
    require(precision in ("fp32", "fp16", "int8"), "precision", "'fp32', 'fp16' or 'int8'", precision)
    anchor = None if virtual else _read_model(raw.get("anchor"), "anchor")
    policy = {**_read_policy(raw.get("policy")), "threads": threads, "runtime": runtime}
    return Job(ticket, _read_model(raw.get("model"), "model"), Task(str(mode), anchor, str(runtime), threads, policy))
