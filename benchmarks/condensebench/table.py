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
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.condensebench.costs import (
    COUNTS,
    LATENCY_COLUMNS,
    PROXIES,
    PROXY_COLUMNS,
    SAVE,
    SEED,
    by_config,
    latency_column,
    proxy_column,
)
from benchmarks.condensebench.earlier import (
    EarlierTable,
    Place,
    Record,
    csv_path,
    json_path,
    network_columns,
    numbered,
    place_in,
    place_of,
    settings_of,
)
from benchmarks.condensebench.journal import Row, read_rows
from benchmarks.condensebench.training import TRAININGS, Workshop
from benchmarks.record import machine, versions
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings, TrialNotReady
from workers.files import file_hash, write_atomically
from workers.images.batches import load
from workers.latency import profiles
from workers.latency.emulated.virtual_arm import Counts
from workers.latency.estimated_probe import estimate
from workers.latency.measurement import Measurement
from workers.latency.profiles import VIRTUAL, load_profile
from workers.training import proxies

Array = NDArray[np.float64]

FORMAT = 1
PROFILE = "raspberry-pi-5"
PROFILE_FILE = Path(profiles.__file__).with_name("profiles") / f"{PROFILE}.json"


def write_table(shop: Workshop) -> Path:
    """Add the finished trainings to condensebench-NAME.csv.gz and .json in the table's folder; return the CSV's path.

    Raises:
        TrialNotReady: no training is finished.
        InvalidSettings: the table that is there was made with other settings, or counted by other means.
    """
    bench, costs = shop.bench, Costs(shop)
    wanted = {bench.identity(training) for training in bench.trainings()}
    rows = [row for row in read_rows(shop.folder / TRAININGS) if row["identity"] in wanted]
    added = [row for row in rows if "top1" in row and _place_of_row(row) not in shop.earlier.records]
    records = dict(shop.earlier.records)
    for training in filter(shop.earlier.holds, bench.trainings()):
        place = place_of(training.config, training.seed)
        records[place] = records[place] | costs.columns(training.config)
    records |= {_place_of_row(row): record_of(row, costs) for row in added}
    if not records:
        raise TrialNotReady(f"no training of {bench.name} is finished in {shop.folder}; train some first.")
    about = about_table(shop, list(records.values()), added, [row for row in rows if "failed" in row], costs)
    content = gzip.compress(_csv([records[place] for place in sorted(records)]).encode(), mtime=0)
    path = csv_path(bench, shop.tables)
    write_atomically(path, content, "write it again")
    about["csv"] = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "rows": len(records)}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    write_atomically(json_path(path), f"{text}\n".encode(), "write it again")
    return path


class Costs:
    """What is known of each network beside its trainings: as the table has it, else as the journals do."""

    def __init__(self, shop: Workshop) -> None:
        self.profile = load_profile(PROFILE)
        self.earlier = shop.earlier
        self.proxies = by_config(read_rows(shop.folder / PROXIES))
        self.counts = by_config(read_rows(shop.folder / COUNTS))

    def columns(self, config: CondenseNetConfig) -> Record:
        """Return the columns of latencies and proxies; None where they aren't known."""
        written = self.earlier.of_network(config)
        counted = _latency_columns(self.latencies(config)) | _proxy_columns(self.proxies.get(config))
        return {name: value if written.get(name) is None else written[name] for name, value in counted.items()}

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
        **network_columns(config),
        "seed": row["seed"],
        "macs": cost.macs,
        "params": cost.params,
        "top1": row["top1"],
        "val_loss": _short(row["val_loss"]),
        "test_top1": row["test_top1"],
        **costs.columns(config),
        **{name: value for what, values in named.items() for name, value in numbered(what, values).items()},
        "train_seconds": round(row["train_seconds"], 2),
    }


def _place_of_row(row: Row) -> Place:
    return place_of(CondenseNetConfig.from_dict(row["config"]), row["seed"])


