"""A study on several devices: each its own objective, its own limit, its own figures."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from search.budget import Budget
from search.devices.probe import INSTALL
from search.loop.controller import Controller
from search.pricing import targets
from search.pricing.pricer import Pricer, Target
from search.pricing.targets import choose_runtimes, known_runtimes
from search.results.pareto import pareto_front
from search.results.ranking import best, rank
from search.study_file import settings_from
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import DiskFull, InvalidSettings, NothingFeasible
from tests.search.tiny_studies import (
    INSIDE,
    SMALLEST,
    Bench,
    CountingProbe,
    assert_consistent,
    config_of,
    document,
    optuna_study,
    optuna_trials,
)
from workers.file_names import SUFFIXES
from workers.latency import FakeProbe
from workers.latency.agent.runtimes import RUNTIMES
from workers.latency.measurement import FailedMeasurement, MeasurementStopped, never
from workers.latency.policy import Runtime

DEVICES = {"devices": ["pi5", "phone"], "policy": "quick"}


def by_layers(path: Path) -> float:
    """A made-up latency that macs don't order: 1 ms a layer."""
    return float(sum(config_of(path).stages))


class TwoDevices(Bench):
    """A bench whose second device counts layers."""

    def __init__(self, folder: Path, **changes) -> None:
        super().__init__(folder, latency=dict(DEVICES), **changes)
        self.phone = CountingProbe(by_layers)
        self.probe.device, self.phone.device = "pi5", "phone"
        self.forecast = None

    def controller(self, resume: bool = False) -> Controller:
        study = self.open(resume)
        study.store.claim()
        budget, files = self.settings.search_budget(), self.files
        devices = (
            Target("pi5", self.probe, budget.max_latency_ms, self.forecast),
            Target("phone", self.phone, budget.elsewhere_ms.get("phone")),
        )
        return self.controller_on(study, devices, files)


@pytest.fixture
def two_devices(tmp_path: Path):
    benches: list[TwoDevices] = []

    def make(**changes) -> TwoDevices:
        benches.append(TwoDevices(tmp_path, **changes))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


def test_every_device_is_an_objective_of_its_own_and_stands_beside_the_trial(two_devices):
    bench = two_devices()
    assert bench.run() == "finished"
    assert_consistent(bench)
    for row in bench.done():
        assert list(row.latencies) == ["pi5", "phone"]
        assert row.latency is not None
        assert row.latency.target == "pi5"
        assert row.latency.median_ms == pytest.approx(cost_of(row.config).macs / 1e4, rel=0.01)
        assert row.latencies["phone"].median_ms == pytest.approx(sum(row.config.stages), rel=0.01)
    assert bench.study is not None
    with optuna_study(bench) as study:
        assert study.metric_names == ["top1", "latency_ms.pi5", "latency_ms.phone", "macs"]


def test_a_device_that_is_no_objective_only_has_its_limit(two_devices):
    bench = two_devices(budget__max_latency_ms={"phone": 2.5}, study__trainings=3)
    bench.settings = bench.settings.model_copy(
        update={"latency": bench.settings.latency.model_copy(update={"objectives": ("pi5",)})}
    )
    assert bench.run() == "finished"
    assert bench.study is not None
    with optuna_study(bench) as study:
        assert study.metric_names == ["top1", "latency_ms.pi5", "macs"]
    assert all(row.latencies["phone"].interval_high_ms <= 2.5 for row in bench.done())


def test_a_candidate_over_one_devices_limit_is_refused_and_the_others_are_not_asked(two_devices):
    bench = two_devices(budget__max_latency_ms={"pi5": 4.0, "phone": 2.5}, study__trainings=8)
    assert bench.run() == "finished"
    assert_consistent(bench)
    refused = [row for row in bench.rows if row.state == "infeasible"]
    assert any("on phone > 2.5 ms, measured" in (row.reason or "") for row in refused)
    slow_on_pi5 = [row for row in refused if row.latency and row.latency.interval_high_ms > 4.0]
    assert slow_on_pi5
    assert all("phone" not in row.latencies for row in slow_on_pi5)
    assert not {row.config for row in slow_on_pi5} & set(bench.phone.measured)
    for row in bench.done():
        assert row.latencies["pi5"].interval_high_ms <= 4.0
        assert row.latencies["phone"].interval_high_ms <= 2.5
    names = {"latency_ms", "macs", "params", "latency_ms.phone"}
    constrained = [trial.constraints for trial in optuna_trials(bench) if trial.constraints]
    assert constrained
    assert all(constraints.keys() == names for constraints in constrained)


def test_a_candidate_that_one_device_cant_measure_has_failed_and_says_where(two_devices):
    class Refusing(FakeProbe):
        def measure(self, models, stop=lambda: False):
            return [FailedMeasurement("", "no such operator") for _ in models]

    bench = two_devices(limits__failures_in_a_row=2)
    bench.phone = Refusing(by_layers)
    with pytest.raises(Exception, match="latency on phone could not be measured: no such operator"):
        bench.run()


