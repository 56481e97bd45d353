"""One trial, end to end: images -> training with condensing -> deployed form -> accuracy -> ONNX.

Stateless: a job comes in, figures go out through a reporter, files go into the trial's own folder. A job that is run
again continues from its checkpoint, and one that had finished writes the same files again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.errors import CheckpointCorrupt, DataNotFound, OutOfMemory, TrainingFailed
from space.operator_count import fvcore_cost
from workers.export.onnx import check_onnx, save_onnx
from workers.file_names import CHECKPOINTS, LOG_FILE, NETWORK_FILE, ONNX_FILE, SETTINGS_FILE, file_for, stem_for
from workers.files import disk_errors, file_hash, write_atomically
from workers.images import batches
from workers.judging.in_int8 import Learned, write_in_int8
from workers.metrics import Predictions
from workers.processes import peak_memory_mb, reset_peak_memory
from workers.settings import NO_START
from workers.training import loop
from workers.training.checkpoint import model_tensors
from workers.training.device import check_device
from workers.training.job import TrialJob, TrialResult
from workers.training.reporting import CurveRow, ProgressReport, Reporter, TrainingStopped
from workers.training.start import StartNetwork, pin_of, without_pin


class _JobObserver:
    """Observes a training for its job: passes rows on to the reporter and enforces the time limit."""

    def __init__(self, job: TrialJob, reporter: Reporter, log: logging.Logger) -> None:
        self.job, self.reporter, self.log = job, reporter, log
        self.seconds = 0.0  # as of the last epoch

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        self.reporter.earlier(rows)

    def curve(self, row: CurveRow) -> None:
        self.log.info(
            "epoch %d: train loss %.4f, validation loss %.4f, top-1 %.4f (%s), condensing stage %d, %.1f s%s",
            *(row.epoch, row.train_loss, row.val_loss, row.val_top1, row.form, row.condensing_stage, row.seconds),
            "" if row.images_per_s is None else f", {row.images_per_s:.0f} images/s",
        )
        self.seconds = row.seconds
        self.reporter.curve(row)

    def under_way(self, report: ProgressReport) -> None:
        self.reporter.under_way(report)

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
            result = _train_and_export(job, _JobObserver(job, reporter, log), clock)
        except TrainingStopped:
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
        log.info(
            "done: top-1 %.4f, balanced accuracy %.4f, macro-F1 %.4f on validation, %d macs",
            *(result.top1, result.balanced_accuracy, result.macro_f1, result.macs),
        )
        return result


def _train_and_export(job: TrialJob, watch: _JobObserver, clock: Callable[[], float]) -> TrialResult:
    check_device(job.device)
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
        attempt=job.attempt,
        device=job.device,
        kernel=job.kernel,
        recompute=job.recompute,
        clock=clock,
        note=watch.log.info,
        checkpoint_every_s=job.checkpoint_every_s,
        start=_start_of(job),
    )
    network, evaluation = loop.train(run, images, watch)
    network = network.cpu()
    counted = fvcore_cost(network, job.config.input_shape)
    if counted != cost_of(job.config):
        raise TrainingFailed(f"the deployed network costs {counted}, but its config promises {cost_of(job.config)}.")
    _check_newest(job)
    network_sha256 = write_atomically(folder / NETWORK_FILE, safetensors.torch.save(model_tensors(network)))
    onnx_sha256 = save_onnx(network, folder / ONNX_FILE)
    difference = check_onnx(folder / ONNX_FILE, network)
    judged = evaluation.predictions if not job.int8_for else _said_in_int8(job, network, images, evaluation.top1, watch)
    # The checkpoints stay until the result is recorded: a crash before that must not cost a training.
    return TrialResult(
        top1=float(judged.right.mean()),
        val_loss=evaluation.loss,
        macs=counted.macs,
        train_seconds=watch.seconds,
        onnx_sha256=onnx_sha256,
        network_sha256=network_sha256,
        export_difference=difference,
        peak_memory_mb=peak_memory_mb(),
        **{name: value for name, value in judged.metrics().items() if name != "top1"},
        predictions=_in_base64(judged),
        fp32_predictions=_in_base64(evaluation.predictions) if job.int8_for else None,
    )


def _in_base64(predictions: Predictions) -> str:
    return base64.b64encode(predictions.to_bytes()).decode()


def _said_in_int8(
    job: TrialJob, network: DeployedCondenseNet, images: batches.ImageData, top1: float, watch: _JobObserver
) -> Predictions:
    """Return what a network's file in 8 bits says of the validation images; `top1` is that of the network in fp32."""
    learned = Learned(images, job.data, job.training, job.number, top1)
    with tempfile.TemporaryDirectory(prefix="int8-", dir=job.folder) as scratch:
        path = Path(scratch) / file_for(job.int8_for, stem_for("int8"))
        written = write_in_int8(network, learned, job.int8_for, path, watch.log.info)
    watch.log.info("in 8 bits for %s: top-1 %.4f, of fp32's %.4f", job.int8_for, written.top1, top1)
    return written.predictions


def _start_of(job: TrialJob) -> StartNetwork | None:
    """Return the network that a job starts from, which is the one that its settings name.

    Raises:
        DataNotFound: its file is gone, or another.
    """
    if job.training.start == NO_START:
        return None
    try:
        start = StartNetwork.of_file(Path(job.start).read_bytes())
        if start.pin == pin_of(job.training.start):
            return start
        reason = "is another"
    except (OSError, CheckpointCorrupt) as error:
        reason = f"can't be read ({error.strerror if isinstance(error, OSError) else error})"
    raise DataNotFound(
        f"the file {job.start} of the network that training.start names {reason}; go on with `launch --resume` while "
        f"{without_pin(job.training.start)} is there, or launch another study."
    )


def _check_newest(job: TrialJob) -> None:
    """Raise TrainingFailed if a later attempt has begun meanwhile: this worker was frozen, and the files are another's.

    Every attempt begins by writing its job into the trial's folder.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        newest = int(json.loads((Path(job.folder) / SETTINGS_FILE).read_text())["attempt"])
        if newest > job.attempt:
            raise TrainingFailed(f"attempt {newest} of this trial began while attempt {job.attempt} was frozen.")


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


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text.lower()


class _TrialLog(logging.FileHandler):
    """A log file that drops lines for which there is no space: a full disk ends a trial where its own files meet it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore errors of the disk, where logging would print a traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def _log_file(path: Path) -> Iterator[logging.Logger]:
    """Yield a logger that appends to this trial's file and to nothing else; closed at the end."""
    log = logging.Logger(f"condensery.trial.{path.parent.name}")  # not registered, so it is gone with the trial
    with disk_errors(path):
        handler = _TrialLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            handler.close()
