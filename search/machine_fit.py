"""A study's settings against this machine: what it can't do is refused before anything is recorded.

Where a setting's fault shows only in use, it is tried once: a runtime with a tiny network, a device with a tiny pass,
the memory of a worker with one step of training.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from search.data_fit import check_engine_device
from search.devices.probe import need_runtime
from search.pricing.pricer import write_anchor_network
from search.reachability import cheapest
from search.settings import HOST, StudySettings
from space.config import CondenseNetConfig
from space.errors import CondenseryError, InvalidSettings
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.host_probe import measuring_cores
from workers.processes import memory_mb

WORKER_MB = 250.0  # private memory of a worker before it trains, roughly


def check_machine(settings: StudySettings) -> None:
    """Check that this machine has the device, kernel, runtime and cores that a study uses here.

    Raises:
        InvalidSettings: it has not.
    """
    check_engine_device(settings)
    if HOST not in settings.latency.devices:
        return
    measuring_cores(settings.latency.core, settings.latency.threads)
    runtime = settings.latency.runtime_on(HOST)
    if runtime != "auto":
        need_runtime(runtime, installed_runtimes(), "this machine")
    if runtime not in ("auto", "onnxruntime"):  # onnxruntime comes with Condensery, and checks every export
        _try_runtime(runtime)


def _try_runtime(runtime: str) -> None:
    """Export a tiny network for a runtime, and run it there.

    Raises:
        InvalidSettings: one of them doesn't work here.
    """
    from workers.export.model_files import check_for

    with tempfile.TemporaryDirectory(prefix="runtime-") as folder:
        try:
            check_for(runtime, *write_anchor_network(Path(folder), runtime))
        except (CondenseryError, ImportError, ValueError, OSError, RuntimeError) as error:
            raise InvalidSettings(
                f"latency.runtime = {runtime!r} can't be used here: a tiny network failed ({error}); mend that, or "
                "choose another."
            ) from None


def check_memory(settings: StudySettings, limit_mb: float | None = None) -> None:
    """Check that the workers' trainings fit into this machine's memory, with the smallest network of the space.

    Only where that is in doubt a step is tried. `limit_mb` is the machine's memory; None = what the system says.

    Raises:
        InvalidSettings: not even with the smallest network.
    """
    engine = settings.engine
    if engine.kind != "local" or engine.device not in ("auto", "cpu") or settings.replay.table is not None:
        return
    limit_mb = memory_mb() if limit_mb is None else limit_mb
    smallest = cheapest(settings.search_space(), lambda config: activations_mb(config, 1))
    training = settings.training_space()
    domain = training.domains.get("batch_size")
    batch_size = training.fixed.batch_size if domain is None else int(min(domain.extremes()))
    if limit_mb is None or engine.workers * (WORKER_MB + 4 * activations_mb(smallest, batch_size)) < limit_mb / 2:
        return
    from workers.training.tried import step_memory_mb

    needed = step_memory_mb(smallest, batch_size, engine.kernel, engine.recompute)
    if isinstance(needed, str):
        raise InvalidSettings(
            f"a training step of the smallest network ({smallest}) with training.batch_size = {batch_size} failed "
            f"here: {needed}; choose smaller images, networks or batches."
        )
    if engine.workers * needed > limit_mb:
        fit = int(limit_mb / needed)
        remedy = f"at most {fit} fit" if fit else "choose smaller images, networks or batches"
        raise InvalidSettings(
            f"engine.workers = {engine.workers} need {engine.workers * needed / 1e3:,.1f} GB with the smallest network "
            f"({needed:,.0f} MB each, tried here), but this machine has {limit_mb / 1e3:,.1f} GB; {remedy}."
        )


def activations_mb(config: CondenseNetConfig, images: int) -> float:
    """Return the size of a network's feature maps for so many images, in MB of float32: those its layers write."""
    (height, width), features, values = config.stem_size, config.stem_channels, 0
    for layers, growth in zip(config.stages, config.growth, strict=True):
        for _ in range(layers):
            values += height * width * (features + (2 * config.bottleneck + 1) * growth)
            features += growth
        height, width = height // 2, width // 2
    return images * values * 4 / 1e6
