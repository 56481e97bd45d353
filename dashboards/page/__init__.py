"""The live page: one Dash app over a study database that is only read.

`make_app` builds it, `serve` runs it. The server computes (`shown`, `charts`, `table`), the browser draws and answers
the budget (`../assets`), and `access` decides who may look.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.page.access import Access, access_for, guard
from workers.listening import in_url, is_loopback, listen

if TYPE_CHECKING:
    from dash import Dash

__all__ = ["Access", "access_for", "make_app", "serve"]

ASSETS = Path(__file__).parents[1] / "assets"
THREADS = 8
WARM_S = 30.0  # at most, that the end waits for what was to be ready for the first visit; usually a second
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
        url: of the database; it is opened read-only.
        study: the only study to show; None shows them all, with a page to choose from where there are several.
        access: who may look; None: everybody who asks for localhost.
        command_words: what names this database in the commands that the page shows.

    Raises:
        StudyNotFound: there is no such study. Those of `open_for_reading`.
    """
    from dash import Dash
    from flask import Flask

    from dashboards.page.callbacks import add_callbacks
    from dashboards.page.layout import page_layout
    from dashboards.page.routes import add_routes
    from dashboards.page.study_cache import Studies

    studies = Studies(url, study)
    server: Any = Flask("condensery-dashboard", static_folder=None)
    server.config["STUDIES"] = studies
    hashes: list[str] = []
    guard(server, access or Access(), hashes)
    add_routes(server, studies)
    app = Dash(
        "condensery-dashboard",
        server=server,
        assets_folder=str(ASSETS),
        serve_locally=True,
        title="Condensery" if study is None else f"{study[:100]} - Condensery",
        update_title="",  # the tab's name doesn't flicker at every poll
        index_string=INDEX.replace("PLOTLY", _plotly_address()),
        add_log_handler=False,
    )
    app.layout = page_layout()
    add_callbacks(app, studies, command_words)
    hashes.extend(app.csp_hashes())
    return app


def _plotly_address() -> str:
    """Return where Dash serves Plotly from, by a name that lets a browser keep it.

    Dash would ask for it once the first chart stands in the page; asked for with the other scripts, it is compiled
    while they run.
    """
    import plotly
    from dash import fingerprint

    named: Any = fingerprint.build_fingerprint  # untyped
    script = "package_data/plotly.min.js"
    changed = int((Path(plotly.__file__).parent / script).stat().st_mtime)
    return f"/_dash-component-suites/plotly/{named(script, plotly.__version__, changed)}"


def serve(
    url: str,
    study: str | None,
    access: Access,
    address: tuple[str, int],
    note: Callable[[str], None] = lambda text: None,
    open_browser: bool = False,
    command_words: str = "",
) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        url: of the database.
        study: the only study to show; None shows them all.
        access: who may look; see `access_for`.
        address: host and port to listen on; port 0 takes a free one.
        note: told the page's address, and what is to be known of it.
        open_browser: open the page.
        command_words: what names this database in the commands that the page shows.

    Raises:
        InvalidSettings: the address can't be listened on. Those of `make_app`.
    """
    from waitress import create_server

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait for a moment is no news
    host, port = address
    app = make_app(url, study, access, command_words)
    with listen(host, port) as listener:
        server = create_server(app.server, sockets=[listener], threads=THREADS, ident=None)
        page = f"http://{_reached_at(host)}:{listener.getsockname()[1]}/"
        private = f"{page}?token={access.token}" if access.token else page
        ended = threading.Event()
        warming = threading.Thread(target=_warm, args=(app, ended), daemon=True)
        opening = threading.Timer(0.3, webbrowser.open, (private,))
        with contextlib.suppress(KeyboardInterrupt):  # the server's own way to end; here, before it has begun
            note(f"dashboard at {private if access.shown else page}")
            if access.token is not None and not access.shown:
                note("its address ends in ?token= and the token, at the first visit")
            if not is_loopback(host):
                note(
                    f"warning: {host} is open to other machines without TLS: the token can be read on the way; "
                    "docs/dashboards.md shows how to put TLS before it"
                )
            warming.start()
            if open_browser:
                opening.start()
            server.run()
        opening.cancel()
        ended.set()
        until = time.monotonic() + WARM_S
        while warming.is_alive() and time.monotonic() < until:  # or Python aborts, if it ends within compiled code
            with contextlib.suppress(KeyboardInterrupt):
                warming.join(until - time.monotonic())


def _warm(app: Any, ended: threading.Event) -> None:
    """Ask for what the first visit needs, so that it is there by then; about a second of work, in two steps."""
    from dashboards.page.charts import payload_of
    from dashboards.page.heading import budget_table

    if ended.is_set():  # before this began: nobody may wait for it any more
        return
    with contextlib.suppress(Exception):  # the visit itself will say what is wrong
        shown = app.server.config["STUDIES"].get(None)
        budget_table(shown, None)
        if not ended.is_set():
            payload_of(shown, "front", None)


def _reached_at(host: str) -> str:
    """Return what stands for a host in an address: this machine's name where it listens on every network."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return in_url(host)