def test_what_is_foreseen_over_the_limit_is_refused_unmeasured_and_says_predicted(two_devices):
    bench = two_devices(search__sampler="tpe", budget__max_latency_ms={"pi5": 3.0}, study__trainings=3)

    class Knowing:
        def over(self, config: CondenseNetConfig, limit_ms: float):
            if cost_of(config).macs / 1e4 <= limit_ms:
                return None
            (seen,) = FakeProbe(lambda path: cost_of(config).macs / 1e4, device="pi5").measure([Path(__file__)])
            return replace(seen, kind="predicted", policy="model", samples_ms=())

    bench.forecast = Knowing()
    assert bench.run() == "finished"
    predicted = [row for row in bench.rows if row.latency is not None and row.latency.kind == "predicted"]
    assert predicted
    assert all(row.state == "infeasible" and "predicted" in (row.reason or "") for row in predicted)
    assert not {row.config for row in predicted} & set(bench.probe.measured)
    assert all(latency.kind == "measured" for row in bench.done() for latency in row.latencies.values())


class Meeting(CountingProbe):
    """A probe that answers only once another one measures at the same time."""

    def __init__(self, meeting: threading.Barrier, latency_ms=by_layers) -> None:
        super().__init__(latency_ms)
        self.meeting = meeting

    def measure(self, models, stop=never):
        self.meeting.wait(30)
        return super().measure(models, stop)


def prices_of(targets: list[Target], configs: list[CondenseNetConfig], folder: Path):
    pricer = Pricer(targets, folder)
    try:
        pricer.start(configs)
        while pricer.busy:
            prices = pricer.collect(1.0)
        return prices
    finally:
        pricer.close()


def test_neighbouring_queues_of_agents_are_asked_at_the_same_time(tmp_path: Path):
    meeting = threading.Barrier(2)
    targets = [Target(name, Meeting(meeting), remote=True) for name in ("pi5", "phone")]
    found = prices_of(targets, [INSIDE, SMALLEST, INSIDE], tmp_path)
    assert [list(one) for one in found] == [["pi5", "phone"]] * 3
    assert found[0] == found[2]
    assert [target.probe.measured for target in targets] == [[INSIDE, SMALLEST]] * 2


def test_a_batch_that_ends_with_a_time_out_of_its_own_ends_with_that(tmp_path: Path):
    """A device's, say: it is no sign that the batch is still under way."""

    class Late(CountingProbe):
        def measure(self, models, stop=never):
            raise TimeoutError("the device")

    pricer = Pricer([Target("pi5", Late(), remote=True)], tmp_path)
    try:
        pricer.start([INSIDE])
        with pytest.raises(TimeoutError, match="the device"):
            pricer.collect(60.0)
        assert not pricer.busy
    finally:
        pricer.close()


def test_what_goes_wrong_on_one_device_stops_the_others_and_is_raised(tmp_path: Path):
    class Broken(CountingProbe):
        def measure(self, models, stop=never):
            raise DiskFull("no room")

    class Waiting(CountingProbe):
        def measure(self, models, stop=never):
            while not stop():
                time.sleep(0.01)
            raise MeasurementStopped

    targets = [Target("pi5", Waiting(by_layers), remote=True), Target("phone", Broken(by_layers), remote=True)]
    with pytest.raises(DiskFull, match="no room"):
        prices_of(targets, [INSIDE], tmp_path)


def test_one_that_needs_this_machine_is_asked_alone_and_what_it_refuses_is_asked_of_no_queue(tmp_path: Path):
    host = CountingProbe(by_layers)
    phone = CountingProbe(by_layers)
    targets = [Target("host", host, limit_ms=1.5, local=True), Target("phone", phone, remote=True)]
    two_layers = replace(INSIDE, stages=(2,))
    found = prices_of(targets, [INSIDE, two_layers], tmp_path)
    assert [list(one) for one in found] == [["host", "phone"], ["host"]]
    assert phone.measured == [INSIDE]


def test_a_resumed_study_keeps_what_each_device_said(two_devices):
    bench = two_devices(study__trainings=2)
    bench.run()
    before = bench.rows
    bench.settings = bench.settings.model_copy(
        update={"study": bench.settings.study.model_copy(update={"trainings": 4})}
    )
    assert bench.run(resume=True) == "finished"
    assert bench.rows[: len(before)] == before
    assert_consistent(bench)


def test_the_pick_obeys_the_limit_on_every_device(two_devices):
    bench = two_devices(study__trainings=6)
    bench.run()
    limits = {"phone": 2.5}
    picked = rank(bench.rows, Budget(elsewhere_ms=limits))
    assert {row.number for row in picked} == {
        row.number for row in bench.done() if row.latencies["phone"].interval_high_ms <= 2.5
    }
    with pytest.raises(NothingFeasible, match=r"the smallest latency on phone is [12]\.\d+ ms \(limit 0\.1\)"):
        best(bench.rows, Budget(elsewhere_ms={"phone": 0.1}))
    assert rank(bench.rows, Budget(elsewhere_ms={"elsewhere": 100.0})) == []  # not known there: not inside


