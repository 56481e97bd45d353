"""Checks before Ray starts: whether it can do what the settings ask, and which processors it may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from search.settings import EngineSettings
from space.errors import InvalidSettings
from workers.files import user_path
from workers.runners.exchange import open_exchange


def check_settings(settings: EngineSettings) -> tuple[EngineSettings, str | None]:
    """Return the settings and the exchange as an absolute path or URL.

    Raises:
        InvalidSettings: Ray isn't installed or gives no such share of GPUs, or fsspec doesn't know the exchange's URL.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise InvalidSettings("engine.kind = 'ray' needs Ray Tune: pip install 'condensery[cluster]'.")
    if settings.gpus > 1 and settings.gpus != int(settings.gpus):
        raise InvalidSettings(
            f"engine.gpus must be a fraction of one GPU or a whole number, but got {settings.gpus:g}."
        )
    if settings.address is not None and "://" in settings.address:
        raise InvalidSettings(
            "engine.address must be auto or HOST:PORT of a cluster that this machine is a node of, but got "
            f"{settings.address!r}; launch on a node (`ray start --address=HOST:6379 --num-cpus=0` makes this one "
            "such)."
        )
    exchange = settings.exchange
    if exchange is not None and "://" not in exchange:
        exchange = str(user_path(exchange).absolute())
    if exchange is not None:
        try:
            open_exchange(exchange)
        except Exception as error:  # each file system has its own
            raise InvalidSettings(f"engine.exchange = {settings.exchange!r} can't be opened: {error}.") from None
    return settings, exchange


def about_dashboard(url: str, token: Path | None) -> str:
    """Return where Ray's dashboard is, or why there is none; `token` is the file with the token that it asks for."""
    if url:
        return url if token is None else f"{url} (it asks for the token in {token})"
    if token is None:
        return "none (the cluster's head runs without one)"
    return "none (it didn't start)" if dashboard_is_installed() else "none (pip install 'condensery[cluster]')"


def processors_apart(settings: EngineSettings, measuring: Collection[int]) -> list[int] | None:
    """Return this machine's processors without the measuring ones; None when those are too few for all workers."""
    if sys.platform != "linux":
        return None
    others = sorted(set(os.sched_getaffinity(0)) - set(measuring))
    return others if len(others) >= settings.workers * settings.threads else None


def dashboard_is_installed() -> bool:
    """Whether what Ray's dashboard needs beside Ray is there."""
    return find_spec("aiohttp_cors") is not None and find_spec("opencensus") is not None
