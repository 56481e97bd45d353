"""The table as it is shipped: one gzipped CSV with a row for each training, and beside it a JSON of how it was made.

The same journals give the same bytes: rows are sorted, the archive carries no time.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.condensebench.costs import COUNTS, PROXIES, SAVE, SEED, by_config
from benchmarks.condensebench.journal import Row, read_rows
from benchmarks.condensebench.training import TRAININGS, Workshop
from benchmarks.record import machine, versions
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import TrialNotReady
from space.search_space import SearchSpace
from workers.files import file_hash, write_atomically
from workers.images.batches import load
from workers.images.datasets import IMAGE_FOLDER
from workers.latency import profiles
from workers.latency.estimated_probe import estimate
from workers.latency.measurement import Measurement
from workers.latency.profiles import VIRTUAL, load_profile
from workers.latency.virtual_arm import Counts
from workers.training import proxies

Array = NDArray[np.float64]

FORMAT = 1
PROFILE, DEVICE = "raspberry-pi-5", "pi5"
PROFILE_FILE = Path(profiles.__file__).with_name("profiles") / f"{PROFILE}.json"


def write_table(shop: Workshop, folder: Path) -> Path:
    """Write the finished trainings as condensebench-NAME.csv.gz and .json; return the CSV's path.

    Raises:
        TrialNotReady: no training is finished.
    """
    bench = shop.bench
    wanted = {bench.identity(training) for training in bench.trainings()}
    rows = [row for row in read_rows(shop.folder / TRAININGS) if row["identity"] in wanted]
    trained = [row for row in rows if "top1" in row]
    if not trained:
        raise TrialNotReady(f"no training of {bench.name} is finished in {shop.folder}; train some first.")
    costs = Costs(shop)
    records = sorted((record_of(row, costs) for row in trained), key=_place)
    content = gzip.compress(_csv(records).encode(), mtime=0)
    path = folder / f"condensebench-{bench.name}.csv.gz"
    write_atomically(path, content, "write it again")
    about = about_table(shop, rows, costs)
    about["csv"] = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "rows": len(records)}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    write_atomically(path.with_name(f"condensebench-{bench.name}.json"), f"{text}\n".encode(), "write it again")
    return path


class Costs:
    """What is known of each network beside its trainings."""

    def __init__(self, shop: Workshop) -> None:
        self.profile = load_profile(PROFILE)
        self.proxies = by_config(read_rows(shop.folder / PROXIES))
        self.counts = by_config(read_rows(shop.folder / COUNTS))

    def latencies(self, config: CondenseNetConfig) -> dict[str, Measurement]:
        """Return the estimated latency under each runtime; none of a network that isn't counted."""
        row = self.counts.get(config)
        if row is None:
            return {}
        estimates = {}
        for runtime, counts in row["counts"].items():
            counted = Counts("", runtime, row["runtimes"][runtime], counts, (counts,) * row["runs"])
            estimated = estimate(counted, self.profile, VIRTUAL + PROFILE)
            assert isinstance(estimated, Measurement), estimated
            estimates[runtime] = estimated
        return estimates


def record_of(row: Row, costs: Costs) -> dict[str, Any]:
    """Return one training's columns in their order, as they are written."""
    config = CondenseNetConfig.from_dict(row["config"])
    cost = cost_of(config)
    curve: Sequence[Row] = row["curve"]
    named = {
        "top1": [epoch["val_top1"] for epoch in curve],
        "val_loss": [_short(epoch["val_loss"]) for epoch in curve],
        "train_loss": [_short(epoch["train_loss"]) for epoch in curve],
    }
    return {
        "groups": config.groups,
        "condense_factor": config.condense_factor,
        "bottleneck": config.bottleneck,
        **_numbered("layers", config.stages),
        **_numbered("growth", config.growth),
        "seed": row["seed"],
        "macs": cost.macs,
        "params": cost.params,
        "top1": row["top1"],
        "val_loss": _short(row["val_loss"]),
        "test_top1": row["test_top1"],
        **_latency_columns(costs.latencies(config)),
        **_proxy_columns(costs.proxies.get(config)),
        **{name: value for what, values in named.items() for name, value in _numbered(what, values).items()},
        "train_seconds": round(row["train_seconds"], 2),
    }


