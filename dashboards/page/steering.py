"""What a reader could ask of the search now, and the command that asks the same: all of it by reading alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from flask import Response, request

from dashboards.page.access import Access, brings_token
from dashboards.page.study_cache import CachedStudy, Studies
from dashboards.page.writes import NEEDS_TOKEN, TAKEN_AWAY
from dashboards.studies.state import Activity, state_note, state_of, wanted_trainings
from search.enqueueing import steering
from search.enqueueing.configs import read_config
from search.store.connection.clock import now_of
from search.store.connection.database_errors import driver_errors
from search.store.connection.printed_commands import printed_command
from search.store.reader import find_study, find_trial, read_status, read_waiting_requests
from search.store.rows import StudyRow, TrialRow
from search.store.vocabulary import OPEN_STATES
from space.errors import InvalidConfig, InvalidSettings
from workers.wording import of_wanted

OF_THE_IMAGES = ("input_shape", "num_classes")  # of a config: what no one may change
MOST_WAITING = 20  # enqueued configs that are named


def steering_routes(access: Access, command_words: str) -> Mapping[str, Callable[..., Response]]:
    """Return the routes by their rules; `command_words` name the database in a command."""
    return {
        "/steering": partial(_steering, access=access, database=command_words),
        "/steering/plan": partial(_plan, database=command_words),
    }


def _steering(studies: Studies, access: Access, database: str) -> Response:
    """Return what can be asked of the search, and of `trial`."""
    study = _study(studies)
    with driver_errors(studies.url):
        engine, row = study.live.engine, find_study(study.live.engine, study.live.name)
        document: dict[str, Any] = {
            "read_only": _read_only(access),
            "search": _search(engine, row, database),
            "waiting": _waiting(engine, row, database),
        }
        number = request.args.get("trial")
        if number is not None:
            document["trial"] = _trial(row, find_trial(engine, row, int(number)), database)
    return _json(document)


def _read_only(access: Access) -> str | None:
    """Return why this browser can't write; None where it can."""
    if not access.may_be_written:
        return TAKEN_AWAY
    return None if brings_token(access) else NEEDS_TOKEN


def _search(engine: sa.Engine, study: StudyRow, database: str) -> dict[str, Any]:
    """Return how the search is, and what stops it or goes on with it."""
    with engine.connect() as connection:
        now = now_of(connection)
    status, wanted = read_status(engine, study.id, events=0), wanted_trainings(study) or 0
    # That it is stuck is no matter here: it can be stopped as any other that runs.
    activity = Activity(sum(status.counts.values()), status.trainings, newest_at=now)
    state = state_of(study, activity, now)
    return {
        "state": state,
        "text": f"{str(state).capitalize()}: {of_wanted(status.trainings, wanted, 'training', 'done')}",
        "note": state_note(study, state, activity, now),
        "stop": _command(["stop", study.name], database),
        "go_on": steering.resume_command(study, database),
    }


def _waiting(engine: sa.Engine, study: StudyRow, database: str) -> list[dict[str, Any]]:
    """Return the enqueued configs that no trial has taken up yet, the next one first."""
    return [
        {
            "number": one.id,
            "text": str(one.config),
            "withdraw": _command(["withdraw", str(one.id), study.name], database),
        }
        for one in read_waiting_requests(engine, study.id)[:MOST_WAITING]
    ]


def _trial(study: StudyRow, row: TrialRow, database: str) -> dict[str, Any]:
    """Return a trial's star and note, its config as it can be changed, and the commands about it."""
    config = {name: value for name, value in row.config.to_dict().items() if name not in OF_THE_IMAGES}
    note = ["note", str(row.number)]
    named = ["--study", study.name]
    return {
        "number": row.number,
        "state": row.state,
        "starred": row.starred,
        "note": row.note,
        "config": config,
        "training": row.training,
        "star": _command([*note, "--unstar" if row.starred else "--star", *named], database),
        "noting": [_command(note, ""), " ".join(filter(None, (shlex.join(named), database)))],  # the text is between
        "cancel": _command(["cancel", str(row.number), study.name], database) if row.state in OPEN_STATES else None,
        "cancelling": row.cancel_requested,
    }


def _plan(studies: Studies, database: str) -> Response:
    """Return what would be tried if the config in the address were enqueued; a wrong one is said in one sentence."""
    study, text = _study(studies), request.args.get("config", "")
    with driver_errors(studies.url):
        row = find_study(study.live.engine, study.live.name)
        try:
            plan = steering.plan_of(study.live.engine, row, read_config(text))
        except (InvalidConfig, InvalidSettings) as error:
            return _json({"wrong": str(error)})
    said = f"It would be tried: {plan}{plan.where}."
    more = [f"{remark[:1].upper()}{remark[1:]}." for remark in (*plan.remarks, plan.refusal) if remark]
    return _json({"said": " ".join([said, *more]), "command": _command(["enqueue", text, row.name], database)})


def _study(studies: Studies) -> CachedStudy:
    return studies.get(request.args.get("study"))


def _command(words: list[str], database: str) -> str:
    return " ".join(filter(None, (printed_command(["condensery", *words]), database)))


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document, allow_nan=False), mimetype="application/json")
