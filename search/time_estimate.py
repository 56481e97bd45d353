"""What a study will cost, before it is launched: sampled architectures with their cost, and a time estimate.

The time is measured, not guessed: a few real steps of a median network on random images, on this machine.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.budget import Budget, refusal
from search.data_fit import fit_to_data
from search.event_files import check_tensorboard
from search.machine_fit import check_machine, check_memory
from search.reachability import check_costs
from search.replay.table import read_table
from search.samplers.price_aware import whole_until
from search.settings import StudySettings
from search.start_networks import Start, check_fits
from space.config import CondenseNetConfig
from space.cost import Cost, cost_of
from space.domains import Domain
from space.errors import InvalidSettings, MeasurementFailed
from space.search_space import SearchSpace
from workers.images import cache
from workers.images.data_info import DataInfo
from workers.latency.measurement import Measurement
from workers.latency.policy import QUICK
from workers.latency.profiles import VIRTUAL, virtual_device
from workers.training.start import Fit, fit_of

SAMPLES = 500


@dataclass(frozen=True)
class StudyOutline:
    """What `condensery check` shows."""

    settings: StudySettings
    data: DataInfo
    size: int | None  # distinct architectures; None when a parameter is a range of reals
    training_varied: tuple[str, ...]  # names of the training settings that are searched too
    samples: tuple[tuple[CondenseNetConfig, Cost], ...]  # a few, fewest macs first
    share_inside: float  # of sampled architectures, by macs and params alone
    whole_until: float  # trainings up to which the price-aware sampler looks at every candidate; 0: at none
    median: CondenseNetConfig  # of the sampled ones inside, by macs
    starts: tuple[tuple[Start, Fit], ...] = ()  # what trainings start from, and how much of it a sampled network takes

    @property
    def looks_at_whole(self) -> bool:
        """Whether the price-aware sampler looks at every candidate as long as the study lasts."""
        return self.whole_until >= self.settings.study.trainings


@dataclass(frozen=True)
class TimeEstimate:
    """How long the study will train, from steps timed on this machine."""

    seconds_per_training: float
    seconds_in_all: float  # of the whole study
    device: str


def outline_study(settings: StudySettings, starts: Sequence[Start] = (), show: int = 5) -> StudyOutline:
    """Validate a study against its images and sample its space, without torch.

    `starts` are those of the settings. Writes nothing and downloads nothing.

    Raises:
        CondenseryError: whatever a launch would raise for these settings and images.
    """
    for device in settings.latency.devices:
        if device.startswith(VIRTUAL):
            virtual_device(device)  # says which profiles there are
    if settings.replay.table is None:
        check_machine(settings)
    if settings.study.tensorboard:
        check_tensorboard()
    replayed = settings.replay.table
    info = cache.outline(settings.data) if replayed is None else read_table(replayed).images
    settings = fit_to_data(settings, info)
    check_fits(settings, starts)
    check_costs(settings)
    check_memory(settings)
    space, training = settings.search_space(), settings.training_space()
    sampled = sample_costs(space, SAMPLES)
    budget = Budget(None, settings.budget.max_macs, settings.budget.max_params)
    inside = [pair for pair in sampled if refusal(budget, pair[1].macs, pair[1].params, None) is None]
    typical = inside or sampled
    shown = [typical[round(i * (len(typical) - 1) / max(show - 1, 1))] for i in range(show)]
    return StudyOutline(
        settings=settings,
        data=info,
        size=space.size,
        training_varied=tuple(training.domains),
        samples=tuple(dict.fromkeys(shown)),
        share_inside=len(inside) / len(sampled),
        whole_until=whole_until(_candidates({**space.domains, **training.domains})),
        median=typical[len(typical) // 2][0],
        starts=tuple((start, _best_fit(start, sampled, info)) for start in starts),
    )


def _best_fit(start: Start, sampled: Sequence[tuple[CondenseNetConfig, Cost]], info: DataInfo) -> Fit:
    """Return how much the sampled network begins with that begins with the most of a start."""
    source, same_classes = start.network.config, start.network.class_names == info.class_names
    fits = (fit_of(config, source, same_classes) for config, _ in sampled)
    return max(fits, key=lambda fit: (fit.layers, fit.params))


def _candidates(domains: Mapping[str, Domain]) -> float:
    """Return how many combinations of values there are, as a sampler counts them."""
    values = (domain.enumerate() for domain in domains.values())
    return math.prod(math.inf if one is None else len(one) for one in values)


def time_study(outline: StudyOutline) -> TimeEstimate:
    """Time a few real steps of the median network on this machine, and work out the whole study from them."""
    from workers.training.device import autocast_on, use_device
    from workers.training.forward import EVALUATION_BATCH

    settings, training = outline.settings, outline.settings.training_space()
    epochs, batches = training.domains.get("epochs"), training.domains.get("batch_size")
    count = training.fixed.epochs if epochs is None else statistics.mean(map(float, epochs.extremes()))
    batch_size = training.fixed.batch_size if batches is None else int(batches.extremes()[0])
    images = outline.data
    steps = max(images.train_images // batch_size, 1) + math.ceil(images.validation_images / EVALUATION_BATCH)
    per_training = count * steps * time_step(outline.median, batch_size, settings)
    device = use_device(_device_here(settings))
    return TimeEstimate(
        seconds_per_training=per_training,
        seconds_in_all=per_training * settings.study.trainings / settings.engine.workers,
        device=f"{device}, {autocast_on(device, training.fixed.mixed_precision)[1]}",
    )


def _device_here(settings: StudySettings) -> str:
    """Return the study's device, or what this machine has instead where other machines train."""
    from workers.training.device import check_device

    try:
        check_device(settings.engine.device)
    except InvalidSettings:
        if settings.engine.kind == "local":
            raise
        return "auto"
    return settings.engine.device


