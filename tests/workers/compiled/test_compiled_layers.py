"""The compiled kernel trains what torch trains: the same features, gradients, running statistics, losses and masks."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig
from space.errors import InvalidConfig
from space.network import CondenseNet
from workers.compiled import library
from workers.compiled.dense_layers import CompiledLayers
from workers.processes import peak_memory_mb, reset_peak_memory

DIGITS = CondenseNetConfig(stages=(2, 2), growth=(8, 8), input_shape=(1, 8, 8))


def network_of(config: CondenseNetConfig, progress: float = 0.0, seed: int = 0) -> CondenseNet:
    """A network with norms that scale and shift, condensed as far as `progress` demands."""
    torch.manual_seed(seed)
    network = CondenseNet(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    network.condense(progress)
    return network


def images_of(config: CondenseNetConfig, count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *config.input_shape), torch.randint(0, config.num_classes, (count,))


def gradients_of(network: CondenseNet) -> list[Tensor]:
    return [values.grad for values in network.parameters() if values.grad is not None]


@st.composite
def small_networks(draw: st.DrawFn) -> CondenseNetConfig:
    stages = draw(st.integers(1, 3))
    try:
        return CondenseNetConfig(
            stages=tuple(draw(st.integers(1, 3)) for _ in range(stages)),
            growth=tuple(draw(st.sampled_from([4, 8, 12])) for _ in range(stages)),
            groups=draw(st.sampled_from([1, 2, 4])),
            condense_factor=draw(st.sampled_from([1, 2, 4])),
            bottleneck=draw(st.integers(1, 4)),
            groups_3x3=draw(st.sampled_from([None, 1, 2])),
            num_classes=3,
            input_shape=(draw(st.sampled_from([1, 3])), draw(st.integers(4, 12)), draw(st.integers(4, 12))),
        )
    except InvalidConfig:
        assume(False)
        raise


@settings(max_examples=40, deadline=None)
@given(
    config=small_networks(),
    counts=st.tuples(st.integers(2, 19), st.integers(2, 19), st.integers(2, 19)),
    threads=st.sampled_from([1, 2, 3]),
    recompute=st.booleans(),
    progress=st.sampled_from([0.0, 0.2, 0.4, 1.0]),
)
def test_features_gradients_and_running_statistics_are_torchs(
    config: CondenseNetConfig, counts: tuple[int, ...], threads: int, recompute: bool, progress: float
):
    ours = network_of(config, progress)
    reference = copy.deepcopy(ours).double()
    layers = CompiledLayers(ours, capacity=19, threads=threads, recompute=recompute)
    differences = []
    for count in counts:
        x, _ = images_of(config, count)
        again = copy.deepcopy(ours)
        untouched = CompiledLayers(again, capacity=19, threads=threads, recompute=recompute)
        for network in (ours, reference, again):
            network.train()
            network.zero_grad()
        features, expected = layers(ours.stem(x)), reference.features(x.double())
        assert float((features - expected).detach().abs().max()) < 1e-3
        weights = torch.randn_like(features)
        (features * weights).sum().backward()
        (expected * weights).sum().backward()
        for mine, theirs in zip(ours.buffers(), reference.buffers(), strict=True):
            assert torch.allclose(mine.double(), theirs.double(), rtol=1e-3, atol=1e-4)
        pairs = zip(gradients_of(ours), gradients_of(reference), strict=True)
        differences.append(max(float((mine - theirs).norm() / (theirs.norm() + 1e-2)) for mine, theirs in pairs))
        # Whatever earlier batches of other sizes left behind changes nothing, not even the last bit.
        (untouched(again.stem(x)) * weights).sum().backward()
        assert all(torch.equal(a, b) for a, b in zip(gradients_of(ours), gradients_of(again), strict=True))
        ours.eval()
        reference.eval()
        with torch.no_grad():
            many, _ = images_of(config, 19)
            assert float((layers(ours.stem(many)) - reference.features(many.double())).abs().max()) < 1e-3
    # In float32 a value may fall to the other side of ReLU's corner, which moves some gradients: not in every batch.
    assert min(differences) < 1e-3


def test_gradients_are_exact_where_nothing_lies_at_a_corner():
    ours = network_of(DIGITS, seed=1)
    reference = copy.deepcopy(ours).double()
    layers = CompiledLayers(ours, capacity=64)
    x, y = images_of(DIGITS, 64)
    F.cross_entropy(ours.classifier(layers(ours.stem(x))), y).backward()
    F.cross_entropy(reference(x.double()), y).backward()
    for mine, theirs in zip(gradients_of(ours), gradients_of(reference), strict=True):
        assert float((mine - theirs).abs().max()) < 1e-5 * float(theirs.abs().max()) + 1e-8
    assert ours.norm.num_batches_tracked == reference.norm.num_batches_tracked == 1


@pytest.mark.slow
@pytest.mark.parametrize("vectors", ["", "-mavx2 -mfma"])
def test_narrower_vectors_compute_the_same(vectors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other processors than this one: four floats at a time, and eight."""
    if vectors and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    flags = [flag for flag in library.FLAGS if flag != "-march=native"] + vectors.split()
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", tuple(flags))
    monkeypatch.setattr(library, "_loaded", library._loaded.__wrapped__)
    test_gradients_are_exact_where_nothing_lies_at_a_corner()


