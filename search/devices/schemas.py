"""The bodies of requests and responses of the protocol between agents and hub, every field with its limits.

Unknown keys are refused. A measured number may be anything, also NaN or negative: `plausibility` judges it, and the
report is kept. Units are in the names.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from search.devices.leases import LeasedJob
from search.store.vocabulary import Verdict
from workers.latency.agent.serving.protocol import PROTOCOL

OLD_AGENT = (
    "this agent is of an older version; replace it: fetch /agent.pyz from this hub, "
    "and start it with the same options: python3 agent.pyz run"
)
LEASES_MOST = 16  # of one request
DATABASE_INTEGER = 2**31 - 1


def one_line(text: str) -> str:
    """Return the text without control characters: a terminal will show it, and databases take no NUL."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _whole(value: Any) -> Any:
    """Return 8.0 as 8: JSON doesn't distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _not_older(value: Any) -> Any:
    """Refuse the version of an agent that must be replaced, in words that say how."""
    if isinstance(value, int) and value < PROTOCOL:
        raise PydanticCustomError("old_agent", OLD_AGENT)
    return value


WHOLE = BeforeValidator(_whole)
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(one_line)]
Text = Annotated[str, Field(max_length=200), AfterValidator(one_line)]
Reason = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(one_line)]
Count = Annotated[int, Field(ge=0, le=DATABASE_INTEGER), WHOLE]
Number = Annotated[int, Field(ge=1, le=DATABASE_INTEGER), WHOLE]
Reading = float | bool | None | Text | Annotated[list[float], Field(max_length=64)]
Conditions = Annotated[dict[Name, Reading], Field(max_length=32)]  # null = no such sensor


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# -- requests --


class Identity(_Body):
    """What tells a device from others on which a network takes different times; null = it doesn't say."""

    board: Text | None = None  # its model
    part: Text | None = None  # of the core
    mhz: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None  # lowest and highest of the core
    memory_mb: Count | None = None


class Facts(_Body):
    """The device as its agent sees it."""

    cpu_model: Text
    identity: Identity | None = None  # of an agent from before there were any
    machine: Name
    cores: Annotated[int, Field(ge=1, le=65_536), WHOLE]
    python_version: Name
    runtimes: Annotated[dict[Name, Name], Field(max_length=16)]  # name: version
    pinned: bool  # whether it can keep a thread on one core


class EnrolBody(_Body):
    """An agent begins to serve a device."""

    instance: Hex32
    # A Literal would take `true` for 1.
    format: Annotated[int, Field(ge=PROTOCOL, le=PROTOCOL), BeforeValidator(_not_older), WHOLE]
    virtual: bool
    facts: Facts
    conditions: Conditions


class LeaseBody(_Body):
    """An agent asks for jobs."""

    instance: Hex32
    limit: Annotated[int, Field(ge=1, le=LEASES_MOST), WHOLE] = 1
    conditions: Conditions


class HeartbeatBody(_Body):
    """An agent reports that it is at work on a job."""

    instance: Hex32
    attempt: Number
    state: Literal["downloading", "measuring", "cooling"]
    conditions: Conditions


class Process(_Body):
    """One fresh process that timed the model."""

    samples_ms: Annotated[list[float], Field(max_length=1_000_000)]  # wall time of each listed run
    cpu_ms: Annotated[list[float], Field(max_length=1_000_000)] = []  # CPU time of the same runs
    stride: Number
    runs: Number
    # What else ran meanwhile; see `workers.latency.agent.disturbance`. None = the system doesn't count it.
    set_aside: Count | None = None
    lost: float | None = None
    switches: Count | None = None
    waited: float | None = None
    quota_stops: Count | None = None
    stolen: float | None = None
    siblings_busy: float | None = None
    neighbours_busy: float | None = None
    disturbed: Text | None = None
    peak_memory_mb: Annotated[float, Field(ge=0)] | None = None  # None = the system doesn't say; so is the next
    energy_mj: Annotated[float, Field(ge=0)] | None = None
    position: Count | None = None
    anchor_ms: Annotated[list[float], Field(max_length=2)]
    before: Conditions
    after: Conditions
    throttled: bool | None = None
    cooled: bool | None = None


class WallReport(_Body):
    """A model's timed samples."""

    format: Count
    mode: Literal["wall"]
    runtime: Name
    runtime_version: Name
    python_version: Name
    machine: Name
    cpu_model: Text
    identity: Identity | None = None
    core: Count | None
    cores: Annotated[list[Count], Field(max_length=1024)]
    pinned: bool
    threads: Number
    policy: Name | None = None
    sha256: Sha256
    processes: Annotated[list[Process], Field(max_length=100)]
    tries: Number
    measured: Number | None = None  # in how many processes, of which `processes` are those that count
    planned_from: Number | None = None  # the number of first processes that said how many it takes
    anchor_drift: float
    steady: bool


class CountsReport(_Body):
    """A model's counted instructions: one object per run, with instructions by class."""

    format: Count
    mode: Literal["counts"]
    runtime: Name
    runtime_version: Name
    python_version: Name
    machine: Name
    threads: Number
    sha256: Sha256
    counts: Annotated[list[Annotated[dict[Name, float], Field(max_length=32)]], Field(max_length=1000)]


class ResultBody(_Body):
    """The result of an attempt."""

    instance: Hex32
    attempt: Number
    report: Annotated[WallReport | CountsReport, Field(discriminator="mode")]


class FailureBody(_Body):
    """Why an attempt has no result."""

    instance: Hex32
    attempt: Number
    fault: Literal["model", "device"]
    reason: Reason


class LeaveBody(_Body):
    """An agent leaves."""

    instance: Hex32


# -- responses --


class Health(BaseModel):
    """The hub and its database respond."""

    status: Literal["ok"]
    protocol: int


class Enrolled(BaseModel):
    """Which device the agent serves, how often to ask for jobs and how soon to renew a lease."""

    device: str
    queue: str
    retry_s: float
    lease_s: float


class ModelFile(BaseModel):
    """A model to fetch; its size in bytes."""

    sha256: str
    size: int


class Job(BaseModel):
    """One job; the jobs of a response share everything but id, attempt and model."""

    id: int
    attempt: int
    mode: Literal["wall", "counts"]
    model: ModelFile
    anchor: ModelFile | None
    runtime: str
    threads: int
    precision: Literal["fp32", "fp16", "int8"]
    policy: dict[str, Any]

    @classmethod
    def of(cls, job: LeasedJob) -> Job:
        """Return a leased job as the agent gets it."""
        anchor = None
        if job.anchor_sha256 is not None:
            anchor = ModelFile(sha256=job.anchor_sha256, size=job.anchor_size)
        shared = {name: getattr(job, name) for name in ("id", "attempt", "mode", "runtime", "threads", "precision")}
        model = ModelFile(sha256=job.model_sha256, size=job.model_size)
        return cls.model_validate({**shared, "model": model, "anchor": anchor, "policy": job.policy})


class Jobs(BaseModel):
    """The jobs leased; none when there is nothing to do."""

    jobs: list[Job]


class Renewed(BaseModel):
    """How long the lease now holds."""

    lease_s: float


class Judged(BaseModel):
    """What became of a result."""

    verdict: Verdict


class Recorded(BaseModel):
    """The report is stored."""

    recorded: Literal[True]


class Problem(BaseModel):
    """Why the call was refused, in one line."""

    detail: str
