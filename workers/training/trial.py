"""One trial, end to end: images -> training with condensing -> deployed form -> accuracy -> ONNX.

Stateless: a job comes in, figures go out through a reporter, files go into the trial's own folder. Running the same job
again goes on from its checkpoint, and a job that had finished writes the same files again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.errors import CheckpointCorrupt, DataNotFound, OutOfMemory, TrainingFailed
from space.operator_count import fvcore_cost
from workers.export.onnx import check_onnx, save_onnx
from workers.file_names import CHECKPOINTS, LOG_FILE, NETWORK_FILE, ONNX_FILE, SETTINGS_FILE
from workers.files import disk_errors, file_hash, write_atomically
from workers.images import batches
from workers.settings import DataSettings, TrainingSettings
from workers.training import loop
from workers.training.checkpoint import model_tensors


@dataclass(frozen=True)
class TrialJob:
    """Everything a worker needs to run one trial; plain values, so that it can cross any process boundary."""

    study: str
    number: int
    attempt: int
    config: CondenseNetConfig
    training: TrainingSettings
    data: DataSettings
    seed: int
    folder: str  # of this trial's files
    cache: str  # where `batches.prepare` put the images
    device: str = "auto"
    time_limit_s: float | None = None  # of training, over all attempts
    checkpoint_every_s: float = 30.0
    data_fingerprint: str = ""  # of the images the study began with; "" trusts what is there

    @property
    def identity(self) -> str:
        """SHA-256 of what decides the result: two trials with the same identity are duplicates."""
        return trial_identity(self.config, self.training, self.data, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {
            "config": self.config.to_dict(),
            "training": self.training.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrialJob:
        """Build from `to_dict`'s form."""
        return cls(
            **values
            | {
                "config": CondenseNetConfig.from_dict(values["config"]),
                "training": TrainingSettings.model_validate(values["training"]),
                "data": DataSettings.model_validate(values["data"]),
            }
        )


def trial_identity(config: CondenseNetConfig, settings: TrainingSettings, images: DataSettings, seed: int) -> str:
    """Return the SHA-256 of (config, training settings, data settings but for their whereabouts, seed)."""
    parts = json.dumps([config.digest, settings.digest(), images.of_content().digest(), seed])
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True)
class TrialResult:
    """What a finished trial reports; accuracy and cost are the deployed network's."""

    top1: float  # on the validation split
    val_loss: float
    macs: int  # counted by fvcore on the deployed network
    train_seconds: float
    onnx_sha256: str
    network_sha256: str
    export_difference: float  # ONNX against torch, as a fraction of the largest logit
    peak_memory_mb: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class Reporter(Protocol):
    """The way back from a worker: the seam every engine implements."""

    def earlier(self, rows: Sequence[loop.CurveRow]) -> None:
        """Report the epochs of the checkpoint that the trial goes on from, in case an earlier report was lost."""

    def curve(self, row: loop.CurveRow) -> None:
        """Report one epoch."""

    def check(self) -> None:
        """Raise `loop.TrainingStopped` when the controller asked to stop, `TrainingFailed` when it cancelled."""


class _Watch:
    """Observes a training for a job: passes rows on, enforces the time limit."""

    def __init__(self, job: TrialJob, reporter: Reporter, log: logging.Logger) -> None:
        self.job, self.reporter, self.log = job, reporter, log
        self.seconds = 0.0  # as of the last epoch

    def earlier(self, rows: Sequence[loop.CurveRow]) -> None:
        self.reporter.earlier(rows)

    def curve(self, row: loop.CurveRow) -> None:
        self.log.info(
            "epoch %d: train loss %.4f, validation loss %.4f, top-1 %.4f (%s), condensing stage %d, %.1f s",
            *(row.epoch, row.train_loss, row.val_loss, row.val_top1, row.form, row.condensing_stage, row.seconds),
        )
        self.seconds = row.seconds
        self.reporter.curve(row)

    def before_step(self, seconds: float) -> None:
        limit = self.job.time_limit_s
        if limit is not None and seconds > limit:
            raise TrainingFailed(f"the training passed its time limit of {limit:g} s; raise limits.trial_time_s.")
        self.reporter.check()