@pytest.mark.parametrize("lasso", [0.0, 1e-3])
def test_fifty_steps_have_the_losses_and_every_stage_the_masks_of_plain_torch(lasso: float):
    config = CondenseNetConfig(stages=(2, 2), growth=(8, 8), input_shape=(1, 8, 8), num_classes=4)
    torch.manual_seed(0)
    plain = CondenseNet(config)
    ours = copy.deepcopy(plain)
    layers = CompiledLayers(ours, capacity=32)
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(4, *config.input_shape, generator=generator)
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for network in (plain, ours)
    ]
    seen_stages = set()
    for step in range(50):
        y = torch.randint(0, 4, (32,), generator=generator)
        x = prototypes[y] + torch.randn(32, *config.input_shape, generator=generator)
        for network in (plain, ours):
            network.condense(step / 50)
        layers.masks_changed()
        losses = [F.cross_entropy(plain(x), y), F.cross_entropy(ours.classifier(layers(ours.stem(x))), y)]
        assert abs(losses[0].item() - losses[1].item()) < 1e-2  # as far as torch's own layouts differ
        for network, optimizer, loss in zip((plain, ours), optimizers, losses, strict=True):
            optimizer.zero_grad()
            (loss + lasso * network.group_lasso()).backward()
            optimizer.step()
        for mine, theirs in zip(ours.learned_convs(), plain.learned_convs(), strict=True):
            assert torch.equal(mine.mask, theirs.mask)
        seen_stages.add(ours.condensing_stage)
    assert seen_stages == {0, 1, 2, 3}


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_batch_gives_the_same_bits(threads: int):
    x, y = images_of(DIGITS, 32)
    results = []
    for _ in range(2):
        network = network_of(DIGITS)
        layers = CompiledLayers(network, capacity=32, threads=threads)
        F.cross_entropy(network.classifier(layers(network.stem(x))), y).backward()
        results.append(gradients_of(network) + list(network.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_computing_again_gives_the_bits_that_keeping_gives():
    x, y = images_of(DIGITS, 32)
    results = []
    for recompute in (False, True):
        network = network_of(DIGITS)
        layers = CompiledLayers(network, capacity=32, recompute=recompute)
        F.cross_entropy(network.classifier(layers(network.stem(x))), y).backward()
        results.append(gradients_of(network))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_diverged_network_gives_nan_and_not_a_number_that_looks_right():
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=8)
    with torch.no_grad():
        network.layers[0].conv_1x1.weight.fill_(float("nan"))
    x, _ = images_of(DIGITS, 8)
    assert layers(network.stem(x)).isnan().any()


def test_gradients_of_two_batches_add_up_and_are_no_memory_of_the_kernel():
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=8)
    x, _ = images_of(DIGITS, 8)
    layers(network.stem(x)).square().sum().backward()
    once = [gradient.clone() for gradient in gradients_of(network)]
    layers(network.stem(x)).square().sum().backward()
    for twice, gradient in zip(gradients_of(network), once, strict=True):
        assert torch.allclose(twice, 2 * gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_a_diverged_batch_leaves_nothing_to_a_smaller_one_after_it():
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=9)
    x, _ = images_of(DIGITS, 9)
    layers(network.stem(x * float("nan")))
    layers(network.stem(x[:3])).square().sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients_of(network))


@pytest.mark.parametrize("learns", [True, False])
def test_only_the_newest_batch_goes_backwards_and_only_one_of_train_mode(learns: bool):
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=9)
    network.train(learns)
    features = layers(network.stem(images_of(DIGITS, 4)[0]))
    if learns:
        network.eval()
        layers(network.stem(images_of(DIGITS, 9)[0]))
    with pytest.raises(RuntimeError, match="only the newest batch can go backwards"):
        features.sum().backward()


def test_an_interrupted_batch_lets_the_other_threads_go(monkeypatch: pytest.MonkeyPatch):
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=9, threads=3)
    x, _ = images_of(DIGITS, 9)
    call = layers._library.training_forward

    def interrupted(training: int, thread: int, *arguments: object) -> None:
        if thread == 0:
            raise KeyboardInterrupt
        call(training, thread, *arguments)

    monkeypatch.setattr(layers, "_library", mock.Mock(wraps=layers._library, training_forward=interrupted))
    with pytest.raises(KeyboardInterrupt):  # comes back at all: the others have waited in vain
        layers(network.stem(x))
    with pytest.raises(RuntimeError, match="an earlier batch was interrupted"):
        layers(network.stem(x))


def test_a_batch_beyond_the_capacity_and_a_network_in_another_layout_are_refused():
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=4)
    with pytest.raises(ValueError, match="at most 4 images, but has 5"):
        layers(network.stem(images_of(DIGITS, 5)[0]))
    with pytest.raises(ValueError, match=r"must be float32 on the CPU, but is torch\.float64"):
        layers(network.stem(images_of(DIGITS, 4)[0]).double())
    with pytest.raises(ValueError, match="plain layout"):
        CompiledLayers(network_of(DIGITS).to(memory_format=torch.channels_last), capacity=4)
    with pytest.raises(ValueError, match="float32"):
        CompiledLayers(network_of(DIGITS).double(), capacity=4)


def test_images_of_another_size_than_the_configs_are_refused():
    network = network_of(DIGITS)
    layers = CompiledLayers(network, capacity=4)
    with pytest.raises(ValueError, match="must be of shape"):
        layers(network.stem(torch.zeros(2, DIGITS.input_shape[0], 9, 8)))


def test_the_memory_of_a_network_is_given_back():
    config = CondenseNetConfig(stages=(4,), growth=(16,), input_shape=(3, 32, 32))
    CompiledLayers(network_of(config), capacity=64)
    gc.collect()
    reset_peak_memory()
    before = peak_memory_mb()
    for _ in range(10):  # of about 100 MB each
        CompiledLayers(network_of(config), capacity=64)
        gc.collect()
    assert peak_memory_mb() - before < 300
