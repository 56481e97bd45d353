"""A batch on the device: what anchor and throttling decide, which models are left out, how a hot processor cools."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.workers.latency.test_latency_contract import TINY, sha256, write_corrupt, write_network
from workers.latency import FailedMeasurement, Measurement
from workers.latency.agent import cooling, subprocesses
from workers.latency.agent.batch import GIVE_UP_AFTER, Batch, Placement, measure_batch
from workers.latency.agent.cooling import Client, Cooling
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.agent.sensors import cpu_model
from workers.latency.agent.subprocesses import ProcessEnd, Stopped
from workers.latency.agent_file import agent_command
from workers.latency.measurement import measurement_from_report

POLICY = {**TINY.model_dump(mode="json"), "anchor_tolerance": 0.05, "attempts": 3}


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    return write_network(tmp_path / "anchor.onnx", 5)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [write_network(tmp_path / f"model{channels}.onnx", channels) for channels in (1, 2, 3)]


class Scripted:
    """Stands in for the measuring process: anchors as scripted, every other model 1 ms; keeps what it was asked."""

    def __init__(self, anchors_ms: Sequence[tuple[float, float]], throttled: Sequence[bool | None] = ()) -> None:
        self.anchors_ms = list(anchors_ms)
        self.throttled = [*throttled, *[None] * len(self.anchors_ms)]
        self.batches: list[list[Path]] = []

    def __call__(self, paths: Sequence[Path]) -> ProcessEnd:
        first_ms, last_ms = self.anchors_ms[len(self.batches)]
        throttled = self.throttled[len(self.batches)]
        self.batches.append(list(paths))
        values = [first_ms, *[1.0] * (len(paths) - 2), last_ms]
        entries = [self.entry(path, value, throttled) for path, value in zip(paths, values, strict=True)]
        return ProcessEnd({"runtime": "scripted", "models": entries})

    def entry(self, path: Path, value: float, throttled: bool | None) -> dict:
        times = {"samples_ms": [value] * 3, "runs": 3, "stride": 1}
        return {"path": str(path), "sha256": sha256(path), "before": {}, "after": {}, "throttled": throttled, **times}


def entries_of(start, anchor, models, client=None, **policy) -> list[dict]:
    policy, client = {**POLICY, **policy}, client or Client()
    return Batch(anchor, policy, start, Cooling(policy, client), client).measure(models)[1]


# ---- what counts, and what is measured again -------------------------------------------------------------------


def test_a_steady_batch_is_accepted_after_the_first_processes(anchor, models):
    start = Scripted([(1.0, 1.01), (1.04, 1.02)])
    for entry in entries_of(start, anchor, models):
        assert entry["steady"]
        assert entry["anchor_drift"] == pytest.approx(0.04)
        assert (entry["attempt"], entry["measured"], entry["planned_from"]) == (1, 2, 2)
        assert [process["anchor_ms"] for process in entry["processes"]] == [[1.0, 1.01], [1.04, 1.02]]
    assert len(start.batches) == 2


@pytest.mark.parametrize("moving", [[(1.0, 1.2), (1.0, 1.0)], [(1.2, 1.2), (1.0, 1.0)]])
def test_a_process_in_which_the_anchor_moved_is_set_aside_and_replaced_by_another(anchor, models, moving):
    start = Scripted([*moving, (1.0, 1.0)])
    for entry in entries_of(start, anchor, models):
        assert (entry["steady"], entry["attempt"], entry["measured"]) == (True, 2, 3)
        assert [process["anchor_ms"] for process in entry["processes"]] == [[1.0, 1.0], [1.0, 1.0]]
    assert len(start.batches) == 3


def test_when_the_anchor_never_agrees_the_least_moved_processes_are_kept_and_say_so(anchor, models):
    start = Scripted([(1.0, 1.5), (1.0, 1.2), (1.0, 1.1), (1.0, 1.1), (1.0, 1.3), (1.0, 1.2)])
    for entry in entries_of(start, anchor, models):
        assert (entry["steady"], entry["planned_from"]) == (False, None)
        assert entry["anchor_drift"] == pytest.approx(0.1)
        assert (entry["attempt"], entry["measured"]) == (3, 6)
    assert len(start.batches) == 6


def test_a_throttled_process_does_not_count_although_its_anchor_was_steady(anchor, models):
    start = Scripted([(1.0, 1.0)] * 3, throttled=[False, True, False])
    entries = entries_of(start, anchor, models)
    assert len(start.batches) == 3
    assert all(entry["steady"] and entry["measured"] == 3 for entry in entries)
    assert [process["throttled"] for process in entries[0]["processes"]] == [False, False]


def test_when_every_process_is_disturbed_the_batch_ends_early_and_is_not_steady(anchor, models):
    start = Scripted([(1.0, 1.0)] * 20, throttled=[True] * 20)
    for entry in entries_of(start, anchor, models, attempts=10):
        assert not entry["steady"]
        assert all(process["disturbed"] == "the processor was slowed down" for process in entry["processes"])
    assert len(start.batches) == 2 + GIVE_UP_AFTER


def test_only_the_models_that_were_disturbed_are_measured_again(anchor, models):
    class Hog(Scripted):
        """Takes the core while the second model runs in the first process."""

        def entry(self, path: Path, value: float, throttled: bool | None) -> dict:
            hogged = path == models[1] and len(self.batches) == 1
            figures = {"lost": 0.5 if hogged else 0.0}
            return {**super().entry(path, value * (2 if hogged else 1), throttled), **figures}

    start = Hog([(1.0, 1.0)] * 3)
    first, hogged, last = entries_of(start, anchor, models)
    assert [sorted(paths[1:-1]) for paths in start.batches] == [sorted(models), sorted(models), [models[1]]]
    assert (first["steady"], hogged["steady"], last["steady"]) == (True, True, True)
    assert [process["samples_ms"][0] for process in hogged["processes"]] == [1.0, 1.0]
    assert (first["measured"], hogged["measured"]) == (2, 3)


def test_a_model_whose_own_times_differ_between_processes_is_measured_again_although_the_anchor_kept_still(
    anchor, models
):
    class Differing(Scripted):
        def entry(self, path: Path, value: float, throttled: bool | None) -> dict:
            differs = path == models[1] and len(self.batches) == 1
            return super().entry(path, value * (1.3 if differs else 1), throttled)

    start = Differing([(1.0, 1.0)] * 3)
    entries = entries_of(start, anchor, models)
    assert [len(paths) for paths in start.batches] == [5, 5, 3]
    assert all(entry["steady"] for entry in entries)
    assert [process["samples_ms"][0] for process in entries[1]["processes"]] == [1.0, 1.0]


def test_a_wide_interval_gets_further_processes_without_a_pause(anchor, models):
    class Varying(Scripted):
        def entry(self, path: Path, value: float, throttled: bool | None) -> dict:
            return super().entry(path, value * (1 + 0.01 * (len(self.batches) % 2)), throttled)

    states: list[str] = []
    start = Varying([(1.0, 1.0)] * 6)
    (entry,) = entries_of(start, anchor, models[:1], Client(heartbeat=states.append), processes=2, cooldown_s=3600.0)
    assert (entry["steady"], len(entry["processes"]), len(start.batches)) == (True, 6, 6)
    assert set(states) == {"measuring"}


# ---- orders and places --------------------------------------------------------------------------------------


def test_every_process_has_the_anchor_first_and_last_and_an_order_of_its_own(anchor, models):
    start = Scripted([(1.0, 1.0)] * 4)
    entries_of(start, anchor, models, processes=4)
    for paths in start.batches:
        assert paths[0] == paths[-1] == anchor
        assert sorted(paths[1:-1]) == sorted(models)
    inner = [paths[1:-1] for paths in start.batches]
    assert all(one != following for one, following in itertools.pairwise(inner))
    again = Scripted([(1.0, 1.0)] * 4)
    entries_of(again, anchor, models, processes=4)
    assert again.batches == start.batches


def test_an_empty_batch_starts_no_process(anchor):
    start = Scripted([])
    assert entries_of(start, anchor, []) == []
    assert start.batches == []


def test_a_file_that_changes_between_processes_has_no_latency(anchor, models):
    class Changing(Scripted):
        def entry(self, path: Path, value: float, throttled: bool | None) -> dict:
            if path == models[1]:
                path.write_bytes(path.read_bytes() + b"\0")
            return super().entry(path, value, throttled)

    first, changed, last = entries_of(Changing([(1.0, 1.0)] * 2), anchor, models)
    assert "must not change" in changed["error"]
    assert "error" not in first
    assert "error" not in last


def test_a_lost_later_process_keeps_the_earlier_ones(anchor, models):
    class DyingLater(Scripted):
        def __call__(self, paths: Sequence[Path]) -> ProcessEnd:
            if len(self.batches) == len(self.anchors_ms):
                return ProcessEnd(None, None, "killed")
            return super().__call__(paths)

    entries = entries_of(DyingLater([(1.0, 1.5), (1.0, 1.0)]), anchor, models)
    assert all("error" not in entry and not entry["steady"] for entry in entries)


@pytest.mark.parametrize(("position", "faults"), [(None, ["device"] * 3), (0, ["device"] * 3), (4, ["device"] * 3)])
def test_a_process_that_dies_at_no_model_is_the_devices_fault(anchor, models, position, faults):
    entries = entries_of(lambda paths: ProcessEnd(None, position, "killed"), anchor, models)
    assert [entry["fault"] for entry in entries] == faults
    assert [entry["sha256"] for entry in entries] == [sha256(path) for path in models]


def test_a_model_that_kills_its_process_is_at_fault_itself_and_left_out_from_then_on(anchor, models):
    scripted = Scripted([(1.0, 1.0)] * 2)

    def start(paths: Sequence[Path]) -> ProcessEnd:
        if models[1] in paths:
            return ProcessEnd(None, list(paths).index(models[1]), "signal 11")
        return scripted(paths)

    entries = entries_of(start, anchor, models)
    assert entries[1] == {"path": str(models[1]), "sha256": sha256(models[1]), "error": "signal 11", "fault": "model"}
    assert all(len(paths) == 4 for paths in scripted.batches)


# ---- a hot processor ----------------------------------------------------------------------------------------


class Clock:
    """A clock without a wall: `sleep` turns it, nothing else does; a look at the date is an error."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    turned = Clock()
    for module in (cooling, subprocesses):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=turned.monotonic, sleep=turned.sleep))
    return turned


