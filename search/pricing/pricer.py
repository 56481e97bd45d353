"""Pricing a candidate before it is trained: its deployed network with random indices, exported and measured.

The same operators run as in the trained network, so the latency is the same; only the indices and weights differ.

Notable choices:
- A batch is priced in a thread of its own: a device may take minutes, and meanwhile the controller must hear workers'
  reports and Ctrl-C.
- Devices measure in the study's order, the judging one first; what one of them refuses is not measured on the next.
  Queues of agents that follow one another measure at the same time: none needs this machine.
- What a disturbed measurement refuses is measured again, `AGAIN_MOST` times at most: a candidate isn't lost to what
  else ran at the time.
- Once a device's fitted model is sure that a candidate is over its limit, the candidate is not measured at all. Its
  price then says `predicted`; what is trained has always been measured (or estimated, on a virtual device).
- torch is loaded once a model file is written: a replayed study needs none.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from space.config import CondenseNetConfig
from workers.file_names import Precision, file_for, stem_for
from workers.files import disk_errors
from workers.latency.host_probe import HostProbe
from workers.latency.measurement import FailedMeasurement, LatencyProbe, Measurement, MeasurementStopped, never
from workers.latency.policy import MeasurementPolicy
from workers.latency.record import LatencyKind, LatencyStatistic

if TYPE_CHECKING:
    from space.deployed import DeployedCondenseNet

# Runs of this fixed network before and after each batch show whether the machine kept still. Never change it: its
# figures are compared over years.
ANCHOR = CondenseNetConfig(stages=(2, 2, 2), growth=(8, 16, 32), input_shape=(3, 32, 32))

AGAIN_MOST = 2  # further measurements of a candidate that a disturbed one refuses

Price = Measurement | FailedMeasurement
Prices = dict[str, Price]  # of one candidate, by the device's name in the study


class Forecast(Protocol):
    """Knows, without measuring, that a config's latency is surely over a limit."""

    def over(self, config: CondenseNetConfig, limit_ms: float) -> Measurement | None:
        """Return the prediction when even its interval's low end is over the limit, else None."""
        ...


@dataclass(frozen=True)
class NotRecorded(FailedMeasurement):
    """A config that a probe which only knows recorded networks doesn't know: it is refused, not failed."""


@runtime_checkable
class KnownLatencies(Protocol):
    """A probe that needs no file of a network: it knows its latency."""

    def of(self, config: CondenseNetConfig) -> Price:
        """Return the latency of a config, or why there is none."""
        ...


@dataclass(frozen=True)
class Target:
    """One device of a study: its name there, its probe and limit, and what predicts latencies without measuring."""

    name: str
    probe: LatencyProbe
    limit_ms: float | None = None
    forecast: Forecast | None = None
    local: bool = False  # timed on this machine: workers must keep off the measuring processor
    remote: bool = False  # measured by the agents of a queue, for which this machine only waits
    precisions: tuple[Precision, ...] = ("fp32",)  # of which the faster one is the price
    statistic: LatencyStatistic = "upper"  # the figure of a latency that must keep the limit


def host_probe(policy: MeasurementPolicy, core: int | None, files: Path) -> HostProbe:
    """Return a probe of this host, its anchor network written under `files`."""
    return HostProbe(policy, write_anchor(files, policy.runtime), core)


def write_anchor(files: Path, runtime: str = "onnxruntime") -> Path:
    """Write the anchor network for a runtime under `files`; return its path."""
    return write_anchor_network(files, runtime)[0]


def write_anchor_network(files: Path, runtime: str) -> tuple[Path, DeployedCondenseNet]:
    """Write the anchor network for a runtime under `files`; return its path and the network itself."""
    from space.deployed import DeployedCondenseNet
    from workers.export.model_files import save_for

    anchor, network = files / file_for(runtime, ".anchor"), DeployedCondenseNet.random(ANCHOR)
    save_for(runtime, network, anchor)
    return anchor, network


def price(
    configs: Sequence[CondenseNetConfig],
    probe: LatencyProbe,
    files: Path,
    stop: Callable[[], bool] = never,
    precisions: Sequence[Precision] = ("fp32",),
) -> list[Price]:
    """Measure the configs in one batch, in the order given; equal configs are measured once.

    Raises:
        MeasurementStopped: `stop` said so.
    """
    with _folder_in(files) as folder:
        return _Task.of(configs, probe, folder, precisions).run(stop)


