"""A table of recorded trainings: a gzipped CSV with a row for each, and beside it a JSON of how they were made.

    table = read_table("condensebench")
    table.trainings[config, 0].curve[-1].top1

The JSON holds the CSV's SHA-256, and data, training and space as a study file writes them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.replay.columns import RecordedLatency, RecordedTraining, read_rows
from space.config import CondenseNetConfig
from space.errors import CondenseryError, TableUnreadable
from space.search_space import SearchSpace
from workers.files import user_path
from workers.images.data_info import DataInfo
from workers.latency.record import LatencyKind
from workers.settings import DataSettings, TrainingSettings

FORMAT = 1
TABLES = Path(__file__).with_name("tables")  # those that are shipped
SUFFIX = ".csv.gz"
MOST_BYTES = 64 * 1024 * 1024  # of a table once it is unpacked; 10,000 trainings of 100 epochs are 30 MB
HOST = "host"  # what studies call the machine that they run on
SHORT_NAMES = {"condensebench": "condensebench-fashion-mnist"}


@dataclass(frozen=True)
class LatencyOrigin:
    """Where a table's latencies come from, by its own account."""

    kind: LatencyKind  # always shown together with "replayed"
    device: str  # as latency.devices names it
    cpu_model: str
    threads: int
    runtimes: Mapping[str, str]  # version by runtime; "" where it isn't known
    extrapolates: frozenset[str]  # runtimes whose estimates go beyond what the device's profile was calibrated on


@dataclass(frozen=True)
class ReplayTable:
    """Trainings that were done once and can be replayed."""

    name: str  # of a shipped table, or the path of another
    sha256: str  # of the CSV
    space: SearchSpace
    data: DataSettings
    images: DataInfo
    training: TrainingSettings
    latency: LatencyOrigin
    trainings: Mapping[tuple[CondenseNetConfig, int], RecordedTraining]  # by network and seed

    @cached_property
    def seeds(self) -> Mapping[CondenseNetConfig, tuple[int, ...]]:
        """The recorded seeds of each network, ascending."""
        seeds: dict[CondenseNetConfig, tuple[int, ...]] = {}
        for config, seed in sorted(self.trainings, key=lambda key: key[1]):
            seeds[config] = (*seeds.get(config, ()), seed)
        return seeds

    def refusal(self, config: CondenseNetConfig, seed: int) -> str | None:
        """Return why a training can't be replayed; None if it is recorded."""
        if (config, seed) in self.trainings:
            return None
        if config not in self.seeds:
            return f"not in the table {self.name}: this network was never trained for it"
        recorded = ", ".join(map(str, self.seeds[config]))
        return f"not in the table {self.name}: trained with seed {recorded}, but not with seed {seed}"

    def latency_of(self, config: CondenseNetConfig, runtime: str) -> RecordedLatency | None:
        """Return a network's latency under a runtime; None if it isn't recorded."""
        seed = self.seeds[config][0] if config in self.seeds else None
        return None if seed is None else self.trainings[config, seed].latencies.get(runtime)

    @property
    def fastest_runtime(self) -> str:
        """The runtime with the smallest geometric mean, over the networks whose latency is known under every one."""
        known = [training.latencies for training in self.trainings.values()]
        complete = [latencies for latencies in known if latencies.keys() == self.latency.runtimes.keys()]
        means = {
            runtime: sum(math.log(latencies[runtime].median_ms) for latencies in complete)
            for runtime in self.latency.runtimes
        }
        return min(means, key=lambda runtime: means[runtime])


def read_table(name: str) -> ReplayTable:
    """Read a table: one that is shipped, by its name, or the CSV at a path that ends in .csv.gz.

    Raises:
        TableUnreadable: there is no such table, it or its JSON is damaged or holds something else, or they don't
            belong together.
    """
    path = _path_of(name)
    shown = path.name.removesuffix(SUFFIX) if path.parent == TABLES else str(path)
    try:
        return _read(path, shown)
    except TableUnreadable as error:
        raise TableUnreadable(f"the table {shown} can't be replayed: {error}") from None


def _path_of(name: str) -> Path:
    if name.endswith(SUFFIX):
        try:
            return user_path(name).absolute()
        except RuntimeError as error:
            raise TableUnreadable(f"no table is at {name[:100]!r} ({_line(error)}).") from None
    shipped = {file.name.removesuffix(SUFFIX): file for file in TABLES.glob(f"*{SUFFIX}")}
    path = shipped.get(SHORT_NAMES.get(name, name))
    if path is None:
        there = ", ".join(sorted(shipped)) or "none"
        raise TableUnreadable(
            f"no table of recorded trainings is called {name[:100]!r}; there is {there}, or give a path to a {SUFFIX}."
        )
    return path