HOT = {"pause_above_c": 60.0, "resume_below_c": 55.0, "cool_for_s": 600.0}


def cooling_down(clock: Clock, start_c: float, c_per_s: float, floor_c: float = 20.0):
    return lambda: max(floor_c, start_c - c_per_s * clock.now_s)


def test_a_hot_processor_is_waited_for_until_it_is_below_the_lower_limit(clock):
    states: list[str] = []
    temperature = cooling_down(clock, 65.0, 0.1)
    pause = Cooling(HOT, Client(heartbeat=states.append), temperature)
    assert pause.wait() is True
    assert temperature() < 55.0
    assert clock.now_s == pytest.approx(101.0)  # looked at every second
    assert states == ["cooling"]


@pytest.mark.parametrize(
    ("policy", "temperature_c"), [(HOT, 59.9), (HOT, None), ({**HOT, "pause_above_c": None}, 99.0), ({}, 99.0)]
)
def test_a_cool_processor_one_without_a_sensor_and_a_policy_without_a_limit_wait_for_nothing(
    clock, policy, temperature_c
):
    assert Cooling(policy, Client(), lambda: temperature_c).wait() is None
    assert clock.now_s == 0.0


def test_a_machine_that_idles_hot_is_waited_for_once_and_then_measured_hot(clock):
    pause = Cooling(HOT, Client(), cooling_down(clock, 70.0, 0.01, floor_c=62.0))
    assert [pause.wait() for _ in range(3)] == [False, False, False]
    assert clock.now_s == pytest.approx(600.0)


