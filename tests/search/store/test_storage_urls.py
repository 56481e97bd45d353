"""Where the database's URL comes from, and that its password goes nowhere."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.store.connection.database import open_for_reading, open_for_writing, sqlite_file
from search.store.connection.database_errors import url_shown
from search.store.connection.printed_commands import database_words
from search.store.tables import study
from search.study import optuna_storage
from search.study_file import load_settings, settings_from
from search.study_template import study_file
from space.errors import CondenseryError
from tests.command_line import run_command
from tests.search.tiny_studies import Bench, document, tiny_settings

WITH_PASSWORD = "postgresql+psycopg://me:hush@host/db?sslmode=verify-full"


def condensery(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(*words, cwd=cwd, timeout_s=300.0, environment=environment)


def databases(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.db")}


@pytest.mark.parametrize(
    ("options", "environment", "made"),
    [
        (("--storage", "sqlite:///option.db"), "sqlite:///environment.db", "option.db"),
        ((), "sqlite:///environment.db", "environment.db"),
        ((), "", "condensery.db"),
    ],
    ids=["option", "environment", "default"],
)
def test_the_option_wins_over_the_environment(tmp_path: Path, options, environment: str, made: str):
    done = condensery("devices", "add", "pi5", *options, cwd=tmp_path, CONDENSERY_STORAGE=environment)
    assert done.returncode == 0, done.stderr
    assert databases(tmp_path) == {made}
    # What is to be typed next names a database only where the environment doesn't.
    assert ("--storage" in done.stdout) is bool(options)


def test_the_environment_wins_over_the_study_file(tmp_path: Path):
    text = study_file("digits", "digits").replace("# storage = ", "storage = ").replace("condensery.db", "file.db")
    (tmp_path / "study.toml").write_text(text)
    assert load_settings(tmp_path / "study.toml").storage == "sqlite:///file.db"
    says = condensery("status", "study.toml", cwd=tmp_path, CONDENSERY_STORAGE="sqlite:///environment.db").stderr
    assert "environment.db" in says
    assert "no database at file.db" in condensery("status", "study.toml", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (WITH_PASSWORD, "postgresql+psycopg://me:***@host/db?sslmode=verify-full"),
        ("postgresql:///db?password=hush", "postgresql:///db?password=hidden"),
        ("postgresql://me:h@hush@host/db", "postgresql://me:***@host/db"),  # an @ that should have been %40
        ("postgresql://me:h@hu/sh@host/db?a=b@c", "postgresql://me:***@host/db?a=b@c"),
        ("postgresql://me:h@hu:5@host/db", "postgresql://me:***@host/db"),
        ("sqlite:////home/me:or@you@here/x.db", "sqlite:////home/me:or@you@here/x.db"),
        ("postgresql://me:hush@host:port/db", "'postgresql:***@host:port/db'"),
        ("pg//me:hush@host", "'pg//me:***@host'"),
        ("sqlite:///my studies.db", "sqlite:///my studies.db"),
        ("postgresql://me@host/db?a=b", "postgresql://me@host/db?a=b"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str):
    assert url_shown(url) == shown


@pytest.mark.parametrize(
    "password", ["hu@sh", "hu@sh:5432", "hu@5:sh", "@hush", "hush:", "hu:sh", "5:6", "hu/sh", "hu#sh@"]
)
@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "nothing"])
@pytest.mark.parametrize("opened", [open_for_writing, open_for_reading, sqlite_file, optuna_storage])
def test_no_error_tells_a_part_of_the_password(password: str, driver: str, opened: Callable[[str], object]):
    url = f"{driver}://me:{password}@127.0.0.1:9/db?connect_timeout=1"
    try:
        opened(url)
    except CondenseryError as error:
        said = str(error).replace("***", "")
        assert not re.findall(r"hu|sh\b", said.replace("should", ""))
    else:
        assert opened is sqlite_file


def test_the_command_that_goes_on_shows_no_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CONDENSERY_STORAGE", raising=False)
    assert database_words(WITH_PASSWORD) == ["--storage", url_shown(WITH_PASSWORD)]
    monkeypatch.setenv("CONDENSERY_STORAGE", WITH_PASSWORD)
    assert database_words(WITH_PASSWORD) == []


def test_a_study_is_stored_without_the_password_that_its_file_has(tmp_path: Path):
    bench = Bench(tmp_path, study__storage=WITH_PASSWORD)
    assert bench.settings.storage == WITH_PASSWORD  # to connect
    assert bench.run() == "finished"
    with bench.study.engine.connect() as connection:
        (stored,) = connection.scalars(sa.select(study.c.settings))
    bench.close()
    assert "hush" not in str(stored)
    assert "me:***@host" in str(stored)
    for path in tmp_path.rglob("*"):  # no database page, no log, no settings beside a trial
        assert path.is_dir() or b"hush" not in path.read_bytes(), path


def test_settings_with_a_password_come_through_copies(tmp_path: Path):
    settings = tiny_settings(study__storage=WITH_PASSWORD)
    assert settings.model_copy(update={"format": 1}).storage == WITH_PASSWORD
    assert settings.digest() == settings_from(document(study__storage=url_shown(WITH_PASSWORD)), "x").digest()
