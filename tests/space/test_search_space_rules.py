"""What a search space refuses, and how clearly it says so."""

from __future__ import annotations

import pytest

from space.errors import ImpossibleSpace, InvalidSettings
from space.search_space import SearchSpace
from space.space_settings import KEYS

BASE = {"groups": [1, 2], "condense_factor": 1, "num_stages": 2, "layers": [1, 2], "growth": [4, 8]}

IMPOSSIBLE = {  # name: (settings, what the message must hold)
    "no growth for a combination": (
        {"groups": [1, 3], "condense_factor": 2},
        ["`growth` must hold a multiple of lcm", "groups=3, condense_factor=2, groups_3x3=3", "6", "[4, 8]"],
    ),
    "no growth in one stage": ({"growth": [[4, 8], [5]]}, ["`growth` must hold a multiple", "groups=2", "[5]"]),
    "no growth for the 3x3": ({"groups_3x3": [16]}, ["`growth` must hold a multiple", "groups_3x3=16", "16"]),
    "groups of zero": ({"groups": [0, 2]}, ["`groups` must be whole numbers from 1 to 4096", "0"]),
    "real groups": ({"groups": {"low": 1.0, "high": 2.0}}, ["`groups` must be whole numbers", "1.0"]),
    "a named factor": ({"condense_factor": "four"}, ["`condense_factor` must be whole numbers", "'four'"]),
    "a real bottleneck": ({"bottleneck": [1.5]}, ["`bottleneck` must be whole numbers", "1.5"]),
    "no stages": ({"num_stages": [0, 2]}, ["`num_stages` must be whole numbers from 1 to 4096", "0"]),
    "real stages": ({"num_stages": {"low": 1.0, "high": 2.0}}, ["`num_stages` must be whole numbers", "1.0"]),
    "empty layers": ({"layers": {"low": 0, "high": 3}}, ["`layers` must be whole numbers from 1 to 4096", "0"]),
    "named layers": ({"layers": ["many"]}, ["`layers` must be whole numbers", "many"]),
    "a negative growth": ({"growth": [[4], [-4, 4]]}, ["`growth_2` must be whole numbers from 1 to 4096", "-4"]),
    "a real growth": ({"growth": {"low": 4.0, "high": 8.0}}, ["`growth` must be whole numbers", "4.0"]),
    "an unknown 3x3": ({"groups_3x3": ["equal"]}, ['`groups_3x3` must be "same" or from 1 to 4096', "'equal'"]),
    "a 3x3 of zero": ({"groups_3x3": 0}, ['`groups_3x3` must be "same" or from 1 to 4096', "0"]),
    "dropout of one": ({"dropout": {"low": 0.0, "high": 1.0}}, ["0 <= dropout < 1 must hold", "1.0"]),
    "a named dropout": ({"dropout": "some"}, ["0 <= dropout < 1 must hold", "'some'"]),
    "keep of zero": ({"classifier_keep": [0, 1]}, ["0 < classifier_keep <= 1 must hold", "0"]),
    "keep nothing": (
        {"classifier_keep": [0.01, 1.0]},
        ["`classifier_keep` must leave every network at least one feature", "0.01", "16 features", "0.0625"],
    ),
    "too few layers": ({"layers": [[1]]}, ["must cover every stage", "num_stages reaches 2", "1 layers"]),
    "too few growths": ({"growth": [[4]]}, ["must cover every stage", "num_stages reaches 2", "1 growth"]),
    "doubling with two growths": (
        {"growth_rule": "doubling", "growth": [[4], [8]]},
        ["doubling needs one growth setting", "2"],
    ),
    "too deep for the image": (
        {"num_stages": 4, "input_shape": [1, 7, 9]},
        ["num_stages reaches 4", "halves the image", "7x9", "at most 3 stages"],
    ),
    "an image without channels": ({"input_shape": [8, 8]}, ["`input_shape` must be (channels, height, width)"]),
    "no classes": ({"num_classes": 0}, ["`num_classes`", "at least 1", "0"]),
    "an empty list": ({"groups": []}, ["`groups` must list at least one value"]),
    "a range upside down": (
        {"layers": {"low": 3, "high": 1}},
        ["low <= high must hold for `layers`", "low=3", "high=1"],
    ),
    "a broken range of one stage": ({"growth": [[4], {"low": 9, "high": 1}]}, ["low <= high", "`growth_2`"]),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_space_is_refused_with_the_rule_and_the_value(name):
    changes, fragments = IMPOSSIBLE[name]
    with pytest.raises(ImpossibleSpace) as caught:
        SearchSpace.from_settings({**BASE, **changes})
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_settings_these_tests_break_are_sound():
    assert SearchSpace.from_settings(BASE).size == 2 * (2 * 2) ** 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("grouth", "growth"),
        ("group", "groups"),
        ("condense_faktor", "condense_factor"),
        ("n_stages", "num_stages"),
        ("groups3x3", "groups_3x3"),
        ("classifier_kept", "classifier_keep"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(written, meant):
    with pytest.raises(InvalidSettings, match=rf"unknown key `space.{written}`. Did you mean `{meant}`\?"):
        SearchSpace.from_settings({**BASE, written: 1})


def test_a_key_that_is_near_nothing_lists_them_all():
    with pytest.raises(InvalidSettings) as caught:
        SearchSpace.from_settings({**BASE, "zzz": 1})
    assert all(key in str(caught.value) for key in ("space.zzz", *KEYS))


@pytest.mark.parametrize("key", ["layers", "growth"])
def test_what_must_be_searched_must_be_written(key):
    with pytest.raises(InvalidSettings, match=f"`space.{key}` is missing"):
        SearchSpace.from_settings({name: value for name, value in BASE.items() if name != key})


def test_an_unknown_growth_rule_is_refused():
    with pytest.raises(InvalidSettings, match=r'must be "free" or "doubling", but got .tripling'):
        SearchSpace.from_settings({**BASE, "growth_rule": "tripling"})


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InvalidSettings, match=r"'cifar10'; there are digits, cifar, imagenet-mobile"):
        SearchSpace.preset("cifar10")


def test_data_that_the_space_does_not_suit_are_refused():
    with pytest.raises(ImpossibleSpace, match="halves the image"):
        SearchSpace.preset("cifar").for_data((1, 3, 3), 10)
