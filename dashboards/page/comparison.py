"""One trial, or up to four beside each other: the network drawn, what it kept, learned and took, and its settings.

What can't be read or drawn says so in its own place, and the rest stands. While the database is away, trials that were
shown before are shown again as they were.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dash import html
from dash.development.base_component import Component

from dashboards.data.columns import StudyColumns, View
from dashboards.data.trial_detail import TrialDetail, read_growth, read_trained_network, read_trial_detail
from dashboards.page.layout import words
from dashboards.page.study_cache import AWAY, AWAY_TEXT, CachedStudy
from dashboards.page.trial_parts import differences, facts, more, names, part
from search.pricing.layer_shares import DeviceShares, LayerShares
from search.store.database_errors import driver_errors
from search.store.vocabulary import FINAL_STATES, STATES
from space.errors import CondenseryError, DeviceNotFound

KEPT = 16  # trials that can still be shown while the database is away
Part = tuple[str, str, Callable[[], Any], Callable[[Any], Any]]  # name, title, info, figure


@dataclass(frozen=True)
class Section:
    """What the section shows, and a stamp that differs whenever that could."""

    content: list[Component]
    stamp: str


@dataclass(frozen=True)
class _Trial:
    detail: TrialDetail
    parts: list[Component]


class Compared:
    """Makes the section of one study; threads may share it."""

    def __init__(self, shown: CachedStudy) -> None:
        self._shown = shown
        self._shares = DeviceShares(shown.live.engine)
        self._lock = threading.Lock()
        self._known: OrderedDict[int, _Trial] = OrderedDict()

    def section(self, numbers: Sequence[int], view: View, known: str = "") -> Section | None:
        """Return the section of some trials; None where the page, whose stamp is `known`, can keep what it shows."""
        asked = f"{list(numbers)} {view.group}: "
        away = f"{asked}away"
        try:
            stamp = asked + self._stamp(numbers)
            if stamp == known:
                return None
        except AWAY:
            stamp = away
        content, whole = self._content(numbers)
        if not whole and known.startswith(asked):
            return None
        return Section(content, stamp if whole else away)

    def _stamp(self, numbers: Sequence[int]) -> str:
        with driver_errors(self._shown.live.url):
            parts = [self._fingerprint(self._shown.columns, number) for number in numbers]
        return hashlib.sha1(json.dumps(parts).encode(), usedforsecurity=False).hexdigest()

    def _fingerprint(self, columns: StudyColumns, number: int) -> str:
        """Return what changes when this trial's own facts do; only of an open one anything is read."""
        place = columns.index_of(number)
        if place is None:
            return f"{number} of {len(columns)}"
        own = (columns.state, columns.attempt, columns.top1, columns.test_top1, columns.finished_at)
        medians = [float(known.median_ms[place]) for known in columns.latencies.values()]
        grown: Sequence[Any] = ()
        if STATES[columns.state[place]] not in FINAL_STATES:
            grown = read_growth(self._shown.live.engine, columns.study.id, number)
        return json.dumps([number, *(float(fact[place]) for fact in own), *medians, *grown])

    def _content(self, numbers: Sequence[int]) -> tuple[list[Component], bool]:
        """Return what the section shows, and whether all of it is as of now."""
        found: list[_Trial] = []
        wrong: list[Component] = []
        whole = True
        for number in numbers:
            try:
                found.append(self._trial(number))
            except AWAY:
                whole = False
                with self._lock:
                    before = self._known.get(number)
                if before is not None:
                    found.append(before)
                else:
                    text = f"Trial {number}: {AWAY_TEXT[:1].lower()}{AWAY_TEXT[1:]}"
                    wrong.append(html.Div(html.P(text), className="state", **words({"data-away": "yes"})))
            except CondenseryError as error:
                stale = self._shown.live.stale
                text = stale.reason if stale is not None and stale.deleted else str(error)
                wrong.append(html.Div(html.P(text), className="state wrong"))
        details = [one.detail for one in found]
        together = [differences(details)] if len(found) > 1 else []
        curves = [self._curves(details)] if found else []
        return [*wrong, *together, *curves, *(_standing(one, len(found) > 1) for one in found)], whole

    def _trial(self, number: int) -> _Trial:
        with driver_errors(self._shown.live.url):
            detail = read_trial_detail(self._shown.live.engine, self._shown.columns.study, number)
        made = _Trial(detail, self._parts(detail))
        with self._lock:
            self._known[number] = made
            self._known.move_to_end(number)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return made

    def _curves(self, found: Sequence[TrialDetail]) -> Component:
        from dashboards.panels import curves_figure, curves_info

        def info() -> Any:
            numbers = [detail.row.number for detail in found]
            return curves_info(self._shown.columns, {one.row.number: one.curve for one in found}, numbers)

        title = "Learning curve" if len(found) == 1 else "Learning curves"
        return part(f"{names(found)}/curves", title, info, curves_figure)

    def _parts(self, detail: TrialDetail) -> list[Component]:
        from dashboards.panels.trial.kept_channels import kept_channels_figure, kept_channels_info
        from dashboards.panels.trial.measurements import measurements_figure, measurements_info
        from dashboards.panels.trial.network import network_figure, network_info

        config, number = detail.row.config, detail.row.number

        def kept() -> Any:
            with driver_errors(self._shown.live.url):
                trained = read_trained_network(self._shown.live.engine, detail.row)
            return kept_channels_info(config, trained)

        parts: list[Part] = [
            ("network", "The network", lambda: network_info(config, self._shares_of(detail)), network_figure),
            ("kept", "Which channels each group kept", kept, kept_channels_figure),
            ("measurements", "Latency measurements", lambda: measurements_info(detail), measurements_figure),
        ]
        return [
            facts(detail),
            *(part(f"{number}/{name}", title, info, figure) for name, title, info, figure in parts),
            more(detail),
        ]

    def _shares_of(self, detail: TrialDetail) -> LayerShares | str:
        latency = detail.row.latency
        if latency is None:
            return "it has no latency"
        try:
            with driver_errors(self._shown.live.url):
                return self._shares.of(detail.row.config, latency)
        except DeviceNotFound as error:
            return str(error)


def _standing(one: _Trial, several: bool) -> Component:
    number = one.detail.row.number
    head = html.H3(f"Trial {number}", id=f"trial-{number}", className="trial-head")
    return html.Div([head, *one.parts], className="trial several" if several else "trial", key=f"trial-{number}")
