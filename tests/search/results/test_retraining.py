"""A picked network trained again on all images but the test split's, as a study of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.results.picking.retraining import retraining_settings
from search.store import reader
from space.config import CondenseNetConfig
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from workers.images import batches
from workers.images.cache import prepare
from workers.settings import DataSettings
from workers.training.job import trial_identity


def test_training_images_take_in_the_validation_images_and_nothing_else_changes(tmp_path: Path):
    plain, whole = DataSettings(), DataSettings(with_validation=True)
    before, after = prepare(plain, tmp_path), prepare(whole, tmp_path)
    assert (after.mean, after.fingerprint) == (before.mean, before.fingerprint)
    assert "trained on the validation images too" in after.notes[-1]
    apart, joined = batches.load(plain, tmp_path), batches.load(whole, tmp_path)
    assert np.array_equal(joined.train.places, np.sort(np.r_[apart.train.places, apart.validation.places]))
    assert np.array_equal(joined.test().places, apart.test().places)
    assert not np.isin(joined.test().places, joined.train.places).any()


def test_the_study_that_retrains_holds_that_network_alone_and_is_named_by_what_it_does(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    study, row, settings = (
        reader.find_study(store.engine, "tiny"),
        store.trial(0),
        tiny_settings(budget={"max_macs": 1}),
    )
    plain = retraining_settings(study, row, settings, None, False)
    assert (plain.study.name, plain.study.retrains, plain.study.trainings) == ("tiny-retrained-0", "tiny/0", 1)
    assert plain.budget.max_macs is None  # a latency that is measured anew must not refuse it
    space = plain.search_space()
    assert space.size == 1
    assert CondenseNetConfig.from_dict(space.sample(np.random.default_rng(0)).to_dict()) == row.config
    longer = retraining_settings(study, row, settings, 30, True)
    assert longer.study.name == "tiny-retrained-0-30-epochs-from-weights"
    assert longer.training_space().fixed.epochs == 30
    assert longer.training_space().fixed.start == "trial:tiny/0"
    identities = {
        trial_identity(row.config, one.training_space().fixed, one.data, 0) for one in (settings, plain, longer)
    }
    assert len(identities) == 3
    store.engine.dispose()
