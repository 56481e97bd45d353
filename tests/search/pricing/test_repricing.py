"""`reprice`: a finished study's networks on a device that it doesn't have, without any training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import condensery
from dashboards.data.column_reader import read_columns
from dashboards.report.trials_csv import trials_csv
from search.budget import Budget
from search.pricing.pricer import Target
from search.pricing.repricing import AT_ONCE, reprice, settings_on, trained_without
from search.results.pareto import front_of_study, front_on
from search.results.picking.picked import pick
from search.results.ranking import best, rows_on
from search.store import reader
from search.store.tables import latency
from space.errors import DeviceNotFound, InvalidSettings, MeasurementFailed, TrialNotReady
from tests.search.tiny_studies import Bench, CountingProbe, config_of, sqlite_url, tiny_settings
from tests.search.trained_study import trained_study
from workers.latency.measurement import FailedMeasurement
from workers.latency.record import LatencyPurpose

RUNNER = CliRunner()


def by_groups(path: Path) -> float:
    """A made-up latency that neither macs nor layers order."""
    return 10.0 / config_of(path).groups


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, study__trainings=AT_ONCE + 2)
    assert bench.run() == "finished"
    yield bench
    bench.close()


def repriced(bench: Bench, again: bool = False) -> CountingProbe:
    assert bench.study is not None
    store, probe = bench.study.store, CountingProbe(by_groups)
    probe.device = "arm:phone"
    rows = trained_without(store.trials(), "phone", again)
    done = list(reprice(store, rows, Target("phone", probe), bench.folder))
    assert [one.number for one in done] == [row.number for row in rows]
    return probe


def test_the_networks_of_a_study_get_the_latency_of_another_device_and_a_front_there(finished: Bench):
    before = {row.number: row for row in finished.done()}
    probe = repriced(finished)
    assert probe.batches == [AT_ONCE, 2]
    for row in finished.done():
        assert row.latency == before[row.number].latency  # what it is judged by
        (other,) = row.others
        assert (other.target, other.device, other.purpose) == ("phone", "arm:phone", LatencyPurpose.PRICE)
        assert other.median_ms == pytest.approx(10.0 / row.config.groups, rel=0.02)
    assert finished.study is not None
    engine = finished.study.engine
    study = reader.find_study(engine, "tiny")
    there, here = front_on(engine, study, "phone"), front_of_study(engine, study.id)
    assert {row.latency.target for row in there if row.latency is not None} == {"phone"}
    assert there[0].config.groups == max(row.config.groups for row in before.values())
    assert {row.latency.target for row in here if row.latency is not None} == {"host"}
    columns = read_columns(engine, "tiny")  # what page and report are drawn from
    assert list(columns.latencies) == ["host", "phone"]
    phone = columns.fullest_group("phone")
    assert {int(columns.number[place]) for place in columns.front(phone).nonzero()[0]} == {row.number for row in there}
    with pytest.raises(DeviceNotFound, match=r"was measured on 'tablet'; there are: host, phone\."):
        front_on(engine, study, "tablet")
    report = finished.folder / "report.html"
    shown = RUNNER.invoke(condensery.app, ["report", "tiny", "--storage", finished.url, "--out", str(report)])
    assert shown.exit_code == 0, shown.output
    assert "latency_ms.phone" in trials_csv(columns)  # the columns of the report's table


def test_only_what_is_new_is_measured_unless_all_is_asked_for(finished: Bench):
    assert len(repriced(finished).measured) == len(finished.done())
    assert repriced(finished).measured == []
    assert len(repriced(finished, again=True).measured) == len(finished.done())
    assert all(len(row.others) == 1 for row in finished.done())


def test_a_repriced_study_goes_on_by_its_own_device(finished: Bench):
    repriced(finished)
    assert finished.study is not None
    engine, key = finished.study.engine, finished.study.store.study_id
    assert reader.devices_measured(engine, key, ["host"]) == {"fake"}  # so that a launch doesn't ask for the phone
    study = finished.settings.study.model_copy(update={"trainings": AT_ONCE + 3})
    finished.settings = finished.settings.model_copy(update={"study": study})
    assert finished.run(resume=True) == "finished"
    assert len(finished.done()) == AT_ONCE + 3


def test_a_network_that_cant_be_measured_there_says_why_and_the_others_are_recorded(finished: Bench):
    def refusing(path: Path) -> float:
        if config_of(path).groups == 1:
            raise MeasurementFailed("out of memory")
        return 1.0

    assert finished.study is not None
    store = finished.study.store
    rows = finished.done()
    results = {
        one.number: one.latency
        for one in reprice(store, rows, Target("phone", CountingProbe(refusing)), finished.folder)
    }
    for row in finished.done():
        assert isinstance(results[row.number], FailedMeasurement) == (row.config.groups == 1) == (not row.others)


def test_the_network_is_picked_for_the_other_device(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    study, probe = reader.find_study(store.engine, "tiny"), CountingProbe(by_groups)
    (result,) = reprice(store, store.trials(), Target("phone", probe), tmp_path)
    assert result.number == 0
    (row,) = rows_on(study, store.trials(), "phone")
    assert row.latency is not None
    assert best([row], Budget(5.5)) == [row]  # 0.7 ms on the host
    picked = pick(store, study, Budget(5.5), (Target("phone", probe, 5.5),), tmp_path / "images")
    assert picked.verified.target == "phone"
    assert picked.trial.latency == row.latency
    store.engine.dispose()
    url = ["--storage", sqlite_url(tmp_path)]
    for command in (["pareto", "tiny"], ["pick", "tiny", "--preview", "--max-latency-ms", "5.5"]):
        answer = RUNNER.invoke(condensery.app, [*command, "--device", "phone", "--json", *url])
        (shown,) = next(iter(json.loads(answer.stdout).values()))
        assert shown["latency"]["target"] == "phone"
    refused = RUNNER.invoke(condensery.app, ["pick", "tiny", "--device", "tablet", *url])
    assert isinstance(refused.exception, DeviceNotFound)
    assert "condensery reprice tiny --device tablet" in str(refused.exception)
    assert RUNNER.invoke(condensery.app, ["reprice", "tiny", *url]).exit_code == 2


def test_a_device_of_the_study_itself_and_one_without_the_runtime_are_refused():
    settings = tiny_settings(budget__max_latency_ms=2.0)
    there = settings_on(settings, "phone", "native")
    assert (there.latency.devices, there.latency.runtime, there.budget.max_latency_ms) == (("phone",), "native", None)
    with pytest.raises(InvalidSettings, match=r"one that the study doesn't have, but 'host' is among its own \(host\)"):
        settings_on(settings, "host")
    for wrong in ({"device": "No Name"}, {"device": "phone", "runtime": "cuda"}, {"device": "phone", "policy": "slow"}):
        with pytest.raises(InvalidSettings, match="can't be measured so: ") as error:
            settings_on(settings, **wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(TrialNotReady, match="launch the study first"):
        trained_without([], "phone", False)


@pytest.mark.long
def test_the_command_measures_on_this_host_and_pick_and_pareto_go_by_it(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe(), latency={"devices": ["pi5"], "policy": "quick"})
    store.with_connection(lambda connection: connection.execute(sa.update(latency).values(target="pi5")))
    store.engine.dispose()
    url = ["--storage", sqlite_url(tmp_path)]
    measured = RUNNER.invoke(condensery.app, ["reprice", "tiny", "--device", "host", "--json", *url])
    assert measured.exit_code == 0, measured.output
    assert "1 of 1: trial 0: " in measured.stderr
    (row,) = json.loads(measured.stdout)["front"]
    assert (row["latency"]["target"], row["latency"]["kind"]) == ("host", "measured")
    for command in (["pareto", "tiny", "--device", "host"], ["pick", "tiny", "--device", "host", "--preview"]):
        answer = RUNNER.invoke(condensery.app, [*command, "--json", *url])
        assert answer.exit_code == 0, answer.output
        (shown,) = next(iter(json.loads(answer.stdout).values()))
        assert shown["latency"] == row["latency"]
