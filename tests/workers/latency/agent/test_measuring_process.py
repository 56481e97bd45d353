"""One measuring process: how it is followed, and when it is ended."""

from __future__ import annotations

import sys
import time

import pytest

from workers.latency.agent.subprocesses import ProcessEnd, Stopped, run_process

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
