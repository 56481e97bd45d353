"""Reading a folder of images of mixed kinds: images a second and peak memory, beside torchvision's ImageFolder.

    python -m benchmarks.reading [--images 20000] [--tiny 100000] [--rounds 1] [--size 32] [--small]

Both sides read the same folder in processes of their own, in turn. Condensery decodes it once, with a thread for each
processor, into the cache that trainings map, and then makes the batches of an epoch out of that; the time of the first
part includes listing, hashing, normalisation and the search for near duplicates. The peer is ImageFolder with the same
resizing (Resize, CenterCrop, PILToTensor) in a DataLoader of as many workers, which decodes at every epoch. Memory is
the largest sum over a side's processes of what is its own share (PSS).

The files are JPEG, PNG, WebP, BMP and TIFF of 320 x 240, colour, grey, palette, CMYK and transparent, some turned by
EXIF. A few hundred distinct files are linked under many names, so that they are in memory when read and the disk isn't
measured.
`--tiny` more files of 8 x 8 pixels are then read by Condensery alone. `--small` is a try-out that saves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.arguments import at_least_one
from benchmarks.record import save

SIDES = ("condensery", "imagefolder")
CLASSES = 10
DISTINCT = 300  # files that are really different
WIDTH, HEIGHT = 320, 240
KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # suffix, mode, how it is saved; photos are mostly JPEG
    ("jpg", "RGB", {"quality": 90}),
    ("jpg", "RGB", {"quality": 75}),
    ("JPG", "RGB", {"quality": 90, "turned": True}),
    ("jpeg", "L", {"quality": 90}),
    ("jpg", "CMYK", {"quality": 90}),
    ("png", "RGB", {"compress_level": 1}),
    ("png", "P", {}),
    ("png", "RGBA", {"compress_level": 1}),
    ("webp", "RGB", {"quality": 80}),
    ("bmp", "RGB", {}),
    ("tif", "RGB", {"compression": "tiff_lzw"}),
)
ORIENTATION = 0x0112
BATCH = 64
SAMPLED_S = 0.05


def main() -> None:
    """Make the files, let both sides read them in turn, print and save what came out."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(_run_side(arguments.side, arguments.folder, arguments.size)))
        return
    if arguments.small:
        arguments.images, arguments.tiny, arguments.rounds = 600, 2_000, 1
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        photos, tiny = Path(folder, "photos"), Path(folder, "tiny")
        make_photos(photos, arguments.images)
        make_tiny(tiny, arguments.tiny)
        rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(arguments.rounds):
            for side in SIDES:
                rounds[side].append(_measured(side, photos, arguments.size))
                print(side, rounds[side][-1], flush=True)
        many = _measured("condensery", tiny, 8)
        print("tiny", many, flush=True)
    result = {
        "images": arguments.images,
        "size": arguments.size,
        "workers": os.cpu_count(),
        "sides": {side: _summary(found) for side, found in rounds.items()},
        "tiny_images": arguments.tiny,
        "tiny": many,
    }
    print(json.dumps(result, indent=2))
    if not arguments.small:
        save("reading", result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=at_least_one, default=20_000)
    parser.add_argument("--tiny", type=at_least_one, default=100_000)
    parser.add_argument("--rounds", type=at_least_one, default=1)
    parser.add_argument("--size", type=at_least_one, default=32)
    parser.add_argument("--small", action="store_true", help="a try-out that saves nothing")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median over rounds of each figure."""
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]} | {"rounds": rounds}


# --- files ------------------------------------------------------------------------------------------------------


def make_photos(folder: Path, count: int) -> None:
    """Write `count` photos in class folders, of which at most `DISTINCT` differ."""
    distinct = [_photo(folder.parent / "distinct", number) for number in range(min(count, DISTINCT))]
    _link(folder, distinct, count)


def make_tiny(folder: Path, count: int) -> None:
    """Write `count` images of 8 x 8 pixels in class folders."""
    source = folder.parent / "distinct-tiny"
    source.mkdir(exist_ok=True)
    files = []
    for number in range(min(count, DISTINCT)):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        files.append(source / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    _link(folder, files, count)


def _photo(folder: Path, number: int) -> Path:
    """Write a picture of soft shapes and grain, and return its file."""
    suffix, mode, how = KINDS[number % len(KINDS)]
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    few = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    scene = np.asarray(few.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = random.integers(-6, 7, (HEIGHT, WIDTH, 1))
    image = Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8)).convert(mode)
    file, how = folder / f"{number}.{suffix}", dict(how)
    exif = Image.Exif()
    if how.pop("turned", False):
        exif[ORIENTATION] = 6
    image.save(file, exif=exif, **how) if len(exif) else image.save(file, **how)
    return file


def _link(folder: Path, files: list[Path], count: int) -> None:
    """Link the files in turn under `count` names in class folders."""
    for number in range(count):
        source = files[number % len(files)]
        target = folder / f"class {number % CLASSES}" / f"{number:06}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


# --- a side, in a process of its own ----------------------------------------------------------------------------


def _measured(side: str, folder: Path, size: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.reading", "--side", side, "--folder", str(folder), "--size", str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run_side(side: str, folder: Path, size: int) -> dict[str, Any]:
    run = _condensery if side == "condensery" else _imagefolder
    before_s = _cpu_s()
    with _peak_memory() as peak_mib:
        first, images_first, later, images_later = run(folder, size)
    decoded = images_first + (images_later if side == "imagefolder" else 0)
    return {
        "cpu_s_per_1000_decoded": 1000 * (_cpu_s() - before_s) / decoded,
        "first_pass_s": first,
        "first_pass_images_per_s": images_first / first,
        "later_epoch_images_per_s": images_later / later,
        "peak_mib": peak_mib(),
    }


def _condensery(folder: Path, size: int) -> tuple[float, int, float, int]:
    """Return seconds and images of preparing the cache, and of an epoch's batches out of it."""
    from workers.images.batches import TrainingBatches, load
    from workers.images.cache import prepare
    from workers.settings import DataSettings

    settings = DataSettings(dataset=f"imagefolder:{folder}", image_size=size)
    with tempfile.TemporaryDirectory(prefix="reading-cache-") as cache:
        begin = time.perf_counter()
        info = prepare(settings, Path(cache))
        prepared = time.perf_counter() - begin
        batches = TrainingBatches(load(settings, Path(cache)).train, info, settings, BATCH, seed=0)
        begin = time.perf_counter()
        for step in range(batches.steps_per_epoch):
            batches.batch(step)
        epoch = time.perf_counter() - begin
    images = info.train_images + info.validation_images + info.test_images
    return prepared, images, epoch, batches.steps_per_epoch * BATCH


