"""Whole studies whose latency comes from elsewhere: from a native agent through the hub, and from the ARM device in
software; real trainings, real processes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.devices import registry
from search.devices.probe import VERIFYING
from search.launch import Launched
from search.pricing.targets import targets_of
from search.results.bundle.writing import write_bundle
from search.results.picking.picked import Picked, pick
from search.store import reader
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.device_tables import job
from search.store.store import StudyStore
from search.study_file import settings_from
from search.study_folders import cache_folder, files_root
from space.errors import DeviceNotFound, FrozenSettings
from tests.command_line import run_command
from tests.search.hub_process import Pair
from tests.search.test_launch import Place, new_place
from tests.workers.arm_device import arm_device
from workers.latency import QUICK

pytestmark = pytest.mark.slow(seconds=30)
VIRTUAL = "virtual:raspberry-pi-5"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)  # its database is the study's
    pair.start_hub()
    pair.start_agent()
    yield pair
    pair.close()


def pick_from(place: Place) -> Picked:
    engine = open_for_writing(place.url)
    found = reader.find_study(engine, "digits")
    settings = settings_from(found.settings, "stored")
    targets = targets_of(settings, engine, files_root(settings, place.url), lambda text: None, VERIFYING)
    store = StudyStore(engine, found.id)
    picked = pick(store, found, settings.search_budget(), targets, cache_folder(settings, place.url))
    write_bundle(store, found, picked, place.folder / "bundle", cache_folder(settings, place.url))
    return picked


def test_a_study_whose_latency_an_agent_measures_goes_on_after_agent_and_hub_were_away(place: Place, pair: Pair):
    overrides = ('latency.devices=["tiny"]', "budget.max_latency_ms.tiny=50", "engine.workers=1")
    place.launch(*overrides, "study.trainings=2")
    before = place.read()
    pair.kill("agent")
    pair.kill("hub")
    pair.start_hub()
    pair.start_agent()
    launched = place.launch(*overrides, resume=True)
    assert replace(launched, remarks=()) == Launched("finished", "digits", done=3, wanted=3)
    assert place.read()[: len(before)] == before
    engine = open_for_reading(place.url)
    for row in place.read():
        if row.latency is None:
            continue
        assert (row.latency.kind, row.latency.device, row.latency.target) == ("measured", "tiny", "tiny")
        (measured,) = reader.read_latencies(engine, row.id)
        assert measured.conditions["agent"] == "tiny"
        assert len(measured.samples_ms) >= QUICK.processes
        assert all(min(samples) > 0 for samples in measured.samples_ms)
    engine.dispose()
    picked = pick_from(place)
    assert picked.verified.device == "tiny"
    assert picked.verified.kind == "measured"
    deploy = tomllib.loads((place.folder / "bundle" / "deploy.toml").read_text())
    assert deploy["latency"]["device"] == "tiny"
    assert deploy["latency"]["kind"] == "measured"
    again = run_command("pick", "digits", "--storage", place.url, cwd=place.folder)
    assert again.returncode == 0, again.stderr
    with pair.engine.connect() as connection:
        verified = connection.execute(sa.select(job).where(job.c.priority == VERIFYING)).all()
    assert [row.model_sha256 for row in verified] == [picked.verified.model_hash] * 2  # measured again each time


def test_a_queue_that_no_device_serves_is_named_before_anything_is_made(place: Place):
    with pytest.raises(DeviceNotFound, match=r"names 'pi5', but no device serves such a queue .there is none yet"):
        place.launch('latency.devices=["pi5"]')
    engine = open_for_writing(place.url)
    registry.add_device(engine, "phone")
    with pytest.raises(DeviceNotFound, match="there are: phone"):
        place.launch('latency.devices=["pi5"]')
    assert reader.list_studies(engine) == []
    engine.dispose()


@pytest.mark.long
def test_a_study_whose_latency_is_estimated_on_the_virtual_device(place: Place):
    arm_device()
    devices = (f'latency.devices=["{VIRTUAL}", "host"]', 'latency.runtime={host = "ncnn"}')
    overrides = (*devices, f'budget.max_latency_ms={{"{VIRTUAL}" = 5}}')
    assert place.launch(*overrides, "study.trainings=2").done == 2
    done = [row for row in place.read() if row.state == "done"]
    for row in done:
        assert list(row.latencies) == [VIRTUAL, "host"]
        assert {name: one.kind for name, one in row.latencies.items()} == {VIRTUAL: "estimated", "host": "measured"}
        estimated = row.latencies[VIRTUAL]
        assert estimated.interval_low_ms <= estimated.median_ms <= estimated.interval_high_ms <= 5
        assert estimated.policy == "counts"
    counted = {row.config: row.latencies[VIRTUAL].median_ms for row in done}
    assert len(set(counted.values())) == len(counted)
    picked = pick_from(place)
    assert (picked.verified.kind, picked.elsewhere["host"].kind) == ("estimated", "measured")
    # Other weights, the same instructions: what is counted is a network's structure.
    assert picked.verified.median_ms == pytest.approx(counted[picked.trial.config], rel=0.05)
    card = (place.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "estimated from instructions counted" in card
    assert "latency, measured, quick" in card
    deploy = tomllib.loads((place.folder / "bundle" / "deploy.toml").read_text())
    assert deploy["latency"]["file"] == "model.onnx"
    assert deploy["latency_on"]["host"]["file"] == "model.ncnn.zip"
    assert (place.folder / "bundle" / "model.ncnn.zip").exists()
    with pytest.raises(FrozenSettings, match=r"were measured on host:.*, virtual:raspberry-pi-5, but this is host:"):
        place.launch('latency.devices=["host"]', resume=True)
