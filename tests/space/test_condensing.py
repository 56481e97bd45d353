"""Condensing: which columns go, when, and what stays true while the weights move on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from space.config import CondenseNetConfig
from space.learned_group_conv import LearnedGroupConv, stages_due
from space.network import CondenseNet
from tests.space.strategies import SEEDS, images

SMALL = CondenseNetConfig((2, 1), (8, 8), groups=2, condense_factor=4, bottleneck=1, input_shape=(1, 4, 4))


def drop_slowly(weight: np.ndarray, alive: list[set[int]], condense_factor: int) -> None:
    """One condensing stage, by the paper's words: weight is (out, in), `alive` each group's columns."""
    rows, columns = weight.shape
    groups = len(alive)
    for group in range(groups):
        norms = {}
        for column in alive[group]:
            norms[column] = 0.0
            for row in range(rows):
                if row % groups == group:
                    norms[column] += abs(float(weight[row, column]))
        by_size = sorted(alive[group], key=lambda column: (norms[column], column))
        alive[group] -= set(by_size[: columns // condense_factor])


def surviving(conv: LearnedGroupConv) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in conv.mask.numpy()]


@settings(max_examples=60)
@given(
    groups=st.sampled_from((1, 2, 3, 4)),
    condense_factor=st.sampled_from((1, 2, 3, 4, 8)),
    per_part=st.integers(1, 3),
    rows=st.integers(1, 3),
    seed=SEEDS,
    ties=st.booleans(),
)
def test_each_stage_drops_what_a_slow_reference_drops(groups, condense_factor, per_part, rows, seed, ties):
    conv = LearnedGroupConv(condense_factor * per_part, groups * rows, groups, condense_factor)
    alive = [set(range(conv.in_channels)) for _ in range(groups)]
    rng = np.random.default_rng(seed)
    for stage in range(1, condense_factor):
        # training goes on between the stages, so the order of the columns changes
        drawn = rng.integers(-3, 4, conv.weight.shape) if ties else rng.normal(size=conv.weight.shape)
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
        assert conv.condense_to(stage)
        drop_slowly(conv.weight.detach().numpy()[:, :, 0, 0], alive, condense_factor)
        assert surviving(conv) == alive
        assert conv.fully_condensed == (stage == condense_factor - 1)
    assert not conv.condense_to(condense_factor + 5)  # nothing is left to do
    assert surviving(conv) == alive
    assert all(len(columns) == per_part for columns in alive)
    assert conv.kept_columns().tolist() == [sorted(columns) for columns in alive]


@settings(max_examples=40)
@given(st.sampled_from((2, 3, 4, 5, 8)), st.integers(0, 8), st.integers(0, 8), SEEDS)
def test_a_jump_in_progress_performs_every_stage_that_is_due(condense_factor, first, last, seed):
    first, last = sorted((min(first, condense_factor - 1), min(last, condense_factor - 1)))
    torch.manual_seed(seed)
    jumped = LearnedGroupConv(2 * condense_factor, 4, 2, condense_factor)
    stepped = LearnedGroupConv(2 * condense_factor, 4, 2, condense_factor)
    stepped.load_state_dict(jumped.state_dict())
    jumped.condense_to(first)
    jumped.condense_to(last)
    for stage in range(last + 1):
        stepped.condense_to(stage)
    assert int(jumped.stage) == int(stepped.stage) == last
    assert torch.equal(jumped.mask, stepped.mask)
    assert jumped.mask.sum(1).tolist() == [2.0 * (condense_factor - last)] * 2


@settings(max_examples=200)
@given(st.integers(2, 16), st.integers(1, 400), st.data())
def test_a_stage_is_due_exactly_at_its_threshold(condense_factor, steps, data):
    step = data.draw(st.integers(0, steps))
    last = condense_factor - 1
    due = sum(Fraction(step, steps) >= Fraction(stage, 2 * last) for stage in range(1, condense_factor))
    assert stages_due(step / steps, condense_factor) == due


@pytest.mark.parametrize("condense_factor", [2, 3, 4, 8, 16])
def test_just_before_a_threshold_the_stage_is_not_due(condense_factor):
    for stage in range(1, condense_factor):
        threshold = stage / (2 * (condense_factor - 1))
        assert stages_due(np.nextafter(threshold, 0.0), condense_factor) == stage - 1
        assert stages_due(threshold, condense_factor) == stage
    assert stages_due(0.0, condense_factor) == 0
    assert stages_due(0.5, condense_factor) == stages_due(1.0, condense_factor) == condense_factor - 1


def test_four_coarse_steps_reach_the_last_of_eight_stages():
    config = CondenseNetConfig((1,), (8,), groups=2, condense_factor=8, bottleneck=1, input_shape=(1, 4, 4))
    network = CondenseNet(config).train()
    reached = []
    for step in range(4):
        network(images(config, 2), progress=step / 4)
        reached.append(network.condensing_stage)
    assert reached == [0, 3, 7, 7]
    assert network.fully_condensed


def test_a_factor_of_one_never_condenses():
    config = CondenseNetConfig((2,), (4,), groups=2, condense_factor=1, input_shape=(1, 4, 4))
    network = CondenseNet(config).train()
    assert network.fully_condensed
    for progress in (0.0, 0.5, 1.0):
        assert stages_due(progress, 1) == 0
        network(images(config, 2), progress=progress)
    assert network.condensing_stage == 0
    assert all(bool(conv.mask.all()) for conv in network.learned_convs())


def test_an_evaluation_never_condenses():
    network = CondenseNet(SMALL).eval()
    network(images(SMALL, 2), progress=1.0)
    assert network.condensing_stage == 0
    assert all(bool(conv.mask.all()) for conv in network.learned_convs())


def test_training_without_progress_never_condenses():
    network = CondenseNet(SMALL).train()
    network(images(SMALL, 2))
    assert network.condensing_stage == 0


def test_two_networks_in_one_process_condense_each_on_its_own():
    first, second = CondenseNet(SMALL).train(), CondenseNet(SMALL).train()
    first(images(SMALL, 2), progress=1.0)
    assert (first.condensing_stage, second.condensing_stage) == (3, 0)
    stages = []
    for progress in (0.0, 1 / 6, 2 / 6, 3 / 6):
        second(images(SMALL, 2), progress=progress)
        stages.append(second.condensing_stage)
    assert stages == [0, 1, 2, 3]
    for conv in (*first.learned_convs(), *second.learned_convs()):
        assert conv.mask.sum(1).tolist() == [conv.in_channels / 4] * 2


def test_progress_that_falls_back_brings_no_column_back():
    network = CondenseNet(SMALL).train()
    network.condense(0.4)
    masks = [conv.mask.clone() for conv in network.learned_convs()]
    assert network.condense(0.1) == 2
    assert all(torch.equal(conv.mask, mask) for conv, mask in zip(network.learned_convs(), masks, strict=True))


def test_a_checkpoint_carries_the_masks_and_the_stage():
    network, restored = CondenseNet(SMALL), CondenseNet(SMALL)
    network.condense(0.4)
    restored.load_state_dict(network.state_dict())
    assert restored.condensing_stage == 2
    for old, new in zip(network.learned_convs(), restored.learned_convs(), strict=True):
        assert torch.equal(old.mask, new.mask)


def test_masked_weights_stay_masked_while_momentum_and_weight_decay_move_them():
    torch.manual_seed(0)
    network = CondenseNet(SMALL).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    for step in range(12):
        loss = nn.functional.cross_entropy(
            network(images(SMALL, 4, step), progress=step / 8), torch.arange(4) % SMALL.num_classes
        )
        optimiser.zero_grad()
        loss.backward()
        if step == 6:
            masks = [conv.mask.clone() for conv in network.learned_convs()]
            weights = [conv.weight.detach().clone() for conv in network.learned_convs()]
        if step >= 6:
            for conv in network.learned_convs():
                assert conv.weight.grad is not None
                gone = (conv.mask == 0).repeat(conv.out_channels // conv.groups, 1)  # row o is in group o mod G
                assert conv.weight.grad[:, :, 0, 0][gone].abs().max() == 0.0
        optimiser.step()
    for conv, mask, weight in zip(network.learned_convs(), masks, weights, strict=True):
        assert torch.equal(conv.mask, mask)
        gone = (mask == 0).repeat(conv.out_channels // conv.groups, 1)
        moved = (conv.weight.detach() - weight)[:, :, 0, 0][gone]
        assert moved.abs().min() > 0.0
        assert conv.grouped_weight().reshape(conv.out_channels, -1)[gone].abs().max() == 0.0


def test_the_output_does_not_depend_on_masked_weights():
    network = CondenseNet(SMALL).eval()
    network.condense(1.0)
    before = network(images(SMALL, 2))
    with torch.no_grad():
        for conv in network.learned_convs():
            gone = (conv.mask == 0).repeat(conv.out_channels // conv.groups, 1)
            conv.weight[:, :, 0, 0][gone] = 1000.0
    assert torch.equal(network(images(SMALL, 2)), before)


def test_a_large_masked_weight_does_not_save_its_column_in_a_later_stage():
    conv = LearnedGroupConv(4, 1, 1, 4)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1))
        conv.condense_to(1)
        conv.weight[0, 0] = 100.0  # momentum may do this; the mask is the truth
        conv.condense_to(3)
    assert conv.kept_columns().tolist() == [[3]]


@pytest.mark.parametrize(
    ("largest", "survives_in"),
    [
        ([[0, 1], [0, 1]], [2, 2, 0, 0]),
        ([[0, 1], [2, 3]], [1, 1, 1, 1]),
        ([[0, 1], [1, 2]], [1, 2, 1, 0]),
    ],
)
def test_groups_choose_alone_so_a_column_survives_in_none_some_or_all_of_them(largest, survives_in):
    conv = LearnedGroupConv(4, 6, 2, 2)
    with torch.no_grad():
        conv.weight.fill_(0.5)
        for group, columns in enumerate(largest):
            for column in columns:
                conv.weight[group::2, column] = -1.0  # the norm counts sizes, not signs
    conv.condense_to(1)
    assert conv.mask.sum(0).tolist() == survives_in
    assert conv.mask.sum(1).tolist() == [2.0, 2.0]
