"""A bundle's network as a Python function: `load_bundle(folder)(images)`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from space.errors import BundleDamaged, InvalidSettings, UnreadableImage
from workers.bundled import infer
from workers.bundled.reading import read_deploy

AnImage: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]"


class BundledNetwork:
    """The network of a bundle, which takes images as they are: decoded, turned, resized and scaled as in training.

    Calling it returns the logits; `predict` returns names and probabilities. It runs in one thread.
    """

    def __init__(self, folder: str | Path, model: str = "") -> None:
        """Open a bundle.

        Args:
            folder: the folder that `condensery pick --out` wrote.
            model: the name of one of its model files; "" for the one that deploy.toml names first.

        Raises:
            BundleDamaged: the folder holds no bundle, or the model file isn't the one that was written.
            BundleVersion: the bundle was written by a newer version of the project.
            InvalidSettings: the runtime that the model file is for isn't installed.
        """
        folder = Path(folder)
        read_deploy(folder)
        try:
            self._classifier = infer.Classifier(folder, model)
        except ImportError as error:
            raise InvalidSettings(f"{error}; install it with pip, or name another model file of {folder}.") from error
        except Exception as error:  # a runtime's errors have no class in common
            raise BundleDamaged(f"the bundle {folder} can't be used: {' '.join(str(error).split())}.") from error

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self._classifier.names)

    def __call__(self, images: Iterable[AnImage]) -> NDArray[np.float32]:
        """Return the logits, (images, classes).

        Args:
            images: files, images of Pillow, or arrays of pixels: (height, width) or (height, width, 3), uint8, or of
                greys also uint16. They may differ in size.

        Raises:
            UnreadableImage: one can't be read.
        """
        logits = [self._classifier.logits_of(self._pixels(image)) for image in images]
        return np.array(logits, np.float32).reshape(len(logits), len(self._classifier.names))

    def predict(self, images: Iterable[AnImage]) -> list[tuple[str, float]]:
        """Return the most likely class of each image, and its probability."""
        return [self._classifier.most_likely(logits) for logits in self(images)]

    def _pixels(self, image: AnImage) -> infer.Array:
        try:
            if isinstance(image, str | Path):
                return infer.read_pixels(image, self._classifier.rules)
            opened = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
            return infer.pixels_of(opened, self._classifier.rules)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types
            name = image if isinstance(image, str | Path) else "an image"
            raise UnreadableImage(f"{name} can't be read as an image ({' '.join(str(error).split())}).") from error
