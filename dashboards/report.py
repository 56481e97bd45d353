"""One study as one HTML file to send around: the answer first, then the charts, every trial, and what it rests on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dashboards import old_panels as panels
from dashboards.drawing import PLOT_CONFIG
from dashboards.formats import (
    budget_of,
    budget_text,
    one_line,
    public_settings,
    shared_label,
)
from dashboards.headline import answer_card, counted
from dashboards.page import chart, esc, page
from dashboards.queries import StudyView, load_study_view
from dashboards.report_tables import ALL_COLUMNS, FRONT_COLUMNS, trials_html
from dashboards.tables import moment
from search.gate import Budget
from search.store.reader import TrialRow, read_curve
from space.errors import DiskFull, ReadOnlyFolder

MOST_CURVES = 8


def write_report(engine: sa.Engine, study_name: str, path: Path, max_latency_ms: float | None = None) -> None:
    """Write a study's report to `path`, replacing what is there in one step; the database is only read.

    Args:
        engine: the study database.
        study_name: which study.
        path: the HTML file; its folder is made when it isn't there.
        max_latency_ms: latency budget of the answer; None takes the study's own.

    Raises:
        StudyNotFound: there is no such study.
        ReadOnlyFolder, DiskFull: the file can't be written.
    """
    view = load_study_view(engine, study_name)
    curves = {row.number: read_curve(engine, row.id) for row in _curve_rows(view)}
    _put_in_place(path, report_html(view, curves, max_latency_ms).encode("utf-8"))


def report_html(view: StudyView, curves: dict[int, list[dict[str, Any]]], max_latency_ms: float | None = None) -> str:
    """Return the report's HTML; `curves` has learning curves by trial number (see `write_report`)."""
    budget = budget_of(view.study.settings)
    if max_latency_ms is not None:
        budget = replace(budget, max_latency_ms=max_latency_ms)
    pick, answer = answer_card(view, budget)
    name = one_line(view.study.name)
    body = "\n".join(
        (
            f"<header><h1>{esc(name)}</h1><p class=muted>{esc(_subtitle(view))}</p></header>",
            f"<main>{answer}",
            "<noscript><p>The charts need JavaScript; the tables hold the same numbers.</p></noscript>",
            _front_section(view, budget, pick),
            _macs_section(view, budget),
            _curves_section(view, curves),
            _trials_section(view, pick),
            _basis_section(view),
            "</main>",
            f"<footer><p>Written by Condensery on {esc(moment(time.time()))} UTC.</p></footer>",
        )
    )
    return page(f"{name} - Condensery", body, json.dumps(PLOT_CONFIG))


# ---- sections -------------------------------------------------------------------------------------------


def _front_section(view: StudyView, budget: Budget, pick: TrialRow | None) -> str:
    info = panels.front_info(view.trials, view.front, budget.max_latency_ms)
    # The study may limit macs and params too, which the chart's own recommendation doesn't know of.
    info = dataclasses.replace(info, recommended=None if pick is None else pick.number)
    rows = view.front_rows
    figure = chart(
        "front",
        panels.front_figure(info),
        f"Top-1 against latency of {len(info.points)} trials, {len(rows)} of them on the front",
        _front_caption(info),
    )
    members = trials_html(rows, FRONT_COLUMNS, pick, "Networks on the front") if rows else ""
    return _section("front-section", "Accuracy against latency", figure + members)


def _front_caption(info: panels.FrontInfo) -> str:
    words = []
    if any(point.role == "front" for point in info.points):
        words.append(
            "No network beats one on the front in accuracy, latency and macs at once. The steps follow the most "
            "accurate network up to each latency; a front marker below them earns its place by fewer macs."
        )
    if any(point.top1 is not None for point in info.points):
        words.append("Horizontal bars are 95 % intervals of the median latency.")
    if any(point.role == "infeasible" for point in info.points):
        words.append("The grey ticks at the bottom are candidates over a budget: priced, never trained.")
    labels = {point.label.removesuffix(", not steady") for point in info.points}
    if len(info.groups) == 1:
        place = info.groups[0].partition(", ")[2]
        words.append(f"Latency: {labels.pop() if len(labels) == 1 else 'of several policies'}, on {place}.")
    elif info.groups:
        words.append(
            "Latencies of different kinds, devices or runtimes can't be compared: each has a front of its own."
        )
    return " ".join(words)


