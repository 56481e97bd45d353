"""The live page as the browser tests open it: served by waitress in a thread, ready when everything is there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waitress import create_server

from dashboards.page import Access, make_app
from tests.dashboards.browser import KeptVisit, Visit
from tests.dashboards.studies import Study

CHARTS = ("front", "macs-latency", "parallel", "importance", "curves", "progress", "timeline", "belief")
# Everything is there, or says why it isn't.
READY = (
    "document.getElementById('name').textContent && document.getElementById('sentence').textContent && "
    f"{json.dumps(CHARTS)}.every((name) => document.getElementById(`${{name}}-state`).hidden"
    " ? document.querySelector(`#${name}-graph .main-svg`)"
    " : !document.getElementById(`${name}-state`).textContent.startsWith('Loading'))"
)
TABLE = f"{READY} && document.querySelector('#trials-grid .ag-row .ag-cell[col-id=number]')?.textContent"

# Its address is complete; and what a reader may leave behind.
SETTLED = f"({TABLE}) && location.search.includes('study=')"
LEFT_BEHIND = """[location.search, document.getElementById('rows-shown').textContent,
    document.getElementById('number-0')?.value]"""


@contextmanager
def served(url: str, access: Access | None = None) -> Iterator[str]:
    """The page of a database, served by waitress in a thread; its address."""
    server = create_server(make_app(url, None, access).server, host="127.0.0.1", port=0, threads=8, ident=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}/"
    finally:
        server.trigger.pull_trigger(server.close)  # in its own thread, which may be looking at its sockets just now
        thread.join(timeout=5)
        server.task_dispatcher.shutdown()


def url_of(made: Study) -> str:
    return f"sqlite:///{made.folder / 'study.db'}"


def opened(visit: Visit, address: str, ready: str = READY) -> Visit:
    return visit.open(address, ready)


def choose(visit: Visit, *numbers: int) -> None:
    """Select trials as a click on their points does."""
    in_page(visit, f"window.CondenseryPage.parts.choose({list(numbers)})")


def kept(visit: Visit, address: str) -> KeptVisit:
    """The page, for several tests."""
    return KeptVisit(visit, address, SETTLED, LEFT_BEHIND)


def silent(visit: Visit, address: str) -> None:
    assert visit.complaints == [], visit.complaints
    assert visit.outside(address) == [], visit.outside(address)


def in_page(visit: Visit, script: str) -> Any:
    return visit.page.evaluate(f"() => {script}")


FRONT = "document.querySelector('#front-graph .js-plotly-plot')"


def zoom_of(visit: Visit) -> list[float]:
    found: list[float] = in_page(visit, f"[...{FRONT}.layout.xaxis.range]")
    return found


def point_of(visit: Visit, number: int) -> tuple[float, float]:
    """Return where the front shows a trial."""
    x, y = in_page(
        visit,
        f"""{{
        const graph = {FRONT}, {{ xaxis, yaxis }} = graph._fullLayout, box = graph.getBoundingClientRect();
        for (const trace of graph._fullData) {{
          const i = [...(trace.customdata || [])].findIndex((carried) => carried[0] === {number});
          if (i >= 0) {{
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]), box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
          }}
        }} }}""",
    )
    return x, y


def hidden(visit: Visit, name: str) -> bool:
    return bool(in_page(visit, f"document.getElementById('{name}').hidden"))
