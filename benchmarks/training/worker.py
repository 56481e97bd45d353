"""The memory of one worker process from trial to trial: real trials, one after another, as a study runs them."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

from space.search_space import SearchSpace


def worker_memory(trials: int) -> dict[str, float]:
    """Run so many short trials of the digits' space in one process; print and return its resident memory in MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_trials, args=(trials, theirs))
    process.start()
    theirs.close()
    resident = [ours.recv() for _ in range(trials)]
    process.join()
    fifth = max(trials // 5, 1)
    row = {
        "trials": trials,
        "after_the_first_fifth_mb": max(resident[:fifth]),
        "after_the_last_fifth_mb": max(resident[-fifth:]),
    }
    print(
        f"\na worker's resident memory: at most {row['after_the_first_fifth_mb']:.0f} MB over its first {fifth} "
        f"trials, {row['after_the_last_fifth_mb']:.0f} MB over its last {fifth} of {trials}"
    )
    return row


def _run_trials(trials: int, pipe: Any) -> None:
    import numpy as np
    import torch

    from workers.images.cache import prepare
    from workers.settings import DataSettings, TrainingSettings
    from workers.training.job import TrialJob
    from workers.training.trial import run_trial

    torch.set_num_threads(1)
    space, rng, data = SearchSpace.preset("digits"), np.random.default_rng(0), DataSettings()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "images")
        prepare(data, cache)
        for number in range(trials):
            job = TrialJob(
                study="memory",
                number=number,
                attempt=1,
                config=space.sample(rng),
                training=TrainingSettings(epochs=1),
                data=data,
                seed=number,
                folder=str(Path(folder, str(number))),
                cache=str(cache),
                device="cpu",
            )
            run_trial(job, _Silent())
            pipe.send(resident_mb())


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


class _Silent:
    """A reporter that keeps and prints nothing."""

    def earlier(self, rows: Any) -> None: ...

    def under_way(self, report: Any) -> None: ...

    def curve(self, row: Any) -> None: ...

    def check(self) -> None: ...
