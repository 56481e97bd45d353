"""The commands that are printed for going on are the commands that go on.

Each is read by a shell as it is printed, in the folder and the environment of what printed it, and then really run.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import zipfile
from pathlib import Path

import pytest

from search.budget import Budget
from search.results.bundle.preview import preview_bundle
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.connection.printed_commands import STORAGE, printed_command
from search.study_file import load_settings
from space.errors import FileInTheWay, StudyBusy, StudyExists
from tests.command_line import StartedCommand, run_command, run_here
from tests.search.earlier_databases import take_back
from tests.search.tiny_studies import CountingProbe
from tests.search.trained_study import trained_study
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow

FOLDER, FILE, DATABASE = "it's my $HOME", "the study.toml", "sqlite:///other place.db"
SHIM = """#!/bin/sh
python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"
"""


class Shell:
    """A folder in which printed lines are read by a shell, and the commands in them run."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment = folder, {"NO_COLOR": "1", **environment}
        (folder / ".bin").mkdir(parents=True)
        (folder / ".bin/condensery").write_text(SHIM)
        (folder / ".bin/condensery").chmod(0o755)

    def read(self, line: str) -> list[list[str]]:
        """Return the arguments of each `condensery` in a line, as the shell hands them over."""
        path = f"{self.folder / '.bin'}:{os.environ['PATH']}"
        shell = {**os.environ, **self.environment, "PATH": path}
        words = ["bash", "-c", line]
        done = subprocess.run(words, cwd=self.folder, env=shell, capture_output=True, text=True, check=True)
        return [json.loads(words) for words in done.stdout.splitlines()]

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        run = run_command if words[0] == "launch" else run_here
        done = run(*words, cwd=self.folder, environment=self.environment)
        assert done.returncode == code, done.stderr
        return done

    def run_printed(self, line: str, *further: str) -> list[subprocess.CompletedProcess[str]]:
        return [self.run(*words, *further) for words in self.read(line)]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / FOLDER)


def printed_in(text: str, verb: str) -> str:
    """The command between backticks, or to the end of the line, that begins with `condensery VERB`."""
    found = re.search(rf"`(condensery {verb}\b[^`]*)`|(condensery {verb}\b.*)$", text, re.MULTILINE)
    assert found, text
    return found[1] or found[2]


def trials_done(database: Path, name: str) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        query = "SELECT count(*) FROM condensery_trial t JOIN condensery_study s ON s.id = t.study_id WHERE s.name = ?"
        count = connection.execute(f"{query} AND t.state = 'done'", (name,)).fetchone()[0]
    connection.close()
    return int(count)