def _imagefolder(folder: Path, size: int) -> tuple[float, int, float, int]:
    """Return seconds and images of the first epoch, listing included, and of the second one."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    begin = time.perf_counter()
    steps = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    data = ImageFolder(str(folder), transform=steps)
    loader = DataLoader(data, batch_size=BATCH, num_workers=os.cpu_count() or 1, persistent_workers=True)
    for _ in loader:
        pass
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in loader:
        pass
    second = time.perf_counter() - begin
    del loader  # ends its workers, whose processor time counts from then on
    return first, len(data), second, len(data)


def _cpu_s() -> float:
    """Return the processor time of this process and of those it started that have ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def _peak_memory() -> Iterator[Any]:
    """Yield a function that returns the largest memory so far of this process and those it started, in MiB."""
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLED_S):
            peak[0] = max(peak[0], sum(map(_pss_mib, _family(os.getpid()))))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield lambda: round(peak[0], 1)
    over.set()
    watcher.join()


def _family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        found += [member for child in children for member in _family(int(child))]
    return found


def _pss_mib(pid: int) -> float:
    """Return a process's share of the memory that it uses, without the files that it maps; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines[1:])}
    return kib.get("Pss_Anon", kib.get("Pss", 0)) / 1024 + kib.get("Pss_Shmem", 0) / 1024


if __name__ == "__main__":
    main()
