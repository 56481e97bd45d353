"""The exchange, through which machines pass checkpoints and results: a folder, or any URL that fsspec opens.

    EXCHANGE/STUDY/trial-00007/
        checkpoints/     the newest checkpoints, each a tensor file and the JSON that commits it (see `checkpoint`)
        log.txt          up to the newest checkpoint
        network.safetensors, model.onnx
        start.safetensors        what the training starts from, if not from random weights

The worker trains in a folder of its own and pushes; the controller fetches the results and then clears the trial's
folder. A checkpoint's JSON is pushed after its tensors and fetched only with them: either both count or neither.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.file_names import CHECKPOINTS, LOG_FILE, NETWORK_FILE, ONNX_FILE, attempt_of, trial_folder
from workers.files import file_hash
from workers.processes import lives
from workers.training.job import TrialJob

RESULTS = (NETWORK_FILE, ONNX_FILE)
START_FILE = "start.safetensors"
SCRATCH = "condensery-trial-"


class ExchangeFailed(Exception):
    """The exchange can't be read or written now; the message is one line."""


def open_exchange(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a folder or URL, and the path in it.

    Raises:
        ValueError, ImportError: fsspec doesn't know this kind of URL, or needs a package for it.
    """
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(url)
    return filesystem, str(root).rstrip("/")


class TrialExchange:
    """One trial's folder in the exchange; every method raises `ExchangeFailed`."""

    def __init__(self, url: str, job: TrialJob) -> None:
        with _errors():
            self._files, root = open_exchange(url)
        self.folder = _folder(root, job.study, job.number)
        self.url = url
        self._pushed = ""  # name of the newest checkpoint in the exchange

    def fetch_checkpoints(self, folder: Path) -> None:
        """Fetch the checkpoints and the log into `folder`, so that the training can go on from them."""
        with _errors():
            names = self._names(CHECKPOINTS)
            for name in sorted(names):
                tensors = name.removesuffix(".json") + ".safetensors"
                if name.endswith(".json") and tensors in names:
                    for file_name in (tensors, name):
                        self._get(f"{CHECKPOINTS}/{file_name}", folder)
            if LOG_FILE in self._names(""):
                self._get(LOG_FILE, folder)

    def push_checkpoint(self, folder: Path) -> None:
        """Push the newest checkpoint in `folder` unless it was pushed; remove earlier ones that it lacks."""
        ours = _committed(folder / CHECKPOINTS)
        if not ours or ours[-1] == self._pushed:
            return
        with _errors():
            tensors = ours[-1].removesuffix(".json") + ".safetensors"
            for file_name in (tensors, ours[-1]):
                self._put(folder / CHECKPOINTS / file_name, f"{CHECKPOINTS}/{file_name}")
            self._pushed = ours[-1]
            for name in self._names(CHECKPOINTS):
                is_ours = attempt_of(name) <= attempt_of(ours[-1])  # a later attempt may go on elsewhere
                if is_ours and name.rpartition(".")[0] + ".json" not in ours:
                    self._files.rm_file(f"{self.folder}/{CHECKPOINTS}/{name}")

    def seed(self, folder: Path) -> None:
        """Push the newest checkpoint in `folder` if another engine wrote it, later than any in the exchange."""
        ours = _committed(folder / CHECKPOINTS)
        with _errors():
            theirs = [name for name in self._names(CHECKPOINTS) if name.endswith(".json")]
        if ours and ours[-1] > max(theirs, default=""):
            self.push_checkpoint(folder)

    def push_start(self, path: Path) -> None:
        """Push the file of the network that the training starts from."""
        with _errors():
            self._put(path, START_FILE)

    def fetch_start(self, folder: Path) -> Path:
        """Fetch the file of the network that the training starts from into `folder`; return its path."""
        with _errors():
            self._get(START_FILE, folder)
        return folder / START_FILE

    def push(self, folder: Path, names: tuple[str, ...]) -> None:
        """Push the files of these names, where `folder` has them."""
        with _errors():
            for name in names:
                if (folder / name).is_file():
                    self._put(folder / name, name)

    def fetch_results(self, folder: Path, hashes: dict[str, str]) -> None:
        """Fetch the log and these files into `folder`; a file appears there only if its SHA-256 is right."""
        with _errors():
            for name, sha256 in hashes.items():
                self._get(name, folder, sha256)
            if LOG_FILE in self._names(""):
                self._get(LOG_FILE, folder)

    def _names(self, subfolder: str) -> set[str]:
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(f"{self.folder}/{subfolder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in paths}

    def _put(self, source: Path, name: str) -> None:
        target = f"{self.folder}/{name}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        if "file" not in self._files.protocol:
            self._files.put_file(str(source), target)  # object stores write a whole object or none
            return
        partial = f"{target}.{os.getpid()}.part"  # a worker that is killed here leaves the former file intact
        self._files.put_file(str(source), partial)
        Path(partial).replace(target)

    def _get(self, name: str, folder: Path, sha256: str | None = None) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            self._files.get_file(f"{self.folder}/{name}", str(partial))
            if sha256 is not None and file_hash(partial) != sha256:
                raise ExchangeFailed(f"{self.folder}/{name} is not the worker's file: its SHA-256 differs")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def clear(url: str, study: str, number: int) -> None:
    """Remove a trial's folder from the exchange, once its outcome is recorded.

    Raises:
        ExchangeFailed: the exchange can't be reached or written.
    """
    with _errors():
        files, root = open_exchange(url)
        folder = _folder(root, study, number)
        files.invalidate_cache()
        if files.exists(folder):
            files.rm(folder, recursive=True)


def _folder(root: str, study: str, number: int) -> str:
    return f"{root}/{study}/{trial_folder(number)}"


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except ExchangeFailed:
        raise
    except Exception as error:  # each file system has its own
        raise ExchangeFailed(f"the exchange failed: {type(error).__name__}: {error}".splitlines()[0]) from error


def _committed(checkpoints: Path) -> list[str]:
    """Return the names of the checkpoints' JSON files that have their tensors, oldest first."""
    names = sorted(path.name for path in checkpoints.glob("checkpoint-*.json"))
    return [name for name in names if (checkpoints / name).with_suffix(".safetensors").exists()]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end; first remove the folders that killed processes left."""
    root = Path(tempfile.gettempdir())
    for folder in root.glob(f"{SCRATCH}*"):
        owner = re.match(rf"{SCRATCH}(\d+)-", folder.name)
        if owner and not lives(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", ignore_cleanup_errors=True) as own:
        yield Path(own)
