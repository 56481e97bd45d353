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
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dashboards.formats import milliseconds
from dashboards.terminal.live_view import _LiveView, live_view
from dashboards.terminal.plain_view import PlainView
from tests.dashboards.studies import Study
from workers.training.reporting import ProgressReport


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
        view.curve(number, {"epoch": 5, "progress": 5 / 12, "val_top1": 0.91, "seconds": 50.0, "images_per_s": 987.6})
        view.note("stopping after the running trials")
    frame = last_frame(screen.close())
    for words in (
        price_of(made, 0),
        "97.2 %",
        "91.0 %",
        "running 42 %",
        "#2 epoch 5 of 12 ━",
        "988 images/s 1 min 10 s left",
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
@pytest.mark.parametrize("width", [60, 80, 132])
def test_each_running_training_has_a_bar_of_its_epoch_with_its_speed_and_the_time_left(made: Study, width: int) -> None:
    numbers = [made.running(0.2, epochs=1) for _ in range(3)]
    view = _LiveView(Console(file=io.StringIO(), width=width, height=24, record=True), wanted=9)
    for row in made.rows():
        view.trial(row)
    for number, progress in zip(numbers, (0.01, 2.5 / 12, 1.0), strict=True):
        view.under_way(number, ProgressReport(progress, 600 * progress, 1234.4))
    view.console.print(view.draw())
    lines = view.console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    first, second, third = (next(line for line in lines if line.startswith(f"#{number} ")) for number in numbers)
    assert [words in first for words in ("epoch 1 of 12", "1 %", "1,234 images/s", "9 min 54 s left")] == [True] * 4
    assert [words in second for words in ("epoch 3 of 12", "21 %", "7 min 55 s left")] == [True] * 3
    assert [words in third for words in ("epoch 12 of 12", "100 %", "0 s left")] == [True] * 3
    bars = [line.count("━") + line.count("╸") for line in (first, second, third)]  # without colours: what is done
    assert bars[0] < bars[1] < bars[2]


def test_many_running_trainings_leave_room_for_the_table(made: Study) -> None:
    numbers = [made.running(0.2, epochs=1) for _ in range(30)]
    view = _LiveView(Console(file=io.StringIO(), width=80, height=24, record=True), wanted=50)
    for row in made.rows():
        view.trial(row)
    for number in numbers:
        view.under_way(number, ProgressReport(0.5, 10.0, 100.0))
    view.console.print(view.draw())
    lines = view.console.export_text().splitlines()
    assert len(lines) <= 24
    assert "and 25 other trainings" in "\n".join(lines)


def test_a_log_file_gets_a_line_a_minute_about_each_training(made: Study) -> None:
    console, file = plain()
    time_s = [0.0]
    view = PlainView(console, 1, now=lambda: time_s[0])
    number = made.running(0.2, epochs=1)
    view.trial(made.row(number))
    for time_s[0] in range(1, 181):
        view.under_way(number, ProgressReport(time_s[0] / 240, float(time_s[0]), 321.0))
    told = file.getvalue().splitlines()[1:]
    assert told == [
        f"trial {number}: epoch 3 of 12, 25 %, 321 images/s, about 3 min left",
        f"trial {number}: epoch 6 of 12, 50 %, 321 images/s, about 2 min left",
        f"trial {number}: epoch 9 of 12, 75 %, 321 images/s, about 1 min left",
    ]


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
    assert lines[3].startswith("1 of 2 trainings done, 0 s elapsed")
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
        view.curve(number, {"epoch": 1, "progress": 0.5, "val_top1": 0.4, "seconds": 1.0, "images_per_s": None})
        made.store.finish(number, "duplicate", duplicate_of=7)
        view.trial(made.row(number))
    assert file.getvalue().splitlines() == [
        f"trial 0 queued: 2-2 growth 8-16 G=4 C=4 B=4, {price_of(made, 0)} (measured, quick), 0.20 M macs",
        "trial 0 running: 2-2 growth 8-16 G=4 C=4 B=4",
        "trial 0 repeats trial 7",
    ]


def with_a_pause(made: Study) -> tuple[int, int]:
    first, paused = made.done(0.3, 0.9), made.running(0.2)
    made.store.finish(paused, "pruned", reason="ended early: its chance is small", expected_score=0.8)
    return first, paused


@pytest.mark.parametrize(
    ("pauses", "continues", "said"),
    [
        (True, None, "paused: its chance is small"),
        (True, 7, "did not go on: ended early: its chance is small"),  # ended again: that is no pause
        (False, None, "did not go on: ended early: its chance is small"),
    ],
)
def test_a_training_that_was_stopped_is_called_paused_where_others_go_on_and_it_has_not_yet(
    made: Study, pauses: bool, continues: int | None, said: str
) -> None:
    console, file = plain()
    _, paused = with_a_pause(made)
    row = replace(made.row(paused), continues=continues)
    with live_view(console, wanted=2, pauses=pauses) as view:
        view.trial(row)
    assert file.getvalue() == f"trial {paused} {said}\n"
    table = _LiveView(Console(file=io.StringIO(), width=200), wanted=9)
    table.pauses = pauses
    assert table._state(row).plain == said.replace("did not go on", "pruned")


def test_the_time_that_is_left_is_said_to_be_without_the_paused_trainings_until_they_go_on(made: Study) -> None:
    time_s = [0.0]
    view = PlainView(plain()[0], 4, now=lambda: time_s[0])
    _, paused = with_a_pause(made)
    view.pauses = True
    view.progress(0, 4)
    view.trial(made.row(paused))
    time_s[0] = 10.0
    view.progress(2, 4)
    assert view.times_text() == "10 s elapsed, about 10 s left without what was paused"
    view.trial(replace(made.row(paused), number=9, state="running", continues=paused))
    assert view.times_text() == "10 s elapsed, about 10 s left"


def test_the_live_table_calls_a_training_paused_until_it_goes_on(made: Study) -> None:
    view = _LiveView(Console(file=io.StringIO(), width=200, height=24, record=True), wanted=9)
    _, paused = with_a_pause(made)
    view.pauses = True
    view.trial(made.row(paused))
    assert view._state(made.row(paused)).plain == "paused: its chance is small"
    view.trial(replace(made.row(paused), number=9, state="running", continues=paused))
    assert view._state(made.row(paused)).plain == "gone on as trial 9"


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
