"""Published networks as reference marks: VGG-16, ResNet-18, MobileNets and CondenseNets, where they can be compared.

Comparable is what was published for the study's data set (CIFAR-10, CIFAR-100, or ImageNet: 1000 classes at 224
pixels). Macs and params are exact. A latency is shown only in a group of the same kind, device, runtime version and
threads; a latency of any other host says nothing about this one. `baselines.json` has the numbers and their sources.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dashboards.data.columns import Axis, LatencyGroup, StudyColumns, View
from dashboards.data.quantities import CountUnit
from dashboards.formats import NOTHING, digits_ms, percent
from search.results.baselines import read_baselines
from workers.latency.record import REPLAYED, LatencyRecord

_FILE = Path(__file__).with_name("baselines.json")
_SHAPES = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100), "imagenet": ((3, 224, 224), 1000)}
_PAPER = "CondenseNet (CVPR 2018)"


@dataclass(frozen=True)
class BaselineLatency:
    """A network's latency, and where and how it was found; the interval is 95 %, in ms."""

    kind: str
    device: str
    runtime: str  # name and version
    threads: int
    median_ms: float
    low_ms: float
    high_ms: float
    extrapolates: bool

    def is_of(self, group: LatencyGroup) -> bool:
        """Return whether this latency may be compared with those of a group."""
        # What a table of trainings recorded is compared with what was found in the same way.
        same = (group.kind.removesuffix(f", {REPLAYED}"), group.device, group.runtime, group.threads)
        return (self.kind, self.device, self.runtime, self.threads) == same


@dataclass(frozen=True)
class Baseline:
    """One published network on one data set."""

    name: str
    short: str  # its name beside its mark
    dataset: str
    top1_pct: float
    macs: int
    params: int
    origin: str  # of the accuracy
    latencies: tuple[BaselineLatency, ...] = ()
    latency: BaselineLatency | None = None  # in the group that is shown
    published: bool = True  # else it was trained by the study's recipe, on its images; `top1_pct` is then its score

    def cost(self, axis: Axis) -> float:
        """Return ms (in the group that is shown), macs or params; NaN where there is no latency."""
        if axis == "latency":
            return math.nan if self.latency is None else self.latency.median_ms
        return float(self.macs if axis == "macs" else self.params)

    def row(self, axis: str, units: Mapping[str, CountUnit]) -> tuple[str, ...]:
        """Return the network's line in the front's table; counts in the table's units."""
        words, mark = (NOTHING, NOTHING), ""
        if axis == "latency" and (latency := self.latency) is not None:
            interval = f"{digits_ms(latency.low_ms, 4)} to {digits_ms(latency.high_ms, 4)}"
            words = digits_ms(latency.median_ms, 4), interval
            mark = "; its latency is outside the calibrated range" if latency.extrapolates else ""
        cost = (units["macs"].text(float(self.macs)), units["params"].text(float(self.params)))
        role = "published" if self.published else "baseline"
        return role, NOTHING, percent(self.top1_pct / 100), *words, *cost, f"{self.name}; {self.origin}{mark}"


def dataset_of(columns: StudyColumns) -> str | None:
    """Return which data set with published results a study is on; None for any other."""
    data, info = columns.study.settings.get("data"), columns.study.data_info or {}
    name = data.get("dataset") if isinstance(data, dict) else None
    input_shape = tuple(info.get("input_shape") or _config_value(columns, "input_shape") or ())
    num_classes = info.get("num_classes") or _config_value(columns, "num_classes")
    for dataset, (shape, classes) in _SHAPES.items():
        named = name == dataset or (dataset == "imagenet" and str(name).startswith("imagefolder"))
        if named and (input_shape, num_classes) == (shape, classes):
            return dataset
    return None


def _config_value(columns: StudyColumns, name: str) -> Any:
    return json.loads(columns.config_json[0]).get(name) if len(columns) else None


def comparable(columns: StudyColumns, view: View) -> list[Baseline]:
    """Return the networks that can be compared with a study's on the view's axis; only their top-1 is published."""
    dataset = dataset_of(columns) if columns.objective == "top1" else None
    networks = [network for network in all_baselines() if network.dataset == dataset]
    networks += own_baselines(columns)
    if view.axis != "latency":
        return networks
    if view.group is None:
        return []
    group = columns.latency_groups[view.group]
    return [
        replace(network, latency=latency)
        for network in networks
        for latency in network.latencies
        if latency.is_of(group)
    ]


def own_baselines(columns: StudyColumns) -> list[Baseline]:
    """Return the networks that `condensery baselines --train` trained by the study's recipe, with their scores."""
    files = (columns.study.settings.get("study") or {}).get("files")
    results = [] if files is None else read_baselines(Path(files) / columns.study.name)
    return [
        Baseline(
            name=result.title,
            short=result.title.removeprefix("published "),
            dataset="",
            top1_pct=100 * result.scores[columns.objective],
            macs=result.macs,
            params=result.params,
            origin=f"trained by this study's recipe at a learning rate of {result.recipe.get('learning_rate', 0):g}",
            latencies=() if result.latency is None else (_measured(result.latency),),
            published=False,
        )
        for result in results
        if columns.objective in result.scores
    ]


def _measured(latency: LatencyRecord) -> BaselineLatency:
    return BaselineLatency(
        kind=str(latency.kind),
        device=latency.device,
        runtime=f"{latency.runtime} {latency.runtime_version}",
        threads=latency.threads,
        median_ms=latency.median_ms,
        low_ms=latency.interval_low_ms,
        high_ms=latency.interval_high_ms,
        extrapolates=latency.extrapolates,
    )


@cache
def all_baselines() -> tuple[Baseline, ...]:
    """Return every published network in `baselines.json`, and the published CondenseNets."""
    document = json.loads(_FILE.read_text(encoding="utf-8"))
    others = [
        Baseline(
            name=network["name"],
            short=network["name"],
            dataset=network["dataset"],
            top1_pct=round(100 - network["top1_error_pct"], 2),
            macs=network["macs"],
            params=network["params"],
            origin=network["accuracy_source"],
            latencies=_latencies(document, network["id"]),
        )
        for network in document["networks"]
    ]
    return (*others, *_condensenets(document))


def _latencies(document: dict[str, Any], name: str) -> tuple[BaselineLatency, ...]:
    return tuple(BaselineLatency(**row) for row in document["latencies"].get(name, ()))


def _condensenets(document: dict[str, Any]) -> Iterator[Baseline]:
    from space.cost import cost_of
    from space.presets import PUBLISHED

    for name, network in PUBLISHED.items():
        config, layers = network.config, 2 + 2 * sum(network.config.stages)
        imagenet = config.num_classes == 1000
        words = f"CondenseNet-{layers}" + (f" G=C={config.groups}" if imagenet else "")
        results = [("imagenet" if imagenet else "cifar10", config, network.top1_error_pct)]
        results.append(("cifar100", replace(config, num_classes=100), network.cifar100_error_pct))
        for dataset, built, error_pct in results:
            if error_pct is not None:
                cost = cost_of(built)
                short = words.replace("CondenseNet-", "CN-") if imagenet else str(layers)
                top1_pct, latencies = round(100 - error_pct, 2), _latencies(document, name)
                yield Baseline(words, short, dataset, top1_pct, cost.macs, cost.params, _PAPER, latencies)
