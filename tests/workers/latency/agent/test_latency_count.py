"""Counting: how the agent reads an emulator's counts; a stand-in for the emulator writes the file."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest

from tests.workers.latency.test_latency_contract import sha256, write_corrupt, write_network
from workers.latency.agent.__main__ import main
from workers.latency.agent.counting import STOP, CountSettings, count_models
from workers.latency.agent.reports import FORMAT, PROGRESS
from workers.latency.agent.runtimes import RUNTIMES, OnnxRuntime

pytestmark = pytest.mark.slow

LINE = {"all": 100, "branch": 10, "vfma": 50}


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [write_network(tmp_path / f"{channels}.onnx", channels) for channels in (1, 2)]


@pytest.fixture
def emulator(monkeypatch, tmp_path: Path):
    """Return a function that has each stop marker append the next of the given lines; returns (file, markers)."""

    def start(lines) -> tuple[Path, list[int]]:
        file, left, markers = tmp_path / "counts.jsonl", iter(lines), []

        def getsid(marker: int) -> int:
            markers.append(marker)
            if marker == STOP:
                with file.open("a") as handle:
                    handle.write(next(left))
            raise ProcessLookupError

        monkeypatch.setattr(os, "getsid", getsid)
        return file, markers

    return start


def line(number: int) -> str:
    return json.dumps({**LINE, "all": number}) + "\n"


def test_each_counted_run_of_each_model_has_the_counts_of_its_own_markers(emulator, models):
    file, markers = emulator(line(number) for number in range(6))
    report = count_models(models, file, CountSettings(runs=3))
    assert (report["format"], report["mode"], report["threads"]) == (FORMAT, "counts", 1)
    assert (report["runtime"], report["runtime_version"]) == ("onnxruntime", OnnxRuntime().version)
    assert [entry["sha256"] for entry in report["models"]] == [sha256(model) for model in models]
    seen = [[counts["all"] for counts in entry["counts"]] for entry in report["models"]]
    assert seen == [[0, 1, 2], [3, 4, 5]]
    assert report["models"][0]["counts"][0] == {**LINE, "all": 0}
    assert markers == [0x5EED01, 0x5EED02] * 6


def test_warm_up_runs_stand_outside_the_markers_and_collect_no_garbage(emulator, models, monkeypatch):
    file, markers = emulator(line(number) for number in range(2))
    runs = []

    class Watched(OnnxRuntime):
        def load(self, model, threads):
            assert threads == 1
            run = super().load(model, threads)
            return lambda: (runs.append((len(markers), gc.isenabled())), run())

    monkeypatch.setitem(RUNTIMES, "onnxruntime", Watched)
    count_models(models[:1], file, CountSettings(runs=2, warmup=3))
    assert runs == [(0, False)] * 3 + [(1, False), (3, False)]
    assert gc.isenabled()


def test_counts_that_an_earlier_process_left_in_the_file_are_not_taken(emulator, models):
    file, _ = emulator([line(7)])
    file.write_text(line(1) * 3)
    (entry,) = count_models(models[:1], file, CountSettings(runs=1))["models"]
    assert [counts["all"] for counts in entry["counts"]] == [7]


def test_a_refused_model_is_its_own_entry_and_the_rest_is_counted(emulator, models, tmp_path):
    file, _ = emulator(line(number) for number in range(2))
    corrupt = write_corrupt(tmp_path / "corrupt.onnx")
    positions = []
    first, refused, last = count_models(
        [models[0], corrupt, models[1]], file, CountSettings(runs=1), progress=positions.append
    )["models"]
    assert (refused["sha256"], refused["fault"]) == (sha256(corrupt), "model")
    assert "\n" not in refused["error"]
    assert first["counts"][0]["all"] == 0
    assert last["counts"][0]["all"] == 1
    assert positions == [0, 1, 2]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "no counts: start it under the counting emulator"),
        (line(1) + line(2), "must give one line of counts"),
        ("[1]\n", "must give one line of counts"),
        ('{"all": "many"}\n', "must give one line of counts"),
        ('{"all": 1', "must give one line of counts"),
    ],
)
def test_a_run_without_exactly_one_line_of_counts_is_the_devices_fault(emulator, models, written, complaint):
    file, _ = emulator([written])
    (entry,) = count_models(models[:1], file, CountSettings(runs=1))["models"]
    assert complaint in entry["error"]
    assert entry["fault"] == "device"
    assert gc.isenabled()


def test_on_a_machine_that_is_not_emulated_every_model_says_so(models, tmp_path, capsys):
    arguments = ["count", "--counts", str(tmp_path / "counts.jsonl"), "--runs", "1", *map(str, models)]
    assert main(arguments) == 0
    streams = capsys.readouterr()
    entries = json.loads(streams.out)["models"]
    assert [entry["error"] for entry in entries] == ["no counts: start it under the counting emulator"] * 2
    assert [entry["sha256"] for entry in entries] == [sha256(model) for model in models]
    assert [line for line in streams.err.splitlines() if line.startswith(PROGRESS)] == [
        f"{PROGRESS}{position}" for position in range(2)
    ]


@pytest.mark.parametrize(("option", "value"), [("--runs", "0"), ("--warmup", "-1")])
def test_impossible_numbers_of_runs_are_refused(models, tmp_path, capsys, option, value):
    arguments = ["count", "--counts", str(tmp_path / "counts.jsonl"), option, value, str(models[0])]
    assert main(arguments) == 2
    assert "runs >= 1 and warmup >= 0 must hold" in capsys.readouterr().err
