"""The drawer's content: one trial, or two to four compared. The figures that count come first, and at once.

`facts` is what is known without drawing: a trial's figures, or what differs between several. `section` is what is drawn
of them: curve, network, kept channels, classes, measurements and files of one trial; networks, curves and ratios of
several.

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

KEPT = 16  # trials that are kept to be shown again, also while the database is away
CURVE_PX = 360  # height of the curves in the drawer
Part = tuple[str, str, Callable[[], Any], Callable[[Any], Any]]  # name, title, info, figure


@dataclass(frozen=True)
class Section:
    """What a part of the drawer shows, and a stamp that differs whenever that could."""

    content: list[Component]
    stamp: str


@dataclass(frozen=True)
class _Read:
    """The trials as far as they can be read, sentences about the others, and whether all of it is as of now."""

    details: list[TrialDetail]
    missing: list[Component]
    whole: bool


class Comparison:
    """Makes the drawer's content about trials of one study; threads may share it."""

    def __init__(self, study: CachedStudy) -> None:
        self._study = study
        self._replayed = replayed_from(study.columns.study.settings)
        self._shares = DeviceShares(study.live.engine)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, TrialDetail] = OrderedDict()
        self._drawn: OrderedDict[int, tuple[str, list[Component]]] = OrderedDict()

    def facts(self, numbers: Sequence[int], view: View, stamp_shown: str = "") -> Section | None:
        """Return the figures of some trials; None where a page with the stamp `stamp_shown` can keep what it shows."""
        return self._section(self._facts, numbers, view, stamp_shown)

    def section(self, numbers: Sequence[int], view: View, stamp_shown: str = "") -> Section | None:
        """Return the drawings of some trials; None as of `facts`."""
        return self._section(self._figures, numbers, view, stamp_shown)

    def _section(
        self,
        content_of: Callable[[_Read], tuple[list[Component], bool]],
        numbers: Sequence[int],
        view: View,
        stamp_shown: str,
    ) -> Section | None:
        asked = f"{list(numbers)} {view.group}: "
        away = f"{asked}away"
        try:
            stamp = asked + self._stamp(numbers)
            if stamp == stamp_shown:
                return None
        except AWAY:
            stamp = away
        content, whole = content_of(self._read(numbers))
        if not whole and stamp_shown.startswith(asked):
            return None
        of = words({"data-trials": ",".join(map(str, numbers))})
        return Section([html.Div(content, **of)], stamp if whole else away)

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

    def _read(self, numbers: Sequence[int]) -> _Read:
        details: list[TrialDetail] = []
        missing: list[Component] = []
        whole = True
        for number in numbers:
            try:
                details.append(self._detail(number))
            except AWAY:
                whole = False
                with self._lock:
                    earlier = self._kept.get(number)
                if earlier is not None:
                    details.append(earlier)
                else:
                    text = f"Trial {number}: {AWAY_TEXT[:1].lower()}{AWAY_TEXT[1:]}"
                    missing.append(html.Div(html.P(text), className="state small", **words({"data-away": "yes"})))
            except CondenseryError as error:
                stale = self._study.live.stale
                text = stale.reason if stale is not None and stale.deleted else str(error)
                missing.append(html.Div(html.P(text), className="state small wrong"))
        return _Read(details, missing, whole)

    def _detail(self, number: int) -> TrialDetail:
        with driver_errors(self._study.live.url):
            detail = read_trial_detail(self._study.live.engine, self._study.columns.study, number)
        with self._lock:
            _keep(self._kept, number, detail)
        return detail

    def _facts(self, read: _Read) -> tuple[list[Component], bool]:
        shown = [differences(read.details)] if len(read.details) > 1 else [facts(detail) for detail in read.details]
        return [*read.missing, *shown], read.whole

    def _figures(self, read: _Read) -> tuple[list[Component], bool]:
        try:
            if len(read.details) > 1:
                return self._together(read.details), read.whole
            return [component for detail in read.details for component in self._alone(detail)], read.whole
        except AWAY:
            with self._lock:
                earlier = [self._drawn.get(detail.row.number) for detail in read.details]
            return [component for drawn in earlier if drawn is not None for component in drawn[1]], False

    def _alone(self, detail: TrialDetail) -> list[Component]:
        """Return the drawings of one trial; made once as long as nothing of it changes."""
        number = detail.row.number
        stamp = self._stamp([number])
        with self._lock:
            drawn = self._drawn.get(number)
        if drawn is not None and drawn[0] == stamp:
            return drawn[1]
        parts = [self._curves([detail]), *self._parts(detail)]
        with self._lock:
            _keep(self._drawn, number, (stamp, parts))
        return parts

    def _together(self, details: Sequence[TrialDetail]) -> list[Component]:
        """Return the drawings that show several trials beside each other."""
        from dashboards.panels.trial.compare import compare_figure, compare_info
        from dashboards.panels.trial.networks import networks_figure, networks_info

        def networks() -> Any:
            return networks_info(details)

        def ratios() -> Any:
            return compare_info(details)

        key = names(details)
        return [
            part(f"{key}/networks", "The networks", networks, marking(networks_figure, self._replayed)),
            self._curves(details),
            part(f"{key}/compare", "Against the first", ratios, marking(compare_figure, self._replayed)),
        ]

    def _curves(self, details: Sequence[TrialDetail]) -> Component:
        from dashboards.panels import curves_figure, curves_info

        def info() -> Any:
            numbers = [detail.row.number for detail in details]
            return curves_info(self._study.columns, {detail.row.number: detail.curve for detail in details}, numbers)

        title = agreeing(len(details), "Learning curve", "Learning curves")
        return part(f"{names(details)}/curves", title, info, marking(curves_figure, self._replayed), CURVE_PX)

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
            ("network", "The network", lambda: network_info(config, self._shares_of(detail)), network_figure),
            ("kept", "Which channels each group kept", kept, kept_channels_figure),
            ("confusion", "Which classes it confuses", lambda: confusion_info(detail), confusion_figure),
            ("measurements", "Latency measurements", lambda: measurements_info(detail), measurements_figure),
        ]
        return [
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


def _keep(kept: OrderedDict[int, Any], number: int, value: Any) -> None:
    """Keep something of a trial, and forget the oldest beyond `KEPT`."""
    kept[number] = value
    kept.move_to_end(number)
    while len(kept) > KEPT:
        kept.popitem(last=False)
