"""A Chromium without an inspector, so that a page loads in it as in a user's browser.

The drivers of tests keep the JavaScript inspector on: every exception thrown then records 200 frames of stack,
and Plotly throws some while it loads (0.3 to 0.5 s of a page's first 2.5 s here). A new window also loads the browser's
own parts for about a second. Here the window has time to settle, and the inspector stays off until the page is drawn:
the DevTools protocol over a pipe, its `Page` and `Target` domains only, and one `Runtime.evaluate` at the end.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

SETTLES_S = 2.5


class BareBrowser:
    """A headless browser with an empty profile; a context manager."""

    def __init__(self, program: str, flags: Sequence[str]) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        asked, self._ask = os.pipe()
        self._told, answered = os.pipe()
        command = [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", *flags]
        at_3_and_4 = f'exec "$@" 3<&{asked} 4>&{answered}'  # where the browser wants its pipes
        self._process = subprocess.Popen(
            ["bash", "-c", at_3_and_4, "bash", *command, "about:blank"],
            pass_fds=(asked, answered),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(asked)
        os.close(answered)
        self._number, self._pending = 0, b""

    def __enter__(self) -> BareBrowser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._ask)
        os.close(self._told)
        self._profile.cleanup()

    def visit(self, address: str, expression: str, timeout_s: float) -> Any:
        """Open a page in a window of its own with an empty cache; return the value of a JavaScript promise there.

        Args:
            address: of the page.
            expression: of the promise; it is made before any script of the page runs.
            timeout_s: of the promise.

        Raises:
            TimeoutError: the promise is not kept in time.
        """
        context = self._call("Target.createBrowserContext")["browserContextId"]
        try:
            size = {"width": 1200, "height": 900}
            target = self._call("Target.createTarget", url="about:blank", browserContextId=context, **size)["targetId"]
            session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._call("Page.enable", session)
            time.sleep(SETTLES_S)
            source = f"window.awaited = {expression}"
            self._call("Page.addScriptToEvaluateOnNewDocument", session, source=source)
            self._call("Page.navigate", session, url=address)
            awaited = {"expression": "window.awaited", "awaitPromise": True, "returnByValue": True}
            return self._call("Runtime.evaluate", session, timeout_s, **awaited)["result"].get("value")
        finally:
            self._call("Target.disposeBrowserContext", browserContextId=context)

    def _call(self, method: str, session: str | None = None, timeout_s: float = 60.0, /, **params: Any) -> Any:
        self._number += 1
        question = {"id": self._number, "method": method, "params": params}
        os.write(self._ask, json.dumps(question | ({"sessionId": session} if session else {})).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while True:
            while b"\0" not in self._pending:
                if not select.select([self._told], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise TimeoutError(f"{method} took longer than {timeout_s:.0f} s")
                if not (more := os.read(self._told, 1 << 16)):
                    raise ConnectionError("the browser has ended")
                self._pending += more
            message, _, self._pending = self._pending.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ValueError(f"{method}: {answer['error']}")
                return answer["result"]