def test_a_launch_that_was_stopped_goes_on_by_the_line_that_it_printed(shell: Shell):
    """With settings, a database, a folder and names that a shell would read otherwise."""
    name, database = 'my "study" & more', shell.folder / "other place.db"
    changes = [f"study.name={name}", "study.trainings=20", "search.sampler=random", "replay.time=none"]
    words = ["launch", "--replay", "condensebench", "--storage", DATABASE]
    words += [word for change in changes for word in ("--set", change)]
    log = shell.folder / "log"
    process = StartedCommand(*words, cwd=shell.folder, log=log, **shell.environment)
    until(lambda: "trial 0" in log.read_text() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130, log.read_text()
    assert trials_done(database, name) < 20
    (done,) = shell.run_printed(printed_in(log.read_text(), "launch"))
    assert "20 of 20 trainings replayed" in done.stderr
    assert trials_done(database, name) == 20
    (looked,) = shell.run_printed(printed_in(done.stderr, "pareto"), "--json")
    assert json.loads(looked.stdout)["front"]
    again = shell.run(*words, code=StudyExists.exit_code)
    shell.run_printed(printed_in(again.stderr, "delete"), "--yes")
    assert trials_done(database, name) == 0
    assert not (shell.folder / "condensery.db").exists()


def words_of_report(page: Path) -> str:
    """How a report's script names the study in the command that it offers."""
    packed = re.search(r'id="packed-core">([^<]*)<', page.read_text())
    assert packed
    return str(json.loads(gzip.decompress(base64.b64decode(packed[1])))["words"])


def test_the_lines_of_init_name_the_file_that_it_wrote(shell: Shell):
    done = shell.run("init", FILE)
    check, launch = shell.read(printed_in(done.stderr, "check").replace(", then ", " && "))
    assert (check, launch) == (["check", FILE], ["launch", FILE])
    shell.run(*check, "--no-timing")
    before = (shell.folder / FILE).read_text()
    again = shell.run("init", FILE, "--preset", "cifar", code=FileInTheWay.exit_code)
    assert f"{FILE} exists already and stays as it is" in again.stderr
    assert (shell.folder / FILE).read_text() == before
    missing = shell.run("check", "no such file.toml", "--no-timing", code=10)
    shell.run_printed(printed_in(missing.stderr, "init"))
    assert load_settings(shell.folder / "no such file.toml").study.name == "digits"


def test_the_pick_command_of_a_card_finds_the_study(shell: Shell):
    store = trained_study(shell.folder, CountingProbe(), name="it's  tiny")
    store.engine.dispose()
    engine = open_for_reading(f"sqlite:///{shell.folder / 'study.db'}")
    study = reader.find_study(engine, "it's  tiny")
    content = preview_bundle(engine, study, reader.find_trial(engine, study, 0), Budget(5.0))
    engine.dispose()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        card = archive.read(next(name for name in archive.namelist() if name.endswith("MODEL_CARD.md"))).decode()
    (words,) = shell.read(printed_in(card, "pick"))
    assert words[:2] == ["pick", "it's  tiny"]
    ranked = shell.run(*words, "--preview", "--json")
    assert [row["number"] for row in json.loads(ranked.stdout)["trials"]] == [0]


def test_a_study_file_names_its_own_database_in_what_the_page_offers(shell: Shell):
    """The page was opened by the study file alone, whose study.storage names the database."""
    store = trained_study(shell.folder, CountingProbe(), name="it's  tiny")
    store.engine.dispose()
    shell.run("init", FILE, "--name", "it's  tiny")
    text = (shell.folder / FILE).read_text().replace("[study]\n", '[study]\nstorage = "sqlite:///study.db"\n', 1)
    (shell.folder / FILE).write_text(text)
    shell.run("report", FILE)
    line = f"condensery pick {words_of_report(shell.folder / 'report.html')}"
    assert shell.read(line) == [["pick", "it's  tiny", "--storage", "sqlite:///study.db"]]


def test_a_database_of_an_earlier_version_is_upgraded_by_the_line_that_it_is_refused_with(shell: Shell):
    store = trained_study(shell.folder, CountingProbe())
    store.engine.dispose()
    with sqlite3.connect(shell.folder / "study.db") as connection:
        take_back(connection, "v0005")
    connection.close()
    refused = shell.run("trials", "--storage", "sqlite:///study.db", code=31)
    shell.run_printed(printed_in(refused.stderr, "db upgrade"))
    shell.run("trials", "--storage", "sqlite:///study.db")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_hub_is_served_and_a_device_removed_by_the_lines_that_adding_it_printed(shell: Shell):
    storage = ["--storage", "sqlite:///the devices.db"]
    added = shell.run("devices", "add", "pi5", "--hub", f"http://127.0.0.1:{free_port()}", *storage)
    elsewhere, here = (shell.read(line)[0] for line in re.findall(r"condensery devices serve[^`\n]*", added.stdout))
    assert (elsewhere[2:4], elsewhere[-2:]) == (["--host", "0.0.0.0"], storage)
    log = shell.folder / "log"
    process = StartedCommand(*here, cwd=shell.folder, log=log, **shell.environment)
    try:
        until(lambda: "http://" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    twice = shell.run("devices", "add", "pi5", *storage, code=47)
    shell.run_printed(printed_in(twice.stderr, "devices remove"))
    shell.run("devices", "add", "pi5", *storage)


def test_a_running_study_is_stopped_by_the_line_that_names_it(shell: Shell):
    store = trained_study(shell.folder, CountingProbe(), name="two words")
    store.claim()
    try:
        refused = shell.run("doctor", "two words", "--storage", "sqlite:///study.db", code=StudyBusy.exit_code)
        (done,) = shell.run_printed(printed_in(refused.stderr, "stop"))
    finally:
        store.release()
        store.engine.dispose()
    assert "'two words'" in done.stderr


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("sqlite:///condensery.db", "", ""),
        ("sqlite:///a.db", "", " --storage sqlite:///a.db"),
        ("sqlite:///a.db", "sqlite:///a.db", ""),
        ("sqlite:///condensery.db", "sqlite:///a.db", " --storage sqlite:///condensery.db"),
        ("postgresql://me:secret@host/db", "", " --storage 'postgresql://me:***@host/db'"),
    ],
)
def test_the_database_is_named_where_neither_the_environment_nor_the_default_names_it(
    url: str, environment: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(STORAGE, environment)
    assert printed_command(["condensery", "status"], url) == f"condensery status{words}"
    assert printed_command(["condensery", "check", Path("-x.toml")]) == "condensery check ./-x.toml"
