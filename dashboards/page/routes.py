"""What the page fetches beside Dash's callbacks: rows of the table, CSV, the charts' tables, bundles.

Every answer is JSON, a file or a page of plain HTML. A wrong request is answered by 400 or 404 with one sentence.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from dashboards.data.columns import StudyColumns, View
from dashboards.data.live_study import Stale
from dashboards.data.study_settings import budget_of
from dashboards.formats import one_line
from dashboards.page import charts, table
from dashboards.page.access import sentence_page
from dashboards.page.studies_page import StudiesPage
from dashboards.page.study_cache import CachedStudy, Studies, log
from dashboards.page.table_filters import typed_filters
from dashboards.page.view import brushed, view_of
from search.budget import Budget
from search.store.connection.database_errors import database_errors
from search.store.reader import find_trial
from space.documents import read_json
from space.errors import CheckpointCorrupt, CondenseryError, StudyNotFound, TrialNotFound, TrialNotReady
from workers.latency.record import statistic_of

MOST_ROWS = 1000  # in one answer
NOT_THERE = (StudyNotFound, TrialNotFound, TrialNotReady, CheckpointCorrupt)
FAULT = "This is a fault of the program; the server's log says more."
PACKAGE = Path(__file__).parents[1]
WRITES = "/do/"  # the addresses of all that is written
FILES = ("/assets/", "/_dash-", "/_favicon.ico", "/_reload-hash")


def add_routes(
    server: Flask, studies: Studies, further: Mapping[str, Callable[..., Response]], all_studies: StudiesPage
) -> None:
    """Add the routes to a page's server.

    Args:
        server: of the page.
        studies: what the page may show.
        further: routes of others, functions of the studies by their rules.
        all_studies: what the page opens on where the address names no study.
    """
    of_study: dict[str, Callable[..., Response]] = {
        **further,
        "/news": _news,
        "/rows": _rows,
        "/trials.csv": _trials_csv,
        "/chart-table/<panel>": _chart_table,
        "/bundle/<int:number>.zip": _bundle,
    }
    answers = {rule: partial(answer, studies) for rule, answer in of_study.items()} | all_studies.answers()
    for rule, answer in answers.items():
        server.add_url_rule(rule, rule, plainly(answer))
    server.register_error_handler(Exception, _unreadable_post)

    @server.before_request
    def _front_door() -> AnyResponse | None:
        """Return the page of all studies, or why there is no page; None where the page has its study."""
        if request.path.startswith(FILES) or request.url_rule is None or request.endpoint in answers:
            return None
        if str(request.endpoint).startswith(WRITES):
            return None
        if request.path != "/":
            return sentence_page("There is nothing here; the page is at /.", 404)
        return all_studies.front_door()


def _news(studies: Studies) -> Response:
    """Return what has changed since the page last asked; 204 where nothing has."""
    study = _study(studies)
    study.refresh()
    stale = study.live.stale
    news: dict[str, Any] = {
        "fast": study.columns.revision,
        "slow": study.slow_columns.revision,
        "pulse": int(time.time() // charts.PULSE_S),
        "stale": None if stale is None else _stale_document(stale),
    }
    known_to_page = {name: request.args.get(name) for name in news}
    since = None if stale is None else str(news["stale"]["since"])
    if known_to_page == {**news, "pulse": str(news["pulse"]), "stale": since}:
        return Response(status=204)
    return _json(news)


def _rows(studies: Studies) -> Response:
    _, trials, question = _table_asked(studies)
    return _json(table.rows(trials, question))


def _trials_csv(studies: Studies) -> Response:
    columns, trials, question = _table_asked(studies)
    return _file(table.as_csv(columns, trials, question), f"{columns.study.name}.csv", "text/csv")


def _chart_table(studies: Studies, panel: str) -> Response:
    study = _study(studies)
    return _json(charts.chart_table_of(study, panel, _view_asked()))


def _bundle(studies: Studies, number: int) -> Response:
    from search.results.bundle.preview import bundle_name, preview_bundle

    study = _study(studies)
    study_row, engine, budget = study.columns.study, study.live.engine, _budget_asked(study.columns)
    with database_errors(studies.url):
        row = find_trial(engine, study_row, number)
        content = preview_bundle(engine, study_row, row, budget)
    return _file(content, f"{bundle_name(study_row, row)}.zip", "application/zip")


def _stale_document(stale: Stale) -> dict[str, Any]:
    return {"since": round(stale.since, 3), "reason": stale.reason, "deleted": stale.deleted}


def plainly(function: Callable[..., Response]) -> Callable[..., Response]:
    """Turn a request that can't be answered, or a database that is away, into one sentence."""

    @wraps(function)
    def answered(**named: Any) -> Response:
        try:
            return function(**named)
        except NOT_THERE as error:
            return Response(str(error), 404, mimetype="text/plain")
        except CondenseryError as error:
            return Response(str(error), 503, mimetype="text/plain")
        except (ValueError, TypeError, KeyError) as error:
            return Response(f"The request can't be read: {one_line(error, 200)}", 400, mimetype="text/plain")
        except Exception:
            log.exception("%s can't be answered", request.path)
            return Response(FAULT, 500, mimetype="text/plain")

    return answered


