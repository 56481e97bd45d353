"""Reading a bundle back: its version, its files' hashes, and what its network said of the sample images.

`SHA256SUMS` lists every other file of the folder, in the form that `sha256sum -c` takes, so a bundle can be checked on
a device that has nothing of the project.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from space.errors import BundleDamaged, BundleVersion

VERSION = 2  # of the bundle; 1 had no samples and no hashes of all its files, and didn't say its version
DEPLOY_FILE, SUMS_FILE, SAMPLES, EXPECTED_FILE = "deploy.toml", "SHA256SUMS", "samples", "expected.json"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class Sample:
    """A sample image of a bundle, and the logits (classes,) that each of its model files gave for it."""

    file: str  # relative to the bundle
    label: str
    logits: Mapping[str, NDArray[np.float32]]  # by the model file's name


@dataclass(frozen=True)
class Samples:
    """The sample images, and how far logits may be from the recorded ones, as a share of the largest of them all."""

    images: Sequence[Sample]
    tolerances: Mapping[str, float]  # by the model file's name


def read_deploy(folder: Path) -> dict[str, Any]:
    """Return a bundle's deploy.toml.

    Raises:
        BundleDamaged: the folder holds no bundle, or the file can't be read.
        BundleVersion: the bundle was written by a newer version of the project.
    """
    try:
        deploy = tomllib.loads((folder / DEPLOY_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleDamaged(
            f"{folder} holds no bundle: it has no {DEPLOY_FILE}; name a folder that pick wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise BundleDamaged(f"{folder / DEPLOY_FILE} can't be read ({error}); copy the bundle again.") from error
    version = version_of(deploy)
    if version > VERSION:
        raise BundleVersion(
            f"{folder} is a bundle of version {version}, but this program reads versions up to {VERSION}; update it."
        )
    return deploy


def version_of(deploy: Mapping[str, Any]) -> int:
    """Return the version of a bundle by its deploy.toml; the first one doesn't say it."""
    table = deploy.get("bundle")
    version = table.get("version") if isinstance(table, Mapping) else None
    return version if type(version) is int else 1


def sums_text(folder: Path) -> str:
    """Return what `SHA256SUMS` must hold for the files that are in a bundle's folder."""
    return sums_of({file.relative_to(folder).as_posix(): _hash_of(file) for file in files_in(folder)})


def sums_of(sha256: Mapping[str, str]) -> str:
    """Return `SHA256SUMS` of files by their paths in the bundle."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sha256.items()))


def files_in(folder: Path) -> list[Path]:
    """Return every file below a bundle's folder but `SHA256SUMS`, in order of their names."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path for path in files if path != folder / SUMS_FILE and "__pycache__" not in path.parts)


def listed_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a bundle's `SHA256SUMS` lists, by its path in the bundle.

    Raises:
        BundleDamaged: the file isn't there, or has a line of another form.
    """
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BundleDamaged(f"{folder / SUMS_FILE} can't be read ({error}); copy the bundle again.") from error
    found = [_LINE.fullmatch(line) for line in lines]
    if not found or None in found:
        raise BundleDamaged(f"{folder / SUMS_FILE} has a line that is no SHA-256 and file; copy the bundle again.")
    return {match[2]: match[1] for match in found if match is not None}


def check_files(folder: Path) -> int:
    """Check that every file of a bundle is the one that was written; return how many there are.

    Raises:
        BundleDamaged: one is missing, was changed or was added.
    """
    listed = listed_files(folder)
    there = {file.relative_to(folder).as_posix(): file for file in files_in(folder)}
    wrong = [f"{name} is missing" for name in listed if name not in there]
    wrong += [
        f"{name} was changed (another SHA-256)"
        for name in listed
        if name in there and _hash_of(there[name]) != listed[name]
    ]
    wrong += [f"{name} was added" for name in there if name not in listed]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BundleDamaged(f"{folder} is not as it was written: {', '.join(wrong[:3])}{more}; copy the bundle again.")
    return len(listed)


def read_samples(folder: Path) -> Samples:
    """Return a bundle's sample images; none where it was written without.

    Raises:
        BundleDamaged: `samples/expected.json` is not what it should be.
    """
    file = folder / SAMPLES / EXPECTED_FILE
    if not file.is_file():
        return Samples((), {})
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        images = [
            Sample(
                f"{SAMPLES}/{one['file']}",
                str(one["label"]),
                {name: np.array(logits, np.float32) for name, logits in one["logits"].items()},
            )
            for one in document["images"]
        ]
        return Samples(images, {name: float(value) for name, value in document["tolerances"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleDamaged(f"{file} can't be read ({error}); copy the bundle again.") from error


def _hash_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise BundleDamaged(f"{file} can't be read ({error.strerror}); copy the bundle again.") from error