def test_a_sensor_that_falls_silent_while_cooling_holds_nothing_up(clock):
    readings = iter([70.0, 70.0, None])
    assert Cooling(HOT, Client(), lambda: next(readings)).wait() is True


def test_a_stop_ends_the_wait_of_a_hot_processor(clock):
    client = Client(stop=lambda: clock.now_s > 5)
    with pytest.raises(Stopped):
        Cooling(HOT, client, lambda: 90.0).wait()
    assert clock.now_s < 6


def test_a_stop_ends_the_pause_between_two_attempts(clock, anchor, models):
    client = Client(stop=lambda: clock.now_s > 5)
    with pytest.raises(Stopped):
        entries_of(Scripted([(1.0, 1.5)] * 9), anchor, models, client, cooldown_s=3600.0)
    assert clock.now_s < 6


def test_each_process_says_whether_it_was_cooled(clock, anchor, models):
    policy = {**POLICY, **HOT}
    readings = iter([50.0, 70.0, 40.0])
    pause = Cooling(policy, Client(), lambda: next(readings))
    entry = Batch(anchor, policy, Scripted([(1.0, 1.0)] * 2), pause, Client()).measure(models)[1][0]
    assert [process["cooled"] for process in entry["processes"]] == [None, True]


def test_the_client_of_a_batch_is_told_what_is_being_done(clock, anchor, models):
    states: list[str] = []
    client = Client(heartbeat=states.append)
    entries_of(Scripted([(1.0, 1.5), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]), anchor, models, client)
    assert states == ["measuring", "measuring", "cooling", "measuring"]


