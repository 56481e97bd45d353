"""The table as an earlier --write left it: what it holds is done, on whatever machine the journals of it were.

New trainings are added to it, and none of its figures changes; only what it doesn't know yet is filled in. To make a
table from the start, write it into another folder.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.condensebench.presets import Bench, Training
from space.config import CondenseNetConfig
from space.errors import InvalidSettings
from space.search_space import SearchSpace
from workers.images.datasets import IMAGE_FOLDER

Record = dict[str, Any]  # a row's columns in their order; None where a field is empty
Place = tuple[int, ...]  # a network and a seed, as the first columns have them


@dataclass(frozen=True)
class EarlierTable:
    """What was written; empty where nothing was."""

    records: Mapping[Place, Record] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, training: Training) -> bool:
        """Tell whether the training is one of its rows."""
        return place_of(training.config, training.seed) in self.records

    def knows(self, config: CondenseNetConfig, columns: Iterable[str]) -> bool:
        """Tell whether it has a value of a network in each of these columns."""
        record = self.of_network(config)
        return all(record.get(column) is not None for column in columns)

    def of_network(self, config: CondenseNetConfig) -> Record:
        """Return one of a network's rows, whose costs are those of the others; an empty one if there is none."""
        return self._by_network.get(place_of(config, 0)[:-1], {})

    @cached_property
    def _by_network(self) -> dict[Place, Record]:
        return {place[:-1]: record for place, record in self.records.items()}

    def made(self, what: str) -> Counter[str]:
        """Return how many of its rows were made by each (code, torch, device, …)."""
        return Counter(self.about.get("made", {}).get(f"by_{what}", {}))


def earlier_table(bench: Bench, folder: Path) -> EarlierTable:
    """Read the table of `bench` in `folder`; an empty one if there is none.

    Raises:
        InvalidSettings: it was made with another space, other data or another training.
    """
    path = csv_path(bench, folder)
    if not path.exists():
        return EarlierTable()
    about = json.loads(json_path(path).read_text())
    for part, wanted in settings_of(bench).items():
        if about[part] != json.loads(json.dumps(wanted)):
            raise InvalidSettings(
                f"rows are added to a table only with its own settings, but {path} was made with another {part}: "
                f"{about[part]}; name another folder with --tables."
            )
    with gzip.open(path, "rt", newline="") as file:
        records = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    return EarlierTable({place_in(record): record for record in records}, about)


def settings_of(bench: Bench) -> dict[str, Any]:
    """Return what decides every row of a table, as its JSON has it."""
    data = bench.data.of_content().model_dump(mode="json")
    if data["dataset"].startswith(IMAGE_FOLDER):
        folder = Path(data["dataset"].partition(":")[2])
        data["dataset"] = f"{IMAGE_FOLDER}:{folder.name}"  # where it was tells a reader nothing
    return {
        "space": SearchSpace.from_settings(bench.space).to_settings(),
        "data": data,
        "training": bench.training.model_dump(mode="json"),
    }


def csv_path(bench: Bench, folder: Path) -> Path:
    """Return where a table is written."""
    return folder / f"condensebench-{bench.name}.csv.gz"


def json_path(path: Path) -> Path:
    """Return where the JSON beside a table's CSV is written."""
    return path.with_name(path.name.replace(".csv.gz", ".json"))


def place_of(config: CondenseNetConfig, seed: int) -> Place:
    """Return a row's first columns: the network, then the seed."""
    return (*network_columns(config).values(), seed)


def place_in(record: Record) -> Place:
    """Return a written row's network and seed."""
    values = list(record.values())
    return tuple(values[: list(record).index("seed") + 1])


def network_columns(config: CondenseNetConfig) -> dict[str, int]:
    """Return the columns that name a network."""
    return {
        "groups": config.groups,
        "condense_factor": config.condense_factor,
        "bottleneck": config.bottleneck,
        **numbered("layers", config.stages),
        **numbered("growth", config.growth),
    }


def numbered(what: str, values: Iterable[Any]) -> dict[str, Any]:
    """Return values under the names what_1, what_2, …"""
    return {f"{what}_{number}": value for number, value in enumerate(values, start=1)}


def _value(text: str) -> int | float | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
