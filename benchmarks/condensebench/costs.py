"""What each network of a table costs before it is trained: zero-cost proxies, and instructions counted in software.

Each is a journal of its own, so that both can be made while networks are trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.condensebench.journal import Journal, Row, open_journal
from benchmarks.condensebench.training import Workshop, code_version
from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from space.errors import MeasurementFailed
from workers.export.native import save_native
from workers.export.onnx import save_onnx
from workers.images.batches import TrainingBatches, load
from workers.images.cache import prepare
from workers.latency.emulated.virtual_arm import Counts, VirtualArm, build, default_folder
from workers.training import proxies
from workers.training.proxies import zero_cost

PROXIES, COUNTS = "proxies.jsonl", "counts.jsonl"
SEED = 0  # of the weights that proxies look at, and of the batch they see
COUNTED_RUNS = 3
TOGETHER = 16  # networks counted in one emulated process
DEVICE = "pi5"
SAVE = {"onnxruntime": save_onnx, "native": save_native}


def compute_proxies(shop: Workshop) -> None:
    """Compute the proxies of every network that has none yet, on the first batch of a training with seed 0."""
    with open_journal(shop.folder / PROXIES) as journal:
        left = _without_row(shop, journal, PROXY_COLUMNS)
        if not left:
            return
        prepare(shop.bench.data, shop.images)
        images = load(shop.bench.data, shop.images)
        settings = shop.bench.training
        batch = TrainingBatches(images.train, images.info, shop.bench.data, settings.batch_size, SEED).batch(0)
        for number, config in enumerate(left, start=1):
            journal.append({"config": config.to_dict(), "proxies": zero_cost(config, batch, SEED)} | _made_by())
            _tell("proxies", number, len(left))


def count_instructions(shop: Workshop) -> None:
    """Count the instructions of every network that has no counts yet, under both runtimes, on the emulated device.

    Raises:
        EmulatorMissing: the device can't be built here; the message says what to install.
        MeasurementFailed: a network can't be counted.
    """
    with open_journal(shop.folder / COUNTS) as journal:
        left = _without_row(shop, journal, LATENCY_COLUMNS)
        if not left:
            return
        arm = build(default_folder(), progress=lambda text: print(text, flush=True))
        for start in range(0, len(left), TOGETHER):
            together = left[start : start + TOGETHER]
            counted = {runtime: counts_of(arm, together, runtime) for runtime in SAVE}
            for place, config in enumerate(together):
                counts = {runtime: results[place].median for runtime, results in counted.items()}
                versions = {runtime: results[place].runtime_version for runtime, results in counted.items()}
                facts = {"device": arm.facts, "runtimes": versions, "runs": COUNTED_RUNS}
                journal.append({"config": config.to_dict(), "counts": counts} | facts | _made_by())
            _tell("counted networks", start + len(together), len(left))


def counts_of(arm: VirtualArm, configs: Sequence[CondenseNetConfig], runtime: str) -> list[Counts]:
    """Count the networks with random weights in one process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{place}.{runtime}" for place in range(len(configs))]
        for config, path in zip(configs, paths, strict=True):
            SAVE[runtime](DeployedCondenseNet.random(config), path)
        counted: list[Counts] = []
        for config, counts in zip(configs, arm.count(paths, COUNTED_RUNS, runtime), strict=True):
            if not isinstance(counts, Counts):
                raise MeasurementFailed(f"{config} can't be counted under {runtime}: {counts.reason}")
            counted.append(counts)
        return counted


def by_config(rows: Sequence[Row]) -> dict[CondenseNetConfig, Row]:
    """Return a journal's rows by their network."""
    return {CondenseNetConfig.from_dict(row["config"]): row for row in rows}


def latency_column(runtime: str) -> str:
    """Return the table's column of the latencies under a runtime."""
    return f"{DEVICE}_{runtime}_ms"


def proxy_column(name: str) -> str:
    """Return the table's column of a proxy."""
    return f"proxy_{name}"


LATENCY_COLUMNS = tuple(map(latency_column, SAVE))
PROXY_COLUMNS = tuple(map(proxy_column, proxies.PROXIES))


def _without_row(shop: Workshop, journal: Journal, columns: Sequence[str]) -> list[CondenseNetConfig]:
    known = by_config(journal.rows())
    return [
        config for config in shop.bench.configs() if config not in known and not shop.earlier.knows(config, columns)
    ]


def _made_by() -> Row:
    return {"code": code_version()}


def _tell(what: str, done: int, wanted: int) -> None:
    if done % TOGETHER == 0 or done == wanted:
        print(f"{what}: {done} of {wanted}", flush=True)