def run_trial(job: TrialJob, reporter: Reporter, clock: Callable[[], float] = time.monotonic) -> TrialResult:
    """Run one trial to its end; `clock` counts the seconds of training.

    Raises:
        TrainingStopped: asked to stop; the checkpoint holds every step done.
        TrainingFailed: NaN loss, time limit; the message is the reason to record. OutOfMemory: the same, of memory.
        CondenseryError: data or disk errors, each with its own class.
    """
    folder = Path(job.folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    reset_peak_memory()
    with _log_file(folder / LOG_FILE) as log:
        log.info("trial %d of %s, attempt %d: %s", job.number, job.study, job.attempt, job.config)
        try:
            result = _run(job, _Watch(job, reporter, log), clock)
        except loop.TrainingStopped:
            log.info("stopped on request; a checkpoint was kept")
            raise
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                log.exception("failed")
                raise
            log.exception("out of memory")
            raise OutOfMemory(f"out of memory (batch size {job.training.batch_size})") from error
        except Exception:
            log.exception("failed")
            raise
        log.info("done: top-1 %.4f on validation, %d macs", result.top1, result.macs)
        return result


def _run(job: TrialJob, watch: _Watch, clock: Callable[[], float]) -> TrialResult:
    folder = Path(job.folder)
    write_atomically(folder / SETTINGS_FILE, json.dumps(job.to_dict(), indent=1).encode())
    images = batches.load(job.data, Path(job.cache))
    if job.data_fingerprint not in ("", images.info.fingerprint):
        raise DataNotFound(
            f"the images of {job.data.dataset} are not those this study began with; put them back, or launch another."
        )
    run = loop.TrainingRun(
        config=job.config,
        training=job.training,
        data=job.data,
        seed=job.seed,
        checkpoints=folder / CHECKPOINTS,
        identity=job.identity,
        device=job.device,
        clock=clock,
        note=watch.log.info,
        checkpoint_every_s=job.checkpoint_every_s,
    )
    network, evaluation = loop.train(run, images, watch)
    network = network.cpu()
    counted = fvcore_cost(network, job.config.input_shape)
    if counted != cost_of(job.config):
        raise TrainingFailed(f"the deployed network costs {counted}, but its config promises {cost_of(job.config)}.")
    network_sha256 = write_atomically(folder / NETWORK_FILE, safetensors.torch.save(model_tensors(network)))
    onnx_sha256 = save_onnx(network, folder / ONNX_FILE)
    difference = check_onnx(folder / ONNX_FILE, network)
    # The checkpoints stay until the result is recorded: a crash before that must not cost a training.
    return TrialResult(
        top1=evaluation.top1,
        val_loss=evaluation.loss,
        macs=counted.macs,
        train_seconds=watch.seconds,
        onnx_sha256=onnx_sha256,
        network_sha256=network_sha256,
        export_difference=difference,
        peak_memory_mb=peak_memory_mb(),
    )


def load_network(folder: Path, config: CondenseNetConfig, sha256: str | None = None) -> DeployedCondenseNet:
    """Load a finished trial's deployed network from its safetensors file.

    Raises:
        CheckpointCorrupt: the file is missing or is not the one that was recorded.
    """
    path = folder / NETWORK_FILE
    if not path.exists():
        raise CheckpointCorrupt(f"{path} is missing; the trial's files were moved or removed.")
    if sha256 is not None and file_hash(path) != sha256:
        raise CheckpointCorrupt(f"{path} is not the file that was recorded (its SHA-256 differs).")
    network = DeployedCondenseNet(config)
    network.load_state_dict(safetensors.torch.load_file(path))
    return network.requires_grad_(False).eval()


def reset_peak_memory() -> None:
    """Begin a new peak for `peak_memory_mb`, where the system can (Linux: proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Return this process's largest resident memory in MB, since `reset_peak_memory` or else since its start."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text.lower()


class _Lines(logging.FileHandler):
    """Passes over lines for which there is no space: what the trial's own files meet is what ends it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Do nothing of what the disk says, where logging would print a traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def _log_file(path: Path) -> Iterator[logging.Logger]:
    """Give a logger that appends to this trial's file and to nothing else; closed at the end."""
    log = logging.Logger(f"condensery.trial.{path.parent.name}")  # not registered: it goes with the trial
    with disk_errors(path):
        handler = _Lines(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            handler.close()
