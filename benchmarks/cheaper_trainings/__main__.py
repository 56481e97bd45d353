"""Which cheaper trainings rank networks as the full training does, and what they save.

    python -m benchmarks.cheaper_trainings --work FOLDER [--networks 30] [--folder DATA]

Networks of CondenseBench's Fashion-MNIST space, spread over cost, each beside a neighbour one parameter step away, so
that each can start from the other's weights; the cheapest come first. Every finished training is a line of
FOLDER/trainings.jsonl; stopped at any moment, the same command goes on. At the end, or with `--write` as far as it is,
the comparison is printed and saved.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.cheaper_trainings.comparing import compare, complete, lines
from benchmarks.cheaper_trainings.variants import STATES, VARIANTS, Trainer
from benchmarks.condensebench.journal import Journal, open_journal, read_rows
from benchmarks.condensebench.presets import BENCHES, Bench
from benchmarks.long_work import ends_clearly
from benchmarks.record import save
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings, TrainingFailed
from space.search_space import SearchSpace

LEAST = 4  # networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of everything that is finished")
    parser.add_argument("--networks", type=int, default=30, help="how many; an even number")
    parser.add_argument("--folder", type=Path, help="where torchvision's data sets are")
    parser.add_argument("--write", action="store_true", help="train nothing; compare the networks that are finished")
    options = parser.parse_args()
    if options.networks < LEAST or options.networks % 2:
        parser.error(f"--networks must be even and at least {LEAST}, but got {options.networks}")
    torch.set_num_threads(1)
    bench = BENCHES["fashion-mnist"].with_images(options.folder, False, None)
    with ends_clearly():
        if not options.write:
            run(bench, options.work.absolute(), options.networks)
        write(bench, options.work.absolute())


def run(bench: Bench, folder: Path, networks: int) -> None:
    """Train what isn't trained yet, the cheapest networks first."""
    trainer = Trainer(bench, folder)
    chosen = sorted(pairs(bench, networks // 2), key=lambda pair: sum(cost_of(config).macs for config in pair))
    with open_journal(folder / "trainings.jsonl") as journal:
        for number, pair in enumerate(chosen, 1):
            train_pair(trainer, pair, journal)
            print(f"{number} of {len(chosen)} pairs; {time.process_time():.0f} s of processor time", flush=True)


def write(bench: Bench, folder: Path, name: str = "cheaper_trainings") -> None:
    """Print and save the comparison of the networks that every variant has trained."""
    trained = complete(read_rows(folder / "trainings.jsonl"))
    if len(trained.macs) < LEAST:
        raise InvalidSettings(f"a comparison needs {LEAST} finished networks, but {folder} holds {len(trained.macs)}.")
    table = compare(trained)
    print("\n".join(lines(table)))
    costs = {"networks": len(trained.macs), "macs": [trained.macs.min(), trained.macs.max()]}
    save(name, costs | {"epochs": bench.training.epochs, "data": bench.data.model_dump(), "table": table})


def pairs(bench: Bench, count: int) -> list[tuple[CondenseNetConfig, CondenseNetConfig]]:
    """Return networks spread over cost, each with a neighbour; no network twice.

    Which of its parameters differs goes round, so the neighbours differ in all of them.
    """
    space = SearchSpace.from_settings(bench.space)
    chosen: list[tuple[CondenseNetConfig, CondenseNetConfig]] = []
    taken: set[CondenseNetConfig] = set()
    for config in bench.configs():
        free = [other for other in space.neighbours(config) if other not in taken]
        if len(chosen) < count and config not in taken and free:
            neighbour = free[len(chosen) % len(free)]
            chosen.append((config, neighbour))
            taken |= {config, neighbour}
    return chosen


def train_pair(trainer: Trainer, pair: tuple[CondenseNetConfig, CondenseNetConfig], journal: Journal) -> None:
    """Do every training of two neighbours that the journal lacks; their full trainings come first."""
    done = {(row["variant"], row["digest"]) for row in journal.rows()}
    for variant in VARIANTS:
        for config, donor in (pair, pair[::-1]):
            if (variant.name, config.digest) in done:
                continue
            try:
                row = trainer.train(variant, config, donor)
            except TrainingFailed as error:
                row = {"variant": variant.name, "config": config.to_dict(), "digest": config.digest}
                row["failed"] = str(error)
            journal.append(row)
    for config in pair:  # no other network starts from them
        for state in STATES:
            trainer.weights(config, state).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
