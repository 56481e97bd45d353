"""Which training settings a study may try."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.domains import Choice, FloatRange, IntRange
from space.errors import ImpossibleSpace, InvalidSettings
from workers.settings import TrainingSettings
from workers.training.training_space import TrainingSpace

WRITTEN = {
    "epochs": {"low": 10, "high": 30, "step": 10},
    "batch_size": [32, 64, 256],
    "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
    "momentum": [0.9],
    "weight_decay": 5e-4,
}


def test_single_values_are_fixed_and_lists_and_ranges_vary():
    space = TrainingSpace.from_settings(WRITTEN)
    assert space.domains == {
        "epochs": IntRange(10, 30, 10),
        "batch_size": Choice((32, 64, 256)),
        "learning_rate": FloatRange(0.01, 0.3, log=True),
    }
    assert (space.fixed.momentum, space.fixed.weight_decay) == (0.9, 5e-4)
    assert space.fixed.label_smoothing == TrainingSettings().label_smoothing


def test_an_empty_table_is_the_papers_schedule():
    space = TrainingSpace.from_settings({})
    assert space.domains == {}
    assert space.from_params({}) == TrainingSettings()
    assert TrainingSettings().epochs == 300
    assert (TrainingSettings().learning_rate, TrainingSettings().momentum) == (0.1, 0.9)


def test_it_survives_json():
    space = TrainingSpace.from_settings(WRITTEN)
    assert TrainingSpace.from_settings(json.loads(json.dumps(space.to_settings()))) == space


@given(seed=st.integers(0, 2**32 - 1))
def test_samples_are_valid_and_named_by_their_parameters(seed: int):
    space = TrainingSpace.from_settings(WRITTEN)
    drawn = space.sample(np.random.default_rng(seed))
    assert drawn.epochs in (10, 20, 30)
    assert drawn.batch_size in (32, 64, 256)
    assert 0.01 <= drawn.learning_rate <= 0.3
    params = space.to_params(drawn)
    assert params.keys() == space.domains.keys()
    assert space.from_params(params) == drawn


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 15), ("learning_rate", 0.5), ("weight_decay", 0.0), ("label_smoothing", 0.1)]
)
def test_settings_outside_the_space_have_no_parameters(key: str, value: float):
    space = TrainingSpace.from_settings(WRITTEN)
    inside = space.sample(np.random.default_rng(0))
    with pytest.raises(InvalidSettings, match=f"outside the study's: {key}="):
        space.to_params(inside.model_copy(update={key: value}))


def test_a_parameter_that_is_left_out_takes_its_first_value():
    space = TrainingSpace.from_settings(WRITTEN)
    assert space.from_params({"epochs": 30}) == space.fixed.model_copy(
        update={"epochs": 30, "batch_size": 32, "learning_rate": 0.01}
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"epoch": 3}, r"unknown key `training.epoch`. Did you mean `epochs`\?"),
        ({"learningrate": 3}, r"Did you mean `learning_rate`\?"),
        ({"zzz": 3}, r"unknown key `training.zzz`. Valid: epochs, batch_size"),
        ({"epochs": 0}, r"`training.epochs`: .*greater than or equal to 1, but got 0"),
        ({"momentum": 1.0}, r"`training.momentum`: .*less than 1"),
        ({"epochs": [5, 0]}, r"`training.epochs`: .*but got 0"),
        ({"learning_rate": {"low": 0.1, "high": 1000.0}}, r"`training.learning_rate`: .*but got 1000.0"),
        ({"epochs": "many"}, r"`training.epochs`: .*valid integer"),
        ({"learning_rate": float("nan")}, r"`training.learning_rate`"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_name(written: dict, message: str):
    with pytest.raises(InvalidSettings, match=message):
        TrainingSpace.from_settings(written)


@pytest.mark.parametrize("written", [{"epochs": []}, {"epochs": {"low": 5}}, {"epochs": {"low": 5, "high": 4}}])
def test_a_range_or_list_that_is_none_is_refused(written: dict):
    with pytest.raises(ImpossibleSpace, match=r"training\.epochs"):
        TrainingSpace.from_settings(written)