def _latency_columns(latencies: dict[str, Measurement]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for runtime in SAVE:
        latency, name = latencies.get(runtime), latency_column(runtime).removesuffix("_ms")
        columns[f"{name}_ms"] = None if latency is None else _short(latency.median_ms)
        columns[f"{name}_low_ms"] = None if latency is None else _short(latency.interval_low_ms)
        columns[f"{name}_high_ms"] = None if latency is None else _short(latency.interval_high_ms)
    return columns


def _proxy_columns(row: Row | None) -> dict[str, float | None]:
    return {proxy_column(name): None if row is None else _short(row["proxies"][name]) for name in proxies.PROXIES}


def _short(value: float) -> float:
    """Round to six digits, which is more than any of these figures is worth."""
    return float(f"{value:.6g}")


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def about_table(
    shop: Workshop, records: Sequence[Record], added: Sequence[Row], failed: Sequence[Row], costs: Costs
) -> dict[str, Any]:
    """Return how the table was made: its settings, how far it came, and with what.

    Args:
        records: all rows as they are written.
        added: the trainings among them that the table didn't hold before.
    """
    bench, earlier = shop.bench, shop.earlier
    wanted = {place_of(training.config, training.seed) for training in bench.trainings()} | earlier.records.keys()
    finished = [row["finished"] for row in added]
    finished += [earlier.about["made"][end] for end in ("first", "last") if earlier.about]
    failures = [{key: row[key] for key in ("config", "seed", "failed")} for row in failed]
    failures += [row for row in earlier.about.get("trainings", {}).get("failed", []) if row not in failures]
    with_proxies = {place_in(record)[:-1] for record in records if record[PROXY_COLUMNS[0]] is not None}
    return {
        "format": FORMAT,
        "name": bench.name,
        "trainings": {
            "wanted": len(wanted),
            "done": len(records),
            "by_seed": _sorted(Counter(str(record["seed"]) for record in records)),
            "failed": failures,
        },
        **settings_of(bench),
        "images": earlier.about["images"] if earlier.about else load(bench.data, shop.images).info.to_dict(),
        "latency": latency_facts(earlier, costs, {place_in(record)[:-1] for record in records}),
        "proxies": {"seed": SEED, "batch": bench.training.batch_size, "networks": len(with_proxies)},
        "made": {
            "first": min(finished),
            "last": max(finished),
            **{
                f"by_{what}": _sorted(earlier.made(what) + Counter(row.get(what, "") for row in added))
                for what in ("code", "torch", "device", "cpu", "run_by")
            },
            "machine": machine(),
            "versions": versions(),
        },
    }


def latency_facts(earlier: EarlierTable, costs: Costs, networks: Collection[Place]) -> dict[str, Any]:
    """Return where the latencies of these networks come from, and how many lie outside the profile's calibration.

    Raises:
        InvalidSettings: the table's were counted with other runtimes, or are another profile's.
    """
    counted = [config for config in costs.counts if place_of(config, 0)[:-1] in networks]
    estimates = [costs.latencies(config) for config in counted if not earlier.knows(config, LATENCY_COLUMNS)]
    emulators = [json.dumps(row["device"], sort_keys=True) for row in costs.counts.values()]
    facts = {
        "kind": "estimated",
        "device": VIRTUAL + PROFILE,
        "profile": {"name": PROFILE, "title": costs.profile.title, "sha256": file_hash(PROFILE_FILE)},
        "threads": costs.profile.threads,
        "counted_on": [json.loads(emulator) for emulator in sorted(set(emulators))],
        "runtimes": {name: version for row in costs.counts.values() for name, version in row["runtimes"].items()},
        "networks": len(estimates),
        "extrapolates": {runtime: sum(latencies[runtime].extrapolates for latencies in estimates) for runtime in SAVE},
    }
    known = earlier.about.get("latency")
    if known is None:
        return facts
    facts["runtimes"] = {**known["runtimes"], **facts["runtimes"]}
    for part in ("kind", "device", "profile", "threads", "runtimes"):
        if known["networks"] and known[part] != facts[part]:
            raise InvalidSettings(
                f"latencies are added to a table only by the means it has, but its {part} are {known[part]} and these "
                f"are of {facts[part]}; name another folder with --tables."
            )
    facts["counted_on"] = known["counted_on"] + [one for one in facts["counted_on"] if one not in known["counted_on"]]
    facts["networks"] += known["networks"]
    facts["extrapolates"] = {
        runtime: known["extrapolates"][runtime] + facts["extrapolates"][runtime] for runtime in SAVE
    }
    return facts


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def read_about(path: Path) -> dict[str, Any]:
    """Return the JSON beside a written table."""
    about: dict[str, Any] = json.loads(json_path(path).read_text())
    return about


def read_table(path: Path) -> dict[str, Array]:
    """Return the columns of a written table as float64, (rows,); an empty field is NaN."""
    with gzip.open(path, "rt", newline="") as file:
        header, *lines = csv.reader(file)
    values = np.array([[float(field or "nan") for field in line] for line in lines])  # (rows, columns)
    return {name: values[:, place] for place, name in enumerate(header)}
