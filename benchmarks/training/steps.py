"""One schedule of training steps, by the peer or by ours, in a process of its own: what each step took and its loss."""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Any

from space.config import CondenseNetConfig
from space.presets import PUBLISHED
from workers.training.schedule import learning_rate_at

TORCH_FORMS = ("plain", "channels-last", "autocast", "torch.compile")
FORMS = (*TORCH_FORMS, "unskipped", "unfused", "ours", "recompute")
NETWORKS = {
    "CondenseNet-86": PUBLISHED["condensenet-86"].config,
    "digits-sized": CondenseNetConfig(stages=(3, 3, 3), growth=(8, 8, 8), input_shape=(1, 8, 8)),
}
MOMENTUM, DECAY = 0.9, 1e-4


@dataclass(frozen=True)
class Schedule:
    """Which network is trained how, and for how long; each form gets the same batches."""

    network: str
    form: str
    steps: int
    batch: int = 64
    threads: int = 1
    seed: int = 0
    rate: float = 0.1  # the largest learning rate


@dataclass
class Steps:
    """What came of a schedule."""

    seconds: float = 0.0  # of all steps, after two of warm-up that aren't part of the schedule
    prepare_s: float = 0.0  # before the first step: compiling
    peak_mb: float = 0.0  # beyond what the process had before there was a network
    losses: list[float] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)  # at every condensing stage: bits of all layers, hexadecimal


def run(schedule: Schedule) -> Steps:
    """Train in a fresh process, so that neither memory nor compiled code is shared."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_into, args=(schedule, theirs))
    process.start()
    theirs.close()
    try:
        answer = json.loads(ours.recv())
    except EOFError:
        raise SystemExit(f"{schedule} ended without a result") from None
    finally:
        process.join()
    return Steps(**answer)


def _run_into(schedule: Schedule, pipe: Any) -> None:
    import torch

    torch.set_num_threads(schedule.threads)
    pipe.send(json.dumps(vars(train(schedule))))
    pipe.close()


def train(schedule: Schedule) -> Steps:
    """Run the schedule here: SGD with Nesterov momentum, a cosine per step, condensing when it is due."""
    import torch

    from workers.processes import peak_memory_mb, reset_peak_memory

    config, result = NETWORKS[schedule.network], Steps()
    generator = torch.Generator().manual_seed(schedule.seed)
    count = 8 * schedule.batch
    labels = torch.randint(0, config.num_classes, (count,), generator=generator)
    prototypes = torch.randn(config.num_classes, *config.input_shape, generator=generator)
    images = prototypes[labels] + 2.0 * torch.randn(count, *config.input_shape, generator=generator)
    _warm_torch_up()
    reset_peak_memory()
    before_mb = peak_memory_mb()
    begin = time.perf_counter()
    network, forward, condense, optimizer = prepared(schedule, config)
    start = {name: values.clone() for name, values in network.state_dict().items()}

    def step(number: int, progress: float) -> float:
        at = number * schedule.batch % count
        x, y = images[at : at + schedule.batch], labels[at : at + schedule.batch]
        return one_step(schedule, forward, optimizer, (x, y), progress)

    for number in range(2):
        step(number, 0.0)
    result.prepare_s = time.perf_counter() - begin
    network.load_state_dict(start)
    optimizer.state.clear()
    stage = 0
    clock = time.process_time if schedule.threads == 1 else time.perf_counter
    begin = clock()
    for number in range(schedule.steps):
        progress = number / schedule.steps
        condense(progress)
        now = int(network.layers[0].conv_1x1.stage)  # type: ignore[union-attr,index]
        if now > stage:
            stage = now
            result.masks.append(_bits(network))
        result.losses.append(step(number, progress))
    result.seconds = clock() - begin
    result.peak_mb = peak_memory_mb() - before_mb
    return result


def one_step(schedule: Schedule, forward: Any, optimizer: Any, batch: tuple[Any, Any], progress: float) -> float:
    """Take one step of a form at this progress of its schedule; return the loss before it."""
    import torch
    from torch.nn import functional as F

    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(progress, 1, schedule.rate)
    x, y = batch
    loss = F.cross_entropy(forward(x), y)
    optimizer.zero_grad(set_to_none=schedule.form in TORCH_FORMS)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def _warm_torch_up() -> None:
    """Have torch load what it loads at its first training step: it isn't the network's memory."""
    import torch

    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten())
    optimizer = torch.optim.SGD(layers.parameters(), 0.1, 0.9)
    torch.autograd.backward(layers(torch.randn(8, 3, 8, 8)).square().sum())
    optimizer.step()


def _bits(network: Any) -> str:
    import numpy as np

    masks = [layer.conv_1x1.mask.numpy().ravel() > 0 for layer in network.layers]
    return np.packbits(np.concatenate(masks)).tobytes().hex()


def share_of_equal_bits(one: str, other: str) -> float:
    """Return which share of the columns two masks agree on."""
    different = int(one, 16) ^ int(other, 16)
    return 1 - different.bit_count() / (4 * len(one))


def prepared(schedule: Schedule, config: CondenseNetConfig) -> tuple[Any, Any, Any, Any]:
    """Return network, how it is run, how it is condensed, and its optimizer."""
    import torch

    from benchmarks.training.plain import PlainNetwork
    from space.network import CondenseNet
    from workers.compiled.dense_layers import CompiledLayers
    from workers.training.forward import ForwardSettings, forward_of

    torch.manual_seed(schedule.seed)
    network: torch.nn.Module = CondenseNet(config)
    fused = schedule.form in ("unskipped", "ours", "recompute")
    forward: Any
    if schedule.form in TORCH_FORMS:
        plain = PlainNetwork(config)
        plain.load_state_dict(network.state_dict())
        network, condense = plain, plain.condense
        forward = _torch_form(schedule.form, plain)
    else:
        ours = forward_of(network, ForwardSettings("compiled", schedule.form == "recompute", schedule.batch))  # type: ignore[arg-type]
        forward = ours
        kernel: CompiledLayers = ours._layers  # type: ignore[attr-defined]

        def condense(progress: float) -> None:
            before = network.condensing_stage  # type: ignore[union-attr]
            if network.condense(progress) > before:  # type: ignore[operator]
                _take_masks(network, kernel, schedule.form == "unskipped")

    optimizer = torch.optim.SGD(
        network.parameters(), schedule.rate, MOMENTUM, weight_decay=DECAY, nesterov=True, fused=fused or None
    )
    network.train()
    return network, forward, condense, optimizer


def _torch_form(form: str, plain: Any) -> Any:
    import torch

    if form == "plain":
        return plain
    plain.to(memory_format=torch.channels_last)
    if form == "torch.compile":
        return torch.compile(plain)

    def run(x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=form == "autocast"):
            return plain(x.contiguous(memory_format=torch.channels_last)).float()

    return run


def _take_masks(network: Any, kernel: Any, unskipped: bool) -> None:
    """Hand the masks to the kernel; or let it compute every column, those that are dropped with weights of zero."""
    import torch

    if not unskipped:
        kernel.masks_changed()
        return
    with torch.no_grad():
        for conv in network.learned_convs():
            conv.weight.copy_(conv.grouped_weight().view_as(conv.weight))
