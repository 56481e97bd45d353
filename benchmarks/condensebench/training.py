"""Training the networks of a table: some processes of one thread each, and one journal line for each training.

- The product's own loop trains; identical settings, seed and code give identical rows on a CPU.
- A training that is interrupted goes on from its checkpoint; one that diverged is recorded as failed, and not repeated.
- Seconds of training are the processor's where the network is trained on it: a busy or paused machine adds nothing.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.condensebench.earlier import EarlierTable, earlier_table
from benchmarks.condensebench.journal import Row, open_journal
from benchmarks.condensebench.presets import Bench, Training
from benchmarks.long_work import CurveKeeper, training_clock
from benchmarks.record import machine
from space.cost import cost_of
from space.errors import CondenseryError, TrainingFailed
from workers.images.cache import prepare
from workers.processes import interrupts_blocked
from workers.training.device import pick_device

TRAININGS = "trainings.jsonl"
CHECKPOINT_EVERY_S = 60.0
NICENESS = 10  # of a training process: others come first


@dataclass(frozen=True)
class Workshop:
    """Where a table is made: its settings, the folders of its journals and of the table, and the device of training."""

    bench: Bench
    folder: Path
    tables: Path
    device: str = "auto"

    @property
    def images(self) -> Path:
        """The folder of the decoded images."""
        return self.folder / "images"

    @cached_property
    def earlier(self) -> EarlierTable:
        """What the table already holds, from wherever it was made."""
        return earlier_table(self.bench, self.tables)


def run_all(shop: Workshop, processes: int, limit: int | None = None) -> None:
    """Do every training (the first `limit`) that neither table nor journal holds yet; print a line for each.

    Raises:
        InvalidSettings: another process does so in the same folder, or the table has other settings.
        CondenseryError: of the data or the disk; whatever was finished is recorded.
    """
    with open_journal(shop.folder / TRAININGS) as journal:
        wanted = shop.bench.trainings()[:limit]
        done = {row["identity"] for row in journal.rows()}
        left = [
            training
            for training in wanted
            if shop.bench.identity(training) not in done and not shop.earlier.holds(training)
        ]
        print(f"{len(wanted) - len(left)} of {len(wanted)} trainings of {shop.bench.name} are done", flush=True)
        if not left:
            return
        prepare(shop.bench.data, shop.images)
        seconds: list[float] = []
        for row in results(shop, left, processes):
            journal.append(row)
            shutil.rmtree(_checkpoints(shop, row["identity"]), ignore_errors=True)
            seconds.append(row["seconds"])
            remaining = len(left) - len(seconds)
            print(_line(row, len(wanted) - remaining, len(wanted), _left_s(seconds, remaining, processes)), flush=True)


def results(shop: Workshop, trainings: Sequence[Training], processes: int) -> Iterator[Row]:
    """Train in `processes` processes and yield each row as soon as it is there."""
    context = multiprocessing.get_context("spawn")  # torch doesn't survive a fork
    pipes: list[Connection] = []
    started = []
    for _ in range(min(processes, len(trainings))):
        ours, theirs = context.Pipe()
        worker = context.Process(target=worker_main, args=(theirs, shop, os.getpid()), daemon=True)
        with interrupts_blocked():
            worker.start()
        theirs.close()
        pipes.append(ours)
        started.append(worker)
    queue, working = iter(trainings), list(pipes)
    for pipe in pipes:
        pipe.send(next(queue))
    for _ in trainings:
        pipe = wait(working)[0]  # type: ignore[assignment]
        try:
            answer = pipe.recv()
        except EOFError:
            raise CondenseryError("a training process ended by itself; run the same command again to go on.") from None
        if isinstance(answer, CondenseryError):
            raise answer
        following = next(queue, None)
        pipe.send(following)
        if following is None:  # this process ends now, which is no news from the others
            working.remove(pipe)
        yield answer
    for worker in started:
        worker.join()


def worker_main(pipe: Connection, shop: Workshop, parent: int) -> None:
    """Train what the pipe asks for until it says None; end with the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for that process, which ends this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    import torch

    from workers.images.batches import load

    torch.set_num_threads(1)
    os.nice(NICENESS)
    code_version()  # of what is loaded now, whatever is checked out later
    images = load(shop.bench.data, shop.images)
    while True:
        try:
            training = pipe.recv()
        except EOFError:
            return
        if training is None:
            return
        try:
            answer: Any = trained(shop, training, images, parent)
        except CondenseryError as error:
            answer = error
        pipe.send(answer)


