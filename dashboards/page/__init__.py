"""The live page: one Dash app over a study database.

`make_app` builds it, `serve` runs it. The server computes (`study_cache`, `charts`, `table`), the browser draws and
answers the budget (`../assets`), and `access` decides who may look and who may write. All that looks reads over a
connection that can't write; `writes` alone writes, over connections of its own.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.page.access import Access, access_for, guard
from workers.listening import connections_most, in_url, is_loopback, limited_logs, listen, raise_file_limit

if TYPE_CHECKING:
    from dash import Dash

__all__ = ["Access", "access_for", "make_app", "serve"]

ASSETS = Path(__file__).parents[1] / "assets"
THREADS = 8
SILENT_S = 10  # a connection that has sent nothing for so long is closed
WARM_S = 30.0  # the longest that the end waits for the preparation of the first visit; usually it takes a second
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
<link rel="icon" href="/assets/icon.svg">
{%css%}
</head>
<body>
<noscript><p>This page needs JavaScript; the tables of what `condensery report` writes don't.</p></noscript>
{%app_entry%}
<div hidden>{%config%}</div>
{%scripts%}
<script src="PLOTLY"></script>
{%renderer%}
</body>
</html>"""


def make_app(url: str, study: str | None = None, access: Access | None = None, command_words: str = "") -> Dash:
    """Return the page of a database, as a Dash app whose `server` is a WSGI application.

    Args:
        url: of the database; it is opened read-only, but for what the page's buttons write.
        study: the only study to show; None shows them all, with a page to choose from where there are several.
        access: who may look and who may write; None: everyone on this machine may look, no one may write.
        command_words: what names this database in the commands that the page shows.

    Raises:
        StudyNotFound: there is no such study. Those of `open_for_reading`.
    """
    from dash import Dash
    from flask import Flask

    from dashboards.page.callbacks import add_callbacks
    from dashboards.page.layout import page_layout
    from dashboards.page.routes import add_routes
    from dashboards.page.steering import steering_routes
    from dashboards.page.studies_page import StudiesPage
    from dashboards.page.study_cache import Studies
    from dashboards.page.writes import add_writes

    access = access or Access()
    studies = Studies(url, study)
    server: Any = Flask("condensery-dashboard", static_folder=None)
    server.config["STUDIES"] = studies
    hashes: list[str] = []
    guard(server, access, hashes)
    add_writes(server, studies, access)
    all_studies = StudiesPage(studies, command_words, _plotly_address())
    add_routes(server, studies, steering_routes(access, command_words), all_studies)
    app = Dash(
        "condensery-dashboard",
        server=server,
        assets_folder=str(ASSETS),
        assets_ignore="studies.*",  # of the page of all studies, which has no Dash
        serve_locally=True,
        title="Condensery" if study is None else f"{study[:100]} - Condensery",
        update_title="",  # or the title of the tab flickers at every poll
        index_string=INDEX.replace("PLOTLY", _plotly_address()),
        add_log_handler=False,
    )
    app.layout = page_layout()
    add_callbacks(app, studies, command_words)
    hashes.extend(app.csp_hashes())
    return app


def _plotly_address() -> str:
    """Return where Dash serves Plotly from, by a name that lets a browser keep it.

    Dash would load it only when the first chart is in the page; loaded with the other scripts, it is compiled while
    they run.
    """
    import plotly
    from dash import fingerprint

    named: Any = fingerprint.build_fingerprint  # untyped
    script = "package_data/plotly.min.js"
    changed = int((Path(plotly.__file__).parent / script).stat().st_mtime)
    return f"/_dash-component-suites/plotly/{named(script, plotly.__version__, changed)}"


def serve(
    app: Dash,
    access: Access,
    address: tuple[str, int],
    note: Callable[[str], None] = lambda text: None,
    open_browser: bool = False,
) -> None:
    """Serve a page until SIGTERM or Ctrl-C.

    Args:
        app: what `make_app` returned.
        access: who may look, as the page was made with; see `access_for`.
        address: host and port to listen on; port 0 takes a free one.
        note: called with the page's address, and with what its user should know of it.
        open_browser: whether to open the page in a browser.

    Raises:
        InvalidSettings: the address can't be listened on.
    """
    from waitress import create_server

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # requests that wait for a moment are no warning
    host, port = address
    raise_file_limit()
    with listen(host, port) as listener, limited_logs("waitress"):
        server = create_server(app.server, sockets=[listener], threads=THREADS, ident=None, **_strangers_limits())
        page = f"http://{_reached_at(host)}:{listener.getsockname()[1]}/"
        private = f"{page}?token={access.token}" if access.token else page
        ended = threading.Event()
        warming = threading.Thread(target=_warm, args=(app, ended), daemon=True)
        opening = threading.Timer(0.3, webbrowser.open, (private,))
        with contextlib.suppress(KeyboardInterrupt):  # the way a server ends; here, before it has begun
            for text in _notes(access, host, page):
                note(text)
            warming.start()
            if open_browser:
                opening.start()
            server.run()
        opening.cancel()
        ended.set()
        _wait_for(warming)


def _strangers_limits() -> dict[str, int | bool]:
    """Return waitress's settings for what strangers may hold open and send."""
    return {
        "connection_limit": connections_most(),
        "channel_timeout": SILENT_S,
        "cleanup_interval": 1,  # seconds
        "asyncore_use_poll": True,  # select knows no more than 1024 files
        "max_request_header_size": 64 << 10,
        "max_request_body_size": 1 << 20,
        "inbuf_overflow": 64 << 10,  # what is longer goes to a temporary file
    }


def _notes(access: Access, host: str, page: str) -> Iterator[str]:
    """Yield the page's address, and what its user should know of it."""
    reading = f" ; without its token it can only be read: {page}" if access.looking_is_free else ""
    yield f"dashboard at {page}?token={access.token}{reading}" if access.shown else f"dashboard at {page}"
    if access.token is not None and not access.shown:
        yield "at the first visit its address ends in ?token= and the token"
    if not is_loopback(host):
        yield (
            f"warning: {host} is open to other machines without TLS: the token can be read on the way; "
            "docs/dashboards.md shows how to put TLS in front of it"
        )


def _wait_for(warming: threading.Thread) -> None:
    """Wait until the first visit is prepared: Python aborts if it ends while a thread is in compiled code."""
    until = time.monotonic() + WARM_S
    while warming.is_alive() and time.monotonic() < until:
        with contextlib.suppress(KeyboardInterrupt):
            warming.join(until - time.monotonic())


def _warm(app: Any, ended: threading.Event) -> None:
    """Compute what the first visit needs, so that it is there by then; about a second of work, in two steps."""
    from dashboards.page.charts import payload_of
    from dashboards.page.heading import budget_table

    if ended.is_set():
        return
    with contextlib.suppress(Exception):  # the visit itself will say what is wrong
        study = app.server.config["STUDIES"].get(None)
        budget_table(study, None)
        if not ended.is_set():
            payload_of(study, "front", None)
        if not ended.is_set():
            import sklearn.ensemble  # noqa: F401  # it brings pandas, and half of pandas stops Plotly in other threads


def _reached_at(host: str) -> str:
    """Return a host as an address names it: this machine's name where it listens on every network."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return in_url(host)
