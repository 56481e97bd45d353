"""Watching a launch: a live table on a real pseudo-terminal, plain lines elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dashboards.formats import milliseconds
from dashboards.terminal.live_view import live_view
from tests.dashboards.studies import Study


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Study]:
    study = Study(tmp_path)
    yield study
    study.engine.dispose()


class Screen:
    """A pseudo-terminal of 80 x 24 whose output is collected."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.file = os.fdopen(slave, "w", encoding="utf-8")
        self.collected = b""
        self.thread = threading.Thread(target=self._collect)
        self.thread.start()

    def _collect(self) -> None:
        while True:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:  # Linux's word for the end of a pseudo-terminal
                return
            if not chunk:
                return
            self.collected += chunk

    def close(self) -> str:
        self.file.close()
        self.thread.join()
        os.close(self.master)
        return self.collected.decode()


def last_frame(output: str) -> str:
    """What stands on the screen at the end: the text after the last jump back to the table's top."""
    frame = output.rsplit("\x1b[1A\x1b[2K", 1)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def price_of(made: Study, number: int) -> str:
    latency = made.row(number).latency
    assert latency is not None
    return milliseconds(latency.median_ms)


def plain(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width), file


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_one_table_and_one_bar(made: Study) -> None:
    screen = Screen()
    made.done(0.312, 0.972)
    made.infeasible(0.9)
    number = made.running(0.2, epochs=5)
    with live_view(Console(file=screen.file), wanted=4) as view:
        for row in made.rows():
            view.trial(row)
        view.progress(1, 4)
        view.curve(number, {"epoch": 5, "progress": 5 / 12, "val_top1": 0.91})
        view.note("stopping after the running trials")
    frame = last_frame(screen.close())
    for words in (
        price_of(made, 0),
        "97.2 %",
        "91.0 %",
        "running 42 %",
        "infeasible: latency",
        "measured, quick",
        "0.20 M",
    ):
        assert words in frame
    assert frame.count("of 4 trainings") == 1
    assert "1 of 4 trainings" in frame
    assert "stopping after the running trials" in frame


@pytest.mark.usefixtures("terminal")
def test_running_trials_stay_visible_among_many_newer_ones(made: Study) -> None:
    screen = Screen()
    early = made.running(0.1234)
    for _ in range(40):
        made.failed("no reason in particular")
    with live_view(Console(file=screen.file), wanted=50) as view:
        for row in made.rows():
            view.trial(row)
    frame = last_frame(screen.close())
    assert f"{early}  2-2 growth" in frame
    assert price_of(made, early) in frame
    assert "40  2-2 growth" in frame
    assert " 5  2-2 growth" not in frame
    assert len(frame.splitlines()) <= 24


@pytest.mark.usefixtures("terminal")
def test_standard_output_stays_clear_of_the_table(made: Study, capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    with live_view(Console(file=screen.file), wanted=1) as view:
        view.note("hello")
        print("data")
    assert "data" not in screen.close()
    assert capfd.readouterr().out == "data\n"


def test_without_a_terminal_each_change_is_one_plain_line(made: Study) -> None:
    console, file = plain()
    done, refused = made.done(0.312, 0.972), made.infeasible(0.9)
    failed = made.failed("the loss became nan\nby step 41 of 500;   try a smaller learning rate " + "x" * 60)
    with live_view(console, wanted=2) as view:
        for _ in range(2):  # told twice, said once
            for row in made.rows():
                view.trial(row)
        view.progress(0, 2)
        view.progress(1, 2)
        view.note("done")
    lines = file.getvalue().splitlines()
    assert lines[0] == f"trial {done} done: top-1 97.2 %, {price_of(made, done)} (measured, quick), 0.20 M macs, 12.3 s"
    assert lines[1] == f"trial {refused} refused: latency 0.9 ms > 0.4 ms, measured"
    assert lines[2].startswith(f"trial {failed} failed: the loss became nan by step 41 of 500; try a smaller")
    assert lines[3].startswith("1 of 2 trainings done, 0:0")
    assert lines[4:] == ["done"]


def test_plain_lines_follow_a_trial_through_its_states(made: Study) -> None:
    console, file = plain()
    with live_view(console, wanted=1) as view:
        number = made.asked()
        view.trial(made.row(number))
        made.store.add_latency(number, made.measurement(number, 0.312))
        made.store.set_queued(number)
        view.trial(made.row(number))
        made.store.set_running(number, 1)
        view.trial(made.row(number))
        view.curve(number, {"epoch": 1, "progress": 0.5, "val_top1": 0.4})
        made.store.finish(number, "duplicate", duplicate_of=7)
        view.trial(made.row(number))
    assert file.getvalue().splitlines() == [
        f"trial 0 queued: 2-2 growth 8-16 G=4 C=4 B=4, {price_of(made, 0)} (measured, quick), 0.20 M macs",
        "trial 0 running: 2-2 growth 8-16 G=4 C=4 B=4",
        "trial 0 repeats trial 7",
    ]


def test_escape_codes_in_a_reason_never_reach_the_log(made: Study) -> None:
    console, file = plain()
    made.failed("\x1b[2Jgone [bold]really[/bold] \x07")
    with live_view(console, wanted=1) as view:
        view.trial(made.row(0))
    assert file.getvalue() == "trial 0 failed: [2Jgone [bold]really[/bold]\n"


def test_colour_forced_into_a_file_makes_no_live_table(made: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    with live_view(Console(file=file), wanted=1) as view:
        view.note("hello")
    assert file.getvalue() == "hello\n"


def test_a_closed_pipe_never_ends_a_search(made: Study) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    made.done(0.3, 0.9)
    # Unbuffered, so that each line meets the closed pipe at once.
    with (
        io.TextIOWrapper(os.fdopen(writing, "wb", buffering=0), write_through=True) as file,
        live_view(Console(file=file), wanted=1) as view,
    ):
        with pytest.raises(BrokenPipeError):
            file.write("the pipe is closed indeed\n")
        view.trial(made.row(0))
        view.progress(0, 1)
        view.progress(1, 1)
        view.note("still here")


def test_an_error_inside_the_block_passes_through(made: Study) -> None:
    console, _ = plain()
    with pytest.raises(ZeroDivisionError), live_view(console, wanted=1):
        raise ZeroDivisionError
