"""A study's settings: one frozen model for each section of a study file, every default filled in.

`search.study_file` reads them. `StudySettings.frozen_parts` are the settings that a study's results depend on: they
must be the same when the study is resumed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_serializer, field_validator, model_validator

from search.budget import Budget
from search.store.connection.database import DEFAULT_STORAGE
from space.search_space import SearchSpace
from workers.file_names import Precision, Runtime
from workers.latency.policy import MeasurementPolicy, policy_named
from workers.latency.profiles import VIRTUAL
from workers.latency.record import LatencyStatistic
from workers.metrics import Objective
from workers.settings import DataSettings, Kernel, Settings
from workers.training.training_space import TrainingSpace

FORMAT = 1
HOST = "host"  # latency.devices: this machine; or virtual:PROFILE, or a queue of devices
LONGEST_S = 1e9  # 30 years; the system refuses to wait much longer
# Of search.warm_start: a study's name, its database unless it is the same one, and the hash of what was read of it.
WARM_START = re.compile(r"(?P<study>[^@#]+)(?:@(?P<database>[^#]+))?(?:#(?P<pin>[0-9a-f]{16}))?")
DEVICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class StudySection(Settings):
    """[study]: its name, its number of trainings, and where its results are kept."""

    name: str = Field(min_length=1, max_length=100)  # also the name of a folder
    trainings: int = Field(default=50, ge=1, le=1_000_000)  # networks trained to the end
    objective: Objective = "top1"  # what is maximised on the validation images, beside the costs
    seed: int = Field(default=0, ge=0, lt=2**31)
    storage: str | None = None  # SQLAlchemy URL; --storage wins, then the environment's CONDENSERY_STORAGE
    # Folder of networks, logs, checkpoints and decoded images; None = condensery-files beside the database file.
    files: str | None = None
    # What its network was chosen as, like "digits/12": `pick --retrain` launches such a study.
    retrains: str | None = Field(default=None, exclude_if=lambda value: value is None, max_length=200)
    tensorboard: bool = False  # write learning curves as TensorBoard's event files too, into the study's files

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if name != name.strip() or any(c in "/\\" or not c.isprintable() for c in name) or name.startswith("."):
            raise ValueError("a study's name must be printable, without slashes, outer spaces or a leading dot")
        if len(name.encode()) > 200 or name.endswith(".toml"):
            raise ValueError("a study's name must be at most 200 bytes and not end in .toml")
        return name

    @field_serializer("storage")
    def _without_password(self, storage: str | None) -> str | None:
        """Leave the password out: settings are stored in the database, where others may read them."""
        if storage is None or ("@" not in storage and "password" not in storage):
            return storage
        from search.store.connection.database_errors import url_shown

        return url_shown(storage)


class BudgetSettings(Settings):
    """[budget]: upper limits; a candidate over one is never trained."""

    # A number is the limit on the first of latency.devices; a table (max_latency_ms.pi5 = 12) has one for each device.
    max_latency_ms: float | dict[str, float] | None = None
    max_macs: int | None = Field(default=None, gt=0, le=2**53)
    max_params: int | None = Field(default=None, gt=0, le=2**53)
    # In MB (10^6 bytes), of the process that runs the network on any of latency.devices, runtime included.
    max_ram_mb: float | None = Field(default=None, gt=0, le=1e9, exclude_if=lambda value: value is None)
    # Which figure of a latency must keep its limit: upper, the upper end of the 95 % interval; median; or p90.
    latency_statistic: LatencyStatistic = Field(default="upper", exclude_if=lambda value: value == "upper")

    @field_validator("max_latency_ms", mode="plain")
    @classmethod
    def _positive(cls, limit: Any) -> float | dict[str, float] | None:
        def number(value: Any) -> float:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError("a limit must be a number > 0 (ms), or a table of one for each device")
            return float(value)

        if limit is None:
            return None
        return {name: number(value) for name, value in limit.items()} if isinstance(limit, dict) else number(limit)


class LatencySettings(Settings):
    """[latency]: where and how a candidate's latency is measured, estimated or predicted."""

    # host; virtual:PROFILE (estimated from counted ARM instructions); or queues of devices that agents serve.
    devices: tuple[str, ...] = Field(default=(HOST,), min_length=1, max_length=8)
    objectives: tuple[str, ...] | None = None  # which devices' latencies are minimised; None = all of them
    # One for all devices, or a table (runtime.pi5 = "native"); auto: whichever is measured to be the fastest there.
    runtime: str | dict[str, str] = "onnxruntime"
    policy: Literal["standard", "quick"] = "standard"
    threads: int = Field(default=1, ge=1, le=256)
    core: int | None = Field(
        default=None, ge=0, le=65_535
    )  # of the host, kept free while measuring; None = the last one
    predict: bool = True  # refuse a candidate unmeasured if a device's fitted model is sure that it is over the limit

    @field_validator("runtime", mode="plain")
    @classmethod
    def _valid_runtimes(cls, runtime: Any) -> str | dict[str, str]:
        valid = (*get_args(Runtime), "auto")
        names = runtime.values() if isinstance(runtime, dict) else [runtime]
        if not names or any(name not in valid for name in names):
            raise ValueError(f"a runtime must be one of {', '.join(valid)}, or a table of one for each device")
        checked: str | dict[str, str] = runtime
        return checked

    @model_validator(mode="after")
    def _plain_devices(self) -> LatencySettings:
        for name in self.devices:
            if DEVICE_NAME.fullmatch(name.removeprefix(VIRTUAL)) is None:
                rule = "host, virtual:PROFILE or a lower-case name of letters, digits, - and _"
                raise ValueError(f"a device must be {rule}, but {name!r} isn't")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError("a device can be named once only")
        unknown = set(self.objectives or ()) - set(self.devices)
        if unknown or self.objectives == ():
            raise ValueError(f"objectives must be some of devices, but hold {sorted(unknown) or 'none'}")
        if isinstance(self.runtime, dict) and set(self.runtime) - set(self.devices):
            raise ValueError(f"runtime names {min(set(self.runtime) - set(self.devices))!r}, which is not in devices")
        if self.threads > 1 and any(name.startswith(VIRTUAL) for name in self.devices):
            raise ValueError("a virtual device counts the instructions of one thread: threads must be 1")
        return self

    @property
    def minimised(self) -> tuple[str, ...]:
        """The devices whose latency is an objective."""
        return self.devices if self.objectives is None else self.objectives

    def runtime_on(self, device: str) -> str:
        """Return the runtime of one of the devices, or `auto`."""
        return self.runtime.get(device, "onnxruntime") if isinstance(self.runtime, dict) else self.runtime

    def with_runtimes(self, runtimes: Mapping[str, str]) -> LatencySettings:
        """Return the settings with these runtimes by device (the others keep theirs); one name where all are equal."""
        by_device = {name: runtimes.get(name, self.runtime_on(name)) for name in self.devices}
        same = len(set(by_device.values())) == 1
        return self.model_copy(update={"runtime": by_device[self.devices[0]] if same else by_device})

    def resolved(self, device: str) -> MeasurementPolicy:
        """Return the policy with this study's thread count and a device's runtime (`auto`: the default)."""
        runtime = self.runtime_on(device)
        update = {"threads": self.threads, "runtime": "onnxruntime" if runtime == "auto" else runtime}
        return policy_named(self.policy).model_copy(update=update)


