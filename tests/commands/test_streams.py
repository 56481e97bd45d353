"""What a command prints, and where: any text as it is, into streams that are closed, full or of another encoding."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from commands.common import print_json, show_text
from tests.command_line import ROOT

BRACKETS = st.text("[]/\\:@#=b1 ", max_size=60).map(lambda text: f"x{text}x")


def in_shell(redirections: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a shell's redirections, `>&-` for one."""
    command = f'exec {sys.executable} {ROOT / "condensery.py"} "$@" {redirections}'
    shell = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["sh", "-c", command, "sh", *words], cwd=cwd, env=shell, capture_output=True, check=False)


# --- streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirections", "code", "said"),
    [
        (">&-", 0, b""),
        ("2>&-", 0, b""),
        ("<&- >&- 2>&-", 0, b""),
        ("2>/dev/full", 0, b""),
        (
            ">/dev/full",
            60,
            b"error: standard output can't be written (No space left on device); send it somewhere else",
        ),
        (">&0 </dev/null", 61, b"error: standard output can't be written (Bad file descriptor)"),
    ],
)
def test_a_command_works_with_the_streams_that_it_gets(tmp_path, redirections, code, said):
    done = in_shell(redirections, "--version", cwd=tmp_path)
    assert (done.returncode, done.stderr[: len(said)]) == (code, said), done.stderr
    assert done.stderr.count(b"\n") == (1 if said else 0)


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
def test_an_error_keeps_its_code_where_nobody_hears_its_message(tmp_path, redirections):
    assert in_shell(redirections, "status", cwd=tmp_path).returncode == 33


def test_a_file_that_is_opened_never_gets_a_streams_number(tmp_path):
    code = (
        "import os; [os.close(number) for number in range(3)]\n"
        "from workers.latency.agent.streams import open_streams; open_streams()\n"
        f"import sys; file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "sys.stderr.write('lost'); print('lost', flush=True); os.write(2, b'lost')\n"
        "file.write(str(file.fileno()) + sys.stdin.read())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert int((tmp_path / "file").read_text()) > 2


def test_what_an_encoding_lacks_is_escaped_and_json_stays_json(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", out)
    print_json({"name": "1×8 …"})
    out.flush()
    assert json.loads(out.buffer.getvalue()) == {"name": "1×8 …"}


# --- text -------------------------------------------------------------------------------------------------------


@given(text=BRACKETS)
def test_a_name_from_outside_is_printed_as_it_is(text):
    table = Table.grid()
    table.add_row(text)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show_text(text)
        show_text(table)
    plain, cell = (" ".join(line.split()) for line in out.getvalue().splitlines())
    assert plain == cell == " ".join(text.split())


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("check", "study\udcff.toml"), ("status", "--storage", "sqlite:///\udcff.db")])
def test_a_name_that_is_not_utf8_is_refused_at_the_start(tmp_path, words):
    done = in_shell("", *words, cwd=tmp_path)
    assert done.returncode == 10
    assert b"\\xff" in done.stderr
    assert b"must be UTF-8" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_utf8_or_was_removed_is_refused_at_the_start(tmp_path):
    odd = tmp_path / os.fsdecode(b"odd\xff")
    odd.mkdir()
    done = in_shell("", "status", cwd=odd)
    assert (done.returncode, done.stdout) == (10, b"")
    assert b"the current folder must be UTF-8" in done.stderr
    done = in_shell("", "--help", cwd=odd)
    assert done.returncode == 0
    command = f"rmdir '{tmp_path}/gone'; exec {sys.executable} {ROOT / 'condensery.py'} status"
    (tmp_path / "gone").mkdir()
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path / "gone", capture_output=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        61,
        [b"error: the current folder was removed; change to one that is there."],
    )
