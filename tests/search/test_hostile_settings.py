"""Study files with values of any kind and size: each is taken or refused by an error of ours, in no time."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.settings import StudySettings
from search.study_file import override_value, read_document, settings_from
from search.time_estimate import outline_study
from space.errors import CondenseryError, ImpossibleSpace, InvalidConfig, InvalidSettings
from space.space_settings import KEYS
from tests.search.tiny_studies import DOCUMENT, document
from workers.settings import Settings, TrainingSettings

LARGE = [0, -1, 3, 4096, 4097, 10**6, 2**31, 2**53, 2**63 - 1, -(2**63), 1e-300, 1e300, float("inf"), float("nan")]
NUMBERS = st.sampled_from(LARGE) | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans()
WORDS = st.sampled_from(["", "same", "auto", "cpu", "\0", "[/b]", "digits", "imagefolder:/nowhere", "free", "native"])
RANGES = st.fixed_dictionaries({"low": NUMBERS, "high": NUMBERS}, optional={"step": NUMBERS, "log": st.booleans()})
VALUES = NUMBERS | WORDS | st.lists(NUMBERS | WORDS, max_size=4) | RANGES | st.lists(RANGES, max_size=3)


def all_keys() -> list[str]:
    sections = {
        name: field.annotation
        for name, field in StudySettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    named = [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]
    named += [f"space.{key}" for key in KEYS] + [f"training.{key}" for key in TrainingSettings.model_fields]
    return sorted({*named, *StudySettings.model_fields} - {"replay.table"})


@pytest.mark.slow
@settings(max_examples=150)
@given(changes=st.dictionaries(st.sampled_from(all_keys()), VALUES, min_size=1, max_size=3))
def test_any_values_are_taken_or_refused(changes: dict[str, Any]):
    content = copy.deepcopy(DOCUMENT)
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if not key:
            content[section] = value
        elif isinstance(content.setdefault(section, {}), dict):
            content[section][key] = value
    with contextlib.suppress(CondenseryError):
        outline_study(settings_from(content, "study.toml"))


@pytest.mark.parametrize(
    "space",
    [
        {"growth": {"low": 1, "high": 10**9}},
        {"groups": {"low": 1, "high": 4096}, "condense_factor": {"low": 1, "high": 4096}},
        {"num_stages": {"low": 1, "high": 99_999}},
        {"layers": [2**62]},
        {"groups_3x3": [2**62]},
        {"num_classes": 2**62},
    ],
)
def test_a_space_of_any_size_costs_no_memory(space: dict[str, Any]):
    with pytest.raises((ImpossibleSpace, InvalidSettings), match=r"at most|from 1 to 4096"):
        settings_from(document(space={**DOCUMENT["space"], **space}), "study.toml")


def test_a_network_whose_cost_no_database_holds_is_refused():
    space = {**DOCUMENT["space"], "layers": [4096], "growth": [4096], "bottleneck": [4096], "groups": [1]}
    with pytest.raises(InvalidConfig, match=r"at most 2\^53 multiply-adds"):
        outline_study(settings_from(document(space={**space, "condense_factor": [1]}), "study.toml"))


@pytest.mark.parametrize(
    "override",
    [f"study.trainings={'9' * 5000}", f"study.trainings={2**63}", f"space.growth={'[' * 5000}", "a." * 5000 + "b=1"],
)
def test_an_override_of_any_size_is_refused(override: str):
    with pytest.raises(InvalidSettings) as refused:
        override_value({}, override)
    assert len(str(refused.value)) < 300


def test_a_file_of_any_nesting_is_refused(tmp_path: Path):
    (tmp_path / "study.toml").write_text("x = " + "[" * 100_000)
    with pytest.raises(InvalidSettings, match="more than 50 levels"):
        read_document(tmp_path / "study.toml")
