"""One trial, or up to four side by side: the network drawn, what it kept and learned, how fast it is, its settings.

What can't be read or drawn says so in its own place, and the rest is shown. While the database is away, trials that
were shown before stay as they were.
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
from dashboards.page.trial_parts import differences, facts, marking, more, names, part
from search.pricing.layer_shares import DeviceShares, LayerShares
from search.store.connection.database_errors import driver_errors
from search.store.replayed import replayed_from
from search.store.vocabulary import FINAL_STATES, STATES
from space.errors import CondenseryError, DeviceNotFound
from workers.wording import agreeing

KEPT = 16  # trials that are kept to be shown while the database is away
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


class Comparison:
    """Makes the section about trials of one study; threads may share it."""

    def __init__(self, study: CachedStudy) -> None:
        self._study = study
        self._replayed = replayed_from(study.columns.study.settings)
        self._shares = DeviceShares(study.live.engine)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Trial] = OrderedDict()

    def section(self, numbers: Sequence[int], view: View, stamp_shown: str = "") -> Section | None:
        """Return the section of some trials; None where a page with the stamp `stamp_shown` can keep what it shows."""
        asked = f"{list(numbers)} {view.group}: "
        away = f"{asked}away"
        try:
            stamp = asked + self._stamp(numbers)
            if stamp == stamp_shown:
                return None
        except AWAY:
            stamp = away
        content, whole = self._content(numbers)
        if not whole and stamp_shown.startswith(asked):
            return None
        return Section(content, stamp if whole else away)

    def _stamp(self, numbers: Sequence[int]) -> str:
        with driver_errors(self._study.live.url):
            parts = [self._fingerprint(self._study.columns, number) for number in numbers]
        return hashlib.sha1(json.dumps(parts).encode(), usedforsecurity=False).hexdigest()

    def _fingerprint(self, columns: StudyColumns, number: int) -> str:
        """Return a text that changes with this trial's own facts; the database is read only for an open trial."""
        place = columns.index_of(number)
        if place is None:
            return f"{number} of {len(columns)}"
        own = (columns.state, columns.attempt, columns.top1, columns.test_top1, columns.finished_at)
        medians = [float(latencies.median_ms[place]) for latencies in columns.latencies.values()]
        grown: Sequence[Any] = ()
        if STATES[columns.state[place]] not in FINAL_STATES:
            grown = read_growth(self._study.live.engine, columns.study.id, number)
        return json.dumps([number, *(float(fact[place]) for fact in own), *medians, *grown])

    def _content(self, numbers: Sequence[int]) -> tuple[list[Component], bool]:
        """Return what the section shows, and whether all of it is as of now."""
        trials: list[_Trial] = []
        missing: list[Component] = []
        whole = True
        for number in numbers:
            try:
                trials.append(self._trial(number))
            except AWAY:
                whole = False
                with self._lock:
                    earlier = self._kept.get(number)
                if earlier is not None:
                    trials.append(earlier)
                else:
                    text = f"Trial {number}: {AWAY_TEXT[:1].lower()}{AWAY_TEXT[1:]}"
                    missing.append(html.Div(html.P(text), className="state", **words({"data-away": "yes"})))
            except CondenseryError as error:
                stale = self._study.live.stale
                text = stale.reason if stale is not None and stale.deleted else str(error)
                missing.append(html.Div(html.P(text), className="state wrong"))
        details = [trial.detail for trial in trials]
        together = [differences(details, self._replayed)] if len(trials) > 1 else []
        curves = [self._curves(details)] if trials else []
        return [*missing, *together, *curves, *(_trial_part(trial, len(trials) > 1) for trial in trials)], whole

    def _trial(self, number: int) -> _Trial:
        with driver_errors(self._study.live.url):
            detail = read_trial_detail(self._study.live.engine, self._study.columns.study, number)
        trial = _Trial(detail, self._parts(detail))
        with self._lock:
            self._kept[number] = trial
            self._kept.move_to_end(number)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return trial

    def _curves(self, details: Sequence[TrialDetail]) -> Component:
        from dashboards.panels import curves_figure, curves_info

        def info() -> Any:
            numbers = [detail.row.number for detail in details]
            return curves_info(self._study.columns, {detail.row.number: detail.curve for detail in details}, numbers)

        title = agreeing(len(details), "Learning curve", "Learning curves")
        return part(f"{names(details)}/curves", title, info, marking(curves_figure, self._replayed))

    def _parts(self, detail: TrialDetail) -> list[Component]:
        from dashboards.panels.trial.confusion import confusion_figure, confusion_info
        from dashboards.panels.trial.kept_channels import kept_channels_figure, kept_channels_info
        from dashboards.panels.trial.measurements import measurements_figure, measurements_info
        from dashboards.panels.trial.network import network_figure, network_info

        config, number = detail.row.config, detail.row.number

        def kept() -> Any:
            with driver_errors(self._study.live.url):
                trained = read_trained_network(self._study.live.engine, detail.row)
            return kept_channels_info(config, trained)

        parts: list[Part] = [
            ("confusion", "Which classes it confuses", lambda: confusion_info(detail), confusion_figure),
            ("network", "The network", lambda: network_info(config, self._shares_of(detail)), network_figure),
            ("kept", "Which channels each group kept", kept, kept_channels_figure),
            ("measurements", "Latency measurements", lambda: measurements_info(detail), measurements_figure),
        ]
        return [
            facts(detail),
            *(
                part(f"{number}/{name}", title, info, marking(draw, self._replayed))
                for name, title, info, draw in parts
            ),
            more(detail),
        ]

    def _shares_of(self, detail: TrialDetail) -> LayerShares | str:
        latency = detail.row.latency
        if latency is None:
            return "it has no latency"
        try:
            with driver_errors(self._study.live.url):
                return self._shares.of(detail.row.config, latency)
        except DeviceNotFound as error:
            return str(error)


def _trial_part(trial: _Trial, several: bool) -> Component:
    number = trial.detail.row.number
    head = html.H3(f"Trial {number}", id=f"trial-{number}", className="trial-head")
    return html.Div([head, *trial.parts], className="trial several" if several else "trial", key=f"trial-{number}")
