"""The probes for a study's `latency.devices`: this host, an ARM device in software, or the agents of a queue."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from search.devices import registry
from search.devices.probe import AT_THE_GATE, VERIFYING, HubProbe, HubProbeSettings, need_runtime
from search.pricing.forecast import FittedForecast
from search.pricing.pricer import Target, host_probe, price, write_anchor
from search.settings import HOST, LatencySettings, StudySettings
from search.store.connection.printed_commands import printed_command
from space.errors import DeviceNotFound, EmulatorMissing, InvalidSettings, MeasurementFailed
from workers.file_names import SUFFIXES
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.measurement import FailedMeasurement, LatencyProbe, Measurement
from workers.latency.policy import MeasurementPolicy
from workers.latency.profiles import VIRTUAL, load_profile, virtual_device
from workers.latency.record import LatencyKind

AUTO_NETWORKS = 3  # sampled to choose the faster runtime


@dataclass(frozen=True)
class Probes:
    """The probes of a study's devices, each made when it is asked for.

    `engine` is the database that the hub serves, None when there is none yet; `files` is where the anchor networks are
    written; `note` is called when a measurement has to wait for a device; `priority` is that of the measurements on
    devices, where VERIFYING measures again even what was measured before.
    """

    settings: StudySettings  # with its runtimes resolved (not `auto`)
    engine: sa.Engine | None
    files: Path
    note: Callable[[str], None]
    priority: int = AT_THE_GATE

    def on(self, name: str) -> LatencyProbe:
        """Return the probe of one device.

        Raises:
            DeviceNotFound: a queue that no device serves. EmulatorMissing: the ARM device in software isn't built.
            InvalidSettings: the device lacks the runtime, or is virtual and can't count several threads.
        """
        policy = self.settings.latency.resolved(name)
        if name == HOST:
            need_runtime(policy.runtime, installed_runtimes(), "this machine")
            return host_probe(policy, self.settings.latency.core, self.files)
        if name.startswith(VIRTUAL):
            return virtual_probe(name, policy)
        if self.engine is None or name not in registry.queues(self.engine):
            queues = sorted(registry.queues(self.engine)) if self.engine is not None else []
            there = f"there are: {', '.join(queues)}" if queues else "there is none yet"
            add = printed_command(
                ["condensery", "devices", "add", name], None if self.engine is None else self.engine.url
            )
            raise DeviceNotFound(
                f"latency.devices names {name!r}, but no device serves such a queue ({there}); add one with "
                f"`{add}`, in the database of this study."
            )
        return self._on_queue(self.engine, name, policy)

    def _on_queue(self, engine: sa.Engine, name: str, policy: MeasurementPolicy) -> HubProbe:
        for row in registry.list_devices(engine):
            if row.queue == name and row.facts and not row.revoked:
                need_runtime(policy.runtime, row.facts["runtimes"], f"device {row.name}")
        profile = registry.profile_of_queue(engine, name)
        if profile is not None and policy.threads > 1:
            raise InvalidSettings(
                f"latency.threads must be 1 on {name!r}, but is {policy.threads}: its devices are virtual, and count "
                "the instructions of one thread."
            )
        probe_settings = HubProbeSettings(
            queue=name,
            policy=on_device(policy),
            anchor=write_anchor(self.files, policy.runtime),
            profile=None if profile is None else load_profile(profile),
            priority=self.priority,
            fresh=self.priority == VERIFYING,  # the chosen network is measured a second time
            database_wait_s=self.settings.limits.database_wait_s,
        )
        return HubProbe(engine, probe_settings, self.note)


def targets_of(
    settings: StudySettings,
    engine: sa.Engine | None,
    files: Path,
    note: Callable[[str], None],
    priority: int = AT_THE_GATE,
) -> tuple[Target, ...]:
    """Return the devices of a study, the judging one first; for arguments and errors see `Probes`."""
    probes = Probes(settings, engine, files, note, priority)
    budget, latency = settings.search_budget(), settings.latency
    limits, statistic = budget.limits_ms(latency.devices[0]), budget.latency_statistic
    targets = []
    for name in latency.devices:
        probe = probes.on(name)
        forecast = None
        precisions = settings.search.precision
        fp32_only = precisions == ("fp32",)  # a prediction is of fp32, and would refuse what int8 lets through
        if latency.predict and fp32_only and engine is not None and limits.get(name) is not None:
            kind = kind_on(name, engine)
            forecast = FittedForecast(engine, probe.device, probe.runtime, latency.threads, kind)
        target = Target(name, probe, limits.get(name), forecast, precisions=precisions, statistic=statistic)
        targets.append(replace(target, local=name == HOST, remote=isinstance(probe, HubProbe)))
    return tuple(targets)


def lacking_devices(settings: StudySettings, engine: sa.Engine | None) -> list[str]:
    """Return why devices of a study other than this host can't be used as things are, a sentence for each."""
    lacking = []
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        probes = Probes(settings, engine, Path(folder), lambda _: None)
        for name in settings.latency.devices:
            try:
                if name != HOST:
                    probes.on(name)
            except (DeviceNotFound, EmulatorMissing, InvalidSettings) as error:
                lacking.append(str(error))
    return lacking


