"""Making CondenseBench: which networks are trained in which order, and that nothing finished is ever lost."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.condensebench.journal import open_journal, read_rows
from benchmarks.condensebench.presets import BENCHES, by_cost, drawn, spread, whole
from benchmarks.condensebench.training import TRAININGS, Workshop, run_all, trained
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from space.search_space import SearchSpace
from tests.waiting import until
from workers.images.batches import load
from workers.images.cache import prepare
from workers.processes import children_of, lives

ROOT = Path(__file__).parents[2]
DIGITS = BENCHES["digits"]
FASHION = BENCHES["fashion-mnist"]


# --- which networks, in which order -----------------------------------------------------------------------------


def test_the_fashion_mnist_table_holds_all_648_networks_of_its_space():
    configs = FASHION.configs()
    space = SearchSpace.from_settings(FASHION.space)
    assert len(configs) == len(set(configs)) == space.size == 648
    assert all(space.contains(config) for config in configs)


@pytest.mark.parametrize("count", [40, 100, 300])
def test_every_beginning_of_the_order_is_spread_over_cost(count):
    ranks = {config: rank for rank, config in enumerate(by_cost(FASHION.configs()))}
    beginning = sorted(ranks[config] for config in FASHION.configs()[:count])
    gaps = np.diff([0, *beginning, 647])
    assert gaps.max() <= 2 * 1024 / count


def test_spread_keeps_every_item_once():
    for count in (1, 2, 3, 17):
        assert sorted(spread(list(range(count)))) == list(range(count))


def test_further_seeds_are_trained_between_once_enough_networks_are_trained():
    order = FASHION.trainings()
    assert len(order) == len(set(order)) == 648 + 150
    assert {training.seed for training in order[:200]} == {0}
    assert [training.seed for training in order[200:500]] == [0, 1] * 150
    again = {training.config for training in order if training.seed == 1}
    assert again == set(FASHION.configs()[:150])


def test_networks_drawn_from_a_large_space_are_spread_evenly_over_the_logarithm_of_their_macs():
    space = SearchSpace.from_settings(BENCHES["cifar10"].space)
    configs = drawn(space, 40)
    assert len(set(configs)) == 40
    assert configs == drawn(space, 40)
    logs = np.log([cost_of(config).macs for config in by_cost(configs)])
    assert np.diff(logs).max() < 4 * (logs[-1] - logs[0]) / 39
    assert np.exp(logs[-1] - logs[0]) > 20


def test_an_image_folder_in_place_of_a_data_set_is_resized_and_varied_like_it(tmp_path):
    data = BENCHES["cifar10"].with_images(None, False, tmp_path).data
    assert data.dataset == f"imagefolder:{tmp_path}"
    assert (data.channels, data.image_size, data.crop_padding, data.flip) == (3, 32, 4, True)


# --- the journal ------------------------------------------------------------------------------------------------


def test_a_line_that_a_killed_writer_never_ended_is_ignored_and_then_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    with open_journal(path) as journal:
        journal.append({"a": 3})
        assert [row["a"] for row in journal.rows()] == [1, 2, 3]


def test_a_second_writer_is_refused_and_the_journal_is_free_again_afterwards(tmp_path):
    path = tmp_path / "rows.jsonl"
    with open_journal(path), pytest.raises(InvalidSettings, match="one process at a time"), open_journal(path):
        pass
    with open_journal(path) as journal:
        assert journal.rows() == []


# --- trainings --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    folder = tmp_path_factory.mktemp("table")
    shop = Workshop(DIGITS, folder, folder, "cpu")
    prepare(DIGITS.data, shop.images)
    return shop


WITHOUT_TIMES = {"train_seconds", "seconds", "finished", "curve"}


def without_times(row: dict) -> dict:
    timed = ("seconds", "images_per_s")
    curve = [{name: value for name, value in epoch.items() if name not in timed} for epoch in row["curve"]]
    return {name: value for name, value in row.items() if name not in WITHOUT_TIMES} | {"curve": curve}


def test_a_row_has_the_deployed_networks_figures_and_is_the_same_when_made_again(shop, tmp_path):
    images, training = load(DIGITS.data, shop.images), DIGITS.trainings()[0]
    row = trained(shop, training, images)
    assert CondenseNetConfig.from_dict(row["config"]) == training.config
    assert [epoch["epoch"] for epoch in row["curve"]] == [1, 2, 3]
    assert row["curve"][-1]["form"] == "deployed"
    assert row["run_by"] in ("compiled kernel", "torch") or row["run_by"].startswith("torch (")
    assert (row["top1"], row["val_loss"]) == (row["curve"][-1]["val_top1"], row["curve"][-1]["val_loss"])
    assert 0 < row["test_top1"] * len(images.test()) == round(row["test_top1"] * len(images.test()))
    again = trained(replace(shop, folder=tmp_path), training, images)
    assert without_times(again) == without_times(row) == json.loads(json.dumps(without_times(row)))


def test_a_training_that_diverges_is_a_row_that_says_so(shop, tmp_path):
    wild = replace(DIGITS, training=DIGITS.training.model_copy(update={"learning_rate": 100.0, "weight_decay": 1.0}))
    images = load(DIGITS.data, shop.images)
    row = trained(replace(shop, bench=wild, folder=tmp_path), wild.trainings()[0], images)
    assert "smaller learning rate" in row["failed"]
    assert "top1" not in row


def test_the_same_command_makes_the_cifar_table_from_a_folder_of_images(tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(10):
            folder = tmp_path / "images" / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)  # shrunk to the table's 32 x 32
                Image.fromarray(pixels).save(folder / f"{number}.png")
    cifar = BENCHES["cifar10"].with_images(None, False, tmp_path / "images")
    small = replace(cifar, networks=2, training=cifar.training.model_copy(update={"epochs": 1, "batch_size": 8}))
    small = replace(small, data=small.data.model_copy(update={"validation_fraction": 0.5}))
    shop = Workshop(small, tmp_path / "work", tmp_path, "cpu")
    prepare(small.data, shop.images)
    row = trained(shop, small.trainings()[0], load(small.data, shop.images))
    assert CondenseNetConfig.from_dict(row["config"]).input_shape == (3, 32, 32)
    assert len(row["curve"]) == 1
    assert 0 <= row["test_top1"] <= 1


def command(work: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.condensebench", "--dataset", "digits", "--work", str(work), *more]


@pytest.mark.slow(seconds=12)
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_table(shop, tmp_path, capsys):
    with (tmp_path / "output").open("w") as output:
        killed = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=output, stderr=output)
        until(lambda: read_rows(tmp_path / TRAININGS))
        workers = children_of(killed.pid)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        until(lambda: not any(lives(pid) for pid in workers))
        before = (tmp_path / TRAININGS).read_bytes()
    run_all(replace(shop, folder=tmp_path), processes=1)
    capsys.readouterr()
    assert (tmp_path / TRAININGS).read_bytes().startswith(before)
    images = load(DIGITS.data, shop.images)
    expected = [without_times(trained(shop, training, images)) for training in DIGITS.trainings()]
    rows = {row["identity"]: without_times(row) for row in read_rows(tmp_path / TRAININGS)}
    assert rows == {row["identity"]: row for row in expected}
    assert len(rows) == len(read_rows(tmp_path / TRAININGS)) == 6
    run_all(replace(shop, folder=tmp_path), processes=1)
    assert "6 of 6 trainings of digits are done" in capsys.readouterr().out


@pytest.mark.long
def test_ctrl_c_ends_every_process_and_says_how_to_go_on(tmp_path):
    with (tmp_path / "output").open("w") as output:
        running = subprocess.Popen(
            command(tmp_path, "--seeds", "500"), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        until(lambda: read_rows(tmp_path / TRAININGS))
        workers = children_of(running.pid)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait() == 130
    until(lambda: not any(lives(pid) for pid in workers))
    printed = (tmp_path / "output").read_text()
    assert "stopped; the same command goes on" in printed
    assert "Traceback" not in printed


def test_every_network_of_a_space_is_listed_once():
    space = SearchSpace.from_settings(DIGITS.space)
    assert len(whole(space)) == space.size == 4
