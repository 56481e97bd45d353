"""Train a small space of networks on the digits in full, and keep their curves beside this module.

    python -m benchmarks.early_stopping.digits --work FOLDER [--processes 2]

It takes a few minutes of one processor. Killed at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

from benchmarks.condensebench.presets import Bench
from benchmarks.condensebench.table import write_table
from benchmarks.condensebench.training import Workshop, run_all
from benchmarks.long_work import ends_clearly
from search.replay.columns import RecordedTraining, read_rows
from space.search_space import SearchSpace
from workers.settings import DataSettings, TrainingSettings

TABLE = Path(__file__).with_name("condensebench-digits-curves.csv.gz")
DIGITS = Bench(
    "digits-curves",
    space={
        "num_classes": 10,
        "input_shape": [1, 8, 8],
        "num_stages": 2,
        "groups": [1, 2, 4],
        "condense_factor": [1, 2, 4],
        "bottleneck": [2, 4],
        "layers": [1, 2],
        "growth": [[4, 8], [4, 8]],
    },
    data=DataSettings(dataset="digits"),
    training=TrainingSettings(epochs=12, batch_size=64, learning_rate=0.1),
    repeated=0,
    seeds=1,
)


def digits_curves() -> list[RecordedTraining]:
    """Return the trainings that are kept."""
    lines = gzip.decompress(TABLE.read_bytes()).decode().splitlines()
    return list(read_rows(lines, SearchSpace.from_settings(DIGITS.space)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of everything that is finished")
    parser.add_argument("--processes", type=int, default=1, help="trainings at the same time, a thread each")
    options = parser.parse_args()
    shop = Workshop(DIGITS, options.work.absolute(), TABLE.parent, "cpu")
    with ends_clearly():
        run_all(shop, options.processes)
    print(f"wrote {write_table(shop)}")


if __name__ == "__main__":
    main()
