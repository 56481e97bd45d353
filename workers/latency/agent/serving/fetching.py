"""Getting the models of a batch onto the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from workers.latency.agent.serving.errors import DeviceFault, HubRefuses, Unreachable
from workers.latency.agent.serving.model_cache import ModelCache
from workers.latency.agent.serving.protocol import Model
from workers.latency.agent.serving.session import Session
from workers.latency.agent.serving.waiting import Backoff


class Fetching:
    """Returns models' files, from the cache or the hub."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._cache = ModelCache(session.settings.folder / "models", session.settings.cache_bytes)

    def fetch(self, model: Model, in_use: Collection[Path]) -> Path:
        """Return a model's file, trying as long as its lease lasts; the files `in_use` stay in the cache.

        Raises:
            DeviceFault: there is no room, or the hub doesn't have that model.
            Ended, TokenRefused, LeaseLost: the batch must end.
        """
        backoff, wrong_files = Backoff(), 0
        while wrong_files < 2:
            self._session.check_stopped()
            path = self._cache.path_of(model)
            if path is not None:
                return path
            try:
                with self._session.termination.cutting():
                    path = self._cache.keep(model, self._download(model), in_use)
            except Unreachable:
                self._session.termination.sleep(backoff.next_s())
                continue
            except HubRefuses as refusal:
                raise DeviceFault(f"the hub doesn't give out the model {model.sha256} ({refusal})") from None
            if path is not None:
                return path
            wrong_files += 1
            self._session.journal.say(f"what came as model {model.sha256} is something else, and was thrown away")
        raise DeviceFault(f"the hub sent something else than the model {model.sha256}, twice")

    def _download(self, model: Model) -> Iterator[bytes]:
        for chunk in self._session.hub.download(model):
            self._session.check_stopped()
            yield chunk
