"""What the page writes, and all that may not write."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboards.page import Access, make_app
from search.store import reader
from search.store.tables import metadata
from tests.dashboards.studies import Study, launched_settings

TOKEN = "correct-horse-battery"
HOST = "127.0.0.1:8050"
MARKED = {"X-Condensery": "write"}
BEARER = {"Host": HOST, **MARKED, "Authorization": f"Bearer {TOKEN}"}
WRITER = Access(TOKEN, shown=True, looking_is_free=True)
SMALLER = {"stages": [1, 2], "growth": [8, 16], "training": {"epochs": 3}}
WRITES = {  # each with a body that is done
    "star": {"trial": 0, "starred": True},
    "note": {"trial": 0, "text": "harmless errors", "before": ""},
    "stop": {},
    "cancel": {"trial": 1},
    "enqueue": {"config": SMALLER},
    "withdraw": {"number": 1},
}


@contextmanager
def studies_in(folder: Path) -> Iterator[Study]:
    """A trained network, and one that is open; a second study in the same database; a config that waits."""
    study = Study(folder, settings=launched_settings())
    study.done(0.2, 0.95)
    study.running(0.3)
    study.store.enqueue(reader.read_trials(study.engine, study.id)[0].config, {"epochs": 5})
    other = Study(folder, "other")
    other.done(0.2, 0.95)
    yield study
    other.engine.dispose()
    study.engine.dispose()


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """Studies to write to."""
    with studies_in(tmp_path) as study:
        yield study


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, Any]]:
    """Studies that no request of a test changes, and their page."""
    with studies_in(tmp_path_factory.mktemp("refusing")) as study:
        yield study, page(study)


def page(study: Study, access: Access = WRITER, only: str | None = None) -> Any:
    url = f"sqlite:///{study.folder / 'study.db'}"
    return make_app(url, only, access, f"--storage {url}").server.test_client(use_cookies=False)


def write(client: Any, name: str, body: Any, headers: dict[str, str] | None = None, study: str = "digits-small") -> Any:
    return client.post(f"/do/{name}?study={study}", json=body, headers=BEARER if headers is None else headers)


def everything(study: Study) -> dict[str, list[str]]:
    with study.engine.connect() as connection:
        return {
            name: sorted(map(repr, connection.execute(sa.select(table)))) for name, table in metadata.tables.items()
        }


def cookie_of(client: Any) -> str:
    answer = client.get(f"/?token={TOKEN}", headers={"Host": HOST})
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def test_each_write_is_in_the_database_and_in_no_other_study(study: Study):
    client, other = page(study), reader.find_study(study.engine, "other").id
    before = reader.read_trials(study.engine, other)
    assert write(client, "star", WRITES["star"]).json["said"] == "Trial 0 is on the shortlist."
    assert write(client, "note", WRITES["note"]).status_code == 200
    assert write(client, "withdraw", WRITES["withdraw"]).json["said"] == "1 is withdrawn."
    answer = write(client, "enqueue", WRITES["enqueue"])
    assert answer.status_code == 200, answer.text
    enqueued = answer.json
    assert "1-2 growth 8-16" in enqueued["said"]
    assert "3 epochs" in enqueued["said"]
    assert "once the search goes on" in enqueued["said"]
    assert write(client, "stop", {}).json["said"] == "Study 'digits-small' is not running."
    study.store.claim()
    assert "to stop study 'digits-small'" in write(client, "stop", {}).json["said"]
    assert study.store.heartbeat()  # what a running search reads
    assert write(client, "cancel", WRITES["cancel"]).json["said"] == "Asked the running study to cancel trial 1."
    assert study.store.cancel_requests() == [1]
    trial = study.store.trial(0)
    assert (trial.starred, trial.note) == (True, "harmless errors")
    (waiting,) = study.store.pending_requests()
    assert (waiting.id, waiting.config.stages, waiting.training["epochs"]) == (enqueued["number"], (1, 2), 3)
    assert reader.read_trials(study.engine, other) == before


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "needs the token"),
        ({"Cookie": "condensery_80=wrong"}, "needs the token"),
        ({"Authorization": "Bearer wrong"}, "needs the token"),
        ({"Authorization": "Bearer "}, "needs the token"),
        ({"Authorization": f"Bearer {TOKEN}", "X-Condensery": ""}, "X-Condensery: write"),
        ({"Cookie": "right"}, "from this page itself"),
        ({"Cookie": "right", "Origin": "http://evil.example"}, "from this page itself"),
        ({"Cookie": "right", "Origin": "null"}, "from this page itself"),
        ({"Cookie": "right", "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-site"}, "from this page itself"),
        ({"Cookie": "right", "Origin": "http://127.0.0.1:9", "Sec-Fetch-Site": "same-origin"}, "from this page itself"),
        ({"Cookie": "right", "Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"}, "Another website"),
        ({"Cookie": "right", "Origin": "http://evil.example:8050", "Host": "evil.example:8050"}, "localhost only"),
    ],
)
def test_who_may_not_write_changes_nothing_and_is_told_why(
    refusing: tuple[Study, Any], headers: dict[str, str], says: str
):
    study, client = refusing
    if headers.get("Cookie") == "right":
        headers = {**headers, "Cookie": cookie_of(client)}
    before = everything(study)
    for name, body in WRITES.items():
        answer = write(client, name, body, {"Host": HOST, **MARKED, **headers})
        assert answer.status_code == 403
        assert says in answer.text
        assert TOKEN not in answer.text
    assert everything(study) == before


def test_a_browser_that_opened_the_printed_address_writes_and_one_that_opened_the_bare_one_reads(study: Study):
    client = page(study)
    bare = {"Host": HOST}
    assert client.get("/", headers=bare).status_code == 200
    assert "printed" in client.get("/steering?study=digits-small", headers=bare).json["read_only"]
    kept = {**bare, "Cookie": cookie_of(client)}
    assert client.get("/steering?study=digits-small", headers=kept).json["read_only"] is None
    assert write(client, "star", WRITES["star"], {**kept, **MARKED, "Origin": f"http://{HOST}"}).status_code == 200
    path = {"PATH_INFO": "//evil.example/"}  # which must lead nowhere else
    wrong = client.get("/?token=of-an-earlier-run", headers=bare, environ_overrides=path)
    assert (wrong.headers["Location"], "Set-Cookie" in wrong.headers) == ("/evil.example/", False)


@pytest.mark.parametrize("access", [Access(), Access(TOKEN, read_only=True), Access(read_only=True)])
def test_read_only_takes_every_write_away(study: Study, access: Access):
    client, before = page(study, access), everything(study)
    for name, body in WRITES.items():
        answer = write(client, name, body)
        assert (answer.status_code, "only reads" in answer.text) == (404, True)
    assert "--read-only" in client.get("/steering?study=digits-small", headers=BEARER).json["read_only"]
    assert everything(study) == before


@pytest.mark.parametrize(
    ("name", "body", "code", "says"),
    [
        ("star", {"trial": 9, "starred": True}, 404, "you asked for 9"),
        ("star", {"trial": 10**30, "starred": True}, 400, "a whole number must lie between"),
        ("star", {"trial": 2**40, "starred": True}, 400, "trial must be a whole number"),
        ("star", {"trial": True, "starred": True}, 400, "trial must be a whole number"),
        ("star", {"trial": 0, "starred": 1}, 400, "starred must be true or false"),
        ("note", {"trial": 0, "text": "x" * 3000, "before": ""}, 400, "at most 2,000 characters"),
        ("note", {"trial": 0, "text": "\ud800", "before": ""}, 400, "control character"),
        ("note", {"trial": 0, "text": "x" * 70_000, "before": ""}, 400, "at most 65,536 bytes"),
        ("enqueue", {"config": {"stages": [0]}}, 400, ""),
        ("enqueue", {"config": {"stagse": [1]}}, 400, ""),
        ("enqueue", {"config": {"training": {"epochs": 0}}}, 400, "training.epochs"),
        ("enqueue", {"config": None}, 400, "a config"),
        ("enqueue", {}, 400, "a config"),
        ("withdraw", {"number": 99}, 404, "no enqueued config 99 waits"),
        ("cancel", {"trial": 0}, 409, "is done already"),
        ("stop", [], 400, "JSON object"),
        ("nothing", {}, 405, ""),
    ],
)
def test_a_wrong_write_is_answered_in_one_sentence(
    refusing: tuple[Study, Any], name: str, body: Any, code: int, says: str
):
    answer = write(refusing[1], name, body)
    assert (answer.status_code, says in answer.text) == (code, True), answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"trial": NaN}'])
def test_a_body_that_is_no_json_is_refused(refusing: tuple[Study, Any], body: bytes):
    _, client = refusing
    answer = client.post("/do/star?study=other", data=body, headers=BEARER, content_type="application/json")
    assert (answer.status_code, "JSON" in answer.text or "trial must be" in answer.text) == (400, True)
    form = client.post("/do/star", data="trial=0", headers=BEARER)
    assert form.status_code == 400


def test_a_page_of_one_study_writes_to_no_other(study: Study):
    client, before = page(study, only="digits-small"), everything(study)
    for name, body in WRITES.items():
        assert write(client, name, body, study="other").status_code == 404
    assert write(page(study), "star", WRITES["star"], study="unknown").status_code == 404
    assert everything(study) == before


def test_a_note_that_someone_else_changed_is_shown_and_not_written_over(study: Study):
    client = page(study)
    study.store.set_note(0, "theirs")
    answer = write(client, "note", {"trial": 0, "text": "mine", "before": ""})
    assert (answer.status_code, answer.json["now"]) == (409, "theirs")
    assert study.store.trial(0).note == "theirs"
    assert write(client, "note", {"trial": 1, "text": "mine", "before": "gone"}).status_code == 200
    assert write(client, "note", {"trial": 0, "text": "mine", "before": "theirs"}).status_code == 200


def test_a_database_that_cant_be_written_or_is_gone_is_said_and_none_is_made(study: Study):
    client, file = page(study), study.folder / "study.db"
    client.get("/steering?study=digits-small", headers=BEARER)
    study.engine.dispose()
    file.rename(study.folder / "away.db")
    answer = write(client, "star", WRITES["star"])
    assert (answer.status_code, "no database at" in answer.text) == (503, True)
    assert not file.exists()


def test_every_action_names_the_command_that_does_the_same(study: Study, monkeypatch: pytest.MonkeyPatch):
    from typer.testing import CliRunner

    import condensery

    client = page(study)
    asked = client.get("/steering?study=digits-small&trial=1", headers=BEARER).json
    config = {**asked["trial"]["config"], "training": {**asked["trial"]["training"], "epochs": 4}}
    text = json.dumps(config)
    plan = client.get("/steering/plan", query_string={"study": "digits-small", "config": text}, headers=BEARER).json
    noting = " ".join([asked["trial"]["noting"][0], shlex.quote("it's mine"), asked["trial"]["noting"][1]])
    commands = [asked["trial"]["star"], noting, plan["command"], asked["waiting"][0]["withdraw"]]
    for command in [*commands, asked["trial"]["cancel"], asked["search"]["stop"]]:
        done = CliRunner().invoke(condensery.app, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
    trial = study.store.trial(1)
    assert (trial.starred, trial.note, trial.state) == (True, "it's mine", "cancelled")
    (waiting,) = study.store.pending_requests()
    assert (waiting.config, waiting.training["epochs"]) == (trial.config, 4)
    assert asked["search"]["go_on"].startswith("condensery launch study.toml --resume --storage")
    assert plan["said"].startswith(f"It would be tried: {trial.config}, 4 epochs, batch")
    wrong = client.get("/steering/plan", query_string={"study": "digits-small", "config": "{"}, headers=BEARER).json
    assert "must be a JSON object" in wrong["wrong"]
