"""All that the page writes: stars and notes, and what a user asks of the search.

A write is a POST below `/do/`. It must bring the token, come from a page of this server (its `Origin`), and carry a
header that no form or link of another site can send. It opens the database for one short transaction of its own, and
touches no study but one that this page serves. Every answer is a sentence, or JSON with one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, request

from dashboards.page.access import Access, brings_bearer, brings_token
from dashboards.page.routes import WRITES, plainly
from dashboards.page.study_cache import Studies
from search.enqueueing import steering
from search.enqueueing.configs import read_config
from search.store.notes import valid_note
from search.store.reader import find_trial
from search.store.rows import StudyRow
from search.store.store import StudyStore
from space.documents import UnreadableDocument, read_json
from space.errors import InvalidConfig, InvalidSettings, StudyBusy, StudyNotFound, TrialNotReady

MARK = ("X-Condensery", "write")  # the header; a browser asks first before it sends it for another site, and gets a no
MOST_BODY = 64 << 10  # bytes
LARGEST_NUMBER = 2**31 - 1  # that every database takes
NEEDS_TOKEN = (
    "This page can only read: what writes needs the token. Open the address that `condensery dashboard` printed when "
    "it was started."
)
TAKEN_AWAY = "This page only reads: it was started with --read-only, or without a token."

Values = Mapping[str, Any]
Work = Callable[[StudyStore, StudyRow, Values], dict[str, Any]]


def add_writes(server: Flask, studies: Studies, access: Access) -> None:
    """Add the routes that write; where no one may write, one that says so."""
    if not access.may_be_written:
        server.add_url_rule(f"{WRITES}<path:_>", WRITES, lambda _: _sentence(TAKEN_AWAY, 404), methods=["POST"])
        return
    for name, work in _WORKS.items():
        rule = f"{WRITES}{name}"
        server.add_url_rule(rule, rule, plainly(_checked(studies, access, work)), methods=["POST"])


def _checked(studies: Studies, access: Access, work: Work) -> Callable[[], Response]:
    """Return what answers a POST: nothing is done unless it is a page's own, and can be read."""

    @wraps(work)
    def answered() -> Response:
        refusal = _refusal(access)
        if refusal is not None:
            return refusal
        try:
            values = _body()
            with steering.opened_to_write(studies.url, _served(studies)) as (store, row):
                done = work(store, row, values)
        except (InvalidSettings, InvalidConfig) as error:
            return _sentence(str(error), 400)
        except (TrialNotReady, StudyBusy) as error:
            return _sentence(str(error), 409)
        return Response(json.dumps(done), 409 if "now" in done else 200, mimetype="application/json")

    return answered


def _refusal(access: Access) -> Response | None:
    """Return why a request may not write; None where it may."""
    if not brings_token(access):
        return _sentence(NEEDS_TOKEN, 403)
    if request.headers.get(MARK[0]) != MARK[1]:
        return _sentence(f"What writes must carry the header {MARK[0]}: {MARK[1]}.", 403)
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    if origin is None and brings_bearer(access):  # a program: browsers send an origin with every POST
        return None
    if site != "same-origin" or origin is None or _place(origin) != request.headers.get("Host", "").lower():
        return _sentence(
            "What writes must come from this page itself, not from another site; a proxy in front of it must pass on "
            "the Host that the browser asked for.",
            403,
        )
    return None


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _served(studies: Studies) -> str:
    """Return the name of the study that the request is for, which the page must serve."""
    name = request.args.get("study")
    if studies.only is not None and name not in (None, studies.only):
        raise StudyNotFound("This page doesn't serve that study.")
    return studies.get(name).live.name


def _body() -> Values:
    """Return the request's JSON object.

    Raises:
        InvalidSettings: it is too long, or none.
    """
    length = request.content_length
    if request.mimetype != "application/json" or length is None or length > MOST_BODY:
        raise InvalidSettings(f"a write must be JSON of at most {MOST_BODY:,} bytes.")
    try:
        values = read_json(request.get_data(cache=False))
    except UnreadableDocument as error:
        raise InvalidSettings(f"a write must be a JSON object, but {error}.") from None
    if not isinstance(values, dict):
        raise InvalidSettings("a write must be a JSON object.")
    return values


def _number(values: Values, name: str) -> int:
    number = values.get(name)
    if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
        raise InvalidSettings(f"{name} must be a whole number from 0 on.")
    return number


def _text(values: Values, name: str) -> str:
    text = values.get(name)
    if not isinstance(text, str):
        raise InvalidSettings(f"{name} must be a text.")
    return text


def _star(store: StudyStore, study: StudyRow, values: Values) -> dict[str, Any]:
    number, is_starred = _number(values, "trial"), values.get("starred")
    if not isinstance(is_starred, bool):
        raise InvalidSettings("starred must be true or false.")
    find_trial(store.engine, study, number)
    store.set_star(number, is_starred)
    return {"said": f"Trial {number} is {'on' if is_starred else 'off'} the shortlist."}


def _note(store: StudyStore, study: StudyRow, values: Values) -> dict[str, Any]:
    """Note a text, unless the note isn't the one that the page showed any more: `before`."""
    number, text, before = _number(values, "trial"), valid_note(_text(values, "text")), _text(values, "before")
    find_trial(store.engine, study, number)
    other = store.set_note(number, text, before)
    if other is None:
        return {"said": "Noted." if text else "The note is gone.", "note": text}
    said = "Someone else has changed this note meanwhile, to what is below yours; save again to write over it."
    return {"said": said, "now": other}


def _stop(store: StudyStore, study: StudyRow, _: Values) -> dict[str, Any]:
    return {"said": _as_sentence(steering.stop(store, study))}


def _cancel(store: StudyStore, study: StudyRow, values: Values) -> dict[str, Any]:
    return {"said": _as_sentence(steering.cancel(store, study, _number(values, "trial")))}


def _enqueue(store: StudyStore, study: StudyRow, values: Values) -> dict[str, Any]:
    plan = steering.plan_of(store.engine, study, read_config(json.dumps(values.get("config"))))
    number = steering.enqueue(store, plan)
    when = "next" if store.is_running() else "once the search goes on"
    remarks = "".join(f"; {remark}" for remark in (*plan.remarks, plan.refusal) if remark)
    return {"said": f"Enqueued as {number}: {plan}, is tried {when}{plan.where}{remarks}.", "number": number}


def _withdraw(store: StudyStore, study: StudyRow, values: Values) -> dict[str, Any]:
    return {"said": _as_sentence(steering.withdraw(store, study, _number(values, "number")))}


_WORKS: Mapping[str, Work] = {
    "star": _star,
    "note": _note,
    "stop": _stop,
    "cancel": _cancel,
    "enqueue": _enqueue,
    "withdraw": _withdraw,
}


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _sentence(text: str, status: int) -> Response:
    return Response(text, status, mimetype="text/plain")
