"""Configs of a user's own: completed from the study's own space, listed, withdrawn, tried with their settings."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from typer.testing import CliRunner

import condensery
from search.enqueueing.configs import completed
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.errors import InvalidConfig, InvalidSettings, TrialNotFound
from tests.search.tiny_studies import INSIDE, Bench
from workers.wording import of_wanted


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench(training={"epochs": [1, 3, 9], "batch_size": 64, "learning_rate": 0.1})


def command(bench: Bench, *words: str | int) -> click.testing.Result:
    return CliRunner().invoke(condensery.app, [*map(str, words), "tiny", "--storage", bench.url])


def queued(bench: Bench) -> list[dict]:
    return list(json.loads(command(bench, "queue", "--json").stdout)["queue"])


def test_what_a_config_leaves_out_is_the_middle_of_the_space_and_then_the_best_network_so_far(bench: Bench):
    bench.open()
    result = command(bench, "enqueue", '{"groups": 4}')
    assert "from the middle of the space" in result.stderr
    (waiting,) = queued(bench)
    middle = bench.settings.search_space()
    assert middle.contains(CondenseNetConfig.from_dict(waiting["config"]))
    assert (waiting["config"]["groups"], waiting["training"]["epochs"]) == (4, 3)
    assert bench.run(resume=True) == "finished"
    best = max(bench.done(), key=lambda row: row.top1)
    result = command(bench, "enqueue", "{}")
    assert f"from trial {best.number}, the best so far" in result.stderr
    (waiting,) = queued(bench)
    assert CondenseNetConfig.from_dict(waiting["config"]) == best.config
    assert waiting["training"]["epochs"] == best.training["epochs"]


def test_training_settings_may_be_given_and_are_those_that_it_is_trained_with(bench: Bench, tmp_path: Path):
    bench.open()
    values = {**INSIDE.to_dict(), "training": {"epochs": 5, "label_smoothing": 0.1}}
    (tmp_path / "mine.json").write_text(json.dumps(values))
    result = command(
        bench, "enqueue", tmp_path / "mine.json", "--training", "epochs=7", "--training", "optimizer=adamw"
    )
    assert result.exit_code == 0, result
    assert "outside the space" not in result.stderr
    bench.run(resume=True)
    tried = next(row for row in bench.rows if row.origin == "enqueued")
    assert (tried.config, tried.state) == (INSIDE, "done")
    expected = {"epochs": 7, "label_smoothing": 0.1, "optimizer": "adamw", "batch_size": 64}
    assert {key: tried.training[key] for key in expected} == expected
    assert queued(bench) == []


def test_the_queue_is_listed_and_withdrawn(bench: Bench):
    bench.open()
    assert command(bench, "queue").stdout == "No enqueued config waits.\n"
    for groups in (1, 2, 4):
        command(bench, "enqueue", json.dumps({"groups": groups}))
    first, second, third = queued(bench)
    assert [one["config"]["groups"] for one in (first, second, third)] == [1, 2, 4]
    lines = command(bench, "queue").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == [str(one["number"]) for one in (first, second, third)]
    assert command(bench, "withdraw", second["number"]).exit_code == 0
    assert queued(bench) == [first, third]
    result = command(bench, "withdraw", second["number"])
    assert isinstance(result.exception, TrialNotFound)
    assert str(result.exception).endswith(f"there are {first['number']}, {third['number']}.")
    bench.run(resume=True)
    assert sum(row.origin == "enqueued" for row in bench.rows) == 2
    assert isinstance(command(bench, "withdraw", first["number"]).exception, TrialNotFound)


def test_it_is_said_what_differs_from_the_source_and_why_a_config_would_not_be_trained(make_bench):
    bench = make_bench(training={"epochs": 1, "batch_size": 64, "learning_rate": 0.1}, budget__max_macs=1_000_000)
    bench.open()
    assert bench.run(resume=True) == "finished"
    best = max(bench.done(), key=lambda row: row.top1)
    repeated = command(bench, "enqueue", "{}").stderr
    assert "1 epoch, batch 64, learning rate 0.1" in repeated
    assert (
        f"it won't be trained: it is the same as trial {best.number}; to take it back: condensery withdraw" in repeated
    )
    large = command(bench, "enqueue", json.dumps({"growth": [64] * len(best.config.growth)})).stderr
    assert "it won't be trained: " in large
    assert "macs > 1,000,000" in large
    fitted = CondenseNetConfig.from_dict(queued(bench)[-1]["config"])
    kept = command(bench, "enqueue", json.dumps({"groups": 16, "classifier_keep": 0.5})).stderr
    other = CondenseNetConfig.from_dict(queued(bench)[-1]["config"])
    assert "keep=0.5, 1 epoch" in kept
    assert f"but growth is {list(other.growth)} where it is {list(best.config.growth)} there" in kept
    assert fitted.growth == (64,) * len(best.config.growth)


@pytest.mark.parametrize(
    ("words", "error", "rule"),
    [
        (["[1]"], InvalidSettings, r"\[1\] can't be read"),
        (['{"training": 3}'], InvalidConfig, "`training` in it, must be JSON objects"),
        (['{"groups": 1e999}'], InvalidConfig, "numbers must be finite"),
        (['{"depth": 3}'], InvalidConfig, "unknown settings depth"),
        (['{"num_classes": 3}'], InvalidSettings, "the study's images need"),
        (["{}", "--training", "epochs=0"], InvalidSettings, "training.epochs"),
        (["{}", "--training", "epoch=3"], InvalidSettings, "unknown key `training.epoch`"),
    ],
)
def test_what_can_not_be_tried_is_refused_with_the_rule(bench: Bench, words: list[str], error: type, rule: str):
    bench.open()
    with pytest.raises(error, match=rule):
        raise command(bench, "enqueue", *words).exception
    assert queued(bench) == []


def test_a_batch_larger_than_the_training_split_is_refused(bench: Bench):
    bench.open().store.set_data_info({"train_images": 50})
    with pytest.raises(InvalidSettings, match="at most the number of training images, 50, but is 64"):
        raise command(bench, "enqueue", "{}").exception


def test_more_trainings_than_were_wanted_read_as_such():
    assert of_wanted(3, 6, "training", "done") == "3 of 6 trainings done"
    assert of_wanted(1, 1, "training", "done") == "1 of 1 training done"
    assert of_wanted(7, 6, "training", "done") == "7 trainings done, 1 more than wanted"
    assert of_wanted(7, 6) == "7, 1 more than wanted"


def test_a_config_starts_from_what_the_study_starts_from_and_from_nothing_else(bench: Bench):
    pinned = f"trial:a/1#{'0' * 16}"
    rows: list[TrialRow] = []
    settings = bench.settings.model_copy(update={"training": {**bench.settings.training, "start": ["none", pinned]}})
    for start in ("trial:a/1", pinned):
        assert completed({"training": {"start": start}}, settings, rows).training.start == pinned
    assert completed({"training": {"start": "none"}}, settings, rows).training.start == "none"
    for start in ("trial:a/2", f"trial:a/1#{'1' * 16}"):
        with pytest.raises(InvalidSettings, match=r"one of the study's \('none', 'trial:a/1'\), but got 'trial:a/"):
            completed({"training": {"start": start}}, settings, rows)