def _place(record: dict[str, Any]) -> tuple[int, ...]:
    """Return the network and the seed: the columns up to `seed`."""
    values = list(record.values())
    return tuple(values[: list(record).index("seed") + 1])


def _numbered(what: str, values: Iterable[Any]) -> dict[str, Any]:
    return {f"{what}_{number}": value for number, value in enumerate(values, start=1)}


def _latency_columns(latencies: dict[str, Measurement]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for runtime in SAVE:
        latency, name = latencies.get(runtime), f"{DEVICE}_{runtime}"
        columns[f"{name}_ms"] = None if latency is None else _short(latency.median_ms)
        columns[f"{name}_low_ms"] = None if latency is None else _short(latency.interval_low_ms)
        columns[f"{name}_high_ms"] = None if latency is None else _short(latency.interval_high_ms)
    return columns


def _proxy_columns(row: Row | None) -> dict[str, float | None]:
    return {f"proxy_{name}": None if row is None else _short(row["proxies"][name]) for name in proxies.PROXIES}


def _short(value: float) -> float:
    """Round to six digits, which is more than any of these figures is worth."""
    return float(f"{value:.6g}")


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def about_table(shop: Workshop, rows: Sequence[Row], costs: Costs) -> dict[str, Any]:
    """Return how the table was made: its settings, how far it came, and with what."""
    bench, trained = shop.bench, [row for row in rows if "top1" in row]
    data = bench.data.of_content().model_dump(mode="json")
    if data["dataset"].startswith(IMAGE_FOLDER):
        data["dataset"] = f"{IMAGE_FOLDER}:{Path(data['dataset'].partition(':')[2]).name}"  # where it was is no one's
    return {
        "format": FORMAT,
        "name": bench.name,
        "trainings": {
            "wanted": len(bench.trainings()),
            "done": len(trained),
            "by_seed": _counted(str(row["seed"]) for row in trained),
            "failed": [{key: row[key] for key in ("config", "seed", "failed")} for row in rows if "failed" in row],
        },
        "space": SearchSpace.from_settings(bench.space).to_settings(),
        "data": data,
        "images": load(bench.data, shop.images).info.to_dict(),
        "training": bench.training.model_dump(mode="json"),
        "latency": latency_facts(costs, [CondenseNetConfig.from_dict(row["config"]) for row in trained]),
        "proxies": {"seed": SEED, "batch": bench.training.batch_size, "networks": len(costs.proxies)},
        "made": {
            "first": min(row["finished"] for row in trained),
            "last": max(row["finished"] for row in trained),
            **{
                f"by_{what}": _counted(row.get(what, "") for row in trained)
                for what in ("code", "torch", "device", "cpu", "run_by")
            },
            "machine": machine(),
            "versions": versions(),
        },
    }


def latency_facts(costs: Costs, configs: Iterable[CondenseNetConfig]) -> dict[str, Any]:
    """Return where the latencies come from, and how many networks lie outside what the profile was calibrated on."""
    estimates = [latencies for config in dict.fromkeys(configs) if (latencies := costs.latencies(config))]
    runtimes = {runtime: version for row in costs.counts.values() for runtime, version in row["runtimes"].items()}
    emulators = {json.dumps(row["device"], sort_keys=True) for row in costs.counts.values()}
    return {
        "kind": "estimated",
        "device": VIRTUAL + PROFILE,
        "profile": {"name": PROFILE, "title": costs.profile.title, "sha256": file_hash(PROFILE_FILE)},
        "threads": costs.profile.threads,
        "counted_on": [json.loads(emulator) for emulator in sorted(emulators)],
        "runtimes": runtimes,
        "networks": len(estimates),
        "extrapolates": {runtime: sum(latencies[runtime].extrapolates for latencies in estimates) for runtime in SAVE},
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def read_about(path: Path) -> dict[str, Any]:
    """Return the JSON beside a written table."""
    about: dict[str, Any] = json.loads(path.with_name(path.name.replace(".csv.gz", ".json")).read_text())
    return about


def read_table(path: Path) -> dict[str, Array]:
    """Return the columns of a written table as float64, (rows,); an empty field is NaN."""
    with gzip.open(path, "rt", newline="") as file:
        header, *lines = csv.reader(file)
    values = np.array([[float(field or "nan") for field in line] for line in lines])  # (rows, columns)
    return {name: values[:, place] for place, name in enumerate(header)}