def test_the_front_compares_the_device_a_study_is_judged_by(two_devices):
    bench = two_devices(study__trainings=5)
    bench.run()
    front = pareto_front(bench.rows)
    assert front
    assert {row.latency.target for row in front if row.latency} == {"pi5"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget__max_latency_ms": {"tv": 3.0}}, "names 'tv', which is not in latency.devices"),
        ({"budget__max_latency_ms": 3.0}, r"must name its own, like max_latency_ms.pi5 = 3"),
        ({"budget__max_latency_ms": {"pi5": -1}}, "a limit must be a number > 0"),
        ({"budget__max_latency_ms": True}, "a limit must be a number > 0"),
        ({"latency__devices": []}, "latency.devices"),
        ({"latency__devices": ["Pi 5"]}, "a device must be host, virtual:PROFILE or a lower-case name"),
        ({"latency__devices": ["pi5", "pi5"]}, "named once only"),
        ({"latency__objectives": ["tv"]}, "objectives must be some of devices"),
        ({"latency__objectives": []}, "objectives must be some of devices"),
        ({"latency__devices": ["virtual:raspberry-pi-5"], "latency__threads": 2}, "threads must be 1"),
        ({"latency__runtime": "tflite"}, "latency.runtime"),
    ],
)
def test_a_wrong_device_or_limit_is_named_with_its_rule(changes, message):
    settings = {"latency": dict(DEVICES), **changes}
    with pytest.raises(InvalidSettings, match=message):
        settings_from(document(**settings), "tiny.toml")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("openvino", "a runtime must be one of onnxruntime, ncnn, litert, native, auto, or a table"),
        ({"pi5": "openvino"}, "a runtime must be one of onnxruntime, ncnn, litert, native, auto, or a table"),
        ({}, "or a table of one for each device"),
        ({"pi4": "ncnn"}, "runtime names 'pi4', which is not in devices"),
    ],
)
def test_a_wrong_runtime_is_named_with_its_rule(runtime, message):
    with pytest.raises(InvalidSettings, match=message):
        settings_from(document(latency={**DEVICES, "runtime": runtime}), "x")


def test_every_runtime_can_be_named_installed_and_has_a_file_of_its_own():
    assert get_args(Runtime) == tuple(RUNTIMES)
    assert set(RUNTIMES) == INSTALL.keys() == SUFFIXES.keys()
    assert len(set(SUFFIXES.values())) == len(SUFFIXES)


def test_each_device_has_its_runtime_and_one_name_stands_for_all():
    latency = settings_from(document(latency={**DEVICES, "runtime": {"phone": "ncnn"}}), "x").latency
    assert [latency.resolved(name).runtime for name in latency.devices] == ["onnxruntime", "ncnn"]
    assert latency.with_runtimes({"phone": "native"}).runtime == {"pi5": "onnxruntime", "phone": "native"}
    assert latency.with_runtimes({"phone": "onnxruntime"}).runtime == "onnxruntime"


def test_a_resumed_study_keeps_the_runtimes_that_were_chosen_and_no_others():
    chosen = settings_from(document(latency={**DEVICES, "runtime": {"pi5": "native", "phone": "ncnn"}}), "x")
    file = settings_from(document(latency={**DEVICES, "runtime": "auto"}), "x")
    assert known_runtimes(file, chosen.latency) == chosen
    file = settings_from(document(latency={**DEVICES, "runtime": {"pi5": "onnxruntime", "phone": "auto"}}), "x")
    assert known_runtimes(file, chosen.latency).latency.runtime == {"pi5": "onnxruntime", "phone": "ncnn"}


@pytest.mark.slow(seconds=10)
def test_the_fastest_runtime_of_this_host_is_chosen_by_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets, "AUTO_NETWORKS", 1)
    notes: list[str] = []
    settings = settings_from(document(latency={"runtime": "auto", "policy": "quick"}), "x")
    chosen = choose_runtimes(settings, None, tmp_path, notes.append).latency.runtime
    said = re.fullmatch(r"runtime on host: (.*); (\w+) is used", notes[-1])
    assert said is not None
    means = {name: float(mean) for name, mean in re.findall(r"(\w+) ([\d.e-]+) ms", said[1])}
    assert means.keys() <= {"onnxruntime", "ncnn", "litert", "native"}
    assert len(means) >= 2
    assert chosen == said[2]
    assert means[said[2]] == min(means.values())


def test_one_number_is_the_first_devices_limit():
    settings = settings_from(document(budget__max_latency_ms=4, latency={"devices": ["pi5"]}), "tiny.toml")
    assert settings.search_budget() == Budget(max_latency_ms=4.0)
    table = settings_from(document(budget__max_latency_ms={"pi5": 4}, latency={"devices": ["pi5"]}), "tiny.toml")
    assert table.search_budget() == Budget(max_latency_ms=4.0)
