"""Pages in a real browser: one Chromium for the session, and visits that record what a page says and asks for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = Path(__file__).parents[2] / "test-artifacts"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_S = 120.0  # until a visit gives up waiting, on a crowded machine; none waits that long when all is well
# Said by the driver about itself, not by the page: which software stands in for a graphics card, and how fast it is.
DRIVER_WORDS = ("GL Driver Message", "GPU stall due to ReadPixels", "swiftshader", "software WebGL")

in_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield started
        started.close()


class Visit:
    """One page in a browser context of its own: `complaints` (errors and warnings), `requests` (addresses, in order).

    Use it in a `with` statement; nothing is opened before `open`. The clipboard may be read and written.
    """

    def __init__(
        self, browser: Any, width: int = 1200, height: int = 900, scheme: str = "light", touch: bool = False
    ) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True, has_touch=touch
        )
        self.context.set_default_timeout(1000 * PATIENCE_S)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()

    def fresh(self) -> Self:
        """Forget what was said and asked for so far."""
        self.complaints.clear()
        self.requests.clear()
        return self

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(word in message.text for word in DRIVER_WORDS):
            self.complaints.append(message.text)

    def open(self, place: str | Path, ready: str | None = None, timeout_s: float = PATIENCE_S) -> Self:
        """Go to a URL or a file; with `ready`, wait until this JavaScript expression is true."""
        self.page.goto(place.as_uri() if isinstance(place, Path) else place, timeout=1000 * timeout_s)
        if ready is not None:
            self.wait(ready, timeout_s)
        return self

    def wait(self, expression: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a JavaScript expression is true; asked in the page, whose policy may forbid evaluating text.

        Raises:
            AssertionError: it didn't become true in time; says what the page complained of.
        """
        look = (
            f"() => new Promise((done) => {{ const end = performance.now() + {1000 * timeout_s}; const look = () => {{"
            f"let held = false; try {{ held = Boolean({expression}); }} catch (error) {{ held = false; }}"
            "if (held || performance.now() > end) { done(held); } else { setTimeout(look, 20); } }; look(); })"
        )
        held = self.page.evaluate(look)
        assert held, f"not within {timeout_s:g} s: {expression}; complaints: {self.complaints}, at {self.page.url}"

    def outside(self, own: str) -> list[str]:
        """Return the addresses asked for that don't begin with `own` and don't lie in the page itself."""
        return [url for url in self.requests if not url.startswith((own, "data:", "blob:"))]

    def picture(self, name: str, full: bool = True) -> Path:
        """Save what the page looks like under test-artifacts/ if CONDENSERY_PICTURES is set; return the file.

        For people alone: a picture of a whole page takes seconds of the processor.
        """
        path = PICTURES / f"{name}.png"
        if not os.environ.get("CONDENSERY_PICTURES"):
            return path
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=str(path), full_page=full, timeout=120_000)  # WebGL without a graphics card
        return path

    def colours(self, *names: str) -> list[str]:
        """Return the values of CSS variables of the document, such as "--ink", as #rrggbb."""
        read = "(names) => names.map((n) => getComputedStyle(document.documentElement).getPropertyValue(n).trim())"
        found: list[str] = self.page.evaluate(read, list(names))
        return found

    def text(self, selector: str) -> str:
        """Return the text of the first element that a CSS selector finds, as the reader sees it."""
        return str(self.page.evaluate(f"() => document.querySelector({json.dumps(selector)})?.innerText ?? ''"))


class KeptVisit:
    """A page that is opened once for several tests, because that takes longest: each leaves it as it found it.

    One that was left otherwise, by a test that failed, is opened anew.
    """

    def __init__(self, visit: Visit, place: str | Path, ready: str, look: str) -> None:
        """Visit `place`, which is ready when one JavaScript expression is true; another tells what was left behind."""
        self._visit, self._place, self._ready, self._look = visit, place, ready, look
        self._found: Any = None

    def again(self) -> Visit:
        """Return the visit as when it was opened: at the top, the pointer outside, nothing with the focus."""
        visit = self._visit.fresh()
        if self._found is None or self._left() != self._found:
            visit.open(self._place, self._ready)
            self._found = self._left()
        visit.page.mouse.move(0, 0)
        visit.page.evaluate(
            "() => { window.scrollTo(0, 0); document.body.tabIndex = -1; document.body.focus();"
            " document.body.removeAttribute('tabindex'); }"
        )
        return visit

    def _left(self) -> Any:
        return self._visit.page.evaluate(f"() => {self._look}")


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours #rrggbb, 1 to 21 (WCAG 2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
