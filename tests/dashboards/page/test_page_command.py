"""`condensery dashboard` as a user starts it: its address, its token, its end, and what it refuses in one line."""

from __future__ import annotations

import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import StartedCommand, run_here
from tests.dashboards.studies import Study
from tests.waiting import until

pytestmark = pytest.mark.slow(seconds=1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = Study(tmp_path_factory.mktemp("study"))
    made.done(0.2, 0.95)
    return f"sqlite:///{made.folder / 'study.db'}"


@contextmanager
def started(url: str, folder: Path, *words: str, **environment: str) -> Iterator[tuple[StartedCommand, str]]:
    """The command, once it has said its address (which is given too); `log` takes what it says."""
    log = folder / "dashboard.log"
    process = StartedCommand("dashboard", "--port", "0", *words, "--storage", url, cwd=folder, log=log, **environment)
    try:
        until(lambda: log.read_text().endswith("\n") or process.poll() is not None)
        address = re.search(r"http://\S+", log.read_text())
        assert address, log.read_text()
        yield process, address[0]
    finally:
        process.kill()
        process.wait()


def refused(url: str, folder: Path, *words: str) -> tuple[int, str]:
    done = run_here("dashboard", *words, "--storage", url, cwd=folder)
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


def test_it_serves_this_machine_until_it_is_interrupted(url: str, tmp_path: Path) -> None:
    with started(url, tmp_path) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert b"react-entry-point" in answer.read()
            assert "waitress" not in str(answer.headers).lower()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
        assert re.fullmatch(rf".*{re.escape(address)}.*\n", process.log.read_text())  # its one line


def test_it_ends_cleanly_where_it_is_interrupted_before_anyone_visits(url: str, tmp_path: Path) -> None:
    """It has said its address, and prepares the first visit."""
    with started(url, tmp_path) as (process, address):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
        assert re.fullmatch(rf".*{re.escape(address)}.*\n", process.log.read_text())  # its one line


def test_opened_to_a_network_it_prints_a_token_once_and_answers_nobody_without_it(url: str, tmp_path: Path) -> None:
    with started(url, tmp_path, "--host", "0.0.0.0", CONDENSERY_DASHBOARD_TOKEN="") as (_, address):
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
    with started(url, tmp_path, "--token-file", str(file)) as (process, address):
        assert "token" not in address
        process.kill()
        process.wait()
        assert "correct-horse" not in process.log.read_text()


def test_what_it_cant_do_is_one_line_with_its_own_exit_code(url: str, tmp_path: Path) -> None:
    code, line = refused(url, tmp_path, "digits-smal")
    assert (code, "Did you mean 'digits-small'?" in line) == (41, True)
    assert refused(f"sqlite:///{tmp_path / 'none.db'}", tmp_path)[0] == 33
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = refused(url, tmp_path, "--port", str(port := taken.getsockname()[1]))
    assert (code, f"port {port} can't be listened on" in line, "choose another --port." in line) == (10, True, True)
    code, line = refused(url, tmp_path, "--host", "192.0.2.1")  # of no machine: kept for documentation (RFC 5737)
    assert (code, "choose another --host." in line) == (10, True)
    assert refused(url, tmp_path, "--host", "0.0.0.0", "--token-file", str(tmp_path / "none"))[0] == 10
