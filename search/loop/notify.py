"""Telling someone how a launch goes: a webhook or a command, once it ends or when it is stuck.

Notable choices:
- Whatever goes wrong with it is a note, and never ends a search: each message is sent by a thread of its own, has a
  time limit, and isn't repeated.
- An address may be a secret, as its path often is. Messages name the scheme and the host alone, and nothing of
  `[notify]` is recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from search.loop.callbacks import LaunchCallback
from search.loop.controller import Ending
from search.settings import NotifySettings, StudySettings, is_address
from search.store.rows import TrialRow
from space.errors import InvalidSettings
from workers.training.reporting import ProgressReport
from workers.wording import of_wanted

FROM_ENVIRONMENT = "env:"
LOOK_S = 1.0  # between two looks at whether a search is stuck
Event = Literal["finished", "exhausted", "stopped", "failed", "stuck"]
WORDS: dict[Event, str] = {
    "finished": "has finished",
    "exhausted": "has tried every network of its space that its limits allow",
    "stopped": "was stopped",
    "failed": "ended with an error",
    "stuck": "seems stuck",
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address is posted to as the user wrote it, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Notifier:
    """A launch's callback that passes everything on, and tells of the launch's end and of long silence.

    As a context manager it is told how the block ended: by `ended`, or by an exception.
    """

    def __init__(self, settings: StudySettings, callback: LaunchCallback) -> None:
        """Read the webhook's address.

        Raises:
            InvalidSettings: the variable that holds it isn't set, or holds none.
        """
        self._settings, self._study, self._callback = settings.notify, settings.study.name, callback
        self._webhook = address_of(settings.notify)
        self._ending: Ending | None = None
        self._done, self._wanted = 0, settings.study.trainings
        self._over = threading.Event()
        self._sign_at = time.monotonic()
        self._told_stuck = False
        self._sending: list[threading.Thread] = []
        self._watcher = threading.Thread(target=self._watch, name="notify", daemon=True)

    @property
    def _is_wanted(self) -> bool:
        return self._webhook is not None or self._settings.command is not None

    def __enter__(self) -> Notifier:
        if self._is_wanted:
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not self._is_wanted:
            return
        self._watcher.join()
        if isinstance(error, Exception):
            self._tell("failed", " ".join(str(error).split())[:500])
        else:
            self._tell(self._ending or "stopped")
        deadline = time.monotonic() + self._settings.timeout_s + 1.0
        for thread in self._sending:
            thread.join(max(0.0, deadline - time.monotonic()))

    def ended(self, ending: Ending) -> None:
        """Keep how the launch has ended."""
        self._ending = ending

    # -- the launch's callback --

    def trial(self, row: TrialRow) -> None:
        """See `LaunchCallback`."""
        self._sign()
        self._callback.trial(row)

    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """See `LaunchCallback`."""
        self._sign()
        self._callback.curve(number, row)

    def under_way(self, number: int, report: ProgressReport) -> None:
        """See `LaunchCallback`."""
        self._sign()
        self._callback.under_way(number, report)

    def progress(self, done: int, wanted: int) -> None:
        """See `LaunchCallback`."""
        if (done, wanted) != (self._done, self._wanted):
            self._sign()
        self._done, self._wanted = done, wanted
        self._callback.progress(done, wanted)

    def note(self, text: str) -> None:
        """See `LaunchCallback`."""
        self._callback.note(text)

    # -- telling --

    def _sign(self) -> None:
        self._sign_at, self._told_stuck = time.monotonic(), False

    def _watch(self) -> None:
        while not self._over.wait(min(LOOK_S, self._settings.stuck_after_s)):
            silent_s = time.monotonic() - self._sign_at
            if silent_s >= self._settings.stuck_after_s and not self._told_stuck:
                self._told_stuck = True
                self._tell("stuck", f"nothing was trained or measured for {silent_s:.0f} s")

    def _tell(self, event: Event, detail: str = "") -> None:
        """Have an event sent to everyone who is to know."""
        done = of_wanted(self._done, self._wanted, "training")
        text = f"study {self._study!r} {WORDS[event]}, with {done}{f': {detail}' if detail else ''}"
        message = {
            "event": event,
            "study": self._study,
            "text": text,
            "trainings_done": self._done,
            "trainings_wanted": self._wanted,
            "host": socket.gethostname(),
            "at_unix_s": round(time.time(), 3),
        }
        content = json.dumps(message).encode()
        for send, is_wanted in ((self._post, self._webhook), (self._run, self._settings.command)):
            if is_wanted is not None:
                thread = threading.Thread(target=send, args=(content, message), name="notify", daemon=True)
                thread.start()
                self._sending.append(thread)

    def _post(self, content: bytes, _: Mapping[str, Any]) -> None:
        assert self._webhook is not None
        headers = {"Content-Type": "application/json", "User-Agent": "condensery"}
        try:
            request = urllib.request.Request(self._webhook, content, headers, method="POST")
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self._settings.timeout_s):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            self._failed(shown(self._webhook), f"it answered {error.code}")
        except (OSError, HTTPException, ValueError) as error:  # never the text of the error: it may hold the address
            self._failed(shown(self._webhook), _reason(error))

    def _run(self, content: bytes, message: Mapping[str, Any]) -> None:
        command = list(self._settings.command or ())
        named = {f"CONDENSERY_{name.upper()}": str(message[name]) for name in ("event", "study", "text")}
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **named},
                start_new_session=True,  # Ctrl-C is the search's
            )
        except (OSError, ValueError) as error:
            self._failed(f"the command {command[0]!r}", _reason(error))
            return
        try:
            process.communicate(content, self._settings.timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self._failed(f"the command {command[0]!r}", f"it took more than {self._settings.timeout_s:g} s")
            return
        if process.returncode:
            self._failed(f"the command {command[0]!r}", f"it ended with {process.returncode}")

    def _failed(self, whom: str, reason: str) -> None:
        self._callback.note(f"{whom} could not be notified: {reason}")


def address_of(settings: NotifySettings) -> str | None:
    """Return a webhook's address, which may be in the environment.

    Raises:
        InvalidSettings: the variable isn't set, or holds no address.
    """
    if settings.webhook is None or not settings.webhook.startswith(FROM_ENVIRONMENT):
        return settings.webhook
    name = settings.webhook.removeprefix(FROM_ENVIRONMENT)
    address = os.environ.get(name, "")
    if not is_address(address):
        there = "is not set" if not address else "holds something else"
        raise InvalidSettings(
            f"notify.webhook = {settings.webhook!r} needs an address (https://HOST/...) in the environment variable "
            f"{name}, but that {there}; set it, or leave notify.webhook out."
        )
    return address


def shown(address: str) -> str:
    """Return an address as messages name it, without what may be a secret."""
    parts = urlsplit(address)
    return f"the webhook {parts.scheme}://{parts.hostname}/…"


def _reason(error: Exception) -> str:
    """Return why something failed, in words that hold nothing of an address."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "it didn't answer in time"
    strerror = getattr(inner, "strerror", None)
    return str(strerror) if strerror else type(inner).__name__
