"""A network in training begins with the layers of a trained one: which fit, what they compute, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import safetensors.torch
import torch

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet, DeployedLayer, deploy
from space.errors import CheckpointCorrupt, DataNotFound
from space.network import CondenseNet, DenseLayer
from tests.workers.tiny import (
    NET,
    STEPS_PER_EPOCH,
    TRAINING,
    Recorder,
    digits,
    equal_tensors,
    job,
    stop_at,
    training_run,
)
from workers.images.batches import ImageData
from workers.settings import TrainingSettings
from workers.training.checkpoint import model_tensors
from workers.training.loop import train
from workers.training.reporting import TrainingStopped
from workers.training.start import StartNetwork, fit_of, pin_of, start_file, tensor_shapes, without_pin
from workers.training.transfer import begin_with, network_of
from workers.training.trial import run_trial

NAMES = tuple("0123456789")  # of the digits' classes
CUT = replace(NET, classifier_keep=0.5)
LONGER = replace(NET, stages=(1, 2))


def start_of(config: CondenseNetConfig = NET, seed: int = 1) -> StartNetwork:
    """A network whose batch norms have statistics and scales of their own, as trained ones have."""
    network = DeployedCondenseNet.random(config, seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.layers:
        conv, shape = cast(DeployedLayer, layer).conv_1x1, cast(DeployedLayer, layer).in_channels
        for name in ("weight", "bias", "running_mean", "running_var"):  # a channel has one, whoever reads it
            getattr(conv.norm, name).copy_((torch.rand(shape, generator=generator) + 0.5)[conv.index])
    network.norm.running_mean.uniform_(-0.1, 0.1, generator=generator)
    return StartNetwork.of_weights(config, NAMES, safetensors.torch.save(model_tensors(network)))


def logits(network: torch.nn.Module, config: CondenseNetConfig = NET) -> torch.Tensor:
    x = torch.randn(8, *config.input_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return cast(torch.Tensor, network.eval()(x))


# ---- whose tensors they are -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [NET, CUT, LONGER, replace(NET, groups_3x3=1), replace(NET, bottleneck=2)])
def test_the_shapes_of_a_configs_tensors_are_those_of_its_network(config: CondenseNetConfig):
    tensors = model_tensors(DeployedCondenseNet.random(config))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "num_batches" not in name}
    assert tensor_shapes(config) == shapes


@pytest.mark.parametrize("config", [CUT, LONGER, replace(NET, growth=tuple(2 * growth for growth in NET.growth))])
def test_weights_of_another_config_are_no_start(config: CondenseNetConfig):
    weights = safetensors.torch.save(model_tensors(DeployedCondenseNet.random(NET)))
    with pytest.raises(CheckpointCorrupt, match=r"its weights are not those of a .*: they have other names or shapes"):
        StartNetwork.of_weights(config, NAMES, weights)


def test_a_start_whose_file_was_cut_off_is_corrupt():
    start = start_of()
    with pytest.raises(CheckpointCorrupt, match="the network to start from isn't a"):
        network_of(replace(start, content=start.content[:-9]))


# ---- what fits ------------------------------------------------------------------------------------------


def test_of_the_same_architecture_and_classes_everything_fits():
    fit = fit_of(NET, NET, same_classes=True)
    assert (fit.layers, fit.of_layers, fit.head) == (2, 2, True)
    assert fit.params == fit.of_params == cost_of(NET).params
    assert str(fit) == f"the stem and 2 of 2 layers, {fit.params:,} of {fit.params:,} parameters; the classifier too"


def test_with_other_classes_the_classifier_is_new():
    three = replace(NET, num_classes=3)
    fit = fit_of(three, NET, same_classes=False)
    assert (fit.layers, fit.head) == (2, False)
    assert fit.of_params - fit.params == 3 * (NET.num_features + 1)
    assert str(fit).endswith("; the classifier is new")


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (LONGER, 2),  # all of the source's, and one more
        (replace(NET, stages=(2, 1)), 1),  # the second layer is of another stage
        (replace(NET, growth=(4, 8)), 1),
        (replace(NET, growth=(8, 4)), 0),  # another stem
        (replace(NET, groups=4), 0),
        (replace(NET, condense_factor=2), 0),
        (replace(NET, bottleneck=1), 0),
        (replace(NET, groups_3x3=1), 0),
        (replace(NET, input_shape=(3, 8, 8)), 0),
        (replace(NET, input_shape=(1, 16, 16)), 2),  # another size of images is no matter
    ],
)
def test_what_fits_ends_at_the_first_layer_that_differs(config: CondenseNetConfig, layers: int):
    fit = fit_of(config, NET, same_classes=True)
    whole = config.stages == NET.stages and layers == 2
    assert (fit.layers, fit.head) == (layers, whole)
    assert (fit.params == 0) == (layers == 0)


@pytest.mark.parametrize("config", [LONGER, replace(NET, num_classes=3), NET])
def test_the_parameters_that_are_said_to_fit_are_those_that_are_taken(config: CondenseNetConfig):
    start, model = start_of(), CondenseNet(config)
    fit = begin_with(model, start, NAMES)
    model.condense(1.0)
    source, taken = network_of(start).state_dict(), 0
    for name, value in deploy(model).state_dict().items():
        same = name in source and value.shape == source[name].shape and torch.equal(value, source[name])
        counted = name.rpartition(".")[2] in ("weight", "bias")
        taken += value.numel() * (counted and same)
    assert taken == fit.params


# ---- what it computes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [NET, CUT, replace(NET, condense_factor=1), replace(NET, groups_3x3=1)])
def test_it_computes_what_the_trained_network_does(config: CondenseNetConfig):
    start, model = start_of(config), CondenseNet(config)
    begin_with(model, start, NAMES)
    assert model.fully_condensed
    torch.testing.assert_close(logits(model), logits(network_of(start)), rtol=1e-5, atol=1e-6)
    assert equal_tensors(deploy(model), network_of(start))


def test_with_another_head_it_computes_the_same_features():
    start, model = start_of(), CondenseNet(replace(NET, num_classes=3))
    begin_with(model, start, ("a", "b", "c"))
    x = torch.randn(8, *NET.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().features(x), network_of(start).features(x), rtol=1e-5, atol=1e-6)


def test_a_classifier_that_will_be_cut_further_begins_whole_and_is_cut_on_schedule():
    model = CondenseNet(CUT)
    begin_with(model, start_of(NET), NAMES)
    assert not model.fully_condensed
    torch.testing.assert_close(logits(model), logits(network_of(start_of(NET))), rtol=1e-5, atol=1e-6)
    model.condense(0.5)
    assert model.fully_condensed


def test_layers_that_are_new_begin_as_without_a_start_and_are_condensed_on_schedule():
    torch.manual_seed(5)
    plain = CondenseNet(LONGER)
    after = torch.rand(1)
    torch.manual_seed(5)
    model = CondenseNet(LONGER)
    begin_with(model, start_of(), NAMES)
    assert torch.equal(torch.rand(1), after)  # the generator goes on as if nothing had happened
    assert equal_tensors(model.layers[2], plain.layers[2])
    assert torch.equal(model.classifier.weight, plain.classifier.weight)
    stages = [int(cast(DenseLayer, layer).conv_1x1.stage) for layer in model.layers]
    assert stages == [3, 3, 0]
    model.condense(0.5)
    assert model.fully_condensed


def test_a_network_that_nothing_fits_stays_as_it_is():
    torch.manual_seed(5)
    model, config = CondenseNet(replace(NET, bottleneck=1)), replace(NET, bottleneck=1)
    torch.manual_seed(5)
    fit = begin_with(model, start_of(), NAMES)
    assert str(fit).startswith("no layer, 0 of")
    assert equal_tensors(model, CondenseNet(config))


# ---- its file -------------------------------------------------------------------------------------------


def test_the_same_network_has_the_same_pin_and_another_another():
    assert start_of().pin == start_of().pin
    assert len({start_of().pin, start_of(seed=2).pin, start_of(CUT).pin}) == 3
    assert StartNetwork.of_file(start_of().content) == start_of()
    other_names = StartNetwork.of_weights(NET, NAMES[::-1], start_of().content)
    assert other_names.pin != start_of().pin


def test_a_pin_ends_the_setting_and_names_the_file():
    pinned = f"trial:a # b/3#{'0' * 16}"
    assert (pin_of(pinned), without_pin(pinned)) == ("0" * 16, "trial:a # b/3")
    assert start_file({"start": pinned}) == f"start-{'0' * 16}.safetensors"
    assert (pin_of("trial:a # b/3"), start_file({"start": "none"}), start_file({})) == (None, None, None)


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 64, start_of().content[:200]])
def test_what_is_no_network_to_start_from_is_refused(content: bytes):
    with pytest.raises(CheckpointCorrupt):
        network_of(StartNetwork.of_file(content))


def test_tensors_of_another_config_are_refused():
    start = replace(start_of(LONGER), config=NET)
    with pytest.raises(CheckpointCorrupt, match="its tensors have other names or shapes"):
        begin_with(CondenseNet(NET), start, NAMES)
    with pytest.raises(CheckpointCorrupt, match="no safetensors file"):
        StartNetwork.of_weights(NET, NAMES, b"weights")


# ---- trainings ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def images(cache: Path) -> ImageData:
    return digits(cache)


@pytest.fixture(scope="module")
def trained(images: ImageData, tmp_path_factory: pytest.TempPathFactory) -> StartNetwork:
    schedule = TRAINING.model_copy(update={"epochs": 6})
    network, _ = train(training_run(tmp_path_factory.mktemp("run"), training=schedule), images, Recorder())
    weights = safetensors.torch.save(model_tensors(network))
    return StartNetwork.of_weights(NET, images.info.class_names, weights)


def from_start(start: StartNetwork, **changes: object) -> TrainingSettings:
    values = {"start": f"trial:a/0#{start.pin}", "learning_rate": 0.01, "epochs": 2, **changes}
    return TRAINING.model_copy(update=values)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_a_training_goes_on_from_the_start_and_keeps_what_it_kept(images, trained, tmp_path: Path, kernel):
    notes: list[str] = []
    run = training_run(tmp_path, training=from_start(trained), start=trained, kernel=kernel, note=notes.append)
    network, _ = train(run, images, recorder := Recorder())
    train(training_run(tmp_path / "fresh", training=from_start(trained)), images, without := Recorder())
    assert recorder.rows[0].val_loss < without.rows[0].val_loss
    assert [row.form for row in recorder.rows] == ["condensed", "deployed"]
    before = network_of(trained)
    for new, old in zip(network.layers, before.layers, strict=True):
        assert torch.equal(cast(DeployedLayer, new).conv_1x1.index, cast(DeployedLayer, old).conv_1x1.index)
    assert not torch.equal(network.stem.weight, before.stem.weight)
    assert f"begins as trial:a/0 ({NET}): the stem and 2 of 2 layers" in notes[0]


@pytest.mark.parametrize("config", [NET, LONGER])
@pytest.mark.parametrize("stop", [1, STEPS_PER_EPOCH + 3])
def test_a_training_from_a_start_resumes_with_the_same_bits(images, trained, tmp_path: Path, config, stop):
    def run(name: str):
        training = from_start(trained, average=0.9)
        return training_run(tmp_path / name, config=config, training=training, start=trained)

    whole, _ = train(run("whole"), images, Recorder())
    with pytest.raises(TrainingStopped):
        train(run("stopped"), images, Recorder(at_step=stop_at(stop)))
    resumed, _ = train(run("stopped"), images, Recorder(first=stop))
    assert equal_tensors(whole, resumed)


def test_a_trial_starts_from_the_file_of_its_job_and_says_so_in_its_log(images, cache, trained, tmp_path: Path):
    file = tmp_path / "start.safetensors"
    file.write_bytes(trained.content)
    training = from_start(trained, epochs=1)
    run_trial(job(tmp_path / "trial", cache, training=training, start=str(file)), Reporter())
    log = (tmp_path / "trial" / "log.txt").read_text()
    assert f"begins as trial:a/0 ({NET}): the stem and 2 of 2 layers" in log


@pytest.mark.parametrize("content", [None, b"nonsense", start_of(seed=9).content])
def test_a_trial_whose_start_is_gone_or_another_doesnt_begin(images, cache, trained, tmp_path: Path, content):
    file = tmp_path / "start.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataNotFound, match=r"start.safetensors of the network that training.start names"):
        run_trial(job(tmp_path / "trial", cache, training=from_start(trained), start=str(file)), Reporter())


class Reporter(Recorder):
    """A reporter that is never told anything."""

    def check(self) -> None:
        """Nothing is to be done."""
