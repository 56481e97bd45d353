"""What runs in processes of its own: the searches, and the networks that both loops train."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.condensebench.journal import Row, open_journal, read_rows
from benchmarks.headline.form import OURS, images_of, prepared_settings
from benchmarks.long_work import CurveKeeper, ends_clearly
from space.config import CondenseNetConfig
from space.cost import cost_of


def as_peer(work: Path, seed: int, name: str, trainings: int) -> None:
    """Search as a peer does, or go on, until so many trainings are in the journal."""
    from benchmarks.headline import peer

    with ends_clearly():
        peer.search(work, seed, name, trainings)


def by_launch(work: Path, seed: int) -> None:
    """Launch the seed's study, or go on with it."""
    from benchmarks.headline import launching

    with ends_clearly():
        launching.search(work, seed, prepared_settings(work, seed))


def same_by_both(work: Path, count: int) -> None:
    """Train some of the first seed's networks, spread over macs, by both loops; a line of a journal for each."""
    import torch

    from benchmarks.headline.peer import journal_of

    torch.set_num_threads(1)
    rows = sorted(read_rows(journal_of(work, 0, OURS)), key=lambda row: (row["macs"], row["network"]))
    places = [round((place + 0.5) * len(rows) / count - 0.5) for place in range(count)]
    with ends_clearly(), open_journal(work / "same.jsonl") as journal:
        done = len(journal.rows())
        for place in places[done:]:
            journal.append(_by_both(work, CondenseNetConfig.from_dict(rows[place]["config"])))


def _by_both(work: Path, config: CondenseNetConfig) -> Row:
    """Train a config by the plain loop and by the product's; print and return what each took."""
    from benchmarks.headline.peer import plain_training
    from workers.images.batches import load
    from workers.settings import TrainingSettings
    from workers.training.loop import TrainingRun, train

    settings = prepared_settings(work, 0)
    images = load(settings.data, images_of(work, settings))
    begin = time.process_time()
    plain_top1 = plain_training(config, settings, images, 0)
    between = time.process_time()
    recipe = TrainingSettings.model_validate(settings.training)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(config, recipe, settings.data, 0, Path(folder), "same", clock=time.process_time)
        ours_top1 = train(run, images, CurveKeeper())[1].top1
    plain_s, ours_s = between - begin, time.process_time() - between
    print(f"{config} by both loops: {plain_s:.1f} s plain, {ours_s:.1f} s ours", flush=True)
    row: Row = {"network": config.digest, "macs": cost_of(config).macs, "plain_s": plain_s, "ours_s": ours_s}
    return row | {"plain_top1": plain_top1, "ours_top1": ours_top1}
