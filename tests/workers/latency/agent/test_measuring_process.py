"""One measuring process: how it is followed, and when it is ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.waiting import until
from workers.latency.agent.subprocesses import STARTS_MOST, ProcessEnd, Stopped, run_process

HANGS_IN_THE_SECOND_MODEL = """
import sys, time
for position, seconds in ((0, 1.0), (1, 600.0)):
    print(f"agent: measuring {position}", file=sys.stderr, flush=True)
    time.sleep(seconds)
"""
COMMAND = [sys.executable, "-S", "-E", "-c"]


def test_a_process_that_hangs_is_ended_when_one_model_takes_too_long_and_says_which():
    start = time.monotonic()
    end = run_process([*COMMAND, HANGS_IN_THE_SECOND_MODEL], timeout_s=1.5)
    assert end.position == 1
    assert "must finish a model within 1.5 s" in end.reason
    assert time.monotonic() - start > 2.0  # each model has the whole time for itself


def test_a_process_that_hangs_silently_blames_no_model():
    end = run_process([*COMMAND, "import time; time.sleep(600)"], timeout_s=0.2)
    assert (end.report, end.position) == (None, None)


def test_a_process_that_closes_its_output_and_hangs_is_ended_too():
    end = run_process([*COMMAND, "import os, time; os.close(2); time.sleep(600)"], timeout_s=0.5)
    assert "must finish a model within 0.5 s" in end.reason


def test_a_report_counts_although_the_process_crashes_after_it():
    end = run_process([*COMMAND, "import os; print('{\"models\": []}', flush=True); os.abort()"], timeout_s=30)
    assert end == ProcessEnd({"models": []})


def test_a_stop_ends_it():
    with pytest.raises(Stopped):
        run_process([*COMMAND, HANGS_IN_THE_SECOND_MODEL], timeout_s=30, stop=lambda: True)


# The first process that finds no mark of an earlier one leaves its number, and waits to be killed.
WAITS_ONCE = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
print("agent: measuring 1", file=sys.stderr, flush=True)
if len(open(sys.argv[1]).readlines()) <= int(sys.argv[2]):
    time.sleep(600)
print('{"models": []}')
"""


def killed_from_outside(started: Path, times: int, by: int = signal.SIGKILL) -> ProcessEnd:
    """Run a process that is killed `times` times, as by a user's `kill -9` or the system when memory runs out."""

    def kill() -> None:
        for number in range(times):
            until(lambda number=number: started.exists() and len(started.read_text().split()) > number)
            os.kill(int(started.read_text().split()[number]), by)

    thread = threading.Thread(target=kill)
    thread.start()
    end = run_process([*COMMAND, WAITS_ONCE, str(started), str(times)], timeout_s=60)
    thread.join()
    return end


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_someone_kills_is_started_again(tmp_path, by):
    assert killed_from_outside(tmp_path / "started", 1, by) == ProcessEnd({"models": []})


def test_one_that_is_killed_each_time_is_given_up_and_says_how_often(tmp_path):
    end = killed_from_outside(tmp_path / "started", STARTS_MOST)
    assert (end.report, end.killed, end.position) == (None, True, 1)
    assert "signal 9" in end.reason
    assert "3 times in a row" in end.reason


def test_one_that_crashes_by_itself_is_not_started_again(tmp_path):
    crash = "import os, signal, sys; open(sys.argv[1], 'a').write('x'); os.kill(os.getpid(), signal.SIGSEGV)"
    end = run_process([*COMMAND, crash, str(tmp_path / "started")], timeout_s=30)
    assert (end.report, end.killed) == (None, False)
    assert (tmp_path / "started").read_text() == "x"
