"""The host probe: times exported networks on this machine.

- The timing happens in fresh processes that run the agent; `workers.latency.agent.batch` has the rules of a batch.
- A batch is never lost: a model that a runtime refuses, crashes on or hangs in gets a `FailedMeasurement`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from space.errors import InvalidSettings
from workers.latency.agent.batch import Placement, measure_batch
from workers.latency.agent.cooling import Client
from workers.latency.agent.sensors import caches_with, cores_for, cpu_model, usable_cores
from workers.latency.agent.sensors import siblings as siblings  # also for importers
from workers.latency.agent.subprocesses import Stopped
from workers.latency.agent_file import agent_command
from workers.latency.measurement import (
    FailedMeasurement,
    Measurement,
    MeasurementStopped,
    measurement_from_report,
    never,
)
from workers.latency.policy import MeasurementPolicy


def default_core() -> int:
    """Return the last core this process may use, because the system's own work gathers on the first ones."""
    return usable_cores()[-1]


def measuring_cores(core: int | None, threads: int) -> frozenset[int]:
    """Return the cores that a measurement must have for itself: the agent's, one per thread, and their siblings.

    Raises:
        InvalidSettings: the core is not usable, or there are fewer cores than threads.
    """
    try:
        measuring = cores_for(default_core() if core is None else core, threads)
    except ValueError as error:
        raise InvalidSettings(f"latency.core and latency.threads: {error}.") from None
    return frozenset(number for measured in measuring for number in siblings(measured))


def disturbing_cores(core: int | None, threads: int) -> frozenset[int]:
    """Return the cores where work slows a measurement down: its own, and those that share units or a cache with them.

    Raises:
        InvalidSettings: as `measuring_cores`.
    """
    measuring = measuring_cores(core, threads)
    return measuring.union(*(caches_with(one) for one in measuring))


def host_name(processor: str | None = None) -> str:
    """Return this machine's device label, such as `host:intel-xeon-platinum-8370c`; at most 53 characters."""
    name = (processor or cpu_model(default_core())).lower()
    name = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", name)
    return "host:" + (re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:48].strip("-") or "unknown")


class HostProbe:
    """Times models on this machine, by the rules of its policy.

    Fresh processes time the anchor, the models in an order of their own, and the anchor again, until enough of them
    were undisturbed and agree; what they never agree on is kept with `steady=False`. See
    `workers.latency.agent.batch.measure_batch`.
    """

    def __init__(
        self,
        policy: MeasurementPolicy,
        anchor: Path,
        core: int | None = None,
        device: str | None = None,
        *,
        command: Sequence[str] | None = None,
    ) -> None:
        usable = usable_cores()
        if core is not None and core not in usable:
            raise InvalidSettings(f"the core must be one of {usable}, but got {core}; pick one of those")
        if policy.threads > len(usable):
            raise InvalidSettings(
                f"threads must be at most the {len(usable)} usable cores, but got {policy.threads}; use fewer"
            )
        self.device = device or host_name()
        self.runtime = policy.runtime
        self._policy = policy
        self._anchor = anchor
        self._cores = tuple(cores_for(default_core() if core is None else core, policy.threads))
        self._command = command  # what starts the agent in a fresh process; None: this Python and the agent's file

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Time the models; see the class and `workers.latency.measurement.LatencyProbe`."""
        policy = self._policy.model_dump(mode="json")
        placement = Placement(self._command or agent_command(), cores=self._cores)
        try:
            report = measure_batch(models, self._anchor, policy, placement, Client(stop))
        except Stopped:
            raise MeasurementStopped from None
        report["siblings"] = sorted(siblings(self._cores[0]))
        return [measurement_from_report(report, entry, self.device) for entry in report["models"]]
