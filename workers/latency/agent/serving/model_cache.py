"""The models that were fetched: one folder of files that are named by their hash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from workers.latency.agent.files import sha256_of
from workers.latency.agent.serving.errors import DeviceFault
from workers.latency.agent.serving.protocol import Model


class ModelCache:
    """Keeps models in one folder up to a total size; those used longest ago are deleted first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        with contextlib.suppress(OSError):  # `keep` reports what is wrong
            for part in folder.glob("*.part"):  # left by an agent that was killed
                part.unlink()
        self._folder, self._most_bytes = folder, most_bytes

    def path_of(self, model: Model) -> Path | None:
        """Return a model's file; None if there is none or it is damaged, and then it is deleted."""
        path = self._folder / model.sha256
        try:
            if _is_model(path, model):
                os.utime(path)
                return path
            path.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DeviceFault(f"{path} can't be used: {error.strerror or error}") from None
        return None

    def keep(self, model: Model, chunks: Iterator[bytes], in_use: Collection[Path]) -> Path | None:
        """Store the chunks as a model's file and return it; None if they aren't that model's bytes.

        Raises:
            DeviceFault: it can't be stored.
        """
        path = self._folder / model.sha256
        part = path.with_name(path.name + ".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(model.size, in_use)
            with part.open("wb") as file:
                for chunk in chunks:  # no error of the network is an OSError
                    file.write(chunk)
                    if file.tell() > model.size:
                        return None
            if not _is_model(part, model):
                return None
            part.replace(path)
            return path
        except OSError as error:
            reason = f"the model of {model.size} bytes can't be stored in {self._folder}: {error.strerror or error}"
            raise DeviceFault(f"{reason}; make room on the device, or name another --folder") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def _make_room(self, needed_bytes: int, in_use: Collection[Path]) -> None:
        """Delete files, oldest first and none in use, until `needed_bytes` more fit into the cache and on the disk."""
        files = [(path.stat(), path) for path in self._folder.iterdir()]
        total = sum(status.st_size for status, _ in files)
        disk = os.statvfs(self._folder)
        most_bytes = min(self._most_bytes, total + disk.f_bavail * disk.f_frsize)
        for status, path in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total + needed_bytes > most_bytes and path not in in_use:
                path.unlink()
                total -= status.st_size


def _is_model(path: Path, model: Model) -> bool:
    return path.stat().st_size == model.size and sha256_of(path) == model.sha256
