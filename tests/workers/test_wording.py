"""Counts in sentences."""

from __future__ import annotations

import pytest

from workers.wording import agreeing, counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (12345, "12,345 trials")]
)
def test_a_noun_agrees_with_its_number(number, text):
    assert counted(number, "trial") == text


def test_an_irregular_plural_is_given_with_its_noun():
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


def test_a_verb_agrees_with_its_number():
    assert [agreeing(number, "fits", "fit") for number in (0, 1, 2)] == ["fit", "fits", "fit"]
