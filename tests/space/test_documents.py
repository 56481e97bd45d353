"""TOML and JSON from outside: any text is read, or refused with one clear reason."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.documents import DEEPEST, LARGEST, UnreadableDocument, read_json, read_toml, short_number

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST - 1, LARGEST) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES)
def test_what_keeps_the_rules_is_read_as_it_is(value):
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1" * 5000, "thousands of digits"),
        (str(LARGEST + 1), "between -2^63 and 2^63 - 1, not at 9.223e+18"),
        (str(-LARGEST - 2), "between -2^63 and 2^63 - 1"),
        ("9" * 400, "not at a number of 1329 bits"),
        ("[" * 100_000, f"more than {DEEPEST} levels"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} levels"),
    ],
)
def test_numbers_and_nesting_of_any_size_are_refused_in_one_line(text, reason):
    for read, document in ((read_json, text), (read_toml, f"x = {text}")):
        with pytest.raises(UnreadableDocument) as refused:
            read(document)
        assert reason in str(refused.value)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0b" + "1" * 5000])
def test_a_number_that_python_reads_at_any_length_is_refused_too(number):
    with pytest.raises(UnreadableDocument, match="a number of"):
        read_toml(f"x = {number}")


def test_the_deepest_nesting_is_read():
    assert read_json("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1))


@given(text=st.text(max_size=40) | st.text('[]{}=",.0123456789eE+-_#\n', max_size=40))
def test_any_text_is_a_document_or_unreadable(text):
    for read in (read_json, read_toml):
        with contextlib.suppress(UnreadableDocument):
            read(text)


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (-(10**17), "-1" + "0" * 17), (10**20, "1.000e+20")])
def test_a_number_is_shown_short(number, text):
    assert short_number(number) == text
