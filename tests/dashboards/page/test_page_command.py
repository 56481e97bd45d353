"""`condensery dashboard` as a user starts it: its address, its token, its end, and what it refuses in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dashboards.studies import Study

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = Study(tmp_path_factory.mktemp("study"))
    made.done(0.2, 0.95)
    return f"sqlite:///{made.folder / 'study.db'}"


def command(url: str, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "condensery.py"), "dashboard", *words, "--storage", url]


@contextmanager
def started(url: str, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it has said its address (which is given too)."""
    process = subprocess.Popen(
        command(url, "--port", "0", *words), stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def refused(url: str, *words: str) -> tuple[int, str]:
    done = subprocess.run(command(url, *words), capture_output=True, text=True, timeout=120, check=False)
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


def test_it_serves_this_machine_until_it_is_interrupted(url: str) -> None:
    with started(url) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert b"react-entry-point" in answer.read()
            assert "waitress" not in str(answer.headers).lower()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3, 0.6])
def test_it_ends_cleanly_whenever_it_is_interrupted(url: str, after_s: float) -> None:
    """Before it serves, while it prepares the first visit, and after."""
    with started(url) as (process, _):
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_opened_to_a_network_it_prints_a_token_once_and_answers_nobody_without_it(url: str) -> None:
    with started(url, "--host", "0.0.0.0", CONDENSERY_DASHBOARD_TOKEN="") as (_, address):
        port, token = re.findall(r":(\d+)/\?token=(\S+)$", address)[0]
        here = f"http://127.0.0.1:{port}/news"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(here)
        asking = urllib.request.Request(here, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asking) as answer:
            assert answer.status == 200


def test_a_token_of_ones_own_is_never_printed(url: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("correct-horse-battery\n")
    with started(url, "--token-file", str(file)) as (process, address):
        assert "token" not in address
        process.kill()
        assert process.stderr is not None
        assert "correct-horse" not in process.stderr.read()


def test_what_it_cant_do_is_one_line_with_its_own_exit_code(url: str, tmp_path: Path) -> None:
    code, line = refused(url, "digits-smal")
    assert (code, "Did you mean 'digits-small'?" in line) == (41, True)
    assert refused(f"sqlite:///{tmp_path / 'none.db'}")[0] == 33
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = refused(url, "--port", str(taken.getsockname()[1]))
    assert (code, "choose another --port" in line) == (10, True)
    assert refused(url, "--host", "0.0.0.0", "--token-file", str(tmp_path / "none"))[0] == 10
