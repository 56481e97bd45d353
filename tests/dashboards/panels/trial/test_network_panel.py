"""The drawing of a network: its parts, their exact sums, and shares that say what they are."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from dashboards.panels.trial.network import OF_MACS, PREDICTED, network_figure, network_info
from search.pricing.layer_shares import LayerShares
from space.config import CondenseNetConfig
from space.cost import cost_of, parts_of
from space.presets import PUBLISHED
from tests.space.strategies import SEEDS, configs

ROOT = Path(__file__).parents[4]
SMALL = CondenseNetConfig(stages=(1, 2), growth=(8, 16), groups=2, condense_factor=4, bottleneck=2)


def shares_of(config: CondenseNetConfig, **changed) -> LayerShares:
    parts = parts_of(config)
    values = {"of_parts": (0.9 / len(parts),) * len(parts), "of_run": 0.1, "predicted_ms": 4.2, "device": "pi5"}
    fit = {"runtime": "onnxruntime", "threads": 1, "kind": "measured", "networks": 40, "median_error": 0.03}
    return LayerShares(**{**values, **fit, "extrapolates": "", **changed})


def number(text: str) -> int:
    return int(text.replace(",", ""))


@given(configs())
def test_the_tables_rows_add_up_to_its_last_row_which_is_the_exact_cost(config):
    rows, cost = network_info(config).table().rows, cost_of(config)
    for column, total in ((4, cost.macs), (5, cost.params)):
        assert sum(number(row[column]) for row in rows[:-1]) == total == number(rows[-1][column])


@given(configs(), SEEDS)
def test_shares_are_of_one_whole_and_always_labelled(config, seed):
    run, *weights = np.random.default_rng(seed).dirichlet(np.ones(len(parts_of(config)) + 1)).tolist()
    predicted = shares_of(config, of_parts=tuple(weights), of_run=run)
    for shares, label in ((None, OF_MACS), (predicted, PREDICTED)):
        info = network_info(config, shares)
        assert info.share_of == info.table().headers[-1] == label
        assert sum(info.shares) + info.run_share == pytest.approx(1)


def test_without_a_fit_the_note_says_why_and_what_is_shown_instead():
    note = network_info(SMALL, "no fit of pi5: run `condensery devices fit pi5`.").share_note
    assert note == (
        "Shares of the latency can't be computed, because no fit of pi5: run `condensery devices fit pi5`. These are "
        "shares of macs."
    )
    assert network_info(SMALL).share_note == "Shares of the latency can't be computed. These are shares of macs."


def test_with_a_fit_the_note_says_what_the_prediction_rests_on():
    note = network_info(SMALL, shares_of(SMALL)).share_note
    assert "Predicted from 40 networks measured on pi5 with onnxruntime and 1 thread" in note
    assert "its median error is 3.0 %" in note
    assert "hasn't been cross-validated" in network_info(SMALL, shares_of(SMALL, median_error=None)).share_note
    assert "differs from those: macs 7" in network_info(SMALL, shares_of(SMALL, extrapolates="macs 7")).share_note


def test_the_figure_says_on_its_axis_what_the_shares_are():
    for shares, title in ((None, "macs, %"), (shares_of(SMALL), "predicted<br>latency, %")):
        assert network_figure(network_info(SMALL, shares)).layout.yaxis2.title.text == title


def test_each_bar_is_as_high_as_the_channels_its_part_hands_on():
    figure = network_figure(network_info(SMALL))
    heights = np.sum([np.asarray(bar.y, dtype=float) for bar in figure.data if bar.yaxis is None], axis=0)
    assert heights.tolist() == [part.out_channels for part in parts_of(SMALL)]


def test_what_never_condenses_has_nothing_dropped():
    never = CondenseNetConfig(**{**SMALL.to_dict(), "condense_factor": 1})
    dropped = "inputs that a group dropped"
    assert dropped in [bar.name for bar in network_figure(network_info(SMALL)).data]
    assert dropped not in [bar.name for bar in network_figure(network_info(never)).data]


def test_stages_groups_and_sizes_are_named_in_the_drawing_and_in_words():
    info = network_info(SMALL)
    texts = " ".join(note.text for note in network_figure(info).layout.annotations)
    assert "1 layer, +8<br>32x32" in texts
    assert "2 layers, +16<br>16x16" in texts
    sentence = info.sentence()
    assert "stage 2: 2 layers of growth 16 at 16x16, 24 to 56 channels" in sentence
    assert (
        "2 groups; each keeps 1/4 of the channels. A 1x1 makes 2 x growth channels; each 3x3 has 2 groups" in sentence
    )
    assert f"{cost_of(SMALL).macs:,} macs" in sentence


def test_no_trial_chosen_is_a_sentence_in_place_of_the_drawing():
    info = network_info(None)
    assert "click a point" in (info.reason or "")
    (text,) = network_figure(info).layout.annotations
    assert "No trial is chosen" in text.text
    assert info.table().rows == ()


def test_hostile_titles_and_devices_stay_text():
    hostile = "<script>alert(1)</script><b>" + "x" * 10_000
    figure = network_figure(network_info(SMALL, shares_of(SMALL, device=hostile), hostile))
    assert "<script" not in figure.to_json()
    assert len(figure.layout.title.text) < 400


def test_one_layer_is_a_drawing_too():
    config = CondenseNetConfig(stages=(1,), growth=(4,), groups=2, condense_factor=2, input_shape=(1, 8, 8))
    info = network_info(config)
    assert [part.kind for part in info.parts] == ["stem", "layer", "norm", "classifier"]
    assert len(network_figure(info).data) == 5


def test_the_largest_published_network_has_a_bar_for_every_part():
    info = network_info(PUBLISHED["condensenet-182"].config)
    assert len(info.table().rows) == 90 + 2 + 3 + 1
    assert {len(bar.y) for bar in network_figure(info).data} == {95}


def test_infos_are_plain_and_drawing_loads_no_torch():
    assert dataclasses.is_dataclass(network_info(SMALL))
    script = (
        "import sys; from dashboards.panels.trial.network import network_figure, network_info\n"
        "import dashboards.data.trial_detail, search.pricing.layer_shares\n"
        "from space.config import CondenseNetConfig\n"
        "network_figure(network_info(CondenseNetConfig(stages=(1,), growth=(8,))))\n"
        "print(*sorted({'torch', 'onnx', 'onnxruntime', 'optuna'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