def sample_costs(space: SearchSpace, count: int, seed: int = 0) -> list[tuple[CondenseNetConfig, Cost]]:
    """Return `count` sampled configs with their cost, fewest macs first."""
    rng = np.random.default_rng(seed)
    drawn = (space.sample(rng) for _ in range(count))
    return sorted(((config, cost_of(config)) for config in drawn), key=lambda pair: pair[1].macs)


def time_step(config: CondenseNetConfig, batch_size: int, settings: StudySettings, budget_s: float = 3.0) -> float:
    """Return the median seconds of a training step of `config` with the study's threads and device."""
    import torch
    from torch.nn import functional as F

    from space.network import CondenseNet
    from workers.training.device import use_device
    from workers.training.forward import ForwardSettings, forward_of

    device = use_device(_device_here(settings))
    before = torch.get_num_threads()
    torch.set_num_threads(settings.engine.threads)
    model = CondenseNet(config).to(device).train()
    forward = forward_of(model, ForwardSettings(settings.engine.kernel, settings.engine.recompute, batch_size))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    x = torch.randn(batch_size, *config.input_shape, device=device)
    y = torch.randint(config.num_classes, (batch_size,), device=device)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - started < budget_s):
        begin = time.perf_counter()
        loss = F.cross_entropy(forward(x), y)
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(loss)
        optimizer.step()
        float(loss.detach())  # waits for the device
        times.append(time.perf_counter() - begin)
    torch.set_num_threads(before)
    return statistics.median(times[1:])


def suggest_budget_ms(space: SearchSpace, share: float = 0.6, count: int = 12) -> float:
    """Measure sampled architectures on this host; return a latency that about `share` of them stay under.

    Raises:
        MeasurementFailed: none could be measured.
    """
    from search.pricing.pricer import host_probe, price

    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        configs = [space.sample(rng) for _ in range(count)]
        prices = price(configs, host_probe(QUICK, None, files), files)
    highs = sorted(price.interval_high_ms for price in prices if isinstance(price, Measurement))
    if not highs:
        raise MeasurementFailed("no sampled network could be measured on this host, so no budget can be suggested.")
    return highs[min(round(share * len(highs)), len(highs) - 1)]
