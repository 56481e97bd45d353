"""Engines run trials: in processes of this machine, on Ray Tune, or not at all (`FakeEngine`, for tests)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.engines.base import Engine
    from search.settings import EngineSettings


def make_engine(settings: EngineSettings, measuring: Collection[int], note: Callable[[str], None]) -> Engine:
    """Return the engine of the settings; its workers keep off the `measuring` processors as far as they can.

    Raises:
        InvalidSettings, EngineUnavailable: see `search.engines.ray.engine.RayTuneEngine`.
    """
    if settings.kind == "ray":
        from search.engines.ray.engine import RayTuneEngine

        return RayTuneEngine(settings, measuring, note)
    from search.engines.local import LocalEngine

    return LocalEngine(settings.workers, settings.threads, measuring)
