"""The figures of a network, held to scikit-learn's on predictions of every kind."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import calibration
from sklearn import metrics as reference

from workers import metrics
from workers.metrics import METRICS, Predictions, PredictionTally


def made_up(images: int, classes: int, seed: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a network that is somewhat better than chance, on classes of different sizes."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(2.5 / (classes + 2), images) - 1, classes - 1)
    logits = rng.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += skill
    return logits.astype(np.float32), labels


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(2, 14), st.integers(0, 2**31), st.floats(-2, 4))
def test_every_figure_is_that_of_scikit_learn(images: int, classes: int, seed: int, skill: float) -> None:
    logits, labels = made_up(images, classes, seed, skill)
    predicted, seen = logits.argmax(1), np.unique(labels)
    found = Predictions.of(logits, labels)
    figures = found.metrics()
    assert figures["top1"] == pytest.approx(reference.accuracy_score(labels, predicted))
    macro_f1 = reference.f1_score(labels, predicted, labels=seen, average="macro", zero_division=0)
    assert figures["macro_f1"] == pytest.approx(macro_f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of predicted classes that no image has
        assert figures["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert (found.confusion == reference.confusion_matrix(labels, predicted, labels=range(classes))).all()
    precision, recall, _, _ = reference.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=np.nan
    )
    np.testing.assert_allclose(metrics.recalls(found.confusion), recall)
    np.testing.assert_allclose(metrics.precisions(found.confusion), precision)
    if classes < 10:
        assert figures["top5"] is None
    else:
        top5 = reference.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
        assert figures["top5"] == pytest.approx(top5)


def test_the_calibration_error_weighs_scikit_learns_curve_by_its_bins() -> None:
    logits, labels = made_up(2000, 6, 5)
    odds = np.exp(logits.astype(np.float64))
    confidence, right = (odds / odds.sum(1, keepdims=True)).max(1), logits.argmax(1) == labels
    accuracies, means = calibration.calibration_curve(right, confidence, n_bins=15)
    shares = np.histogram(confidence, np.linspace(0, 1, 16))[0] / len(labels)
    expected = (shares[shares > 0] * np.abs(accuracies - means)).sum()
    assert Predictions.of(logits, labels).metrics()["calibration_error"] == pytest.approx(expected)


def test_a_network_without_an_opinion_gets_what_its_one_class_gets() -> None:
    labels = np.repeat(np.arange(12), 5)
    figures = Predictions.of(np.zeros((60, 12), np.float32), labels).metrics()
    assert figures["top1"] == figures["balanced_accuracy"] == pytest.approx(1 / 12)
    assert figures["top5"] == pytest.approx(5 / 12)
    assert figures["calibration_error"] == pytest.approx(0.0)


def test_batches_are_counted_as_one_split_whatever_their_sizes() -> None:
    logits, labels = made_up(100, 5, 3)
    tally = PredictionTally(5)
    for start in range(0, 100, 33):
        tally.add(logits[start : start + 33], labels[start : start + 33])
    in_parts, whole = tally.predictions(), Predictions.of(logits, labels)
    assert (in_parts.predicted == whole.predicted).all()
    assert (in_parts.right == whole.right).all()
    assert in_parts.metrics() == pytest.approx(whole.metrics())


def test_two_networks_predictions_are_of_the_same_images_in_the_same_places() -> None:
    logits, labels = made_up(200, 4, 1)
    order = np.argsort(labels, kind="stable")
    found = Predictions.of(logits, labels)
    assert (found.labels == labels[order]).all()
    assert (found.right == (logits.argmax(1) == labels)[order]).all()


@pytest.mark.parametrize("classes", [3, 300])
def test_predictions_are_read_back_as_they_were_written_without_pickle(classes: int) -> None:
    found = Predictions.of(*made_up(500, classes, 2))
    content = found.to_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)
    read = Predictions.from_bytes(content)
    assert (read.predicted == found.predicted).all()
    assert (read.labels == found.labels).all()
    assert read.metrics() == found.metrics()
    assert read.to_bytes() == content


def test_predictions_of_ten_thousand_images_take_little_room() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 10_000)
    logits = rng.normal(0, 1, (10_000, 10)).astype(np.float32)
    logits[np.arange(10_000), labels] += 4.5
    found = Predictions.of(logits, labels)
    assert 0.9 < (found.metrics()["top1"] or 0) < 1.0
    assert len(found.to_bytes()) < 5_000


@pytest.mark.parametrize("content", [b"", b"no file of ours", Predictions.of(*made_up(50, 3, 0)).to_bytes()[:200]])
def test_damaged_predictions_are_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        Predictions.from_bytes(content)


def test_of_no_images_nothing_is_said() -> None:
    empty = Predictions.of(np.zeros((0, 10), np.float32), np.zeros(0, np.int64))
    assert empty.metrics() == dict.fromkeys(METRICS)
    assert len(Predictions.from_bytes(empty.to_bytes())) == 0
