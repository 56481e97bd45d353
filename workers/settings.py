"""What a study file says about data and training, as frozen pydantic models.

Every model refuses keys it doesn't know. A value that a search may vary (learning rate, epochs, ...) is fixed
here; `TrainingSpace` in `workers.training.training_space` is the searchable form of `TrainingSettings`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Kernel = Literal["auto", "compiled", "torch"]  # how trainings run: see `workers.training.forward`
NO_START = "none"
# What a training may start from: a trial, of this database or of a file, or a bundle; then the network's own hash.
START = re.compile(
    r"(?:trial:(?P<study>[^/]+)/(?P<trial>\d{1,9})(?:@(?P<database>.+?))?|bundle:(?P<bundle>.+?))(?:#(?P<pin>[0-9a-f]{16}))?"
)


class Settings(BaseModel):
    """Base of all settings: frozen, hashable by content, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON: equal exactly when all values are."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _new(default: Any, **limits: Any) -> Any:
    """Return a field that is left out of what is written and hashed while it has its default.

    Studies from before the setting keep their identities so.
    """
    return Field(default=default, exclude_if=lambda value: value == default, **limits)


class DataSettings(Settings):
    """Which images, at which size, split how.

    `dataset` is `digits`, `fashion-mnist`, `cifar10`, `cifar100`, `imagefolder:PATH`, `manifest:PATH` or
    `python:MODULE:FUNCTION`. Splits that were made by hand are used as they are; others are held out of the training
    images, stratified by class, by `split_seed`. `images` is the most training images that are used, validation
    included.
    """

    dataset: str = "digits"
    folder: str = "data"  # where torchvision data sets are looked for and downloaded to
    download: bool = False  # fetch a missing torchvision data set
    image_size: int | None = Field(default=None, ge=4, le=1024)  # pixels; None = the data set's own (imagefolder: 32)
    channels: Literal[1, 3] | None = None  # None = the data set's own
    validation_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)  # only where the data set has no test split
    images: int | None = _new(None, ge=2)  # see `splits.place`
    split_seed: int = Field(default=0, ge=0)
    crop_padding: int | None = Field(default=None, ge=0, le=64)  # random crop; None = the data set's usual
    flip: bool | None = None  # random horizontal flip; None = the data set's usual
    folds: int | None = _new(None, ge=2, le=20)  # k-fold: the validation split is one of so many parts
    fold: int = _new(0, ge=0, lt=20)  # which of the parts
    group: str | None = _new(None)  # a manifest's column, or "folder": what must be on one side of every split
    bits: Literal[8, 16] | None = _new(None)  # of a pixel; None = 16 where any image has 16-bit greys
    range: tuple[float, float] | None = _new(None)  # the pixels that are black and white; None = see `pixel_values`
    with_validation: bool = _new(False)  # train on the validation images as well: for a network that is chosen already
    unreadable: Literal["error", "skip"] = _new("error")  # what is done about files that can't be read
    unreadable_most: float = _new(0.05, ge=0.0, lt=1.0)  # the largest share of the files that may be skipped

    @model_validator(mode="after")
    def _check_fold(self) -> DataSettings:
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold must be below folds, {self.folds or 'which is not set'}, but got {self.fold}")
        return self

    @model_validator(mode="after")
    def _check_range(self) -> DataSettings:
        if self.range is not None and not 0 <= self.range[0] < self.range[1] <= 65_535:
            raise ValueError(f"range must be [low, high] with 0 <= low < high <= 65535, but got {list(self.range)}")
        return self

    def of_content(self) -> DataSettings:
        """Return the settings without what doesn't decide which images are used: where they are, and a download.

        Whether a moved image folder has the same images, the fingerprint of what was decoded says.
        """
        plain, (kind, colon, _) = DataSettings(), self.dataset.partition(":")
        elsewhere = {"folder": plain.folder, "download": plain.download, "dataset": kind + colon}
        return self.model_copy(update=elsewhere)


class TrainingSettings(Settings):
    """How one network is trained: SGD with Nesterov momentum and a per-iteration cosine (CVPR 2018, section 4.1).

    The settings from `optimizer` on are not the paper's: they are for small data of one's own. Crop and mirror are
    settings of the data.
    """

    epochs: int = Field(default=300, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=0.1, gt=0.0, le=100.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    group_lasso: float = Field(default=0.0, ge=0.0, le=1.0)  # lambda; 1e-5 in the paper's ImageNet recipe
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    mixed_precision: bool = True  # on CUDA only; a CPU or MPS run ignores it
    optimizer: Literal["sgd", "adamw"] = _new("sgd")  # AdamW takes `momentum` as its first beta
    warmup: float = _new(0.0, ge=0.0, le=0.5)  # share of the steps in which the learning rate rises from 0
    average: float = _new(
        0.0, ge=0.0, lt=1.0
    )  # decay a step of the weights' moving average, which is deployed; 0: none
    balance: Literal["none", "weights", "sampling"] = _new("none")  # of rare and frequent classes
    mixup: float = _new(0.0, ge=0.0, le=10.0)  # alpha; 0: images aren't blended (Zhang et al. 2018)
    cutmix: float = _new(0.0, ge=0.0, le=10.0)  # alpha; 0: no parts are exchanged (Yun et al. 2019)
    crop_scale: float = _new(1.0, gt=0.0, le=1.0)  # least share of an image's area that a random resized crop keeps
    rotation: float = _new(0.0, ge=0.0, le=180.0)  # degrees to either side
    colour: float = _new(0.0, ge=0.0, le=1.0)  # strength of random brightness, contrast and saturation
    randaugment: int = _new(0, ge=0, le=30)  # magnitude of two random operations; 0: none (Cubuk et al. 2020)
    # A trained network whose layers it begins with, as `START` writes it; a launch adds `#` and the network's hash.
    start: str = _new(NO_START, max_length=1000)

    @field_validator("start")
    @classmethod
    def _names_a_network(cls, start: str) -> str:
        if start != NO_START and (START.fullmatch(start) is None or not start.isprintable()):
            raise ValueError("it must be 'none', 'trial:STUDY/NUMBER' or 'bundle:FOLDER'")
        return start
