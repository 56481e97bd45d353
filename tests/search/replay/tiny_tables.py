"""The smallest tables: a few networks of two layers that are really trained on some of the digits."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.condensebench.costs import COUNTS
from benchmarks.condensebench.journal import open_journal
from benchmarks.condensebench.presets import BENCHES
from benchmarks.condensebench.table import write_table
from benchmarks.condensebench.training import TRAININGS, Workshop, trained
from space.cost import cost_of
from workers.images.batches import load
from workers.images.cache import prepare

SPACE = {**BENCHES["digits"].space, "condense_factor": [1, 2], "layers": [1, 2], "growth": [4]}  # 16 networks
TINY = replace(BENCHES["digits"], space=SPACE)
UNTRAINED = 3  # networks of the space that the table lacks
KINDS = ("branch", "load", "store", "vload", "vstore", "vfma", "simd_fp", "int")  # of instructions


def trained_table(folder: Path) -> Path:
    """Train 13 networks, two of them with a second seed, and write their table; latencies grow with macs."""
    shop = Workshop(TINY, folder, folder, "cpu")
    prepare(TINY.data, shop.images)
    images, configs = load(TINY.data, shop.images), TINY.configs()[:-UNTRAINED]
    with open_journal(folder / TRAININGS) as journal:
        for training in TINY.trainings():
            if training.config in configs:
                journal.append(trained(shop, training, images))
    with open_journal(folder / COUNTS) as journal:
        for config in TINY.configs():
            counts = {kind: 10.0 * cost_of(config).macs for kind in KINDS}
            made_of = {"runs": 3, "device": {"qemu": "7"}, "code": "", "runtimes": {"onnxruntime": "1", "native": "2"}}
            slower = {kind: 1.5 * count for kind, count in counts.items()}
            journal.append({"config": config.to_dict(), "counts": {"onnxruntime": slower, "native": counts}} | made_of)
    return write_table(shop)


def rewritten(
    table: Path,
    folder: Path,
    lines: Callable[[list[dict[str, str]]], Any] = lambda lines: None,
    about: Callable[[dict[str, Any]], Any] = lambda about: None,
) -> Path:
    """Return a copy of a table in another folder, its lines and its JSON changed in place; the hash is kept right."""
    text = gzip.decompress(table.read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    header = list(rows[0])
    lines(rows)
    written = io.StringIO()
    writer = csv.DictWriter(written, header, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    content = gzip.compress(written.getvalue().encode(), mtime=0)
    facts = json.loads(table.with_name(table.name.replace(".csv.gz", ".json")).read_text())
    facts["csv"]["sha256"] = hashlib.sha256(content).hexdigest()
    about(facts)
    folder.mkdir(exist_ok=True)
    copy = folder / table.name
    copy.write_bytes(content)
    copy.with_name(table.name.replace(".csv.gz", ".json")).write_text(json.dumps(facts))
    return copy
