"""Zero-cost proxies, held to values worked out by hand and to what they are known to do."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from space.config import CondenseNetConfig
from space.network import CondenseNet
from tests.workers.tiny import NET
from workers.training.proxies import (
    PROXIES,
    grad_norm,
    grasp,
    jacobian_covariance,
    naswot,
    snip,
    synflow,
    zero_cost,
)


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


def batch(images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, *NET.input_shape, generator=generator), torch.arange(images) % NET.num_classes


def test_every_proxy_is_a_finite_number_that_depends_on_config_images_and_seed_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = zero_cost(NET, batch(), seed=0)
    assert list(first) == list(PROXIES)
    assert all(math.isfinite(value) for value in first.values())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    assert zero_cost(NET, batch(), seed=0) == first
    other = zero_cost(NET, batch(), seed=1)
    assert all(other[name] != first[name] for name in PROXIES)


def test_no_proxy_changes_the_network():
    network = CondenseNet(NET).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for proxy in PROXIES.values():
        proxy(network, *batch())
        assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_condensing_counts():
    one, four = (CondenseNetConfig(**{**NET.to_dict(), "condense_factor": factor}) for factor in (1, 4))
    assert zero_cost(one, batch(), 0)["synflow"] > zero_cost(four, batch(), 0)["synflow"]


def test_the_gradient_norm_of_a_linear_layer_is_that_of_the_softmaxs_error():
    layer, x = linear([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    # at zero weights the softmax is 1/2 each, so the gradient's rows are -x / 2 and x / 2
    assert grad_norm(layer, x, torch.tensor([0])) == pytest.approx(math.sqrt(2) * 5 / 2)


def test_snip_of_a_linear_layer_by_hand():
    layer, x = linear([[1.0, -2.0], [1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    # equal logits again: |1 * 3/2| + |-2 * 4/2|, in each of two rows
    assert snip(layer, x, torch.tensor([1])) == pytest.approx(2 * (1.5 + 4.0))


def test_grasp_is_minus_the_weights_times_the_hessian_times_the_gradient():
    layer, x, y = linear([[0.3, -0.2], [0.1, 0.4]]), torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0, 1])

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x @ weight.view(2, 2).T, y)

    flat = layer.weight.detach().flatten()
    hessian = torch.autograd.functional.hessian(loss, flat)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    assert grasp(layer, x, y) == pytest.approx(float(-flat @ hessian @ gradient), rel=1e-4)


def test_synflow_of_linear_layers_is_their_number_times_the_sum_of_all_paths():
    first, second = [[1.0, -2.0], [0.5, 3.0]], [[-1.0, 4.0]]
    network = nn.Sequential(linear(first), linear(second))
    paths = 1.0 * (1 + 2) + 4.0 * (0.5 + 3)  # ones in, absolute weights along every path
    assert synflow(network, torch.randn(1, 2)) == pytest.approx(2 * paths)
    assert synflow(linear(first), torch.randn(1, 2)) == pytest.approx(6.5)


def test_synflow_needs_no_data_and_ignores_the_signs_of_weights():
    network = CondenseNet(NET)
    images = batch()[0]
    value = synflow(network, images)
    assert synflow(network, torch.zeros_like(images)) == value
    with torch.no_grad():
        network.stem.weight.neg_()
    assert synflow(network, images) == pytest.approx(value)


def test_the_jacobian_of_images_with_uncorrelated_gradients_scores_highest():
    class Square(nn.Module):
        """Has the image itself as its gradient, times 2."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square()

    apart = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]])
    alike = torch.tensor([[1.0, -1, 1, -1], [2, -2, 2, -2]])
    k = 1e-5
    assert jacobian_covariance(Square(), apart) == pytest.approx(-2 * (math.log(1 + k) + 1 / (1 + k)))
    expected = -(math.log(2 + k) + 1 / (2 + k) + math.log(k) + 1 / k)
    assert jacobian_covariance(Square(), alike) == pytest.approx(expected, rel=1e-4)


def test_naswot_counts_the_relus_that_agree():
    x = torch.tensor([[1.0, 1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0]])
    # each image agrees with itself in 4 ReLUs and with the other in 2: det [[4, 2], [2, 4]] = 12
    assert naswot(nn.ReLU(), x) == pytest.approx(math.log(12))
    assert naswot(nn.ReLU(), x[[0, 0]]) == -math.inf


def test_naswot_sees_every_relu_of_a_condensenet():
    images = batch(2)[0]
    network = CondenseNet(NET)
    shapes = NET.layer_shapes
    units = sum((shape.in_channels + shape.bottleneck_channels) * shape.positions for shape in shapes)
    units += NET.num_features * shapes[-1].positions
    same = images[[0, 0]]
    assert math.isinf(naswot(network, same))
    from workers.training.proxies import _ReluAgreements

    agreements = _ReluAgreements(2)
    with torch.no_grad(), agreements:
        network(images)
    assert agreements.total.diagonal().tolist() == [units, units]
