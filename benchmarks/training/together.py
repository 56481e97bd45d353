"""Two small trainings at a time: in two processes, as a study runs them, or in two threads of one.

    python -m benchmarks.training.together [--epochs 10] [--rounds 3]

Both train the same two digits-sized networks with a thread each, interleaved. Seconds are the wall's, from the first
step on, without imports; memory is what the processes hold at their end, together. Two trainings in one process draw
from torch's same random numbers, so that neither need repeat bit by bit: it says how many accuracies are the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.long_work import CurveKeeper
from benchmarks.record import save
from benchmarks.training.worker import resident_mb
from space.search_space import SearchSpace
from workers.images.batches import ImageData, load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training import loop

NETWORKS = 2


def _train(number: int, images: ImageData, folder: Path, epochs: int) -> float:
    config = SearchSpace.preset("digits").sample(np.random.default_rng(number))
    run = loop.TrainingRun(
        config, TrainingSettings(epochs=epochs), DataSettings(), number, folder / f"{number}", "", device="cpu"
    )
    return loop.train(run, images, CurveKeeper())[1].top1


def _in_process(number: int, cache: Path, folder: Path, epochs: int, barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    images = load(DataSettings(), cache)
    barrier.wait()
    results.put((number, _train(number, images, folder, epochs), resident_mb()))


def in_processes(cache: Path, epochs: int) -> tuple[float, float, list[float]]:
    """Return seconds, resident MB and the networks' accuracies of trainings in a process each."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(NETWORKS + 1), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_in_process, args=(number, cache, Path(folder), epochs, barrier, results))
            for number in range(NETWORKS)
        ]
        for process in processes:
            process.start()
        barrier.wait()
        begin = time.perf_counter()
        found = sorted(results.get() for _ in processes)
        seconds = time.perf_counter() - begin
        for process in processes:
            process.join()
    return seconds, sum(row[2] for row in found), [row[1] for row in found]


def _threads(cache: Path, folder: Path, epochs: int, results: Any) -> None:
    torch.set_num_threads(1)
    images = load(DataSettings(), cache)
    accuracies = [0.0] * NETWORKS

    def one(number: int) -> None:
        torch.set_num_threads(1)
        accuracies[number] = _train(number, images, folder, epochs)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(NETWORKS)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((time.perf_counter() - begin, resident_mb(), accuracies))


def in_threads(cache: Path, epochs: int) -> tuple[float, float, list[float]]:
    """Return seconds, resident MB and the networks' accuracies of trainings in a thread each."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_threads, args=(cache, Path(folder), epochs, results))
        process.start()
        found: tuple[float, float, list[float]] = results.get()
        process.join()
    return found


def main() -> None:
    """Compare them and save the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "images")
        prepare(DataSettings(), cache)
        for number in range(options.rounds):
            apart, together = in_processes(cache, options.epochs), in_threads(cache, options.epochs)
            same = sum(one == other for one, other in zip(apart[2], together[2], strict=True))
            rows.append({"processes_s": apart[0], "threads_s": together[0], "processes_mb": apart[1]})
            rows[-1] |= {"threads_mb": together[1], "same_accuracies": same}
            print(
                f"round {number + 1}: two processes {apart[0]:.1f} s and {apart[1]:.0f} MB, two threads "
                f"{together[0]:.1f} s and {together[1]:.0f} MB; {same} of {NETWORKS} accuracies are the same",
                flush=True,
            )
    ratio = statistics.median(row["threads_s"] / row["processes_s"] for row in rows)
    print(f"two threads take {ratio:.2f} times the seconds of two processes (median of {len(rows)} rounds)")
    save("training_together", {"epochs": options.epochs, "rounds": rows, "threads_to_processes": ratio})


if __name__ == "__main__":
    main()
