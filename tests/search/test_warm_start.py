"""Warm starts: what a sampler takes of an earlier study, of ours or Optuna's, and that it is belief alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.samplers.observations import Observation
from search.samplers.proposer import Proposer
from search.store import reader
from search.store.connection.database import open_for_reading
from search.study_file import load_replay, settings_from
from search.warm_start import FILE, described, keep, kept, pinned, read_warm_start
from space.cost import cost_of
from space.errors import CheckpointCorrupt, FrozenSettings, InvalidSettings, StudyNotFound
from tests.search.tiny_studies import Bench, document, sqlite_url, tiny_settings
from workers.files import file_hash


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("earlier"), study__trainings=8)
    assert bench.run() == "finished"
    yield bench
    bench.close()


def named(name: str, **changes: object):
    return tiny_settings(study__name="next", search__warm_start=name, **changes)


def test_the_networks_of_an_earlier_study_are_taken_with_their_scores(earlier: Bench):
    warm = read_warm_start(named("tiny"), earlier.url, {})
    assert warm is not None
    assert warm.taken == len(earlier.done()) == 8
    kept_there = json.loads(warm.content)["observations"]
    space = named("tiny").search_space()
    for row, (params, score) in zip(earlier.done(), kept_there, strict=True):
        assert space.from_params(params) == row.config
        assert score == row.top1
    assert warm.setting.startswith("tiny#")
    assert described(warm) == ["the sampler begins with 8 networks of tiny"]
    elsewhere = read_warm_start(named(f"tiny@{earlier.folder / 'study.db'}"), "sqlite:///none.db", {"fingerprint": "x"})
    assert elsewhere is not None
    assert elsewhere.content == warm.content
    assert "the images of tiny are others, so its accuracies may mislead the sampler" in elsewhere.doubts


def test_what_lies_outside_the_space_is_left_out_and_said(earlier: Bench):
    settings = named("tiny", space={**document()["space"], "groups": [1, 2]}, training={"epochs": 2})
    warm = read_warm_start(settings, earlier.url, {})
    assert warm is not None
    inside = [row for row in earlier.done() if row.config.groups < 4]
    assert 0 < warm.taken == len(inside) < 8
    assert warm.left_out == {"its network lies outside the space": 8 - len(inside)}
    assert "were trained by other settings" in described(warm)[2]
    with pytest.raises(
        InvalidSettings, match=r"none of its trials can be taken \(8: its network lies outside the space\)"
    ):
        read_warm_start(named("tiny", space={**document()["space"], "growth": [8]}), earlier.url, {})


def test_an_optuna_study_is_taken_where_its_trials_name_networks_of_the_space(tmp_path: Path):
    url = sqlite_url(tmp_path)
    study = optuna.create_study(study_name="plain", storage=url, direction="maximize")
    space = named("plain").search_space()
    whole = {name: domain.extremes()[0] for name, domain in space.domains.items()}
    distributions = {
        name: optuna.distributions.CategoricalDistribution([value, "other"]) for name, value in whole.items()
    }
    config = space.from_params(whole)
    given = {name: value for name, value in whole.items() if name in space.to_params(config)}
    trials = [(given, 0.75), ({**given, "groups": "other"}, 0.5), ({"groups": given["groups"]}, 0.5), (given, 75.0)]
    for params, value in trials:
        used = {name: distributions[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=used, value=value))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    before = file_hash(tmp_path / "study.db")
    warm = read_warm_start(named("plain"), url, {})
    assert file_hash(tmp_path / "study.db") == before
    assert warm is not None
    ((params, score),) = json.loads(warm.content)["observations"]
    assert (space.from_params(params), score) == (config, 0.75)
    assert warm.left_out == {
        "its parameters are no network of the space": 2,
        "its value is no fraction from 0 to 1": 1,
        "it is fail": 1,
    }
    optuna.create_study(study_name="two", storage=url, directions=["maximize", "maximize"])
    with pytest.raises(InvalidSettings, match="but 2 are; name its metrics by set_metric_names"):
        read_warm_start(named("two"), url, {})


def test_what_names_no_study_and_samplers_that_cant_use_it_are_refused(earlier: Bench, tmp_path: Path):
    with pytest.raises(StudyNotFound, match="holds no study of this name"):
        read_warm_start(named("nothing"), earlier.url, {})
    with pytest.raises(StudyNotFound, match="there is no database"):
        read_warm_start(named(f"tiny@{tmp_path / 'none.db'}"), earlier.url, {})
    with pytest.raises(InvalidSettings, match=r"for the price-aware sampler, but search\.sampler is 'tpe'"):
        read_warm_start(named("tiny", search__sampler="tpe"), earlier.url, {})
    for wrong in ("", "@x", "tiny@postgresql://me:T0KEN@host/db"):
        with pytest.raises(InvalidSettings, match=r"search\.warm_start") as error:
            settings_from(document(search={"warm_start": wrong}), "study.toml")
        assert "T0KEN" not in str(error.value)


def test_a_study_without_a_warm_start_is_as_it_was():
    assert "warm_start" not in json.dumps(tiny_settings().model_dump(mode="json"))
    assert named("tiny").digest_of_frozen() == tiny_settings().digest_of_frozen()


# --- the sampler ------------------------------------------------------------------------------------------------


def observations(score_of) -> list[Observation]:
    """Every network of the tiny space with a made-up score."""
    space = tiny_settings().search_space()
    proposer = Proposer(tiny_settings())
    found = {}
    for number in range(300):
        config = space.sample(np.random.default_rng(number))
        found[config] = Observation(
            {name: value for name, value in space.to_params(config).items() if name in proposer.distributions},
            score_of(config),
        )
    return list(found.values())


def test_the_sampler_believes_what_it_is_told_and_proposes_the_same_networks():
    settings = tiny_settings(search={"startup": 6})
    for favourite in (1, 4):
        told = observations(lambda config: 0.9 if config.groups == favourite else 0.2)  # noqa: B023
        proposed = [Proposer(settings, told).ask(None).config]
        assert proposed[0].groups == favourite  # without a training, and though it was observed
        assert Proposer(settings, told).ask(None).config == proposed[0]  # the same after a resume
    first = Proposer(settings).ask(None)
    assert first.proposal is not None
    assert str(first.proposal.reason) == "spread"
    assert cost_of(first.config).macs > 0


# --- launches ---------------------------------------------------------------------------------------------------


class Notes(SilentCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_a_file_that_changed_is_refused(earlier: Bench, tmp_path: Path):
    warm = read_warm_start(named("tiny"), earlier.url, {})
    assert warm is not None
    keep(tmp_path, warm)
    setting = pinned(named("tiny"), warm).search.warm_start
    assert len(kept(tmp_path, setting)) == 8
    (tmp_path / FILE).write_bytes(warm.content + b" ")
    with pytest.raises(CheckpointCorrupt, match="what the study's sampler began with, but is gone or changed"):
        kept(tmp_path, setting)


@pytest.mark.slow
def test_a_launch_begins_with_an_earlier_study_and_goes_on_with_it(tmp_path: Path):
    url = sqlite_url(tmp_path)

    def run(name: str, trainings: int, resume: bool, *more: str) -> list[str]:
        told = [f"study.name={name}", f"study.files={tmp_path / 'files'}", f"study.trainings={trainings}", *more]
        notes = Notes()
        assert launch(load_replay("condensebench", None, told), url, resume, notes).ending == "finished"
        return notes.texts

    run("first", 8, False)
    texts = run("second", 3, False, "search.warm_start=first")
    assert "the sampler begins with 8 networks of first" in texts
    engine = open_for_reading(url)
    study = reader.find_study(engine, "second")
    assert study.settings["search"]["warm_start"].startswith("first#")
    rows = reader.read_trials(engine, study.id)
    assert not any(str(proposal.reason) == "spread" for proposal in reader.read_proposals(engine, study.id).values())
    assert len([row for row in rows if row.state == "done"]) == 3
    (tmp_path / "files" / "second" / FILE).unlink()  # the earlier study still says the same
    run("second", 4, True)
    with pytest.raises(FrozenSettings, match=r"began with that of 'first', so it can't get another one"):
        run("second", 5, True, "search.warm_start=other")
    with pytest.raises(FrozenSettings, match="began without a warm start"):
        run("first", 9, True, "search.warm_start=second")
    engine.dispose()
