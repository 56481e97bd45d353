"""Photographs of every kind that cameras and editors write, and a study with a network that was trained on them.

The classes differ by colour and by side, so a network that sees them with other channels, or lying, is wrong.
"""

from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.pricing.pricer import Target
from search.results.bundle.options import BundleOptions
from search.results.bundle.writing import write_bundle
from search.results.picking.picked import Picked, pick
from search.store import reader
from search.store.connection.database import open_for_writing
from search.store.rows import NewTrial
from search.store.store import StudyStore
from search.store.studies import create_study
from space.config import CondenseNetConfig
from space.cost import cost_of
from tests.search.tiny_studies import CountingProbe, sqlite_url, tiny_settings
from tests.workers.tiny import TRAINING, Recorder, job
from workers.bundled.infer import TURNED
from workers.file_names import NETWORK_FILE, ONNX_FILE, trial_folder
from workers.images.cache import prepare
from workers.latency import Measurement
from workers.metrics import Predictions
from workers.training.trial import run_trial

CLASSES = ("blue_left", "red_left", "red_top")
CONFIG = CondenseNetConfig(
    stages=(2, 1), growth=(4, 4), groups=2, condense_factor=2, bottleneck=2, input_shape=(3, 16, 16), num_classes=3
)
Save = Callable[[Image.Image, Path], None]


def scene(rng: np.random.Generator, name: str) -> Image.Image:
    """A photograph of a class, wider than high."""
    pixels = rng.integers(40, 110, (45, 60, 3))
    side = slice(None, 18) if name.endswith("top") else (slice(None), slice(None, 22))
    pixels[side] += np.array((0, 0, 130) if name.startswith("blue") else (140, 0, 0))
    return Image.fromarray(pixels.astype(np.uint8))


def turned(image: Image.Image, file: Path, orientation: int) -> None:
    """Save a photograph as a camera does that was held another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    image.transpose(TURNED[undo]).save(file.with_suffix(".jpg"), exif=exif, quality=90)


def with_alpha(image: Image.Image, file: Path) -> None:
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))))
    image.save(file.with_suffix(".png"))


def deep(image: Image.Image, file: Path) -> None:
    """Save as a 16-bit sensor does: greys that use few of its levels."""
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 11 + 3000
    grey[0, 0] += 5
    Image.fromarray(grey).save(file)


KINDS: Mapping[str, Save] = {
    **{f"turned{n}": (lambda image, file, n=n: turned(image, file, n)) for n in TURNED},  # type: ignore[misc]
    "plain": lambda image, file: image.save(file.with_suffix(".JPG"), quality=85),
    "palette": lambda image, file: image.quantize(64).save(file.with_suffix(".png")),
    "cut_out": lambda image, file: image.quantize(64).save(file.with_suffix(".gif"), transparency=3),
    "cmyk": lambda image, file: image.convert("CMYK").save(file.with_suffix(".jpg"), quality=90),
    "print": lambda image, file: image.convert("CMYK").save(file.with_suffix(".tif")),
    "alpha": with_alpha,
    "grey": lambda image, file: image.convert("L").save(file.with_suffix(".png")),
    "grey_alpha": lambda image, file: image.convert("LA").save(file.with_suffix(".png")),
    "webp": lambda image, file: image.save(file.with_suffix(".webp")),
    "bitmap": lambda image, file: image.save(file.with_suffix(".bmp")),
}
MIXED: Mapping[str, Save] = {**KINDS, "deep": lambda image, file: deep(image, file.with_suffix(".png"))}
SENSOR: Mapping[str, Save] = {
    "png": lambda image, file: deep(image, file.with_suffix(".png")),
    "tiff": lambda image, file: deep(image, file.with_suffix(".tiff")),
    "pgm": lambda image, file: deep(image, file.with_suffix(".pgm")),
}


def write_photographs(folder: Path, kinds: Mapping[str, Save] = KINDS, of_each: tuple[int, int] = (4, 2)) -> None:
    """Write folder/train and folder/test: of each class, so many images of each kind."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "test"), of_each, strict=True):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for kind, save in kinds.items():
                for index in range(count):
                    save(scene(rng, name), folder / split / name / f"{kind}{index}.x")


