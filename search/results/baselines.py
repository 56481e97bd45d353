"""Networks of other kinds beside a study's: what they cost, how fast they are, and how well the study's recipe does.

They are no trials: nothing proposes, picks or exports them. What is known of them is kept in `baselines.json` among the
study's files, from where page and report draw them. A latency belongs to its device, runtime and kind, as all do.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.budget import Budget, refusal
from search.pricing.pricer import Target
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidConfig, InvalidSettings, TrainingFailed
from space.presets import PUBLISHED
from workers.files import write_atomically
from workers.latency.measurement import FailedMeasurement, Measurement, never
from workers.latency.record import RECORD_FIELDS, LatencyRecord
from workers.settings import NO_START

if TYPE_CHECKING:
    from torch import nn

    from workers.images.batches import ImageData
    from workers.settings import DataSettings, TrainingSettings

FILE = "baselines.json"  # among a study's files
# Shares of the recipe's learning rate: it was chosen for CondenseNets with small batches, and is far too high for some.
RATES = (1.0, 0.1)


@dataclass(frozen=True)
class BaselineResult:
    """What is known of one network."""

    name: str
    title: str
    macs: int
    params: int
    latency: LatencyRecord | None = None  # on the study's first device
    scores: Mapping[str, float] = field(default_factory=dict)  # on the validation images; {} until it is trained
    recipe: Mapping[str, Any] = field(default_factory=dict)  # training settings that it was trained by
    seed: int | None = None
    problem: str = ""  # why it wasn't measured

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**asdict(self), "latency": None if self.latency is None else asdict(self.latency)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BaselineResult:
        """Return the result whose `to_dict` gave these values; raises what a document of another kind raises."""
        latency = values["latency"]
        record = None if latency is None else LatencyRecord(**{name: latency[name] for name in RECORD_FIELDS})
        return cls(**{**values, "latency": record})


def read_baselines(files: Path) -> list[BaselineResult]:
    """Return what is known of a study's baselines; nothing where there is no such file, or a damaged one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads((files / FILE).read_text(encoding="utf-8"))
        return [BaselineResult.from_dict(values) for values in document["networks"]]
    return []


def keep_baseline(files: Path, result: BaselineResult) -> None:
    """Write one result among a study's files, in place of what was known of the same network."""
    others = [known for known in read_baselines(files) if known.name != result.name]
    document = {"networks": [known.to_dict() for known in sorted([*others, result], key=lambda one: one.macs)]}
    write_atomically(files / FILE, json.dumps(document, indent=1).encode())


def baseline_names() -> tuple[str, ...]:
    """Return the names of all networks that there are."""
    from workers.baselines.networks import BASELINES

    return (*BASELINES, *PUBLISHED)


def check_names(names: Iterable[str]) -> None:
    """Raise InvalidSettings if there is no network of a name."""
    known = baseline_names()
    for name in names:
        if name not in known:
            raise InvalidSettings(f"--only must name networks of {', '.join(known)}, but got {name!r}.")


@dataclass(frozen=True)
class Built:
    """A network at a study's image size."""

    name: str
    title: str
    macs: int
    params: int
    config: CondenseNetConfig | None  # of a CondenseNet
    network: nn.Module | None  # of any other

    def save(self, shape: tuple[int, int, int], path: Path) -> None:
        """Write it as ONNX."""
        if self.config is not None:
            from space.deployed import DeployedCondenseNet
            from workers.export.onnx import save_onnx

            save_onnx(DeployedCondenseNet.random(self.config), path)
            return
        from workers.baselines.networks import save_onnx_of

        assert self.network is not None
        save_onnx_of(self.network, shape, path)


def build_baseline(name: str, shape: tuple[int, int, int], classes: int) -> Built:
    """Return a network for images of (C, H, W).

    Raises:
        InvalidConfig: it can't take images so small.
    """
    if name in PUBLISHED:
        config = replace(PUBLISHED[name].config, input_shape=shape, num_classes=classes)
        cost = cost_of(config)
        title = (
            f"published {name.replace('condensenet', 'CondenseNet').replace('imagenet', 'CondenseNet for ImageNet')}"
        )
        return Built(name, title, cost.macs, cost.params, config, None)
    from workers.baselines.networks import BASELINES, build, macs_of, params_of

    network = build(name, shape, classes)
    return Built(name, BASELINES[name].title, macs_of(network, shape), params_of(network), None, network)


