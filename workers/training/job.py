"""One trial as plain values: the job that a worker is given, and the result that comes back.

No torch here, because the controller and the engines hand jobs on without training anything.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from space.config import CondenseNetConfig
from workers.settings import DataSettings, Kernel, TrainingSettings


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
    cache: str  # where `workers.images.cache.prepare` put the images
    device: str = "auto"
    kernel: Kernel = "auto"
    recompute: bool = False
    time_limit_s: float | None = None  # of training, over all attempts
    checkpoint_every_s: float = 30.0
    epochs_before: int = 0  # of a trial that it continues, whose checkpoint is in its folder; for engines without files
    data_fingerprint: str = ""  # of the images the study began with; "" accepts any images
    int8_for: str = ""  # the runtime whose file in 8 bits the trial is judged by; "": the network in fp32
    start: str = ""  # the file of the network that it starts from (`workers.training.start`); "" for random weights

    @property
    def identity(self) -> str:
        """SHA-256 of everything that decides the result: two trials with the same identity are duplicates."""
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
    """Return the SHA-256 of (config, training settings, data settings without where the files are, seed)."""
    parts = json.dumps([config.digest, settings.digest(), images.of_content().digest(), seed])
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True)
class TrialResult:
    """What a finished trial reports; accuracy and cost are the deployed network's, on the validation split."""

    top1: float
    val_loss: float
    macs: int  # counted by fvcore on the deployed network
    train_seconds: float
    onnx_sha256: str  # "" where no file was written: a replayed trial
    network_sha256: str
    export_difference: float  # ONNX against torch, as a fraction of the largest logit
    peak_memory_mb: float | None  # None where it isn't known
    balanced_accuracy: float | None = None  # None where only top-1 is known, as in a table that is replayed
    macro_f1: float | None = None
    top5: float | None = None  # None with fewer than 10 classes as well
    calibration_error: float | None = None
    predictions: str | None = None  # of the validation images: `workers.metrics.Predictions` as bytes, in base64
    fp32_predictions: str | None = None  # of the network in fp32, where all figures are those of its file in 8 bits

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