@dataclass(frozen=True)
class _Task:
    """Configs to be measured by one probe, whose model files are written if it needs any."""

    configs: tuple[CondenseNetConfig, ...]
    probe: LatencyProbe
    models: dict[tuple[CondenseNetConfig, Precision], Path]

    @classmethod
    def of(
        cls,
        configs: Sequence[CondenseNetConfig],
        probe: LatencyProbe,
        folder: Path,
        precisions: Sequence[Precision] = ("fp32",),
    ) -> _Task:
        if isinstance(probe, KnownLatencies):
            return cls(tuple(configs), probe, {})
        distinct = list(dict.fromkeys(configs))
        models: dict[tuple[CondenseNetConfig, Precision], Path] = {}
        for precision in precisions:
            files = write_models(distinct, probe.runtime, folder, precision)
            models |= {(config, precision): path for config, path in zip(distinct, files, strict=True)}
        return cls(tuple(configs), probe, models)

    def run(self, stop: Callable[[], bool]) -> list[Price]:
        if isinstance(self.probe, KnownLatencies):
            return [self.probe.of(config) for config in self.configs]
        measured = self.probe.measure(list(self.models.values()), stop)
        prices: dict[CondenseNetConfig, Price] = {}
        for (config, precision), latency in zip(self.models, measured, strict=True):
            prices[config] = _faster(prices.get(config), in_precision(latency, precision))
        return [prices[config] for config in self.configs]


def in_precision(latency: Price, precision: Precision) -> Price:
    """Return the latency of a file in a precision with its label.

    An estimate of any but fp32 extrapolates: the profiles were fitted to networks in that.
    """
    if isinstance(latency, FailedMeasurement) or precision == "fp32":
        return latency
    beyond = latency.extrapolates or latency.kind == LatencyKind.ESTIMATED
    return replace(latency, precision=precision, extrapolates=beyond)


def _faster(fp32: Price | None, latency: Price) -> Price:
    """Return the better price of one config in two precisions; what could be measured is better than what couldn't."""
    if fp32 is None or isinstance(fp32, FailedMeasurement):
        return latency
    if isinstance(latency, FailedMeasurement):
        return fp32
    return min(fp32, latency, key=lambda price: price.interval_high_ms)


def _run_together(tasks: Sequence[_Task], stop: Callable[[], bool]) -> list[list[Price]]:
    """Run tasks at the same time; when one fails, stop the others and raise its error."""
    if len(tasks) == 1:
        return [tasks[0].run(stop)]
    broken = threading.Event()

    def run(task: _Task) -> list[Price]:
        try:
            return task.run(lambda: stop() or broken.is_set())
        except BaseException:
            broken.set()
            raise

    with ThreadPoolExecutor(len(tasks), thread_name_prefix="device") as threads:
        running = [threads.submit(run, task) for task in tasks]
        wait(running)
    errors = [error for future in running if (error := future.exception()) is not None]
    if errors:  # the error that stopped the others says more than that they were stopped
        raise next((error for error in errors if not isinstance(error, MeasurementStopped)), errors[0])
    return [future.result() for future in running]


def write_models(
    configs: Sequence[CondenseNetConfig], runtime: str, folder: Path, precision: Precision = "fp32"
) -> list[Path]:
    """Write each config's deployed network with random weights for a runtime; return the files in the order given."""
    from space.deployed import DeployedCondenseNet
    from workers.export.model_files import save_for

    paths = []
    for config in configs:
        path = folder / file_for(runtime, stem_for(precision, config.digest[:16]))
        network = DeployedCondenseNet.random(config)
        if precision == "int8":
            _save_random_int8(runtime, network, path)
        else:
            save_for(runtime, network, path)
        paths.append(path)
    return paths


def _save_random_int8(runtime: str, network: DeployedCondenseNet, path: Path) -> None:
    """Write a network in 8 bits that was calibrated on noise: its operators are those of a trained one."""
    import torch

    from workers.export.int8_files import save_int8_for, scheme_for
    from workers.quantization.calibration import calibrate

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *network.config.input_shape, generator=generator)
    scheme = scheme_for(runtime, network.config)
    save_int8_for(runtime, calibrate(network, noise, torch.arange(2), scheme, equalise=False), path)


@contextmanager
def _folder_in(files: Path) -> Iterator[Path]:
    with disk_errors(files):
        files.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="pricing-", dir=files)
    with folder as name:
        yield Path(name)


