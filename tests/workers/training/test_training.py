"""Training is a function of its settings and seed, wherever it is interrupted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, deploy
from space.errors import InvalidSettings, TrainingFailed
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
from workers.training.loop import evaluate, learning_rate_at, train
from workers.training.reporting import CurveRow, TrainingStopped

STEPS = TRAINING.epochs * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def uninterrupted(images: ImageData, tmp_path_factory: pytest.TempPathFactory):
    recorder = Recorder()
    network, evaluation = train(training_run(tmp_path_factory.mktemp("whole")), images, recorder)
    return network, evaluation, recorder


def test_layers_that_are_computed_again_train_the_same_bits(images: ImageData, uninterrupted, tmp_path: Path):
    network, evaluation = train(training_run(tmp_path, recompute=True), images, Recorder())
    assert equal_tensors(network, uninterrupted[0])
    assert evaluation == uninterrupted[1]


def test_two_threads_resume_with_the_same_bits(images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.training.forward.LEAST_SHARED_MACS", 0)  # the network is too small for them else
    torch.set_num_threads(2)
    try:
        whole, _ = train(training_run(tmp_path / "whole"), images, Recorder())
        with pytest.raises(TrainingStopped):
            train(training_run(tmp_path / "parts"), images, Recorder(stop_at(STEPS_PER_EPOCH + 3)))
        resumed, _ = train(training_run(tmp_path / "parts"), images, Recorder())
    finally:
        torch.set_num_threads(1)
    assert equal_tensors(resumed, whole)


def timeless(rows: list[CurveRow]) -> list[CurveRow]:
    return [replace(row, seconds=0.0, images_per_s=None) for row in rows]


def merged(*attempts: list[CurveRow]) -> list[CurveRow]:
    """What the database holds after several attempts: the newest row of every epoch."""
    by_epoch = {row.epoch: row for rows in attempts for row in rows}
    return timeless([by_epoch[epoch] for epoch in sorted(by_epoch)])


def test_the_schedule_has_the_steps_that_these_tests_count_on(uninterrupted):
    assert uninterrupted[2].steps == STEPS


def test_two_runs_are_bitwise_equal(images: ImageData, uninterrupted, tmp_path: Path):
    again = Recorder()
    network, evaluation = train(training_run(tmp_path), images, again)
    assert equal_tensors(network, uninterrupted[0])
    assert evaluation == uninterrupted[1]
    assert timeless(again.rows) == timeless(uninterrupted[2].rows)


def test_another_seed_gives_another_network(images: ImageData, uninterrupted, tmp_path: Path):
    network, _ = train(training_run(tmp_path, seed=6), images, Recorder())
    assert not equal_tensors(network, uninterrupted[0])


@pytest.mark.parametrize("stops", [(0,), (1,), (5, 6), (8,), (9, 15, 20), (STEPS - 1,)])
def test_a_training_stopped_anywhere_and_resumed_ends_with_the_same_bits(
    images: ImageData, uninterrupted, tmp_path: Path, stops: tuple[int, ...]
):
    run, attempts, first = training_run(tmp_path), [], 0
    for stop in stops:
        recorder = Recorder(stop_at(stop), first)
        with pytest.raises(TrainingStopped):
            train(run, images, recorder)
        assert recorder.steps == stop - first  # no step is repeated after a stop on request
        attempts.append(recorder.rows)
        first = stop
    last = Recorder(first=first)
    network, evaluation = train(run, images, last)
    assert last.steps == STEPS - first
    assert equal_tensors(network, uninterrupted[0])
    assert evaluation == uninterrupted[1]
    assert [row.epoch for rows in attempts for row in rows] + [row.epoch for row in last.rows] == [1, 2, 3]
    assert merged(*attempts, last.rows) == timeless(uninterrupted[2].rows)


@pytest.mark.parametrize("died_at", [3, 11, 20])
def test_a_training_that_died_goes_on_from_its_last_checkpoint_with_the_same_bits(
    images: ImageData, uninterrupted, tmp_path: Path, died_at: int
):
    def die(step: int) -> None:
        if step == died_at:
            raise KeyboardInterrupt  # nothing is saved for it

    run = training_run(tmp_path, checkpoint_every_s=0.0)  # a checkpoint after every step
    before, after = Recorder(die), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(run, images, before)
    network, _ = train(run, images, after)
    assert after.steps == STEPS - died_at
    assert equal_tensors(network, uninterrupted[0])
    assert merged(before.rows, after.rows) == timeless(uninterrupted[2].rows)
    assert merged(after.restored, after.rows) == timeless(uninterrupted[2].rows)  # no one received the first attempt's


def test_images_a_second_are_those_of_the_steps_alone(images: ImageData, tmp_path: Path):
    time_s = [0.0]

    def step(_: int) -> None:
        time_s[0] += 0.25

    class Slow(ImageData):
        @property
        def validation(self) -> Split:
            time_s[0] += 1000.0
            return images.validation

        @validation.setter
        def validation(self, split: Split) -> None: ...

    recorder = Recorder(step)
    slow = Slow(images.info, images.train, images.validation, images.test())
    train(training_run(tmp_path, clock=lambda: time_s[0]), slow, recorder)
    assert [row.images_per_s for row in recorder.rows] == [128 / 0.25] * 3
    assert recorder.rows[-1].seconds > 3000


def test_a_training_says_how_far_it_is_about_once_a_second_between_its_epochs(images: ImageData, tmp_path: Path):
    time_s = [0.0]

    def step(_: int) -> None:
        time_s[0] += 0.4

    recorder = Recorder(step)
    train(training_run(tmp_path, clock=lambda: time_s[0]), images, recorder)
    assert [round(report.progress * STEPS) for report in recorder.reports] == [3, 6, 9, 12, 15, 18, 21]
    assert [report.images_per_s for report in recorder.reports] == pytest.approx([128 / 0.4] * 7)
    assert [report.seconds for report in recorder.reports] == pytest.approx([1.2 * n for n in range(1, 8)])
    assert recorder.reports[1].left_s == pytest.approx(0.4 * 18)


@pytest.mark.parametrize("stop", [4, 8, 11, STEPS - 1])
def test_images_a_second_of_an_epoch_count_all_attempts_at_it(images: ImageData, tmp_path: Path, stop: int):
    time_s = [0.0]

    def step(number: int) -> None:
        if number == stop:
            raise TrainingStopped
        time_s[0] += 0.25

    def later(number: int) -> None:
        time_s[0] += 0.5

    run = training_run(tmp_path, clock=lambda: time_s[0])
    first, second = Recorder(step), Recorder(later, stop)
    with pytest.raises(TrainingStopped):
        train(run, images, first)
    train(run, images, second)
    rates = {row.epoch: row.images_per_s for row in (*first.rows, *second.rows)}
    for epoch, rate in rates.items():
        fast = sum(step < stop for step in range((epoch - 1) * STEPS_PER_EPOCH, epoch * STEPS_PER_EPOCH))
        assert rate == pytest.approx(8 * 128 / (0.25 * fast + 0.5 * (8 - fast)))


def test_a_training_that_died_before_any_checkpoint_begins_anew(images: ImageData, uninterrupted, tmp_path: Path):
    def die(step: int) -> None:
        if step == 12:
            raise KeyboardInterrupt

    before, after = Recorder(die), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(training_run(tmp_path), images, before)
    network, _ = train(training_run(tmp_path), images, after)
    assert after.steps == STEPS
    assert equal_tensors(network, uninterrupted[0])
    assert merged(before.rows, after.rows) == timeless(uninterrupted[2].rows)


def test_a_finished_training_that_is_run_again_does_no_step_and_gives_the_same_network(
    images: ImageData, uninterrupted, tmp_path: Path
):
    train(training_run(tmp_path), images, Recorder())
    again = Recorder()
    network, evaluation = train(training_run(tmp_path), images, again)
    assert again.steps == 0
    assert equal_tensors(network, uninterrupted[0])
    assert evaluation == uninterrupted[1]
    assert timeless(again.rows) == timeless(uninterrupted[2].rows[-1:])


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(0, 2 * STEPS_PER_EPOCH - 1), seed=st.integers(0, 3), lasso=st.sampled_from([0.0, 1e-3]))
def test_dropout_augmentation_and_a_cut_classifier_resume_with_the_same_bits_too(
    images: ImageData, tmp_path_factory: pytest.TempPathFactory, stop: int, seed: int, lasso: float
):
    values = {
        "config": CondenseNetConfig(**{**NET.to_dict(), "dropout": 0.3, "classifier_keep": 0.5}),
        "training": TRAINING.model_copy(update={"epochs": 2, "group_lasso": lasso, "label_smoothing": 0.1}),
        "data": DIGITS.model_copy(update={"crop_padding": 1, "flip": True}),
        "seed": seed,
    }
    whole, _ = train(training_run(tmp_path_factory.mktemp("whole"), **values), images, Recorder())
    run = training_run(tmp_path_factory.mktemp("parts"), **values)
    with pytest.raises(TrainingStopped):
        train(run, images, Recorder(stop_at(stop)))
    torch.rand(3)  # whatever happened to the process's generator meanwhile
    resumed, _ = train(run, images, Recorder())
    assert equal_tensors(resumed, whole)


def test_every_step_has_dropout_masks_of_its_own(images: ImageData, tmp_path: Path):
    seeds = []
    config = CondenseNetConfig(**{**NET.to_dict(), "dropout": 0.3})
    watcher = Recorder(lambda step: seeds.append(torch.initial_seed()))
    train(training_run(tmp_path, config=config), images, watcher)
    assert len(set(seeds)) == STEPS


def test_the_curve_goes_from_the_training_form_over_the_condensed_to_the_deployed_network(
    images: ImageData, tmp_path: Path
):
    recorder = Recorder()
    run = training_run(tmp_path, training=TRAINING.model_copy(update={"epochs": 5}))
    network, evaluation = train(run, images, recorder)
    forms = [row.form for row in recorder.rows]
    assert forms == ["training", "training", "condensed", "condensed", "deployed"]  # condensed by half of the schedule
    assert [row.epoch for row in recorder.rows] == [1, 2, 3, 4, 5]
    assert [row.condensing_stage for row in recorder.rows] == [1, 2, 3, 3, 3]
    assert [row.progress for row in recorder.rows] == [0.2, 0.4, 0.6, 0.8, 1.0]
    last = recorder.rows[-1]
    remeasured = evaluate(network, images.validation, images.info, torch.device("cpu"))
    assert (last.val_top1, last.val_loss) == (remeasured.top1, remeasured.loss) == (evaluation.top1, evaluation.loss)
    assert remeasured.images == len(images.validation) == 287


def test_with_a_pruned_classifier_the_last_row_is_the_deployed_networks_accuracy(images: ImageData, tmp_path: Path):
    config = CondenseNetConfig(**{**NET.to_dict(), "classifier_keep": 0.5})
    recorder = Recorder()
    network, evaluation = train(training_run(tmp_path, config=config), images, recorder)
    remeasured = evaluate(network, images.validation, images.info, torch.device("cpu"))
    assert recorder.rows[-1].val_top1 == evaluation.top1 == remeasured.top1
    assert recorder.rows[-1].val_loss == evaluation.loss == remeasured.loss


@pytest.mark.slow
def test_training_learns_the_digits(images: ImageData, tmp_path: Path):
    values = {"epochs": 8, "batch_size": 64, "learning_rate": 0.2}
    config = CondenseNetConfig(**{**NET.to_dict(), "stages": [2, 2], "growth": [8, 8]})
    run = training_run(tmp_path, config=config, training=TRAINING.model_copy(update=values))
    _, evaluation = train(run, images, Recorder())
    assert evaluation.top1 > 0.85  # 0.1 by chance


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [128, 2000])  # eight steps, and a single one that jumps over every stage
def test_a_single_epoch_condenses_to_the_last_stage(images: ImageData, tmp_path: Path, factor: int, batch_size: int):
    config = CondenseNetConfig(**{**NET.to_dict(), "condense_factor": factor})
    schedule = TRAINING.model_copy(update={"epochs": 1, "batch_size": batch_size})
    recorder = Recorder()
    network, _ = train(training_run(tmp_path, config=config, training=schedule), images, recorder)
    assert [(row.condensing_stage, row.form) for row in recorder.rows] == [(factor - 1, "deployed")]
    kept = [layer.in_channels // factor for layer in network.layers]
    assert [len(layer.conv_1x1.index) for layer in network.layers] == [config.groups * count for count in kept]


def test_a_loss_that_is_no_number_ends_the_training_and_names_the_step(images: ImageData, tmp_path: Path):
    wild = TRAINING.model_copy(update={"learning_rate": 100.0, "momentum": 0.99, "weight_decay": 1.0, "epochs": 40})
    with pytest.raises(TrainingFailed, match=r"loss became (nan|inf) (by|at) step \d+ of 320.*smaller learning rate"):
        train(training_run(tmp_path, training=wild), images, Recorder())


def test_no_row_of_a_curve_ever_holds_a_loss_that_is_no_number(images: ImageData, tmp_path: Path):
    wild = TRAINING.model_copy(update={"learning_rate": 100.0, "momentum": 0.99, "weight_decay": 1.0, "epochs": 40})
    recorder = Recorder()
    with pytest.raises(TrainingFailed):
        train(training_run(tmp_path, training=wild), images, recorder)
    assert all(math.isfinite(row.train_loss) and math.isfinite(row.val_loss) for row in recorder.rows)


def test_an_observer_can_end_a_training_for_good_without_a_checkpoint(images: ImageData, tmp_path: Path):
    def over_time(step: int) -> None:
        if step == 4:
            raise TrainingFailed("over its time")

    with pytest.raises(TrainingFailed, match="over its time"):
        train(training_run(tmp_path), images, Recorder(over_time))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [1, 7, STEPS // 2, STEPS // 2 + 1])
def test_the_lasso_changes_the_loss_only_while_columns_are_condensed(images: ImageData, tmp_path: Path, stop: int):
    """From the same checkpoint, one step with and one without the lasso differ exactly while condensing goes on."""
    networks = []
    for lasso in (0.0, 0.5):
        folder = tmp_path / str(lasso)
        with pytest.raises(TrainingStopped):
            train(training_run(folder), images, Recorder(stop_at(stop)))
        schedule = TRAINING.model_copy(update={"group_lasso": lasso})
        one_more = Recorder(stop_at(stop + 1), stop)
        with pytest.raises(TrainingStopped):
            train(training_run(folder, training=schedule), images, one_more)
        assert one_more.steps == 1
        networks.append((folder / f"checkpoint-{stop + 1:09d}.safetensors").read_bytes())
    assert (networks[0] == networks[1]) == (stop >= STEPS // 2)


def test_the_learning_rate_is_a_cosine_from_its_full_value_towards_zero():
    assert learning_rate_at(0, 100, 0.2) == 0.2
    assert learning_rate_at(50, 100, 0.2) == pytest.approx(0.1)
    assert learning_rate_at(100, 100, 0.2) == pytest.approx(0.0, abs=1e-12)
    rates = [learning_rate_at(step, 100, 0.2) for step in range(101)]
    assert rates == sorted(rates, reverse=True)
    assert rates[25] == pytest.approx(0.5 * 0.2 * (1 + math.cos(math.pi / 4)))


def test_the_curve_reports_the_rate_of_each_epochs_last_step(uninterrupted):
    rates = [row.learning_rate for row in uninterrupted[2].rows]
    assert rates == [learning_rate_at(step, STEPS, 0.1) for step in (7, 15, 23)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_first_loss_is_the_smoothed_cross_entropy_of_the_initial_network(
    images: ImageData, tmp_path: Path, smoothing: float
):
    schedule = TRAINING.model_copy(update={"label_smoothing": smoothing, "epochs": 1, "batch_size": 2000})
    run = training_run(tmp_path, training=schedule)
    recorder = Recorder()
    train(run, images, recorder)
    torch.manual_seed(run.seed)
    model = CondenseNet(run.config).train()
    x, y = TrainingBatches(images.train, images.info, run.data, 2000, run.seed).batch(0)
    log_p = F.log_softmax(model(x, progress=0.0), 1)
    target = F.one_hot(y, 10) * (1 - smoothing) + smoothing / 10
    assert recorder.rows[0].train_loss == pytest.approx(-(target * log_p).sum(1).mean().item(), rel=1e-5)


def test_evaluating_leaves_the_network_in_the_mode_it_was_in(images: ImageData):
    model = CondenseNet(NET).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, images.validation, images.info, torch.device("cpu"))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class DoubledFeatures(CondenseNet):
    """A variation that only torch can run."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().features(x)


class DeployedDoubledFeatures(DeployedCondenseNet):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().features(x)


def deployed_variation(network: CondenseNet) -> DeployedCondenseNet:
    deployed = DeployedDoubledFeatures(network.config)
    deployed.load_state_dict(deploy(network).state_dict())
    return deployed


def test_a_variation_of_the_network_is_trained_in_torch_and_deployed_by_its_own_means(images, tmp_path):
    notes: list[str] = []
    run = training_run(tmp_path, build=DoubledFeatures, deploy=deployed_variation, note=notes.append)
    network, evaluation = train(run, images, Recorder())
    assert isinstance(network, DeployedDoubledFeatures)
    again = evaluate(network, images.validation, images.info, torch.device("cpu"))
    assert (evaluation.loss, evaluation.metrics) == (again.loss, again.metrics)
    assert "by torch" in notes[0]
    assert "it knows no DoubledFeatures" in notes[0]
    with pytest.raises(InvalidSettings, match="it knows no DoubledFeatures"):
        train(replace(run, kernel="compiled"), images, Recorder())
