"""Looking at a study in a browser: the live page and the report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from commands.common import (
    LatencyLimits,
    Storage,
    StudyName,
    limits_by_device,
    name_and_url,
    open_named,
    say,
    show_text,
    storage_words,
)


def dashboard(
    study: StudyName = None,
    storage: Storage = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8050,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="A text file with the token; without it CONDENSERY_DASHBOARD_TOKEN holds it, or one is made."
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the live page: budget, front, charts, trials; the database is only read. Ctrl-C ends it."""
    from dashboards.page import access_for, serve

    name, url = name_and_url(study, storage)
    words = shlex.join(storage_words(storage))
    serve(url, name, access_for(host, token_file), (host, port), say, open_browser, words)


def report(
    study: StudyName = None,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    max_latency_ms: LatencyLimits = None,
    storage: Storage = None,
) -> None:
    """Write one HTML page that needs no server and no network: budget, front, charts, trials.

    Limits that are not given are the study's own; whoever reads the page can move them.
    """
    from dashboards.data.study_settings import devices_of
    from dashboards.report.report import write_report

    engine, found, _ = open_named(study, storage)
    limits_ms = limits_by_device(max_latency_ms or (), devices_of(found.settings))
    write_report(engine, found.name, out, limits_ms, shlex.join(storage_words(storage)))
    show_text(f"wrote {out}")
