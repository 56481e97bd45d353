"""Who runs trials: processes of this machine, Ray Tune, or nobody (`FakeEngine`, for tests and benchmarks)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.engines.base import Engine
    from search.settings import EngineSettings


def make_engine(part: EngineSettings, measuring: Collection[int], note: Callable[[str], None]) -> Engine:
    """Return the engine of the settings; its workers keep off the `measuring` processors as far as they can.

    Raises:
        InvalidSettings, EngineUnavailable: see `search.engines.ray.engine.RayTuneEngine`.
    """
    if part.kind == "ray":
        from search.engines.ray.engine import RayTuneEngine

        return RayTuneEngine(part, measuring, note)
    from search.engines.local import LocalEngine

    return LocalEngine(part.workers, part.threads, measuring)