def _macs_section(view: StudyView, budget: Budget) -> str:
    info = panels.macs_latency_info(view.trials, view.front, budget.max_latency_ms)
    known = [(name, rho) for name, rho in zip(info.groups, info.rank_correlations, strict=True) if rho is not None]
    words = [
        f"Rank correlation of macs and latency{f' ({name})' if len(info.groups) > 1 else ''}: {rho:.2f}."
        for name, rho in known
    ]
    if words:
        words.append("At 1 macs alone would put the networks in the device's order; below it, measuring pays.")
    figure = chart(
        "macs-latency",
        panels.macs_latency_figure(info),
        f"Latency against macs of {len(info.points)} priced trials",
        " ".join(words),
    )
    return _section("macs-section", "What macs say about latency", figure)


def _curve_rows(view: StudyView) -> list[TrialRow]:
    """Whose curves are shown: the front's, most accurate first; before there is a front, whatever has trained."""
    front = sorted(view.front_rows, key=lambda row: -(row.top1 or 0.0))
    return front or [row for row in view.trials if row.started_at is not None][:MOST_CURVES]


def _curves_section(view: StudyView, curves: dict[int, list[dict[str, Any]]]) -> str:
    info = panels.curves_info(_curve_rows(view), curves, MOST_CURVES)
    words = []
    if info.curves:
        words.append(
            "A dip where the marker changes is the price of a condensing stage: connections were removed there. The "
            "star is the deployed network, the one that counts."
        )
        words.append("The axis spans what comes after the first fifth of a training; a double click shows all.")
    if info.left_out:
        words.append(f"The {len(info.curves)} most accurate are shown, {info.left_out} more are not.")
    label = f"Validation accuracy over training progress of {len(info.curves)} trials"
    figure = chart("curves", panels.curves_figure(info), label, " ".join(words))
    title = "Learning curves of the front" if view.front else "Learning curves"
    return _section("curves-section", title, figure)


def _trials_section(view: StudyView, pick: TrialRow | None) -> str:
    if not view.trials:
        return _section("trials-section", "All trials", "<p class=muted>None yet.</p>")
    states = Counter(row.state for row in view.trials)
    shared = shared_label(view.trials)
    note = f"{counted(states)}." + (f" Latency: {shared}." if shared else "")
    inner = f"<p class=muted>{esc(note)}</p>" + trials_html(view.trials, ALL_COLUMNS, pick, "All trials")
    return _section("trials-section", "All trials", inner)


def _basis_section(view: StudyView) -> str:
    settings = json.dumps(public_settings(view.study.settings), indent=2, ensure_ascii=False)
    versions = "\n".join(f"{name} {version}" for name, version in view.study.versions.items())
    data = json.dumps(view.study.data_info, indent=2, ensure_ascii=False) if view.study.data_info else "not read yet"
    inner = (
        "<details><summary>Settings, data and versions</summary>"
        f"<h3>Settings</h3><pre tabindex=0>{esc(settings)}</pre>"
        f"<h3>Data</h3><pre tabindex=0>{esc(data)}</pre>"
        f"<h3>Versions</h3><pre tabindex=0>{esc(versions)}</pre>"
        f"<p class=muted>Settings hash {esc(view.study.settings_hash)}</p></details>"
    )
    return _section("basis-section", "What this rests on", inner)


def _section(name: str, title: str, inner: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{esc(title)}</h2>{inner}</section>'


def _subtitle(view: StudyView) -> str:
    data = (view.study.data_info or {}).get("dataset") or (view.study.settings.get("data") or {}).get("dataset")
    trials = f"{len(view.trials)} {'trial' if len(view.trials) == 1 else 'trials'}"
    parts = [f"Data: {one_line(data, 80)}" if data else "", f"budget: {budget_text(view.study.settings)}", trials]
    return ", ".join(filter(None, (*parts, f"begun {moment(view.study.created_at)} UTC")))


# ---- the file -------------------------------------------------------------------------------------------


def _put_in_place(path: Path, content: bytes) -> None:
    """Write by way of a temporary file beside it, so that a reader sees the old report or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space is left to write the report {path}; free some and write it again.") from error
        raise ReadOnlyFolder(
            f"the report can't be written to {path} ({error.strerror}); choose a file in a folder you may write."
        ) from error
