"""The study file: what is written there is taken at its word or refused with a hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.study_file import load_settings, settings_from
from space.errors import ImpossibleSpace, InvalidSettings, StudyFileVersion
from tests.search.tiny_studies import DOCUMENT, document, tiny_settings

TOML = """
format = 1
[study]
name = "tiny"
trainings = 4
[space]
layers = [1, 2]
growth = [8]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(TOML)
    return path


def test_a_short_file_has_every_default_filled_in(file: Path):
    settings = load_settings(file)
    assert (settings.study.name, settings.study.trainings) == ("tiny", 4)
    assert settings.training["epochs"] == 300
    assert settings.space["groups"] == [1, 2, 4, 8]
    assert settings.storage == "sqlite:///condensery.db"
    assert settings.latency.resolved("host").label == "standard"


def test_resolved_settings_survive_json_and_keep_their_hashes():
    settings = tiny_settings(budget__max_macs=1000)
    again = settings_from(json.loads(json.dumps(settings.model_dump(mode="json"))), "the database")
    assert again == settings
    assert again.digest() == settings.digest()
    assert again.digest_of_frozen() == settings.digest_of_frozen()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"studdy": {}}, r"unknown key `studdy`. Did you mean `study`\?"),
        ({"study__nmae": "x"}, r"unknown key `study.nmae`. Did you mean `name`\?"),
        ({"study__training": 5}, r"unknown key `study.training`. Did you mean `trainings`\?"),
        ({"data__data_set": "x"}, r"unknown key `data.data_set`. Did you mean `dataset`\?"),
        ({"space__grwth": [4]}, r"unknown key `space.grwth`. Did you mean `growth`\?"),
        ({"training__epoch": 4}, r"unknown key `training.epoch`. Did you mean `epochs`\?"),
        ({"budget__max_latency": 4}, r"unknown key `budget.max_latency`. Did you mean `max_latency_ms`\?"),
        ({"latency__polcy": "quick"}, r"unknown key `latency.polcy`. Did you mean `policy`\?"),
        ({"search__sampelr": "tpe"}, r"unknown key `search.sampelr`. Did you mean `sampler`\?"),
        ({"engine__worker": 2}, r"unknown key `engine.worker`. Did you mean `workers`\?"),
        ({"limits__trial_time": 2}, r"unknown key `limits.trial_time`. Did you mean `trial_time_s`\?"),
        ({"retention__network": "all"}, r"unknown key `retention.network`. Did you mean `networks`\?"),
        ({"engine__qqq": 2}, r"unknown key `engine.qqq`. Valid: kind, workers, threads, device"),
    ],
)
def test_an_unknown_key_at_any_level_suggests_the_nearest(change: dict[str, Any], message: str):
    with pytest.raises(InvalidSettings, match=message):
        tiny_settings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study__trainings": 0}, r"tiny.toml: `study.trainings`: .*greater than or equal to 1, but got 0"),
        ({"study__trainings": "many"}, r"`study.trainings`: .*valid integer.*but got 'many'"),
        ({"study__trainings": 2.5}, r"`study.trainings`: .*integer"),
        ({"study__name": ""}, r"`study.name`"),
        ({"study__name": "a/b"}, r"`study.name`: a study's name must be printable, without slashes.*but got 'a/b'"),
        ({"study__name": ".hidden"}, r"`study.name`"),
        ({"study__name": "two\nlines"}, r"`study.name`"),
        ({"study__name": "x" * 101}, r"`study.name`: .*at most 100"),
        ({"budget__max_macs": 0}, r"`budget.max_macs`: .*greater than 0"),
        ({"budget__max_latency_ms": -1.5}, r"`budget.max_latency_ms`"),
        ({"budget__max_latency_ms": float("inf")}, r"`budget.max_latency_ms`"),
        ({"budget__latency_statistic": "mean"}, r"`budget.latency_statistic`: .*'upper', 'median' or 'p90'.*'mean'"),
        (
            {"budget__latency_statistic": "p90", "latency__devices": ["virtual:raspberry-pi-5"]},
            "budget.latency_statistic = 'p90' needs runs that are timed",
        ),
        ({"search__sampler": "grid"}, r"`search.sampler`: .*'price-aware', 'tpe', .*or 'random'.*but got 'grid'"),
        ({"engine__device": "tpu"}, r"`engine.device`"),
        ({"data__validation_fraction": 1.0}, r"`data.validation_fraction`"),
        ({"study": {"trainings": 3}}, r"`study.name` is missing"),
        ({"study": 5}, r"`study`: .*but got 5"),
        ({"space": {"growth": [4]}}, r"`space.layers` is missing"),
        ({"training__learning_rate": 0}, r"`training.learning_rate`: .*greater than 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(change: dict[str, Any], message: str):
    with pytest.raises(InvalidSettings, match=message) as caught:
        tiny_settings(**change)
    assert "\n" not in str(caught.value)


def test_a_broken_rule_between_keys_is_told_without_the_whole_file(file: Path):
    with pytest.raises(InvalidSettings) as caught:
        load_settings(file, ["budget.max_latency_ms.nope=3"])
    rule = "budget.max_latency_ms names 'nope', which is not in latency.devices"
    assert str(caught.value) == f"{file}: {rule}."


def test_a_long_wrong_value_is_shown_in_part():
    with pytest.raises(InvalidSettings, match=r"`search.sampler`") as caught:
        tiny_settings(search__sampler="x" * 10_000)
    assert len(str(caught.value)) < 400


def test_a_missing_table_is_named():
    content = document()
    del content["space"]
    with pytest.raises(InvalidSettings, match="`space` is missing"):
        settings_from(content, "tiny.toml")


def test_a_space_without_a_network_is_refused_when_the_file_is_read():
    with pytest.raises(ImpossibleSpace, match="lcm"):
        tiny_settings(space__groups=[8])


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_versions_file_says_what_to_do(version: Any):
    with pytest.raises(StudyFileVersion, match=r"must say `format = 1`.*condensery init"):
        settings_from({**DOCUMENT, "format": version}, "old.toml")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("study.trainings=9", lambda s: s.study.trainings == 9),
        ("study.name=other", lambda s: s.study.name == "other"),
        ('study.name="quoted name"', lambda s: s.study.name == "quoted name"),
        ("budget.max_latency_ms = 2.5", lambda s: s.budget.max_latency_ms == 2.5),
        ("space.groups=[1, 2]", lambda s: s.space["groups"] == [1, 2]),
        ("training.learning_rate={low=0.1,high=0.2}", lambda s: s.training["learning_rate"]["high"] == 0.2),
        ("data.flip=true", lambda s: s.data.flip is True),
        ("study.storage=postgresql://me@host/db?a=b", lambda s: s.storage == "postgresql://me@host/db?a=b"),
    ],
)
def test_an_override_sets_one_key(file: Path, override: str, read):
    assert read(load_settings(file, [override]))


