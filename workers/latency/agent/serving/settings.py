"""An agent's settings, from the command line and the environment."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from workers.latency.agent.files import own_file
from workers.latency.agent.sensors import usable_cores
from workers.latency.agent.serving.errors import WrongUse
from workers.latency.agent.serving.journal import plain


@dataclass(frozen=True)
class HubSettings:
    """Which hub to serve, as which device, and where to keep what outlives the process."""

    url: str  # without a slash at the end
    token: str = field(repr=False)
    folder: Path
    core: int
    program: Path  # the agent's own file, which fresh processes run
    launcher: tuple[str, ...] | None = None  # of an emulator: the device is virtual and counts instructions
    cafile: Path | None = None  # certificates to trust instead of the system's
    once: bool = False  # end as soon as the hub has no job left
    limit: int = 4  # jobs per batch
    cache_bytes: int = 512 << 20
    call_s: float = 30.0  # of silence until a call is given up

    @property
    def is_virtual(self) -> bool:
        """Whether the device is emulated, and counts instructions."""
        return self.launcher is not None

    @property
    def command(self) -> tuple[str, ...]:
        """The command that starts the agent in a fresh process."""
        return (sys.executable, str(self.program))


def settings_from(arguments: argparse.Namespace) -> HubSettings:
    """Return the settings that the command line gives; WrongUse says in one line what is wrong with them."""
    core = usable_cores()[-1] if arguments.core is None else arguments.core
    if core not in usable_cores():
        raise WrongUse(f"--core must be one of {usable_cores()}, but got {core}; pick one of those")
    return HubSettings(
        url=_hub_url(arguments.hub),
        token=_token(arguments.token_file),
        folder=_folder(arguments.folder),
        core=core,
        program=_program(),
        launcher=_launcher(arguments.virtual, arguments.launcher),
        cafile=arguments.cafile,
        once=arguments.once,
    )


def _hub_url(text: str) -> str:
    """Return the address without a slash at its end, or say what is wrong with it."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.username or parts.query or parts.fragment or not text.isascii() or not text.isprintable():
        raise WrongUse(f"--hub must be an address like https://hub.example:8700, but got {plain(repr(text), 100)}")
    return text.rstrip("/")


def is_this_machine(url: str) -> bool:
    """Return whether an address is one of this machine alone, so that no network hears what is said."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for an address, None for none; never one to reach this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(url) or urllib.request.proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _token(file: Path | None) -> str:
    """Return the device's token, and remove it from the environment that children inherit."""
    given = os.environ.pop("CONDENSERY_TOKEN", "")
    try:
        token = (given if file is None else file.read_text(encoding="ascii")).strip()
    except (OSError, UnicodeError) as error:
        raise WrongUse(f"--token-file must hold the device's token, but {file} can't be read: {error}") from None
    if not re.fullmatch("[!-~]{1,512}", token):
        raise WrongUse("the device's token must be one word; set CONDENSERY_TOKEN or name a --token-file")
    return token


def _folder(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except RuntimeError:  # no HOME, and a user whom the system doesn't know
        raise WrongUse(
            f"--folder must be a whole path where there is no home folder, but is {path}; name one"
        ) from None


def _launcher(virtual: bool, text: str | None) -> tuple[str, ...] | None:
    if not virtual and text is None:
        return None
    try:
        words = json.loads(text or "")
    except ValueError:
        words = None
    fits = isinstance(words, list) and words and all(isinstance(word, str) and word for word in words)
    if not virtual or not fits:
        raise WrongUse("--virtual needs --launcher, and it a JSON list of words: the emulator and its Python")
    return tuple(words)


def _program() -> Path:
    path = own_file()
    if path is None:
        raise WrongUse("an agent that serves a hub must be started from its one file, agent.pyz; fetch it from the hub")
    return path
