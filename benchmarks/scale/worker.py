"""A worker that trains nothing: it takes jobs and answers over the pipe of `workers.runners.process.worker_main`.

It imports nothing heavy itself, and is a fork like every worker, so 64 of them start in seconds.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from multiprocessing.connection import Connection
from typing import Any

from workers.processes import die_with_parent
from workers.runners.messages import Message, MessageKind
from workers.runners.process import WorkerPlace


def made_up_top1(config: dict[str, Any]) -> float:
    """Return an accuracy that grows with the network's size, the rest drawn from the config: fronts stay small."""
    layers, width = sum(config["stages"]), sum(config["growth"])
    size = layers * width / (config["groups"] * config["condense_factor"])
    luck = random.Random(hashlib.sha256(repr(sorted(config.items())).encode()).digest()).random()
    return size / (size + 200.0) * (0.7 + 0.3 * luck)


def instant_main(pipe: Connection, place: WorkerPlace, paused_s: Any = None) -> None:
    """Answer every job at once, until the controller sends None or goes away: one epoch's row, then the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    pipe.send((MessageKind.READY, -1, 0, os.getpid()))
    while True:
        try:
            job = pipe.recv()
            if job is None:
                return
            if isinstance(job, dict):
                for message in answers(job):
                    pipe.send(message)
        except (EOFError, OSError):
            return


def answers(job: dict[str, Any]) -> list[Message]:
    """Return what a worker sends of a trial that ends at once."""
    top1 = made_up_top1(job["config"])
    row = {
        "epoch": 1,
        "progress": 1.0,
        "train_loss": 0.1,
        "val_loss": 0.1,
        "val_top1": top1,
        "learning_rate": 0.0,
        "condensing_stage": 0,
        "form": "deployed",
        "seconds": 0.0,
    }
    result = {
        "top1": top1,
        "val_loss": 0.1,
        "macs": 0,  # the controller knows them
        "train_seconds": 0.0,
        "onnx_sha256": "0" * 64,
        "network_sha256": "0" * 64,
        "export_difference": 0.0,
        "peak_memory_mb": 0.0,
    }
    return [
        (MessageKind.CURVE, job["number"], job["attempt"], row),
        (MessageKind.DONE, job["number"], job["attempt"], result),
    ]
