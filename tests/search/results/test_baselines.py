"""Networks of other kinds beside a study's: built for its images, measured on its device, trained by its recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import condensery
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import View
from dashboards.panels.study.front import front_info
from search.budget import Budget
from search.pricing.pricer import Target
from search.results.baselines import (
    FILE,
    BaselineResult,
    build_baseline,
    keep_baseline,
    measured,
    read_baselines,
    trained,
    verdicts,
)
from search.store import reader
from space.errors import InvalidConfig
from tests.search.tiny_studies import CountingProbe, sqlite_url
from tests.search.trained_study import files_of_trial, trained_study
from workers.baselines.networks import BASELINES, build, macs_of, params_of
from workers.images.batches import load
from workers.images.cache import prepare
from workers.latency import FakeProbe
from workers.settings import DataSettings, TrainingSettings

RUNNER = CliRunner()
SHAPE = (1, 8, 8)


@pytest.mark.parametrize("name", ["mobilenet-v2", "resnet-18", "efficientnet-lite0"])
def test_a_network_is_torchvisions_but_for_its_channels_and_classes(name: str):
    whole = BASELINES[name].build(1000)
    ours = build(name, (1, 32, 32), 7)
    with torch.no_grad():
        assert ours(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    sizes = [{key: tensor.shape for key, tensor in one.state_dict().items()} for one in (whole, ours)]
    assert sizes[0].keys() == sizes[1].keys()
    assert sum(sizes[0][key] != sizes[1][key] for key in sizes[0]) == 3  # the first convolution; the last layer's two
    if name == "mobilenet-v2":
        published = build(name, (3, 224, 224), 1000)
        assert (macs_of(published.to("meta"), (3, 224, 224)), params_of(published)) == (300_774_272, 3_504_872)


def test_the_lite_network_has_neither_excitation_nor_swish():
    kinds = {type(module).__name__ for module in build("efficientnet-lite0", (3, 32, 32), 10).modules()}
    assert "ReLU6" in kinds
    assert not {"SqueezeExcitation", "SiLU"} & kinds


def test_images_too_small_for_a_network_are_said():
    with pytest.raises(InvalidConfig, match=r"VGG-16 can't take images of 8x8 \("):
        build_baseline("vgg-16", SHAPE, 10)


def test_networks_are_counted_measured_trained_and_kept_with_the_study(tmp_path: Path):
    probe = FakeProbe(lambda path: 0.25, device="fake")
    names = ["mobilenet-v3-small", "condensenet-50", "vgg-16"]
    results = list(measured(names, SHAPE, 10, Target("host", probe), tmp_path))
    small, published, vgg = results
    assert small.latency is not None
    assert (small.latency.target, small.macs > 0, small.scores) == ("host", True, {})
    assert published.title == "published CondenseNet-50"
    assert "can't take images of 8x8" in vgg.problem
    images = tmp_path / "images"
    data = DataSettings()
    prepare(data, images)
    recipe, epochs = TrainingSettings(epochs=1, batch_size=256, label_smoothing=0.1, average=0.9), []
    there = load(data, images)
    scored = trained(small, recipe, data, there, "top1", 0, "cpu", lambda *of: epochs.append(of))
    assert epochs == [(0.1, 1, 1), (pytest.approx(0.01), 1, 1)]
    assert 0.0 <= scored.scores["top1"] <= 1.0
    assert (scored.recipe["epochs"], scored.seed) == (1, 0)
    assert scored.recipe["learning_rate"] in (0.1, pytest.approx(0.01))
    again = trained(small, recipe, data, there, "top1", 0, "cpu", lambda *of: None)
    assert again.scores == scored.scores
    for result in results:
        keep_baseline(tmp_path, result)
    keep_baseline(tmp_path, scored)
    assert {result.name: result for result in read_baselines(tmp_path)}[small.name] == scored
    (tmp_path / FILE).write_text("{")
    assert read_baselines(tmp_path) == []


def result_like(store, score: float, faster: float) -> BaselineResult:
    (row,) = store.trials()
    assert row.latency is not None
    latency = replace(row.latency, median_ms=row.latency.median_ms * faster)
    return BaselineResult("resnet-18", "ResNet-18", 2 * row.macs, row.params, latency, {"top1": score})


def test_page_and_command_say_when_a_condensenet_is_not_the_one_to_deploy(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())  # its network has 50 %
    files = files_of_trial(tmp_path).parent
    for score, faster, beaten in ((0.6, 0.5, False), (0.6, 2.0, False), (0.4, 0.5, False), (0.4, 2.0, True)):
        said = verdicts([result_like(store, score, faster)], store.trials(), "top1", Budget())
        assert (said == []) == beaten
    elsewhere = replace(result_like(store, 0.6, 0.5), latency=replace(result_like(store, 0.6, 0.5).latency, device="x"))
    assert verdicts([elsewhere], store.trials(), "top1", Budget()) == []  # latencies of two devices are never compared
    assert verdicts([result_like(store, 0.6, 0.5)], store.trials(), "top1", Budget(max_latency_ms=0.001)) == []
    keep_baseline(files, result_like(store, 0.6, 0.5))
    columns = read_columns(store.engine, "tiny")
    info = front_info(columns, View(columns.default_group))
    (drawn,) = (*info.baselines, *info.far_baselines)
    assert (drawn.name, drawn.published, round(drawn.top1_pct)) == ("ResNet-18", False, 60)
    assert any("no CondenseNet of this study is the one to deploy" in note for note in info.notes)
    answer = RUNNER.invoke(
        condensery.app, ["baselines", "tiny", "--only", "resnet-18", "--storage", sqlite_url(tmp_path)]
    )
    assert answer.exit_code == 0, answer.output
    assert "ResNet-18 is not beaten" in answer.stdout
    shown = RUNNER.invoke(
        condensery.app, ["baselines", "tiny", "--only", "resnet-18", "--json", "--storage", sqlite_url(tmp_path)]
    )
    assert json.loads(shown.stdout)["baselines"][0]["scores"] == {"top1": 0.6}
    wrong = RUNNER.invoke(condensery.app, ["baselines", "tiny", "--only", "resnet", "--storage", sqlite_url(tmp_path)])
    assert "--only must name networks of mobilenet-v2, " in str(wrong.exception)
    assert len(reader.list_studies(store.engine)) == 1
    store.engine.dispose()