def _read(path: Path, name: str) -> ReplayTable:
    about = _about(path.with_name(path.name.removesuffix(SUFFIX) + ".json"))
    content = _content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        if sha256 != about["csv"]["sha256"]:
            raise TableUnreadable("its SHA-256 is not the one in its JSON; fetch both files again.")
        space = SearchSpace.from_settings(about["space"])
        trainings = _trainings(content, space)
        runtimes = {runtime for training in trainings.values() for runtime in training.latencies}
        table = ReplayTable(
            name=name,
            sha256=sha256,
            space=space,
            data=DataSettings.model_validate(about["data"]),
            images=DataInfo.from_dict(about["images"]),
            training=TrainingSettings.model_validate(about["training"]),
            latency=_origin(about["latency"], sorted(runtimes)),
            trainings=trainings,
        )
        _check_agreement(table)
        return table
    except TableUnreadable:
        raise
    except (CondenseryError, ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TableUnreadable(f"its JSON doesn't describe it ({type(error).__name__}: {_line(error)}).") from None


def _check_agreement(table: ReplayTable) -> None:
    """Check that a table's JSON agrees with itself and with the CSV.

    Raises:
        TableUnreadable: they tell of different trainings or of different images.
    """
    space, images, data = table.space, table.images, table.data
    recorded = len(next(iter(table.trainings.values())).curve)  # the CSV has the same columns for every row
    if recorded != table.training.epochs:
        raise TableUnreadable(
            f"its JSON says training.epochs {table.training.epochs}, but its learning curves have {recorded}."
        )
    channels, *size = images.input_shape
    shapes = {
        "images.input_shape": (images.input_shape, space.input_shape),
        "images.num_classes": (images.num_classes, space.num_classes),
        "the number of images.class_names": (len(images.class_names), space.num_classes),
        "data.image_size": ([data.image_size] * 2 if data.image_size else size, size),
        "data.channels": (data.channels or channels, channels),
    }
    for name, (said, meant) in shapes.items():
        if said != meant:
            raise TableUnreadable(f"its JSON says {name} {said}, which doesn't agree with {meant} elsewhere in it.")


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TableUnreadable(f"{path} can't be read ({error.strerror}); it belongs beside the CSV.") from None
    except (ValueError, RecursionError) as error:
        raise TableUnreadable(f"{path} is not JSON ({_line(error)}).") from None
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT:
        raise TableUnreadable(f"{path} must say format {FORMAT}, but says {version!r}.")
    return dict(about)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TableUnreadable(f"{path} can't be read ({error.strerror}).") from None


def _trainings(content: bytes, space: SearchSpace) -> dict[tuple[CondenseNetConfig, int], RecordedTraining]:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(MOST_BYTES + 1)
        if len(unpacked) > MOST_BYTES:
            raise TableUnreadable(f"it is longer than {MOST_BYTES:,} bytes once it is unpacked, the most that is read.")
        text = unpacked.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TableUnreadable(f"it is no gzipped text ({_line(error)}).") from None
    trainings: dict[tuple[CondenseNetConfig, int], RecordedTraining] = {}
    for training in read_rows(io.StringIO(text), space):
        if trainings.setdefault((training.config, training.seed), training) is not training:
            raise TableUnreadable(f"{training.config} with seed {training.seed} is recorded twice.")
    if not trainings:
        raise TableUnreadable("it holds no training.")
    return trainings


def _origin(facts: Mapping[str, Any], runtimes: list[str]) -> LatencyOrigin:
    if not runtimes:
        raise TableUnreadable("it holds no latency, so nothing could be refused for one.")
    kind, device = facts["kind"], str(facts["device"])
    if kind not in [*LatencyKind]:
        raise TableUnreadable(f"its JSON's latency.kind must be one of {', '.join(LatencyKind)}, but is {kind!r:.80}.")
    if not device.strip() or device.partition(":")[0] == HOST:
        raise TableUnreadable(
            f"its JSON's latency.device must name the device that its latencies are of, but is {device!r:.80}; "
            f"{HOST!r} would be the machine that replays it."
        )
    versions = {**next(iter(facts["counted_on"]), {}), **facts.get("runtimes", {})}
    return LatencyOrigin(
        kind=LatencyKind(kind),
        device=device,
        cpu_model=str(facts["profile"]["title"]),
        threads=int(facts["threads"]),
        runtimes={runtime: str(versions.get(runtime, "")) for runtime in runtimes},
        extrapolates=frozenset(runtime for runtime in runtimes if facts["extrapolates"].get(runtime)),
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