def measured(
    names: Sequence[str],
    shape: tuple[int, int, int],
    classes: int,
    target: Target,
    folder: Path,
    stop: Callable[[], bool] = never,
) -> Iterator[BaselineResult]:
    """Build, count and measure networks one after the other; yield each.

    Raises:
        MeasurementStopped: `stop` said so.
    """
    for name in names:
        try:
            built = build_baseline(name, shape, classes)
        except InvalidConfig as error:
            yield BaselineResult(name, name, 0, 0, problem=str(error))
            continue
        path = folder / f"{name}.onnx"
        built.save(shape, path)
        (latency,) = target.probe.measure([path], stop)
        path.unlink()
        result = BaselineResult(name, built.title, built.macs, built.params)
        if isinstance(latency, FailedMeasurement):
            yield replace(result, problem=latency.reason)
        else:
            assert isinstance(latency, Measurement)
            yield replace(result, latency=replace(latency, target=target.name).record)


def trained(
    result: BaselineResult,
    recipe: TrainingSettings,
    data: DataSettings,
    images: ImageData,
    objective: str,
    seed: int,
    device: str,
    report: Callable[[float, int, int], None],
    stop: Callable[[], bool] = never,
) -> BaselineResult:
    """Return a result with the scores of its network, trained by a study's recipe at each of `RATES`, the better one's.

    Args:
        result: of the network.
        recipe: training settings of a trial.
        data: the study's.
        images: of the study.
        objective: what the study maximises, which decides between the rates.
        seed: of the trial.
        device: to train on.
        report: is told after each epoch, (the learning rate, the epoch's number, how many there are).
        stop: asked before each step.

    Raises:
        TrainingStopped: `stop` said so. TrainingFailed: the loss is no number at either rate.
    """
    best, failure = None, None
    for share in RATES:
        settings = recipe.model_copy(update={"start": NO_START, "learning_rate": recipe.learning_rate * share})
        try:
            told = partial(report, settings.learning_rate)
            scores = _scores(result.name, settings, data, images, seed, device, told, stop)
        except TrainingFailed as error:
            failure = error
            continue
        if best is None or scores.get(objective, 0.0) > best.scores.get(objective, 0.0):
            best = replace(result, scores=scores, recipe=settings.model_dump(mode="json"), seed=seed)
    if best is None:
        assert failure is not None
        raise failure
    return best


def _scores(
    name: str,
    training: TrainingSettings,
    data: DataSettings,
    images: ImageData,
    seed: int,
    device: str,
    report: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> dict[str, float]:
    from workers.baselines.training import train_by_recipe, train_condensenet

    built = build_baseline(name, images.info.input_shape, images.info.num_classes)
    if built.config is not None:
        evaluation = train_condensenet(built.config, training, data, images, seed, device, report, stop)
    else:
        assert built.network is not None
        evaluation = train_by_recipe(built.network, training, data, images, seed, device, report, stop)
    return {name: float(value) for name, value in evaluation.metrics.items() if value is not None}


def verdicts(results: Sequence[BaselineResult], rows: Sequence[TrialRow], objective: str, budget: Budget) -> list[str]:
    """Return which trained baselines inside a budget no network of the study beats in both score and latency."""
    done = [row for row in rows if row.score is not None and row.latency is not None]
    said = []
    for result in results:
        score, latency = result.scores.get(objective), result.latency
        if score is None or latency is None:
            continue
        if refusal(budget, result.macs, result.params, latency) is not None:
            continue
        there = [row for row in done if row.latency is not None and _comparable(row.latency, latency)]
        better = [row for row in there if _at_least(row, score, latency)]
        if there and not better:
            said.append(
                f"{result.title} is not beaten: no network of the study is at least as good ({score:.2%}) and as fast "
                f"({latency.median_ms:.4g} ms) on {latency.target}; it may be the one to deploy"
            )
    return said


def _at_least(row: TrialRow, score: float, latency: LatencyRecord) -> bool:
    return row.latency is not None and (row.score or 0.0) >= score and row.latency.median_ms <= latency.median_ms


def _comparable(one: LatencyRecord, other: LatencyRecord) -> bool:
    names = ("kind", "device", "runtime", "runtime_version", "threads")
    return all(getattr(one, name) == getattr(other, name) for name in names)
