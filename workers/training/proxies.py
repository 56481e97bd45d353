"""Zero-cost proxies: figures of an untrained network that are meant to rank networks as their training would.

Notable choices:
- The network has random weights and is condensed at once, by their L1 norms. So it is wired as sparsely as the network
  that would be deployed, and the condense factor counts; dropped weights have no gradient and add nothing.
- Every proxy is a pure function of the network and one batch: gradients are not kept, buffers are put back.
- Larger is meant to be better, for each of them.

Sources: Mellor et al., "Neural Architecture Search without Training" (ICML 2021; its first version for the Jacobian);
Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS" (ICLR 2021), which turned pruning criteria into proxies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from space.config import CondenseNetConfig
from space.network import CondenseNet
from workers.images.batches import Batch

JACOBIAN_FLOOR = 1e-5  # keeps the logarithm of an eigenvalue of 0 finite, as in the source


def zero_cost(config: CondenseNetConfig, batch: Batch, seed: int) -> dict[str, float]:
    """Return every proxy of the network that `seed` gives random weights; the global random state is left alone.

    Args:
        config: the architecture.
        batch: images (N, C, H, W), normalised, and labels (N,), N >= 2.
        seed: of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CondenseNet(config)
    network.condense(1.0)
    return {name: proxy(network.train(), *batch) for name, proxy in PROXIES.items()}


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over layers of the L2 norm of the loss's gradient (ICLR 2021, section 3.2)."""
    return sum(float(gradient.norm()) for gradient in _loss_gradients(network, images, labels))


def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum of |weight x gradient of the loss| (Lee et al., "SNIP", ICLR 2019, equation 4, summed)."""
    gradients = _loss_gradients(network, images, labels)
    products = (weight.detach() * gradient for weight, gradient in zip(_weights(network), gradients, strict=True))
    return sum(float(product.abs().sum()) for product in products)


def grasp(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum of -weight x (Hessian x gradient) (Wang et al., "GraSP", ICLR 2020, equation 8)."""
    weights = _weights(network)
    with _buffers_kept(network):
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        flow = sum(((g * g.detach()).sum() for g in gradients), torch.zeros(()))
        products = torch.autograd.grad(flow, weights, allow_unused=True)
    return -sum(float((w.detach() * p).sum()) for w, p in zip(weights, products, strict=True) if p is not None)


def synflow(network: nn.Module, images: Tensor, labels: Tensor | None = None) -> float:
    """Return the sum of weight x gradient for an image of ones through absolute weights, the output summed.

    In double precision, and in eval mode, where an untrained batch norm is the identity (to 5e-6). Needs no data
    (Tanaka et al., "SynFlow", NeurIPS 2020, equation 1 and section 5).
    """
    weights = {name: value.detach().abs().double() for name, value in network.named_parameters()}
    for weight in weights.values():
        weight.requires_grad_()
    buffers = {name: value.double() if value.is_floating_point() else value for name, value in network.named_buffers()}
    was_training = network.training
    network.eval()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    output = torch.func.functional_call(network, {**weights, **buffers}, (ones,)).sum()
    network.train(was_training)
    scored = [weight for weight in weights.values() if weight.ndim > 1]
    gradients = torch.autograd.grad(output, scored)
    return sum(float((w.detach() * g).sum()) for w, g in zip(scored, gradients, strict=True))


def jacobian_covariance(network: nn.Module, images: Tensor, labels: Tensor | None = None) -> float:
    """Return -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlation of the images' input gradients.

    k = 1e-5. High where the network tells the images of the batch apart (Mellor et al., first version, section 3).
    """
    with _buffers_kept(network):
        inputs = images.detach().clone().requires_grad_()
        (gradients,) = torch.autograd.grad(network(inputs).sum(), inputs)
    correlation = torch.corrcoef(gradients.flatten(1).double()).nan_to_num()  # (N, N)
    values = torch.linalg.eigvalsh(correlation).clamp_min(0.0) + JACOBIAN_FLOOR
    return -float((values.log() + 1 / values).sum())


def naswot(network: nn.Module, images: Tensor, labels: Tensor | None = None) -> float:
    """Return log |det K|, K[i, j] = the number of ReLUs that are both on or both off for images i and j.

    -inf where two images have the same code (Mellor et al., ICML 2021, section 3.2).
    """
    agreements = _ReluAgreements(len(images))
    with _buffers_kept(network), torch.no_grad(), agreements:
        network(images)
    return float(torch.linalg.slogdet(agreements.total).logabsdet)


PROXIES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = MappingProxyType(
    {
        "grad_norm": grad_norm,
        "snip": snip,
        "grasp": grasp,
        "synflow": synflow,
        "jacobian_covariance": jacobian_covariance,
        "naswot": naswot,
    }
)


def _weights(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of convolutions and of the classifier; norms and biases are no connections."""
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


def _loss_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    with _buffers_kept(network):
        return torch.autograd.grad(F.cross_entropy(network(images), labels), _weights(network))


@contextlib.contextmanager
def _buffers_kept(network: nn.Module) -> Iterator[None]:
    """Put back what a forward pass in train mode changes: the statistics of batch norms."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)


class _ReluAgreements(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up (N, N) how many ReLUs agree for two images, over every ReLU that is executed."""

    def __init__(self, images: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = torch.zeros(images, images, dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::relu", "aten::relu_"):
            code = (output > 0).flatten(1).double()  # (N, units)
            self.total += code @ code.T + (1 - code) @ (1 - code).T
        return output
