"""What the settings beyond the paper's recipe do, one by one, and that all of them resume with the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from space.network import CondenseNet
from tests.workers.tiny import (
    DIGITS,
    NET,
    STEPS_PER_EPOCH,
    TRAINING,
    Recorder,
    equal_tensors,
    stop_at,
    training_run,
)
from workers.images.batches import ImageData, Split, TrainingBatches
from workers.images.resident import ResidentBatches, batches_on
from workers.settings import TrainingSettings
from workers.training.loop import train
from workers.training.optimizer import WeightAverage, class_weights, clear_gradients, optimizer_of, take_step
from workers.training.reporting import TrainingStopped
from workers.training.schedule import learning_rate_at

ROOT = Path(__file__).parents[3]
EVERYTHING = {
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "warmup": 0.2,
    "average": 0.9,
    "balance": "sampling",
    "mixup": 0.2,
    "cutmix": 1.0,
    "crop_scale": 0.6,
    "rotation": 10.0,
    "colour": 0.3,
    "randaugment": 5,
    "label_smoothing": 0.1,
}


def batches(images: ImageData, split: Split | None = None, **recipe) -> TrainingBatches:
    plain = DIGITS.model_copy(update={"crop_padding": 0, "flip": False})
    return TrainingBatches(split or images.train, images.info, plain, 32, 5, TrainingSettings(**recipe))


def uneven(images: ImageData) -> Split:
    """A split of which class 0 is nearly all, and class 3 absent."""
    labels = images.train.labels
    places = np.concatenate([np.flatnonzero(labels == 0), *(np.flatnonzero(labels == c)[:2] for c in (1, 2, 4, 5))])
    return Split(images.train.images, images.train.places[places], labels[places])


# ---- images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["crop_scale", "rotation", "randaugment"])
def test_each_image_is_changed_by_a_chance_of_its_own(images, name):
    plain, changed = batches(images).batch(3), batches(images, **{name: EVERYTHING[name]}).batch(3)
    assert torch.equal(plain[1], changed[1])
    assert plain[0].shape == changed[0].shape
    differ = (plain[0] != changed[0]).flatten(1).any(1)
    assert differ.sum() > 16
    again = batches(images, **{name: EVERYTHING[name]}).batch(3)
    assert torch.equal(changed[0], again[0])
    assert not torch.equal(changed[0], batches(images, **{name: EVERYTHING[name]}).batch(4)[0])


def test_one_image_twice_in_a_batch_is_changed_in_two_ways(images):
    twice = Split(images.train.images, np.repeat(images.train.places[:1], 32), np.repeat(images.train.labels[:1], 32))
    x, _ = batches(images, twice, rotation=30.0).batch(0)
    assert len(x.unique(dim=0)) > 16


def test_colour_changes_the_brightness_of_an_image(images):
    plain, changed = batches(images).batch(0)[0], batches(images, colour=0.5).batch(0)[0]
    ratio = changed.std((1, 2, 3)) / plain.std((1, 2, 3))
    assert float(ratio.max() / ratio.min()) > 1.2


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_blended_images_have_the_classes_shares_as_labels(images, name):
    x, shares = batches(images, **{name: 1.0}).batch(0)
    assert shares.shape == (32, images.info.num_classes)
    assert torch.allclose(shares.sum(1), torch.ones(32))
    assert int((shares > 0).sum(1).max()) == 2
    assert x.dtype == torch.float32


def test_a_batch_is_blended_in_one_of_two_ways_where_both_are_on(images):
    both, ways = batches(images, mixup=1.0, cutmix=1.0), set()
    for step in range(12):
        x, _ = both.batch(step)
        source = batches(images).batch(step)[0]
        ways.add("cutmix" if float((x == source).float().mean()) > 0.2 and torch.isin(x, source).all() else "mixup")
    assert ways == {"cutmix", "mixup"}


def test_what_is_drawn_leaves_torchs_generator_alone(images):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    batches(images, mixup=1.0, rotation=10.0).batch(0)
    assert torch.equal(torch.rand(3), expected)


def test_without_these_settings_batches_are_as_they_were(images):
    plain = TrainingBatches(images.train, images.info, DIGITS, 32, 5)
    with_recipe = TrainingBatches(images.train, images.info, DIGITS, 32, 5, TrainingSettings())
    assert all(torch.equal(one, other) for one, other in zip(plain.batch(7), with_recipe.batch(7), strict=True))
    assert not with_recipe.variation


def test_a_gpu_makes_only_plain_batches_itself(images, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    monkeypatch.setattr(ResidentBatches, "__init__", lambda self, batches, device: None)
    gpu = torch.device("cuda")
    assert isinstance(batches_on(gpu, batches(images)), ResidentBatches)
    varied = batches(images, rotation=5.0)
    assert batches_on(gpu, varied) is varied


def test_balanced_sampling_shows_each_class_as_often(images):
    drawn = batches(images, uneven(images), balance="sampling")
    labels = torch.cat([drawn.batch(step)[1] for step in range(40)])
    counts = torch.bincount(labels, minlength=10)
    assert counts[3] == 0
    assert float(counts[counts > 0].min() / counts.max()) > 0.6
    assert counts[torch.tensor([0, 1, 2, 4, 5])].sum() == len(labels)


# ---- steps ----------------------------------------------------------------------------------------------


def test_class_weights_are_scikit_learns(images):
    labels = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights(labels, 3, torch.device("cpu")).tolist() == pytest.approx(expected.tolist())


def test_the_learning_rate_rises_in_the_first_steps_only():
    rates = [learning_rate_at(step, 100, 0.1, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.01, rel=0.01)
    assert max(rates) == rates[9]
    assert rates[10:] == [learning_rate_at(step, 100, 0.1) for step in range(10, 100)]


def test_adamw_has_the_settings_of_the_study():
    settings = TrainingSettings(optimizer="adamw", momentum=0.8, weight_decay=0.05)
    group = optimizer_of(list(CondenseNet(NET).parameters()), settings).param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.999), 0.05)


def test_the_average_follows_the_weights_and_is_exchanged_where_they_are():
    network = CondenseNet(NET)
    average, where = WeightAverage(network, 0.5), network.classifier.weight.data_ptr()
    before = network.classifier.weight.detach().clone()
    with torch.no_grad():
        network.classifier.weight += 1.0
    average.update(100)
    with average.in_place():
        assert torch.allclose(network.classifier.weight, before + 0.5)
        assert network.classifier.weight.data_ptr() == where
    assert torch.allclose(network.classifier.weight, before + 1.0)
    assert not any("mask" in name for name in average.tensors)
    assert any("running_var" in name for name in average.tensors)


def test_the_averaged_network_is_what_is_judged_and_deployed(images, tmp_path: Path):
    plain, _ = train(training_run(tmp_path / "plain"), images, Recorder())
    run = training_run(tmp_path / "average", training=TRAINING.model_copy(update={"average": 0.99}))
    averaged, evaluation = train(run, images, recorder := Recorder())
    assert not equal_tensors(plain, averaged)
    assert recorder.rows[-1].val_top1 == evaluation.top1


@pytest.mark.parametrize(
    "recipe", [EVERYTHING, {"balance": "weights", "average": 0.9, "mixup": 0.2}], ids=["everything", "weights"]
)
def test_a_training_by_any_recipe_resumes_with_the_same_bits(images, tmp_path: Path, recipe):
    training = TRAINING.model_copy(update={"epochs": 2, **recipe})
    whole, _ = train(training_run(tmp_path / "whole", training=training), images, Recorder())
    run = training_run(tmp_path / "parts", training=training)
    with pytest.raises(TrainingStopped):
        train(run, images, Recorder(stop_at(STEPS_PER_EPOCH + 2)))
    resumed, _ = train(run, images, Recorder())
    assert equal_tensors(resumed, whole)


def test_settings_that_are_left_alone_are_not_written_and_change_no_identity():
    assert set(TrainingSettings().model_dump()) == {
        "epochs",
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "group_lasso",
        "label_smoothing",
        "mixed_precision",
    }
    assert TrainingSettings(mixup=0.2).model_dump()["mixup"] == 0.2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_is_that_of_the_optimizer_itself(optimizer):
    settings = TrainingSettings(optimizer=optimizer, learning_rate=0.01)
    mine, theirs = CondenseNet(NET), CondenseNet(NET)
    theirs.load_state_dict(mine.state_dict())
    steps = [optimizer_of(list(network.parameters()), settings) for network in (mine, theirs)]
    for number in range(3):
        for network in (mine, theirs):
            for place, parameter in enumerate(network.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (number + 1) + place)
        take_step(steps[0])
        steps[1].step()
    assert equal_tensors(mine, theirs)
    clear_gradients(mine)
    assert not any(parameter.grad.any() for parameter in mine.parameters())


TRAINS = """
import sys
from pathlib import Path
from tests.workers.tiny import TRAINING, Recorder, digits, job
from workers.training.trial import run_trial
folder = Path(sys.argv[1])
digits(folder / "cache")
class Reporter:
    def earlier(self, rows): pass
    def curve(self, row): pass
    def under_way(self, report): pass
    def check(self): pass
made = job(folder / "trial", folder / "cache", training=TRAINING.model_copy(update={"epochs": 1}))
assert run_trial(made, Reporter()).top1 > 0
print(*sorted({name.partition(".")[2] for name in sys.modules if name.startswith("torch._dynamo")}))
"""


@pytest.mark.slow
def test_a_worker_never_loads_torchs_compiler(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