class SearchSettings(Settings):
    """[search]: how candidates are proposed."""

    # price-aware: only accuracy is modelled, costs are known (`search.samplers.price_aware`); the others are Optuna's
    sampler: Literal["price-aware", "tpe", "nsga2", "gp", "random"] = "price-aware"
    startup: int = Field(
        default=6, ge=1, le=1_000_000
    )  # trials before the sampler's model is used: spread over costs, or random
    batch: int | None = Field(default=None, ge=1, le=64)  # candidates priced together; None = the number of workers
    give_up_after: int = Field(default=300, ge=1, le=1_000_000)  # refused or repeated proposals in a row
    # Which trainings end early. conservative, aggressive: those whose chance of the front, by their curves, isn't worth
    # the rest of their schedule, and all but the hopeless go on in the end; rungs: those that are behind the median of
    # cheaper networks at the same progress.
    stopping: Literal["none", "rungs", "conservative", "aggressive"] = "none"
    # What a candidate may be deployed in: its price is that of the faster one.
    precision: tuple[Precision, ...] = Field(default=("fp32",), exclude_if=lambda value: value == ("fp32",))
    # An earlier study, ours or Optuna's, whose accuracies the price-aware sampler begins with; then their file's hash.
    warm_start: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def pauses(self) -> bool:
        """Whether a training that ends early may go on later."""
        return self.stopping in ("conservative", "aggressive")

    @field_validator("precision")
    @classmethod
    def _begins_with_fp32(cls, precision: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if precision not in (("fp32",), ("fp32", "int8")):
            raise ValueError('it must be ["fp32"] or ["fp32", "int8"]')
        return precision

    @field_validator("warm_start")
    @classmethod
    def _names_a_study(cls, warm_start: str | None) -> str | None:
        if warm_start is not None and WARM_START.fullmatch(warm_start) is None:
            raise ValueError("a warm start must be a study's name, or NAME@DATABASE")
        database = "" if warm_start is None else WARM_START.fullmatch(warm_start)["database"] or ""  # type: ignore[index]
        if re.search(r"://[^/]*:[^/]*@|password", database):
            raise ValueError("a warm start's database must be named without its password, as it is recorded")
        return warm_start


class EngineSettings(Settings):
    """[engine]: where trainings run."""

    kind: Literal["local", "ray"] = "local"
    workers: int = Field(default=1, ge=1, le=4096)  # trials at a time
    threads: int = Field(default=1, ge=1, le=256)  # of each worker
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    kernel: Kernel = "auto"  # of trainings: compiled for the processor where that is possible, or always torch
    recompute: bool = False  # of the compiled kernel: needs less memory and more time
    # The rest is for kind = "ray".
    address: str | None = None  # of the cluster that this machine is a node of: "auto" or "HOST:6379"; None = our own
    gpus: float = Field(default=0.0, ge=0.0, le=64.0)  # of each trial; a fraction shares one
    # Where checkpoints and results pass between machines that don't share study.files: a folder, or an fsspec URL.
    exchange: str | None = None


class LimitsSettings(Settings):
    """[limits]: how long trials may take, and how much may fail, before the search gives up."""

    trial_time_s: float | None = Field(default=None, gt=0, le=LONGEST_S)  # seconds of training, over all attempts
    checkpoint_every_s: float = Field(default=30.0, gt=0, le=LONGEST_S)
    failures_in_a_row: int = Field(default=5, ge=1, le=1_000_000)  # of trials: after so many the search ends
    lost_attempts: int = Field(
        default=3, ge=1, le=1_000_000
    )  # of one trial, in a row without a new epoch: then the trial fails
    database_wait_s: float = Field(default=600.0, ge=0, le=LONGEST_S)  # how long to wait for a database that is away


class RetentionSettings(Settings):
    """[retention]: which files stay."""

    checkpoints: Literal["none", "last"] = "none"  # of trials that have finished
    networks: Literal["all", "front"] = "all"  # front: files of dominated trials are removed


class NotifySettings(Settings):
    """[notify]: who is told when a launch ends or is stuck. Nothing of it is recorded: an address may be a secret."""

    webhook: str | None = Field(default=None, repr=False)  # gets JSON by POST; env:NAME = as that variable says
    command: tuple[str, ...] | None = Field(default=None, min_length=1)  # run without a shell; gets the JSON on stdin
    stuck_after_s: float = Field(default=3600.0, ge=1, le=LONGEST_S)  # without an epoch, a price or a step
    timeout_s: float = Field(default=10.0, gt=0, le=600)  # of the webhook, and of the command

    @field_validator("webhook")
    @classmethod
    def _is_address(cls, webhook: str | None) -> str | None:
        if webhook is not None and not (is_address(webhook) or re.fullmatch(r"env:[A-Za-z_]\w*", webhook)):
            raise ValueError("a webhook must be an address (https://HOST/...), or env:NAME of a variable that holds it")
        return webhook


class ReplaySettings(Settings):
    """[replay]: a table of recorded trainings that stands in for images, devices and workers."""

    table: str | None = None  # a shipped table's name, or the path of a .csv.gz; None = networks are really trained
    sha256: str | None = None  # of the table; filled in
    seed: int = Field(default=0, ge=0, lt=2**31)  # of the recorded trainings; study.seed is that of the proposals
    # recorded: in simulated time, in which a training takes as long as it once did; none: each is over at once
    time: Literal["recorded", "none"] = "recorded"


class StudySettings(Settings):
    """A whole study file, resolved: every default filled in."""

    format: int = FORMAT
    study: StudySection
    data: DataSettings = DataSettings()
    space: dict[str, Any]
    training: dict[str, Any] = Field(default_factory=dict)
    budget: BudgetSettings = BudgetSettings()
    latency: LatencySettings = LatencySettings()
    search: SearchSettings = SearchSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitsSettings = LimitsSettings()
    retention: RetentionSettings = RetentionSettings()
    replay: ReplaySettings = ReplaySettings()
    notify: NotifySettings = Field(default=NotifySettings(), exclude=True)

    @model_validator(mode="after")
    def _objective_is_recorded(self) -> StudySettings:
        if self.replay.table is not None and self.study.objective != "top1":
            raise ValueError(
                f"a table that is replayed holds top-1 alone, so study.objective must be 'top1', but is "
                f"{self.study.objective!r}; leave it out, or train the networks"
            )
        return self

    @model_validator(mode="after")
    def _limits_name_devices(self) -> StudySettings:
        limits, devices = self.budget.max_latency_ms, self.latency.devices
        if isinstance(limits, dict):
            unknown = sorted(set(limits) - set(devices))
            if unknown:
                raise ValueError(f"budget.max_latency_ms names {unknown[0]!r}, which is not in latency.devices")
        elif limits is not None and len(devices) > 1:
            example = f"max_latency_ms.{devices[0]} = {limits:g}"
            raise ValueError(f"with several devices a limit must name its own, like {example}")
        return self

    @model_validator(mode="after")
    def _memory_is_measured(self) -> StudySettings:
        if self.budget.max_ram_mb is not None:
            silent = next((name for name in self.latency.devices if name.startswith(VIRTUAL)), self.replay.table)
            if silent is not None:
                raise ValueError(
                    f"budget.max_ram_mb needs devices that say how much memory a network took, but {silent!r} doesn't; "
                    "leave it out, and pick with --max-ram-mb once the study is repriced on a device that does"
                )
        return self

    @model_validator(mode="after")
    def _statistic_is_measured(self) -> StudySettings:
        if self.budget.latency_statistic == "p90":
            estimated = next((name for name in self.latency.devices if name.startswith(VIRTUAL)), None)
            estimated = self.replay.table if self.replay.table is not None else estimated
            if estimated is not None:
                raise ValueError(
                    f"budget.latency_statistic = 'p90' needs runs that are timed, but {estimated!r} has estimates, "
                    "which have no 90th percentile; use 'upper' or 'median'"
                )
        return self

    def search_budget(self) -> Budget:
        """Return the budget that the gate judges candidates by."""
        return Budget.of_settings(self.budget.model_dump(), self.latency.devices)

    def search_space(self) -> SearchSpace:
        """Return the architectures to search."""
        return SearchSpace.from_settings(self.space)

    def training_space(self) -> TrainingSpace:
        """Return the training settings to search."""
        return TrainingSpace.from_settings(self.training)

    @property
    def training_seed(self) -> int:
        """The seed of every training."""
        return self.study.seed if self.replay.table is None else self.replay.seed

    @property
    def storage(self) -> str:
        """The database's URL."""
        return self.study.storage or DEFAULT_STORAGE

    def frozen_parts(self) -> dict[str, Any]:
        """Return the settings that must not change when a study is resumed, flattened to dotted keys."""
        plain = self.model_dump(mode="json")
        parts = {name: plain[name] for name in ("space", "data", "training", "budget", "latency")}
        parts["data"] = self.data.of_content().model_dump(mode="json")
        parts["study"] = {"seed": self.study.seed, "objective": self.study.objective}
        if self.replay.table is not None:  # wherever the table is, its content is what counts
            parts["replay"] = {name: getattr(self.replay, name) for name in ("sha256", "seed", "time")}
        return dict(_flat(parts))

    def digest_of_frozen(self) -> str:
        """Return the SHA-256 of `frozen_parts`."""
        return hashlib.sha256(json.dumps(self.frozen_parts(), sort_keys=True).encode()).hexdigest()


def is_address(text: str) -> bool:
    """Whether a text is the address of something that can be posted to."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # such as a port that is no number
        return False


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
