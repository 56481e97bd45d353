"""One architecture: each rule with its message, JSON both ways, equality, and the shapes that follow."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from space.config import CondenseNetConfig
from space.errors import CondenseryError, InvalidConfig
from tests.space.strategies import configs

BASE = CondenseNetConfig((2, 2), (8, 16))

BROKEN = {  # name: (settings, what the message must hold)
    "no stages": ({"stages": (), "growth": ()}, ["same length of at least 1", "stages=()"]),
    "lengths": ({"stages": (2, 2, 2)}, ["same length", "stages=(2, 2, 2)", "growth=(8, 16)"]),
    "stages not whole": ({"stages": (2, 1.5)}, ["`stages`", "whole number", "1.5"]),
    "stages not a list": ({"stages": 2}, ["`stages`", "list of whole numbers", "2"]),
    "stages text": ({"stages": "22"}, ["`stages`", "list of whole numbers", "'22'"]),
    "an empty stage": ({"stages": (2, 0)}, ["`stages`", "at least 1", "0"]),
    "growth negative": ({"growth": (8, -16)}, ["`growth`", "at least 1", "-16"]),
    "groups zero": ({"groups": 0}, ["`groups`", "at least 1", "0"]),
    "groups bool": ({"groups": True}, ["`groups`", "whole number", "True"]),
    "groups text": ({"groups": "4"}, ["`groups`", "whole number", "'4'"]),
    "condense factor": ({"condense_factor": 0}, ["`condense_factor`", "at least 1", "0"]),
    "bottleneck": ({"bottleneck": 2.0}, ["`bottleneck`", "whole number", "2.0"]),
    "classes": ({"num_classes": 0}, ["`num_classes`", "at least 1", "0"]),
    "groups_3x3": ({"groups_3x3": 0}, ["`groups_3x3`", "at least 1", "0"]),
    "input of two sides": ({"input_shape": (32, 32)}, ["`input_shape`", "(channels, height, width)", "(32, 32)"]),
    "input without pixels": ({"input_shape": (3, 0, 32)}, ["`input_shape`", "at least 1", "0"]),
    "dropout of one": ({"dropout": 1.0}, ["0 <= dropout < 1", "dropout=1.0"]),
    "dropout negative": ({"dropout": -0.1}, ["0 <= dropout < 1", "dropout=-0.1"]),
    "dropout nan": ({"dropout": float("nan")}, ["0 <= dropout < 1", "nan"]),
    "dropout text": ({"dropout": "0.1"}, ["`dropout`", "must be a number", "'0.1'"]),
    "dropout endless": ({"dropout": 10**400}, ["`dropout`", "must be a number"]),
    "keep zero": ({"classifier_keep": 0}, ["0 < classifier_keep <= 1", "classifier_keep=0.0"]),
    "keep above one": ({"classifier_keep": 1.5}, ["0 < classifier_keep <= 1", "classifier_keep=1.5"]),
    "keep bool": ({"classifier_keep": True}, ["`classifier_keep`", "must be a number", "True"]),
    "keep nothing": ({"classifier_keep": 0.01}, ["at least one feature", "classifier_keep=0.01", "64 features"]),
    "too many stages": ({"input_shape": (3, 1, 9)}, ["halves the image", "1x9", "at most 1 stages", "got 2"]),
    "in_channels by groups": (
        {"groups": 3, "groups_3x3": 1, "bottleneck": 3},
        ["in_channels must be divisible by groups", "in_channels=16", "groups=3", "stage 1, layer 1"],
    ),
    "in_channels by the factor": (
        {"growth": (8, 12), "condense_factor": 8},
        ["in_channels must be divisible by condense_factor", "in_channels=44", "condense_factor=8", "stage 2, layer 2"],
    ),
    "width by groups": (
        {"stages": (1, 1), "growth": (8, 5), "groups": 4, "groups_3x3": 1, "bottleneck": 1},
        ["bottleneck * growth must be divisible by groups", "bottleneck * growth=5", "groups=4", "stage 2, layer 1"],
    ),
    "width by groups_3x3": (
        {"groups_3x3": 5},
        ["bottleneck * growth must be divisible by groups_3x3", "bottleneck * growth=32", "groups_3x3=5"],
    ),
    "growth by groups_3x3": (
        {"groups_3x3": 32},
        ["growth must be divisible by groups_3x3", "growth=8", "groups_3x3=32", "stage 1, layer 1"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named_with_its_value_on_one_line(name):
    changes, fragments = BROKEN[name]
    with pytest.raises(InvalidConfig) as caught:
        dataclasses.replace(BASE, **changes)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CondenseryError)


def test_a_hopeless_number_of_stages_is_refused_without_a_hopeless_message():
    with pytest.raises(InvalidConfig, match="at most 6 stages, but got 20000"):
        CondenseNetConfig((1,) * 20_000, (8,) * 20_000)


def test_the_last_growth_feeds_no_1x1_so_the_factor_need_not_divide_it():
    config = CondenseNetConfig((1, 1, 1), (8, 8, 6), groups=2, condense_factor=4)
    assert [layer.in_channels for layer in config.layer_shapes] == [16, 24, 32]
    with pytest.raises(InvalidConfig, match=r"in_channels=38, condense_factor=4 at stage 3, layer 2"):
        dataclasses.replace(config, stages=(1, 1, 2))


def test_the_last_growth_must_still_suit_the_3x3():
    with pytest.raises(InvalidConfig, match=r"growth must be divisible by groups_3x3.*growth=6, groups_3x3=4"):
        CondenseNetConfig((1, 1, 1), (8, 8, 6), groups=2, condense_factor=4, groups_3x3=4)


@given(configs())
def test_json_gives_the_same_config_back(config):
    again = CondenseNetConfig.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert again.to_json() == config.to_json()
    assert again.digest == config.digest


@given(configs())
def test_the_dictionary_is_plain_json_with_every_field_named(config):
    values = config.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert list(values) == [field.name for field in dataclasses.fields(CondenseNetConfig)]
    assert CondenseNetConfig.from_dict(values) == config


@given(configs(), configs())
def test_configs_are_equal_exactly_when_their_json_is(first, second):
    assert (first == second) == (first.to_json() == second.to_json()) == (first.digest == second.digest)


def test_the_defaults_need_not_be_written():
    assert CondenseNetConfig.from_json('{"stages": [2, 2], "growth": [8, 16]}') == BASE


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ('{"stages": [1]}', "needs growth"),
        ("{}", "needs stages and growth"),
        ('{"stages": [1], "growth": [4], "depth": 3}', "unknown settings depth"),
        ("[1, 2]", "must be a JSON object"),
        ("{stages}", "must be a JSON object"),
        ("[" * 100_000, "must be a JSON object"),
        ('{"stages": ' + "1" * 5000 + "}", "must be a JSON object"),
        ('{"stages": [1], "growth": null}', "`growth` must be a list"),
        ('{"stages": [1], "growth": [4], "dropout": NaN}', "0 <= dropout < 1"),
    ],
    ids=lambda value: value[:20],
)
def test_json_that_is_no_config_is_refused(text, fragment):
    with pytest.raises(InvalidConfig, match=fragment) as caught:
        CondenseNetConfig.from_json(text)
    assert len(str(caught.value)) < 300


def test_equal_values_of_other_types_give_the_same_config():
    other = CondenseNetConfig([2, 2], np.array([8, 16]), groups=np.int64(4), dropout=0, input_shape=[3, 32, 32])
    assert other == BASE
    assert hash(other) == hash(BASE)
    assert other.to_json() == BASE.to_json()
    assert len({other, BASE}) == 1


def test_a_negative_zero_is_zero_in_the_json_as_well():
    assert dataclasses.replace(BASE, dropout=-0.0).digest == BASE.digest


def test_every_field_takes_part_in_equality():
    changes = {
        "stages": (2, 1),
        "growth": (8, 8),
        "groups": 2,
        "condense_factor": 2,
        "bottleneck": 2,
        "groups_3x3": 2,
        "dropout": 0.1,
        "num_classes": 11,
        "input_shape": (1, 32, 32),
        "classifier_keep": 0.5,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(CondenseNetConfig)}
    others = [dataclasses.replace(BASE, **{name: value}) for name, value in changes.items()]
    assert len({BASE, *others}) == len(others) + 1
    assert len({config.digest for config in (BASE, *others)}) == len(others) + 1


def test_groups_3x3_written_out_as_the_groups_is_the_same_as_left_out():
    written = dataclasses.replace(BASE, groups_3x3=4)
    assert written == BASE
    assert written.digest == BASE.digest
    assert written.groups_3x3 is None
    assert written.conv3x3_groups == 4
    assert dataclasses.replace(BASE, groups_3x3=2).conv3x3_groups == 2


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CondenseNetConfig)])
def test_no_field_can_be_changed(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(BASE, field, getattr(BASE, field))


def test_lists_given_at_first_can_not_change_the_config_later():
    stages = [2, 2]
    config = CondenseNetConfig(stages, [8, 16])
    stages.append(2)
    assert config == BASE


def test_a_config_that_has_computed_its_shapes_still_pickles_and_compares():
    assert BASE.layer_shapes
    assert pickle.loads(pickle.dumps(BASE)) == BASE


def test_the_digest_is_the_same_in_another_process():
    code = "from space.config import CondenseNetConfig as C; print(C((2, 2), (8, 16)).digest)"
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == BASE.digest


@pytest.mark.parametrize(
    ("sides", "stride", "after"),
    [
        ((95, 300), 1, (95, 300)),
        ((96, 96), 2, (48, 48)),
        ((97, 99), 2, (49, 50)),
        ((224, 224), 2, (112, 112)),
        ((32, 32), 1, (32, 32)),
    ],
)
def test_the_stem_halves_images_from_96_pixels(sides, stride, after):
    config = dataclasses.replace(BASE, input_shape=(3, *sides))
    assert (config.stem_stride, config.stem_size) == (stride, after)


def test_odd_sizes_lose_their_last_row_and_column_at_every_pooling():
    config = CondenseNetConfig((1, 1, 1), (4, 4, 4), groups=1, condense_factor=1, input_shape=(1, 7, 12))
    assert [(layer.height, layer.width) for layer in config.layer_shapes] == [(7, 12), (3, 6), (1, 3)]
    assert config.last_size == (1, 3)


@given(configs())
def test_channels_grow_layer_by_layer_to_the_number_of_features(config):
    channels = config.stem_channels
    for layer in config.layer_shapes:
        assert layer.in_channels == channels
        assert layer.bottleneck_channels == config.bottleneck * layer.growth
        channels += layer.growth
    assert channels == config.num_features
    assert len(config.layer_shapes) == sum(config.stages)


@pytest.mark.parametrize(("keep", "kept"), [(1.0, 100), (0.5, 50), (0.29, 29), (0.999, 99), (0.01, 1)])
def test_the_classifier_keeps_the_floor_of_its_fraction(keep, kept):
    config = CondenseNetConfig((8,), (10,), groups=1, condense_factor=1, classifier_keep=keep)
    assert config.num_features == 100
    assert config.classifier_inputs == kept


def test_the_text_form_tells_the_architecture_on_one_line():
    assert str(BASE) == "2-2 growth 8-16 G=4 C=4 B=4"
    assert str(dataclasses.replace(BASE, groups_3x3=2)) == "2-2 growth 8-16 G=4 C=4 B=4 G3=2"