def kind_on(name: str, engine: sa.Engine | None) -> LatencyKind:
    """Return the kind of a device's latencies: estimated on one in software, here or behind the hub, else measured."""
    behind_hub = engine is not None and name != HOST and registry.profile_of_queue(engine, name) is not None
    return LatencyKind.ESTIMATED if name.startswith(VIRTUAL) or behind_hub else LatencyKind.MEASURED


def on_device(policy: MeasurementPolicy) -> MeasurementPolicy:
    """Return the policy as a small board needs it: wait while it is hot."""
    return policy.model_copy(update={"pause_above_c": 60.0, "resume_below_c": 55.0})


def virtual_probe(name: str, policy: MeasurementPolicy) -> LatencyProbe:
    """Return the probe of an ARM device in software, `virtual:PROFILE`."""
    from workers.latency.emulated.arm_root import has_kernel
    from workers.latency.emulated.virtual_arm import VirtualArm, default_folder
    from workers.latency.estimated_probe import EstimatedProbe

    profile, device = virtual_device(name)
    arm = VirtualArm(default_folder())
    if policy.runtime == "native" and not has_kernel(arm.folder):
        raise InvalidSettings(
            f"latency.runtime = 'native' needs a compiler for {name}; install it: apt install gcc-aarch64-linux-gnu, "
            "or choose another."
        )
    return EstimatedProbe(profile, arm, device=device, runtime=policy.runtime)


def choose_runtimes(
    settings: StudySettings, engine: sa.Engine | None, files: Path, note: Callable[[str], None]
) -> StudySettings:
    """Return the settings with each device's `auto` runtime replaced by the fastest one there.

    A few sampled networks are measured on each; the smallest geometric mean wins.

    Raises:
        MeasurementFailed: no runtime could measure them on a device.
    """
    space, rng = settings.search_space(), np.random.default_rng(settings.study.seed)
    configs = [space.sample(rng) for _ in range(AUTO_NETWORKS)]

    def mean_ms(device: str, runtime: str) -> float | None:
        """Return the geometric mean of the networks' latencies on a device; None, with a note why, if one failed."""
        try:
            probe = Probes(with_runtimes(settings, {device: runtime}), engine, files, note).on(device)
        except InvalidSettings as error:
            note(f"{runtime}: {error}")
            return None
        prices = price(configs, probe, files)
        failed = [failure for failure in prices if isinstance(failure, FailedMeasurement)]
        if failed:
            note(f"{runtime} can't measure on {device}: {failed[0].reason}")
            return None
        return statistics.geometric_mean(latency.median_ms for latency in prices if isinstance(latency, Measurement))

    chosen = {}
    for device in settings.latency.devices:
        if settings.latency.runtime_on(device) == "auto":
            means = {runtime: mean for runtime in SUFFIXES if (mean := mean_ms(device, runtime)) is not None}
            if not means:
                raise MeasurementFailed(f"no runtime could measure a network on {device}.")
            best = chosen[device] = min(means, key=lambda runtime: means[runtime])
            listed = ", ".join(f"{name} {mean:.4g} ms" for name, mean in means.items())
            note(f"runtime on {device}: {listed}; {best} is used")
    return with_runtimes(settings, chosen)


def known_runtimes(settings: StudySettings, stored: LatencySettings) -> StudySettings:
    """Return a resumed study's settings with each `auto` runtime as it was chosen when the study began."""
    auto = [name for name in settings.latency.devices if settings.latency.runtime_on(name) == "auto"]
    return with_runtimes(settings, {name: stored.runtime_on(name) for name in auto if name in stored.devices})


def with_runtimes(settings: StudySettings, runtimes: Mapping[str, str]) -> StudySettings:
    """Return the settings with these runtimes by device."""
    return settings.model_copy(update={"latency": settings.latency.with_runtimes(runtimes)})