class Pricer:
    """Prices one batch of configs at a time in a thread; the controller starts it, polls it and may stop it."""

    def __init__(self, targets: Sequence[Target], files: Path) -> None:
        self.targets, self._files = tuple(targets), files
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pricing")
        self._batch: Future[list[Prices]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch is under way (or its prices not yet collected)."""
        return self._batch is not None

    @property
    def local(self) -> bool:
        """Whether any device is timed on this machine."""
        return any(target.local for target in self.targets)

    def start(self, configs: Sequence[CondenseNetConfig]) -> None:
        """Begin a batch."""
        assert self._batch is None
        self._batch = self._thread.submit(self._prices, tuple(configs))

    def collect(self, wait_s: float) -> list[Prices] | None:
        """Return the batch's prices in the order of its configs; None while it is still under way after `wait_s`.

        Raises whatever the measuring raised: DiskFull, MeasurementStopped after `stop`, …
        """
        if self._batch is None or not wait([self._batch], wait_s).done:
            return None
        batch, self._batch = self._batch, None
        return batch.result()

    def stop(self) -> None:
        """End the batch under way; nothing of it is kept. Returns when its processes have ended."""
        self._stop.set()
        try:
            while self.busy:
                self.collect(1.0)
        except MeasurementStopped:
            pass
        finally:
            self._stop.clear()

    def close(self) -> None:
        """End the batch under way and the thread."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _prices(self, configs: Sequence[CondenseNetConfig]) -> list[Prices]:
        prices: list[Prices] = [{} for _ in configs]
        places = list(range(len(configs)))  # of the configs that no device has refused yet
        for remote, group in groupby(self.targets, lambda target: target.remote):
            for targets in [list(group)] if remote else [[target] for target in group]:
                places = self._add_prices(targets, configs, places, prices)
        return prices

    def _add_prices(
        self,
        targets: Sequence[Target],
        configs: Sequence[CondenseNetConfig],
        places: Sequence[int],
        prices: list[Prices],
    ) -> list[int]:
        """Price the configs at these places on all of these targets at once; return the places not refused."""
        unpredicted: list[list[int]] = []  # places, for each target
        for target in targets:
            to_measure = []
            for place in places:
                prediction = _predicted_over(target, configs[place])
                if prediction is None:
                    to_measure.append(place)
                else:
                    prices[place][target.name] = prediction
            unpredicted.append(to_measure)
            if target is targets[0]:  # a config that is surely too slow for the judging device is measured nowhere
                places = to_measure
        self._measure(targets, configs, unpredicted, prices)
        for _ in range(AGAIN_MOST):
            in_doubt = [
                [place for place in to_measure if _is_in_doubt(target, prices[place][target.name])]
                for target, to_measure in zip(targets, unpredicted, strict=True)
            ]
            if not any(in_doubt):
                break
            self._measure(targets, configs, in_doubt, prices)
        return [
            place for place in places if not any(_is_refused(target, prices[place][target.name]) for target in targets)
        ]

    def _measure(
        self,
        targets: Sequence[Target],
        configs: Sequence[CondenseNetConfig],
        places: Sequence[Sequence[int]],
        prices: list[Prices],
    ) -> None:
        """Measure the configs at each target's places, all targets at once; keep the better price of each."""
        with _folder_in(self._files) as folder:  # written one after the other: drawing weights uses torch's generator
            tasks = [
                _Task.of([configs[place] for place in there], target.probe, folder, target.precisions)
                for target, there in zip(targets, places, strict=True)
            ]
            measured = _run_together(tasks, self._stop.is_set)
        for target, there, prices_there in zip(targets, places, measured, strict=True):
            for place, price_there in zip(there, prices_there, strict=True):
                prices[place][target.name] = _better(prices[place].get(target.name), price_there)


def _better(earlier: Price | None, later: Price) -> Price:
    """Return which of two measurements of one config counts: a steady one, or else the faster.

    What disturbs a measurement makes it slower, so the faster one was disturbed less.
    """
    if earlier is None or isinstance(earlier, FailedMeasurement):
        return later
    times = 1 + int(earlier.conditions.get("times", 1))
    better = earlier
    if isinstance(later, Measurement):
        better = min(earlier, later, key=lambda price: (not price.steady, price.interval_high_ms))
    return replace(better, conditions={**better.conditions, "times": times})


def _is_in_doubt(target: Target, price: Price) -> bool:
    """Whether a price refuses its config but was disturbed: one more measurement may let it through."""
    return isinstance(price, Measurement) and not price.steady and _is_refused(target, price)


def _predicted_over(target: Target, config: CondenseNetConfig) -> Measurement | None:
    """Return the prediction for a config that is surely over the target's limit, else None."""
    if target.forecast is None or target.limit_ms is None:
        return None
    return target.forecast.over(config, target.limit_ms)


def _is_refused(target: Target, price: Price) -> bool:
    """Whether a price rules its config out: it couldn't be measured, or it is over the target's limit."""
    if isinstance(price, FailedMeasurement):
        return True
    value_ms = price.judged_ms(target.statistic)
    return target.limit_ms is not None and value_ms is not None and value_ms > target.limit_ms
