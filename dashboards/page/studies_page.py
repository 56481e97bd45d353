"""The page of all studies: their list, and up to four of them beside each other; `assets/studies.js` fills it.

It is plain HTML without Dash, so that it is there at once. Where a page may show one study only, there is none of it.
"""

from __future__ import annotations

import hashlib
import html
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flask import Response, request
from werkzeug.wrappers import Response as AnyResponse

from dashboards.page.access import sentence_page
from dashboards.page.study_cache import Studies
from dashboards.panels import PLOT_CONFIG
from dashboards.studies.common_ground import MOST_STUDIES
from dashboards.studies.documents import summary_document
from dashboards.studies.overview import Overview
from search.store.connection.database_errors import database_errors
from space.errors import CondenseryError, StudyNotFound

WITHIN_S = 0.15  # of reading studies as columns, for one answer
ROUNDED_S = 5  # to which a list's times are rounded while workers give signs of life
KEPT = 12  # comparisons
BODY = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Studies - Condensery</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/condensery.css">
<link rel="stylesheet" href="/assets/charts.css">
<link rel="stylesheet" href="/assets/studies.css">
</head>
<body class="studies-page">
<a class="skip" href="#main">Skip to the studies</a>
<header><div class="head-row"><div><h1>Condensery</h1></div><div class="head-tools">
<span id="badge" class="badge" role="status">Live</span>
<button type="button" id="share">Copy link</button>
<button type="button" id="theme">Colours: system</button>
</div></div></header>
<main id="main">
<noscript><p>This page needs JavaScript; `condensery status` lists the studies in a terminal.</p></noscript>
<section id="list" aria-labelledby="list-title">
<div class="section-head"><div><h2 id="list-title" tabindex="-1">Studies</h2>
<p class="muted" id="list-count" role="status"></p></div>
<div class="controls">
<span class="field"><label for="filter">Filter</label>
<input type="text" id="filter" size="22" placeholder="name, state, data, device" spellcheck="false"></span>
<span class="field" id="order-field"><label for="order">Sort by</label><select id="order"></select></span>
</div></div>
<div class="scroll" id="list-table" role="region" tabindex="0" aria-label="Studies"><table>
<thead><tr id="list-head"></tr></thead><tbody id="list-body"></tbody></table></div>
<p><button type="button" id="more" hidden></button></p>
<p class="state" id="nothing" hidden></p>
<div id="chosen-bar" hidden><span><b>To compare:</b> <span id="chosen-names"></span></span>
<span class="buttons"><button type="button" id="compare" class="primary">Compare</button>
<button type="button" id="clear">Clear</button></span>
<span class="muted" id="chosen-note" role="status"></span></div>
</section>
<section id="compared" aria-labelledby="compared-title" data-plotly="PLOTLY" data-config="CONFIG" hidden>
<div class="section-head"><div><h2 id="compared-title" tabindex="-1">Studies beside each other</h2></div>
<div class="controls"><a class="button" id="to-list" href="/">All studies</a></div></div>
<div class="compared-head"><ul class="chips" id="compared-names" aria-label="Studies compared"></ul>
<label for="compared-add" class="unseen">Add a study</label><select id="compared-add"></select></div>
<p class="state wrong" id="compared-wrong" role="alert" hidden></p>
<div id="compared-body"></div>
</section>
</main>
<footer><p>Condensery. This page only reads the database.</p></footer>
<script type="application/json" id="studies-data">DATA</script>
<script src="/assets/budget_answer.js"></script>
<script src="/assets/chart_marks.js"></script>
<script src="/assets/chart_figures.js"></script>
<script src="/assets/condensery.js"></script>
<script src="/assets/budget_control.js"></script>
<script src="/assets/studies_compared.js"></script>
<script src="/assets/studies_list.js"></script>
<script src="/assets/studies.js"></script>
</body>
</html>"""


class StudiesPage:
    """The page of all studies of a database, and what it fetches."""

    def __init__(self, studies: Studies, command_words: str, plotly: str) -> None:
        """Show the studies that a page may show; `plotly` is the address of plotly.js."""
        self._studies, self._plotly = studies, plotly
        self._overview = Overview(studies.engine, command_words)
        self._compared: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()

    def answers(self) -> dict[str, Callable[..., Response]]:
        """Return what the page fetches, by rule."""
        return {"/studies.json": self._list, "/comparison.json": self._comparison}

    def front_door(self) -> AnyResponse | None:
        """Return the page of all studies, or why there is none; None where the address names a study to show."""
        studies, name = self._studies, request.args.get("study")
        try:
            rows = studies.list()
            is_one = len(rows) == 1 and "studies" not in request.args and "choose" not in request.args
            if studies.only is None and (name is not None or is_one):
                studies.get(name or studies.single())
            if studies.only is not None or name is not None or is_one:
                return None
            return self._page()
        except StudyNotFound as error:
            return sentence_page(f"{str(error)[:1].upper()}{str(error)[1:]}", 404)
        except CondenseryError as error:
            return sentence_page(f"The database can't be read now: {error}", 503, again_s=5)

    def _page(self) -> Response:
        parts = {
            "PLOTLY": html.escape(self._plotly),
            "CONFIG": html.escape(json.dumps(PLOT_CONFIG)),
            # Inside an element of script no text may look like its end.
            "DATA": json.dumps(self._read()).replace("<", "\\u003c"),
        }
        body = BODY
        for name, text in parts.items():  # DATA is the last: names of studies are never looked through
            body = body.replace(name, text, 1)
        return Response(body, mimetype="text/html")

    def _list(self) -> Response:
        """Return the studies; 204 where nothing has changed since the stamp that the page sends."""
        if self._studies.only is not None:
            raise StudyNotFound("this page shows one study.")
        document = self._read()
        return Response(status=204) if request.args.get("stamp") == document["stamp"] else _json(document)

    def _read(self) -> dict[str, Any]:
        with database_errors(self._studies.url):
            summaries = self._overview.read(WITHIN_S)
        rows = [summary_document(summary) for summary in summaries]
        for row in rows:
            if row["newest_at"] is not None:
                row["newest_at"] -= row["newest_at"] % ROUNDED_S
        return {"stamp": _stamp_of(rows), "now": time.time(), "studies": rows}

    def _comparison(self) -> Response:
        """Return the studies that the page names beside each other; 204 where it has that already."""
        from dashboards.panels.studies.fronts_drawing import drawn
        from dashboards.studies.common_ground import common_ground
        from dashboards.studies.fronts import compare, views_by_name

        if self._studies.only is not None:
            raise StudyNotFound("this page shows one study.")
        names, token = names_in(request.args.get("studies", "")), request.args.get("view", "")
        chosen = [self._studies.get(name) for name in names]
        columns = [study.live.refresh() for study in chosen]
        key = (*names, token, *(one.revision for one in columns))
        document = self._compared.get(key)
        if document is None:
            ground = common_ground(columns)
            document = drawn(compare(columns, views_by_name(ground.views).get(token), ground=ground))
            document["stamp"] = _stamp_of(document)
            self._compared[key] = document
            while len(self._compared) > KEPT:
                self._compared.popitem(last=False)
        return Response(status=204) if request.args.get("stamp") == document["stamp"] else _json(document)


def names_in(text: str) -> list[str]:
    """Return the studies that an address names, parted by commas; a comma in a name is written %2C, and a % %25.

    Raises:
        ValueError: there is none, or there are more than can be compared.
    """
    words = filter(None, text.split(","))
    names = list(dict.fromkeys(word.replace("%2C", ",").replace("%2c", ",").replace("%25", "%") for word in words))
    if not 1 <= len(names) <= MOST_STUDIES:
        raise ValueError(f"1 to {MOST_STUDIES} studies can be compared, but got {len(names)}")
    return names


def _stamp_of(document: Any) -> str:
    return hashlib.sha1(json.dumps(document).encode(), usedforsecurity=False).hexdigest()


def _json(document: Any) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), mimetype="application/json")
