"""Measurement policies: how long and how often a latency is measured, frozen and named."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from space.errors import InvalidSettings
from workers.file_names import Runtime
from workers.settings import Settings

PolicyLabel = Literal["standard", "quick"]


class MeasurementPolicy(Settings):
    """The settings of one latency measurement; every result carries the label.

    The defaults follow the common practice of on-device benchmarks: warm-up and timing each run until a count
    AND a duration are reached, in several fresh processes, with an anchor model that shows whether the machine
    kept still. Only a policy at least as thorough as the defaults may be labelled `standard`.
    """

    label: PolicyLabel = "standard"
    warmup_runs: int = Field(default=10, ge=1, le=100_000)  # per process and model, at least
    warmup_s: float = Field(default=0.5, ge=0.0, le=600.0)
    runs: int = Field(default=40, ge=1, le=100_000)  # per process and model, at least
    run_s: float = Field(default=1.0, ge=0.0, le=600.0)
    processes: int = Field(default=4, ge=1, le=100)  # fresh processes that must agree on a model
    threads: int = Field(default=1, ge=1, le=1024)
    # How far the medians of anchor and model may move between processes, relative.
    anchor_tolerance: float = Field(default=0.05, gt=0.0, le=10.0)
    # The half width of the 95 % interval that is narrow enough, relative; wider ones get more processes.
    interval_within: float = Field(default=0.02, gt=0.0, le=10.0)
    attempts: int = Field(default=3, ge=1, le=100)  # x processes: the most that a model is timed in
    cooldown_s: float = Field(default=2.0, ge=0.0, le=3600.0)  # before each further process while one isn't steady
    samples_kept: int = Field(default=1000, ge=1, le=1_000_000)  # per process and model
    timeout_s: float = Field(default=300.0, gt=0.0, le=86_400.0)  # for one model in one process, loading included
    pause_above_c: float | None = Field(default=None, ge=20.0, le=150.0)  # °C at which a process waits; None: never
    resume_below_c: float = Field(default=55.0, ge=10.0, le=150.0)  # °C below which it continues
    # The longest wait for a cooler processor; then the model is measured hot, and the report says so.
    cool_for_s: float = Field(default=600.0, gt=0.0, le=3600.0)
    runtime: Runtime = "onnxruntime"

    @model_validator(mode="after")
    def _resuming_is_below_pausing(self) -> MeasurementPolicy:
        if self.pause_above_c is not None and self.resume_below_c > self.pause_above_c:
            raise ValueError(
                f"resume_below_c <= pause_above_c must hold, but got {self.resume_below_c} > {self.pause_above_c}; "
                "lower resume_below_c"
            )
        return self

    @model_validator(mode="after")
    def _standard_is_no_shorter_than_the_defaults(self) -> MeasurementPolicy:
        if self.label != "standard":
            return self
        fields = type(self).model_fields
        for name in ("warmup_runs", "warmup_s", "runs", "run_s", "processes", "samples_kept"):
            value, least = getattr(self, name), fields[name].default
            if value < least:
                raise ValueError(
                    f"a standard policy needs {name} >= {least}, but got {value}; label it quick or raise it"
                )
        for name in ("anchor_tolerance", "interval_within"):
            value, most = getattr(self, name), fields[name].default
            if value > most:
                raise ValueError(
                    f"a standard policy needs {name} <= {most}, but got {value}; label it quick or lower it"
                )
        return self


STANDARD = MeasurementPolicy()
QUICK = MeasurementPolicy(
    label="quick", warmup_runs=3, warmup_s=0.03, runs=10, run_s=0.12, attempts=2, cooldown_s=0.5, timeout_s=120.0
)


def policy_named(label: str) -> MeasurementPolicy:
    """Return the policy called `standard` or `quick`; InvalidSettings for any other name."""
    for policy in (STANDARD, QUICK):
        if policy.label == label:
            return policy
    raise InvalidSettings(f"a measurement policy must be 'standard' or 'quick', but got {label!r}; use one of those")