def test_of_two_overrides_the_later_wins(file: Path):
    assert load_settings(file, ["study.seed=1", "study.seed=2"]).study.seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainings", "an override must be written key.subkey=value, but got 'trainings'"),
        ("=3", "an override must be written"),
        ("study..name=x", "an override must be written"),
        ("format.x=3", "format is a value, not a table"),
        ("study.trainnigs=3", r"unknown key `study.trainnigs`. Did you mean `trainings`\?"),
        ("study.trainings=many", "`study.trainings`"),
    ],
)
def test_a_wrong_override_is_refused(file: Path, override: str, message: str):
    with pytest.raises(InvalidSettings, match=message):
        load_settings(file, [override])


def test_a_missing_file_says_how_to_write_one(tmp_path: Path):
    with pytest.raises(InvalidSettings, match=r"no study file at .*absent.toml; write one with `condensery init"):
        load_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"format = = 1", b"\xff\xfe\x00", b"[study\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"bad\.toml"):
        load_settings(path)


def test_a_folder_instead_of_a_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidSettings, match="can't be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"space__groups": [1, 2]},
        {"training__epochs": 2},
        {"data__split_seed": 1},
        {"data__images": 500},
        {"budget__max_macs": 5000},
        {"budget__latency_statistic": "p90"},
        {"latency__policy": "quick"},
        {"latency__threads": 2},
        {"study__seed": 4},
    ],
)
def test_what_gives_results_their_meaning_is_frozen(change: dict[str, Any]):
    before, after = tiny_settings(), tiny_settings(**change)
    assert before.digest_of_frozen() != after.digest_of_frozen()
    assert "budget.latency_statistic" not in before.frozen_parts()  # as in studies that were begun without it
    (key,) = change
    differing = {name for name, value in after.frozen_parts().items() if value != before.frozen_parts().get(name)}
    assert differing == {key.replace("__", ".")}


@pytest.mark.parametrize(
    "change",
    [
        {"study__trainings": 40},
        {"study__files": "elsewhere"},
        {"study__storage": "sqlite:///other.db"},
        {"data__folder": "elsewhere"},
        {"data__download": True},
        {"search__sampler": "random"},
        {"engine__workers": 1},
        {"limits__trial_time_s": 60.0},
        {"retention__networks": "front"},
    ],
)
def test_what_only_says_how_to_get_there_may_change(change: dict[str, Any]):
    assert tiny_settings().digest_of_frozen() == tiny_settings(**change).digest_of_frozen()
    assert tiny_settings().digest() != tiny_settings(**change).digest()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training.learningrate", "Did you mean `learning_rate`?"),
        ("training.epoch", "Did you mean `epochs`?"),
        ("training.optimisation", "Valid: epochs, batch_size,"),
        ("training.gamma", "Valid: epochs, batch_size,"),
        ("space.layer", "Did you mean `layers`?"),
        ("space.width", "Valid: num_classes,"),
        ("engine.worker", "Did you mean `workers`?"),
        ("engine.gradient", "Valid: kind, workers,"),
    ],
)
def test_a_key_is_suggested_only_where_it_is_near(file: Path, key: str, hint: str):
    with pytest.raises(InvalidSettings) as refused:
        load_settings(file, [f"{key}=1"])
    assert f"unknown key `{key}`. {hint}" in str(refused.value)
