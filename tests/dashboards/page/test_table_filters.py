"""Filters of the trials table as they are typed: in displayed units, with the sign that is natural for the column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.page.table_filters import (
    COUNT,
    MILLISECONDS,
    NUMBER,
    PERCENT,
    SECONDS,
    Unit,
    numbers_matching,
    texts_matching,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("unit", "typed", "kept", "left_out"),
    [
        (PERCENT, "94.5", [0.945, 0.94496, 0.99], [0.9449, NAN]),  # 0.94496 is shown as 94.50 %, too
        (PERCENT, ">94.5 %", [0.9451], [0.945, 0.94496]),
        (PERCENT, "<=94", [0.94, 0.5], [0.9401]),
        (PERCENT, "94..95", [0.94, 0.945, 0.95], [0.9399, 0.9501]),
        (PERCENT, "=94.5", [0.945, 0.94504], [0.9451]),
        (MILLISECONDS, "0.08", [0.08, 0.0300], [0.0801, NAN]),
        (MILLISECONDS, "≥ 80 us", [0.08, 9.0], [0.0799]),
        (MILLISECONDS, "<1s", [999.0], [1000.0]),
        (COUNT, "1.2M", [1_200_000, 1_204_000, 900], [1_210_000]),  # 1,204,000 is shown as 1.20 M, too
        (COUNT, ">= 12.3 k", [12_300, 12_260, 5e6], [12_200]),
        (COUNT, "1,200", [1_200], [1_300]),
        (SECONDS, "90 s", [90.0, 12.3], [95.0]),
        (SECONDS, ">2 min 5 s", [126.0], [125.0, 124.9]),
        (SECONDS, "1h", [3600.0], [3700.0]),
        (NUMBER, "12", [12.0], [11.0, 120.0]),
        (NUMBER, "any", [1.0], [NAN]),
        (NUMBER, "None", [NAN], [1.0]),
    ],
)
def test_a_typed_number_is_in_the_units_that_are_shown(
    unit: Unit, typed: str, kept: list[float], left_out: list[float]
) -> None:
    mask = numbers_matching(np.array(kept + left_out), unit, typed)
    assert mask.tolist() == [True] * len(kept) + [False] * len(left_out)


@pytest.mark.parametrize(
    ("unit", "typed"),
    [(PERCENT, "9x"), (PERCENT, ">"), (COUNT, "1 2"), (MILLISECONDS, "3 k"), (NUMBER, "1..b"), (PERCENT, "=>=1")],
)
def test_what_cant_be_read_is_refused_with_what_can(unit: Unit, typed: str) -> None:
    with pytest.raises(ValueError, match=r"can't be read: type .*>=.* or a range a\.\.b, in the units shown"):
        numbers_matching(np.array([1.0]), unit, typed)


@given(st.sampled_from([PERCENT, MILLISECONDS, COUNT, SECONDS, NUMBER]), st.floats(1e-4, 1e9))
def test_what_is_shown_can_be_typed_and_keeps_the_row_that_shows_it(unit: Unit, value: float) -> None:
    shown = unit.text(value)
    for sign in ("", "=", ">=", "<="):
        assert numbers_matching(np.array([value]), unit, sign + shown).all()


def test_texts_are_kept_where_they_contain_what_is_typed() -> None:
    texts = ["done", "infeasible", "", "done front"]
    for typed, kept in (
        ("DONE", [True, False, False, True]),
        ("= done", [True, False, False, False]),
        ("!front", [True, True, True, False]),
        ("none", [False, False, True, False]),
        ("any", [True, True, False, True]),
    ):
        assert texts_matching(texts, typed).tolist() == kept
