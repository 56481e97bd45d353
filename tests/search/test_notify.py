"""`[notify]`: who is told of a launch's end and of long silence, and that nothing about it harms the search."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from commands.running import next_commands
from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.loop.notify import Notifier, address_of
from search.settings import NotifySettings, StudySettings
from search.store import reader
from search.store.connection.database import open_for_reading
from search.study_file import load_replay, settings_from
from space.errors import DiskFull, InvalidSettings
from tests.search.tiny_studies import document, sqlite_url, tiny_settings
from tests.waiting import until

SECRET = "T0KEN"


class Server:
    """A webhook's other end: what it was sent, and what it answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda handler: handler.send_response(200)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                server.got.append({**json.loads(content), "path": self.path})
                server.answer(self)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/{SECRET}?key={SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    opened.close()


class Notes(SilentCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def settings(**notify: Any) -> StudySettings:
    return tiny_settings(notify=notify)


def ended(study: StudySettings, ending: str | BaseException = "finished") -> list[str]:
    """What is noted where a launch of a study ends so."""
    notes = Notes()
    with contextlib.suppress(KeyboardInterrupt, DiskFull), Notifier(study, notes) as notifier:
        notifier.progress(3, 4)
        if isinstance(ending, BaseException):
            raise ending
        notifier.ended(ending)  # type: ignore[arg-type]
    return notes.texts


@pytest.mark.parametrize(
    ("ending", "event", "text"),
    [
        ("finished", "finished", "study 'tiny' has finished, with 3 of 4 trainings"),
        ("stopped", "stopped", "study 'tiny' was stopped, with 3 of 4 trainings"),
        (KeyboardInterrupt(), "stopped", "study 'tiny' was stopped, with 3 of 4 trainings"),
        (DiskFull("no space\nis left"), "failed", "ended with an error, with 3 of 4 trainings: no space is left"),
    ],
)
def test_a_webhook_is_told_how_a_launch_ended(server: Server, ending: str | BaseException, event: str, text: str):
    assert ended(settings(webhook=server.url), ending) == []
    (message,) = server.got
    assert (message["event"], message["study"], message["trainings_done"]) == (event, "tiny", 3)
    assert text in message["text"]
    assert abs(message["at_unix_s"] - time.time()) < 60.0


def test_a_command_gets_the_message_on_its_input_and_in_its_environment(tmp_path: Path):
    program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CONDENSERY_EVENT'] + sys.stdin.read())"
    assert ended(settings(command=[sys.executable, "-c", program, str(tmp_path / "told; rm")])) == []
    told = (tmp_path / "told; rm").read_text()
    assert told.startswith("finished{")
    assert json.loads(told.removeprefix("finished"))["trainings_wanted"] == 4


@pytest.mark.slow
def test_a_search_that_is_silent_is_said_to_be_stuck_once_and_again_after_a_sign(server: Server):
    with Notifier(settings(webhook=server.url, stuck_after_s=1), Notes()) as notifier:
        notifier.ended("finished")
        until(lambda: len(server.got) == 1)
        notifier.note("waiting for a device")  # no sign of life
        time.sleep(1.5)
        assert [message["event"] for message in server.got] == ["stuck"]
        notifier.curve(0, {})
        until(lambda: len(server.got) == 2)
    assert [message["event"] for message in server.got] == ["stuck", "stuck", "finished"]
    assert "nothing was trained or measured for 1 s" in server.got[0]["text"]


# --- what goes wrong --------------------------------------------------------------------------------------------


def answering(code: int, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)

    return answer


def test_a_webhook_that_fails_is_a_note_without_its_secret(server: Server):
    for answer, reason in (
        (answering(500), "it answered 500"),
        (answering(302, Location="/elsewhere"), "it answered 302"),  # an address is not left for another
        (lambda handler: handler.wfile.write(b"\xff\xff no HTTP"), "BadStatusLine"),
        (lambda handler: time.sleep(1.0), "it didn't answer in time"),
    ):
        server.answer = answer
        (note,) = ended(settings(webhook=server.url, timeout_s=0.3))
        assert note == f"the webhook http://127.0.0.1/… could not be notified: {reason}"
    assert {message["path"] for message in server.got} == {f"/services/{SECRET}?key={SECRET}"}
    (note,) = ended(settings(webhook=f"https://127.0.0.1:1/{SECRET}"))
    assert SECRET not in note


def test_a_command_that_fails_is_a_note():
    for command, reason in (
        (["/no/such/program"], "No such file or directory"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "it ended with 3"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "it took more than 0.3 s"),
    ):
        (note,) = ended(settings(command=command, timeout_s=0.3))
        assert note == f"the command {command[0]!r} could not be notified: {reason}"


@pytest.mark.parametrize(
    "wrong", ["ftp://host/T0KEN", "https://", "https://host:port/T0KEN", "env:", "T0KEN", "https://[T0KEN"]
)
def test_a_wrong_address_is_refused_without_being_shown(wrong: str):
    with pytest.raises(InvalidSettings, match=r"`notify.webhook`: a webhook must be an address") as error:
        settings_from(document(notify={"webhook": wrong}), "study.toml")
    assert SECRET not in str(error.value)


def test_an_address_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    named = NotifySettings(webhook="env:HOOK")
    monkeypatch.setenv("HOOK", f"https://host/{SECRET}")
    assert address_of(named) == f"https://host/{SECRET}"
    for value in (None, SECRET):
        monkeypatch.delenv("HOOK") if value is None else monkeypatch.setenv("HOOK", value)
        with pytest.raises(InvalidSettings, match="in the environment variable HOOK, but that ") as error:
            address_of(named)
        assert SECRET not in str(error.value)
    with pytest.raises(ValidationError):
        NotifySettings(command=())


# --- nothing of it is kept --------------------------------------------------------------------------------------


def test_whom_to_tell_changes_no_identity_and_is_shown_nowhere():
    plain, telling = tiny_settings(), settings(webhook=f"https://host/{SECRET}")
    assert telling.digest() == plain.digest()
    assert telling.digest_of_frozen() == plain.digest_of_frozen()
    assert SECRET not in repr(telling)
    assert SECRET not in json.dumps(telling.model_dump(mode="json"))
    overrides = [f"notify.webhook=https://host/{SECRET}", "training.epochs=2"]
    assert next_commands(Path("study.toml"), telling, overrides, None)[0] == (
        "condensery launch study.toml --resume --set training.epochs=2"
    )


@pytest.mark.slow
def test_a_launch_tells_of_its_end_and_records_no_address(server: Server, tmp_path: Path):
    told = [f"notify.webhook={server.url}", f"study.files={tmp_path / 'files'}", "study.trainings=2"]
    replayed = load_replay("condensebench", None, told)
    notes = Notes()
    assert launch(replayed, sqlite_url(tmp_path), False, notes).ending == "finished"
    (message,) = server.got
    assert (message["event"], message["trainings_done"]) == ("finished", 2)
    engine = open_for_reading(sqlite_url(tmp_path))
    (study,) = reader.list_studies(engine)
    engine.dispose()
    assert SECRET not in json.dumps(study.settings) + "".join(notes.texts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
