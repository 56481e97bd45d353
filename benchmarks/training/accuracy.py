"""The accuracy of whole trainings on the digits, plain and ours, from the same weights and on the same batches."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.steps import NETWORKS, Schedule, one_step, prepared
from space.deployed import deploy
from space.network import CondenseNet
from workers.images.batches import ImageData, TrainingBatches, load
from workers.images.cache import prepare
from workers.settings import DataSettings
from workers.training.loop import evaluate

EPOCHS = 20
NETWORK = "digits-sized"


def accuracies(seeds: int) -> dict[str, Any]:
    """Train with `seeds` seeds by the peer and by ours; print and return the deployed networks' top-1 on validation."""
    torch.set_num_threads(1)
    settings = DataSettings()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        prepare(settings, cache)
        images = load(settings, cache)
        top1 = {form: [_top1(form, seed, images) for seed in range(seeds)] for form in ("plain", "ours")}
    differences = [ours - plain for ours, plain in zip(top1["ours"], top1["plain"], strict=True)]
    spread = statistics.stdev(top1["plain"]) if seeds > 1 else 0.0
    print(
        f"\ndigits, {EPOCHS} epochs, {seeds} seeds: {_listed(top1['plain'])} plain, {_listed(top1['ours'])} ours\n"
        f"mean difference {100 * statistics.mean(differences):+.2f} points, deviation between seeds {100 * spread:.2f}"
    )
    return {"top1": top1, "mean_difference": statistics.mean(differences), "deviation_between_seeds": spread}


def _top1(form: str, seed: int, images: ImageData) -> float:
    schedule = Schedule(NETWORK, form, steps=0, seed=seed)
    network, forward, condense, optimizer = prepared(schedule, NETWORKS[NETWORK])
    batches = TrainingBatches(images.train, images.info, DataSettings(), schedule.batch, seed)
    steps = EPOCHS * batches.steps_per_epoch
    for step in range(steps):
        condense(step / steps)
        one_step(schedule, forward, optimizer, batches.batch(step), step / steps)
    trained = CondenseNet(NETWORKS[NETWORK])
    trained.load_state_dict(network.state_dict())
    trained.condense(1.0)
    return evaluate(deploy(trained.eval()), images.validation, images.info, torch.device("cpu")).top1


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