def images_of(folder: Path) -> dict[str, str]:
    """Return the class of every image below a split's folder, by its path."""
    return {str(file): file.parent.name for file in sorted(folder.glob("*/*"))}


class Trained:
    """A study on a folder of photographs, with one network that was really trained on them, and its bundle."""

    def __init__(self, folder: Path, data: Mapping[str, Any], config: CondenseNetConfig = CONFIG) -> None:
        settings = tiny_settings(
            study__files=str(folder / "files"),
            data={"dataset": f"imagefolder:{folder / 'photos'}", "image_size": 16, **data},
            space__input_shape=list(config.input_shape),
            space__num_classes=config.num_classes,
        )
        self.folder, self.data, self.cache = folder, settings.data, folder / "cache"
        self.info = prepare(self.data, self.cache)
        self.store = self._store(settings.model_dump(mode="json"), config)

    def _store(self, settings: dict[str, Any], config: CondenseNetConfig) -> StudyStore:
        engine = open_for_writing(sqlite_url(self.folder))
        store = StudyStore(engine, create_study(engine, "tiny", 1, settings, ("a" * 64, "b" * 64)))
        store.set_data_info(self.info.to_dict())
        store.add_trial(NewTrial(0, "sampled", config, {}, 0, "0", cost_of(config)))
        place = self.folder / "files" / "tiny" / trial_folder(0)
        training = TRAINING.model_copy(update={"epochs": 30, "batch_size": 32, "learning_rate": 0.1})
        work = job(place, self.cache, config=config, data=self.data, training=training)
        result = run_trial(work, SilentReporter())
        hashes = {ONNX_FILE: result.onnx_sha256, NETWORK_FILE: result.network_sha256}
        store.add_artifacts(0, {name: (f"{place.name}/{name}", sha256) for name, sha256 in hashes.items()})
        (price,) = CountingProbe().measure([place / ONNX_FILE])
        assert isinstance(price, Measurement)
        store.add_latency(0, price)
        store.finish(0, "done", top1=result.top1, val_loss=result.val_loss)
        store.add_predictions(0, "validation", base64.b64decode(result.predictions))
        return store

    def bundled(self, *further: Target, **options: Any) -> tuple[Picked, Path]:
        """Pick the network and write its bundle."""
        study = reader.find_study(self.store.engine, "tiny")
        target = Target("host", CountingProbe())
        picked = pick(self.store, study, tiny_settings().search_budget(), (target, *further), self.cache)
        return picked, write_bundle(
            self.store, study, picked, self.folder / "bundle", self.cache, BundleOptions(**options)
        )

    @property
    def validation(self) -> Predictions:
        found = reader.class_predictions_of(self.store.engine, self.store.trial(0), "validation")
        assert found is not None
        return found


class SilentReporter(Recorder):
    """A reporter that nobody listens to."""

    def check(self) -> None:
        pass


def bare_python(folder: Path, *packages: str) -> list[str]:
    """Return the command of a Python that sees these packages of this environment and nothing else of it."""
    site = folder / "only"
    site.mkdir(exist_ok=True)
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        place = Path(spec.origin).parent
        libraries = place.parent / f"{'pillow' if name == 'PIL' else name}.libs"
        for path in (place, libraries):
            if path.exists() and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    code = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); program = sys.argv[0] = sys.argv.pop(1); "
    code += "runpy.run_path(program, run_name='__main__')"
    return [sys.executable, "-I", "-S", "-W", "error", "-c", code, str(site)]


def classes_from(lines: str) -> dict[str, str]:
    """Return the class that infer.py printed for each file."""
    return {file: words.split(" (")[0] for file, _, words in (line.rpartition(": ") for line in lines.splitlines())}