# ---- the report ---------------------------------------------------------------------------------------------


def test_a_report_of_a_real_batch_is_json_and_becomes_measurements(tmp_path, anchor, models):
    corrupt = write_corrupt(tmp_path / "corrupt.onnx")
    policy = TINY.model_dump(mode="json")
    report = json.loads(
        json.dumps(measure_batch([models[0], corrupt], anchor, policy, Placement(agent_command())), allow_nan=False)
    )
    assert (report["format"], report["mode"], report["runtime"]) == (3, "wall", "onnxruntime")
    assert report["runtime_version"] == installed_runtimes()["onnxruntime"]
    assert [entry["path"] for entry in report["models"]] == [str(models[0]), str(corrupt)]
    measured, refused = (measurement_from_report(report, entry, "a pi") for entry in report["models"])
    assert isinstance(refused, FailedMeasurement)
    assert refused == FailedMeasurement(sha256(corrupt), report["models"][1]["error"])
    assert isinstance(measured, Measurement)
    assert (measured.device, measured.policy, measured.kind) == ("a pi", "quick", "measured")
    assert [list(samples) for samples in measured.samples_ms] == [
        process["samples_ms"] for process in report["models"][0]["processes"]
    ]


def test_an_entry_sent_by_itself_counts_its_tries_and_the_order_names_the_policy(anchor, models):
    facts = {"cpu_model": "x", "runtime": "onnxruntime", "runtime_version": "1", "threads": 1}
    (entry,) = entries_of(Scripted([(1.0, 1.0)] * 2), anchor, models[:1])
    entry["tries"] = entry.pop("attempt") + 1
    measurement = measurement_from_report({**facts, **entry}, entry, "pi", "standard")
    assert isinstance(measurement, Measurement)
    assert (measurement.conditions["attempt"], measurement.policy) == (2, "standard")


def test_samples_that_no_clock_gives_are_a_failed_measurement(anchor, models):
    (entry,) = entries_of(Scripted([(1.0, 1.0)] * 2), anchor, models[:1])
    entry["processes"][1]["samples_ms"] = [1.0, -1.0]
    measurement = measurement_from_report({}, entry, "pi", "quick")
    assert isinstance(measurement, FailedMeasurement)
    assert "process 1 has -1.0" in measurement.reason


@pytest.mark.parametrize("printed", ["1", "[]", "no report"])
def test_a_process_that_prints_something_else_than_a_report_is_the_devices_fault(anchor, models, printed):
    placement = Placement([sys.executable, "-c", f"print({printed!r})"])
    report = measure_batch(models, anchor, TINY.model_dump(mode="json"), placement)
    assert [entry["fault"] for entry in report["models"]] == ["device"] * 3
    assert "exit code 0 and no report" in report["models"][0]["error"]


def test_a_launcher_that_is_not_there_is_the_devices_fault(anchor, models):
    report = measure_batch(models, anchor, TINY.model_dump(mode="json"), Placement(["/nowhere/emulator"]))
    assert all("could not be started" in entry["error"] and entry["fault"] == "device" for entry in report["models"])


def test_a_batch_with_a_policy_that_lacks_a_number_or_an_unusable_core_is_refused(anchor, models):
    with pytest.raises(ValueError, match=r"needs a number for each of \['processes'\]"):
        measure_batch(models, anchor, {**POLICY, "processes": None}, Placement(agent_command()))
    with pytest.raises(ValueError, match="the core must be one of"):
        measure_batch(models, anchor, POLICY, Placement(agent_command(), core=99_999))


def test_a_report_without_a_single_process_still_names_the_machine(tmp_path, models):
    report = measure_batch(models, tmp_path / "nowhere.onnx", TINY.model_dump(mode="json"), Placement(agent_command()))
    assert report["cpu_model"] == cpu_model(report["core"])
    assert all(entry["fault"] == "device" and "nowhere.onnx" in entry["error"] for entry in report["models"])