def _unreadable_post(error: Exception) -> Any:
    """Answer what Dash fails on: a body that its page didn't write is no fault of the program's."""
    if isinstance(error, HTTPException):
        return error
    ours = (frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(PACKAGE)))
    if next(ours, None) is None:
        return Response("The request can't be read.", 400, mimetype="text/plain")
    log.error("%s can't be answered", request.path, exc_info=error)
    return Response(FAULT, 500, mimetype="text/plain")


def _study(studies: Studies) -> CachedStudy:
    return studies.get(request.args.get("study"))


def _view_asked() -> dict[str, Any]:
    return {name: request.args.get(name) for name in ("group", "axis", "x", "y", "first", "second", "outcome")}


def _budget_asked(columns: StudyColumns) -> Budget:
    """Return the study's budget with the limits in ms that the page asks for (`budget.DEVICE`; "none" is no limit)."""
    budget = budget_of(columns.study.settings)
    if (statistic := request.args.get("statistic")) is not None:
        budget = replace(budget, latency_statistic=statistic_of(statistic))
    for place, target in enumerate(columns.latencies):
        word = request.args.get(f"budget.{target}")
        if word is None:
            continue
        limit = None if word == "none" else float(word)
        if limit is not None and not 0 < limit < math.inf:
            raise ValueError(f"a limit must be a number of ms above 0, but got {word}")
        if place == 0:
            budget = replace(budget, max_latency_ms=limit)
        else:
            others = {name: ms for name, ms in budget.elsewhere_ms.items() if name != target}
            budget = replace(budget, elsewhere_ms=others if limit is None else {**others, target: limit})
    return budget


def _table_asked(studies: Studies) -> tuple[StudyColumns, list[table.TableColumn], table.Question]:
    study = _study(studies)
    view = view_of(study.columns, _view_asked())
    columns, trials = study.table(view)
    return columns, trials, _question(columns, view)


def _question(columns: StudyColumns, view: View) -> table.Question:
    start = int(request.args.get("start", 0))
    end = min(int(request.args.get("end", start + 100)), start + MOST_ROWS)
    if not 0 <= start <= end:
        raise ValueError(f"0 <= start <= end must hold, but got start={start}, end={end}")
    sort, filters = read_json(request.args.get("sort", "[]")), read_json(request.args.get("filter", "{}"))
    if not isinstance(sort, list):
        raise ValueError("sort must be a list")
    return table.Question(
        start,
        end,
        [key for key in sort if isinstance(key, dict)],
        typed_filters(filters),
        brushed(columns, view, read_json(request.args.get("brush", "null"))),
        table.inside_budget(columns, _budget_asked(columns)),
    )


def _json(document: Any) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), mimetype="application/json")


def _file(content: str | bytes, name: str, kind: str) -> Response:
    response = Response(content, mimetype=kind)
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_. ") else "_" for c in name)
    response.headers["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    return response