def trained(shop: Workshop, training: Training, images: Any, parent: int | None = None) -> Row:
    """Train one network and return its row; a training that failed has the reason instead of its figures."""
    import torch

    from workers.training import loop

    bench, began = shop.bench, time.monotonic()
    device = pick_device(shop.device)
    watch, identity = _Watch(parent), bench.identity(training)
    notes: list[str] = []
    run = loop.TrainingRun(
        config=training.config,
        training=bench.training,
        data=bench.data,
        seed=training.seed,
        checkpoints=_checkpoints(shop, identity),
        identity=identity,
        device=shop.device,
        clock=training_clock(device.type),
        checkpoint_every_s=CHECKPOINT_EVERY_S,
        note=notes.append,
    )
    try:
        network, validation = loop.train(run, images, watch)
        test = loop.evaluate(network, images.test(), images.info, device)
        figures: Row = {"top1": validation.top1, "val_loss": validation.loss, "test_top1": test.top1}
    except TrainingFailed as error:
        figures = {"failed": str(error)}
    return {
        "identity": identity,
        "config": training.config.to_dict(),
        "seed": training.seed,
        **figures,
        "curve": [asdict(row) for row in watch.rows],
        "train_seconds": watch.rows[-1].seconds if watch.rows else 0.0,
        "seconds": time.monotonic() - began,
        "code": code_version(),
        "torch": str(torch.__version__),  # its own class would bring torch into the first process
        "device": device.type,
        "cpu": machine()["cpu"],
        "run_by": run_by(notes),  # the compiled kernel, or torch: equal to rounding alone
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class _Watch(CurveKeeper):
    """Keeps the curve, and ends this process once the one that started it is gone."""

    def __init__(self, parent: int | None) -> None:
        super().__init__()
        self._parent = parent

    def before_step(self, seconds: float) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            os._exit(1)


@cache
def code_version() -> str:
    """Return the commit of the code that runs, with + if files of it were changed; "" outside a repository."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here)
    except OSError:
        return ""
    return "" if commit.returncode else commit.stdout.strip() + ("+" if changed.returncode else "")


def run_by(notes: Sequence[str]) -> str:
    """Return what a training says it is computed by: the compiled kernel, torch, …"""
    return next((note.rpartition(", by ")[2] for note in notes if note.startswith("training from step ")), "")


def _checkpoints(shop: Workshop, identity: str) -> Path:
    return shop.folder / "checkpoints" / identity[:16]


def _left_s(seconds: Sequence[float], trainings: int, processes: int) -> float:
    """Return how long so many trainings will take: the order is spread over cost, so the mean so far holds."""
    return sum(seconds) / len(seconds) * trainings / processes


def _line(row: Row, done: int, wanted: int, left_s: float) -> str:
    from space.config import CondenseNetConfig

    config = CondenseNetConfig.from_dict(row["config"])
    hours, minutes = divmod(math.ceil(left_s / 60), 60)
    result = row.get("failed") or f"top-1 {row['top1']:.4f}, test {row['test_top1']:.4f}"
    return (
        f"{done}/{wanted}  {config} seed {row['seed']}, {cost_of(config).macs / 1e6:.3f} M macs: {result} "
        f"in {row['train_seconds']:.1f} s; about {hours} h {minutes:02} min left"
    )
