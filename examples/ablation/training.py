"""Training the plan's networks by the product's own loop, one after the other: a journal line for each that is done.

Whatever is killed, the same command goes on; what it loses is the training that was under way. On a CPU, equal
settings, seeds and code give equal rows, so it doesn't matter where it was interrupted.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.condensebench.journal import Row, open_journal, read_rows
from benchmarks.long_work import CurveKeeper, training_clock
from examples.ablation.plan import LINES, Plan, Training
from space.errors import TrainingFailed
from workers.images.batches import ImageData, load
from workers.images.cache import prepare
from workers.training import loop
from workers.training.device import pick_device

TRAININGS = "trainings.jsonl"


@dataclass(frozen=True)
class Work:
    """A plan, how often it is repeated, and the folder that everything finished is in."""

    plan: Plan
    seeds: int
    folder: Path

    def rows(self) -> dict[str, Row]:
        """Return what is recorded of this work's trainings, by identity."""
        wanted = {self.plan.identity(training) for training in self.plan.trainings(self.seeds)}
        return {row["identity"]: row for row in read_rows(self.folder / TRAININGS) if row["identity"] in wanted}


def run_all(work: Work, device: str = "auto") -> None:
    """Do every training that the journal doesn't hold yet; print an estimate first, then a line for each.

    Raises:
        InvalidSettings: another process does so in the same folder.
        CondenseryError: of the data or the disk; whatever was finished is recorded.
    """
    torch.set_num_threads(1)  # networks this small are fastest on one, and it gives the same bits everywhere
    with open_journal(work.folder / TRAININGS) as journal:
        wanted, done = work.plan.trainings(work.seeds), work.rows()
        left = [training for training in wanted if work.plan.identity(training) not in done]
        print(f"{len(wanted) - len(left)} of {len(wanted)} trainings are done", flush=True)
        if not left:
            return
        prepare(work.plan.data, work.folder / "images")
        images = load(work.plan.data, work.folder / "images")
        expected = expected_seconds(work, left, images, device)
        print(f"the others will take about {minutes(sum(expected))} on this machine, on one core", flush=True)
        spent = 0.0
        for number, training in enumerate(left, 1):
            row = trained(work, training, images, device)
            journal.append(row)
            shutil.rmtree(_checkpoints(work, row["identity"]), ignore_errors=True)
            spent += row["seconds"]
            remaining = sum(expected[number:]) * spent / sum(expected[:number])
            print(f"{len(done) + number}/{len(wanted)}  {_line(training, row)}; {minutes(remaining)} left", flush=True)


def trained(work: Work, training: Training, images: ImageData, device: str) -> Row:
    """Train one network and return its row; a training that failed has the reason instead of its accuracy.

    The test images judge it: there are more of them than of validation images, and no network is chosen by them.
    """
    plan, watch, identity = work.plan, CurveKeeper(), work.plan.identity(training)
    clock = training_clock(pick_device(device).type)
    began = clock()
    run = loop.TrainingRun(
        config=training.config,
        training=plan.training,
        data=plan.data,
        seed=training.seed,
        checkpoints=_checkpoints(work, identity),
        identity=identity,
        device=device,
        build=training.variation.build,
        deploy=training.variation.deploy,
        clock=clock,
    )
    figures: Row
    try:
        network, _ = loop.train(run, images, watch)
        train_seconds = clock() - began
        test = loop.evaluate(network, images.test(), images.info, pick_device(device))
        figures = {"test_top1": test.top1, "train_loss": watch.rows[-1].train_loss}
    except TrainingFailed as error:
        figures, train_seconds = {"failed": str(error)}, clock() - began
    return {
        "identity": identity,
        "line": training.line,
        "config": training.config.to_dict(),
        "seed": training.seed,
        "macs": training.cost.macs,
        **figures,
        "train_seconds": train_seconds,
        "seconds": clock() - began,
    }


def expected_seconds(work: Work, trainings: Sequence[Training], images: ImageData, device: str) -> list[float]:
    """Return about how long each training takes: a line through an epoch of the cheapest and one of the costliest."""
    by_macs = {_macs_in_training(training): training for training in trainings}
    least, most = min(by_macs), max(by_macs)
    one_epoch = replace(work.plan, training=work.plan.training.model_copy(update={"epochs": 1}))
    seconds = []
    for macs in (least, least, most):  # the first one also loads what all need
        with tempfile.TemporaryDirectory() as folder:
            row = trained(replace(work, plan=one_epoch, folder=Path(folder)), by_macs[macs], images, device)
        seconds.append(work.plan.training.epochs * row["train_seconds"] + row["seconds"] - row["train_seconds"])
    _, low, high = seconds
    slope = (high - low) / (most - least) if most > least else 0.0
    return [low + slope * (_macs_in_training(training) - least) for training in trainings]


def _macs_in_training(training: Training) -> int:
    """Return the macs of the network while every group has all of its inputs."""
    return training.variation.cost(replace(training.config, condense_factor=1)).macs


def _checkpoints(work: Work, identity: str) -> Path:
    return work.folder / "checkpoints" / identity[:16]


def minutes(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{math.ceil(seconds)} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"


def _line(training: Training, row: dict[str, Any]) -> str:
    result = row.get("failed") or f"test top-1 {row['test_top1']:.4f}"
    return (
        f"{LINES[training.line].label}: {training.config}, seed {training.seed}, {row['macs'] / 1e6:.3f} M macs: "
        f"{result} in {row['seconds']:.1f} s"
    )
