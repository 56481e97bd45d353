"""Make CondenseBench: train every network of a space, count what each costs, and write the table that is shipped.

    python -m benchmarks.condensebench --dataset fashion-mnist --work FOLDER [--processes 2] [--limit 100]
    python -m benchmarks.condensebench --dataset fashion-mnist --work FOLDER --proxies --counts
    python -m benchmarks.condensebench --dataset fashion-mnist --work FOLDER --write
    python -m benchmarks.condensebench --dataset cifar10 --work FOLDER --images PATH     (on a GPU where there is one)

Every finished training is one line of FOLDER/trainings.jsonl, on the disk before the next begins: stopped or killed at
any moment, the same command goes on, with as many processes as it is given. What the written table holds is done, too,
on whatever machine it was made. `--limit N` does the first N trainings; every beginning of their order is spread over
cost.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.arguments import at_least_one
from benchmarks.condensebench.presets import BENCHES
from benchmarks.condensebench.training import Workshop, run_all
from benchmarks.long_work import ends_clearly
from benchmarks.record import save

ROOT = Path(__file__).parents[2]
TABLES, DOCUMENT = ROOT / "search" / "replay" / "tables", ROOT / "docs" / "condensebench.md"


def main() -> None:
    options = parsed()
    bench = BENCHES[options.dataset].with_images(options.folder, options.download, options.images)
    if options.seeds is not None:
        bench = replace(bench, seeds=options.seeds)
    shop = Workshop(bench, options.work.absolute(), options.tables, options.device)
    with ends_clearly():
        make(shop, options)


def make(shop: Workshop, options: argparse.Namespace) -> None:
    if not (options.proxies or options.counts or options.write):
        run_all(shop, options.processes, options.limit)
        return
    from benchmarks.condensebench import costs, findings, table  # what training's first process never needs

    if options.proxies:
        costs.compute_proxies(shop)
    if options.counts:
        costs.count_instructions(shop)
    if options.write:
        path = table.write_table(shop)
        found = findings.findings(path)
        text = findings.as_markdown(found, table.read_about(path))
        print(f"wrote {path} and the JSON beside it\n\n{text}")
        save(f"condensebench_{shop.bench.name.replace('-', '_')}", found)
        if options.tables == TABLES and shop.bench.name == "fashion-mnist":
            findings.put_into(DOCUMENT, text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(BENCHES), default="fashion-mnist")
    parser.add_argument("--work", type=Path, required=True, help="the folder of everything that is finished")
    parser.add_argument("--processes", type=at_least_one, default=1, help="trainings at the same time, a thread each")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seeds", type=at_least_one, help="seeds of a part of the networks; 2 unless given")
    parser.add_argument("--limit", type=at_least_one, help="do only the first so many trainings")
    parser.add_argument("--proxies", action="store_true", help="compute the zero-cost proxies instead of training")
    parser.add_argument("--counts", action="store_true", help="count ARM instructions in software instead of training")
    parser.add_argument("--write", action="store_true", help="write the table as far as it is, and print its findings")
    parser.add_argument(
        "--tables", type=Path, default=TABLES, help="the table's folder, read and written; the product's"
    )
    parser.add_argument("--images", type=Path, help="an image folder (train/CLASS, test/CLASS) instead of the data set")
    parser.add_argument("--folder", type=Path, help="where torchvision's data sets are")
    parser.add_argument("--download", action="store_true", help="fetch a missing data set")
    return parser.parse_args()


if __name__ == "__main__":
    main()
