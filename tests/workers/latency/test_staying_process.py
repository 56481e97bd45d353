"""A measuring process that stays for the next request, and ends whatever becomes of its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until
from workers.latency.agent.subprocesses import Stopped
from workers.latency.agent_file import agent_path
from workers.latency.emulated.staying_process import StayingProcess

ANSWERS = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    print("agent: measuring 1", file=sys.stderr, flush=True)
    if request.get("hang"):
        time.sleep(600)
    if request.get("crash"):
        print("out of luck", file=sys.stderr, flush=True)
        os.abort()
    sys.stderr.write("half a line of a runtime's")
    sys.stderr.flush()
    print("\\nagent: answers " + json.dumps({"pid": os.getpid(), "asked": request}), flush=True)
"""


@pytest.fixture
def process() -> Iterator[StayingProcess]:
    process = StayingProcess(lambda folder: [sys.executable, "-S", "-c", ANSWERS])
    yield process
    process.end()


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def pid_of(process: StayingProcess) -> int:
    report = process.ask({}, 60).report
    assert report is not None
    return int(report["pid"])


def test_one_process_answers_each_request(process):
    first, second = process.ask({"models": ["ä b"]}, 60).report, process.ask({"models": []}, 60).report
    assert first is not None
    assert second == {**first, "asked": {"models": []}}
    assert (first["asked"], process.answers) == ({"models": ["ä b"]}, 2)


def test_one_that_crashes_says_at_which_model_and_how(process):
    end = process.ask({"crash": True}, 60)
    assert (end.report, end.position, end.killed, process.ended) == (None, 1, False, True)
    assert "SIGABRT" in end.reason or "Aborted" in end.reason
    assert end.reason.endswith("out of luck")


def test_one_that_hangs_is_ended(process):
    pid = pid_of(process)
    end = process.ask({"hang": True}, 0.2)
    assert (end.report, end.position, end.killed, process.ended) == (None, 1, False, True)
    assert "within 0.2 s" in end.reason
    assert not exists(pid)


def test_one_that_is_told_to_stop_is_ended(process):
    pid = pid_of(process)
    with pytest.raises(Stopped):
        process.ask({"hang": True}, 60, lambda: True)
    assert process.ended
    assert not exists(pid)


def test_one_that_was_killed_between_two_requests_says_so(process):
    os.kill(pid_of(process), signal.SIGKILL)
    end = process.ask({}, 60)
    assert (end.report, end.killed, process.ended) == (None, True, True)


def test_it_has_a_folder_of_its_own_for_as_long_as_it_lives():
    folders = []
    process = StayingProcess(lambda folder: [sys.executable, "-S", "-c", ANSWERS, str(folders.append(folder))])
    assert folders[0].is_dir()
    process.end()
    assert not folders[0].exists()


def test_one_that_can_not_be_started_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        StayingProcess(lambda folder: [str(tmp_path / "missing")])


OWNER = """
import sys
from workers.latency.emulated.staying_process import StayingProcess
process = StayingProcess(lambda folder: [sys.executable, "-S", "-c", sys.argv[1]])
print(process.ask({}, 60).report["pid"], flush=True)
input()
"""


def test_it_ends_when_its_owner_is_killed():
    command = [sys.executable, "-c", OWNER, ANSWERS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as owner:
        assert owner.stdout is not None
        answering = int(owner.stdout.readline())
        assert exists(answering)
        owner.kill()
    until(lambda: not exists(answering))


def test_the_agent_stays_and_ends_at_once_when_its_input_closes(tmp_path):
    counts = ["count", "--stay", "--counts", str(tmp_path / "counts")]
    process = StayingProcess(lambda folder: [sys.executable, str(agent_path()), *counts])
    for _ in range(2):
        report = process.ask({"models": [str(tmp_path / "no.onnx")], "runs": 1}, 60).report
        assert report is not None
        assert [entry["fault"] for entry in report["models"]] == ["model"]
    process._requests.close()
    assert process._child.wait(60) == 0
    process.end()
