"""The learned group convolution: a 1x1 convolution that learns which input channels each of its groups keeps.

Notable choices:
- Progress is never state: the caller says which condensing stage is due, and the layer performs all stages up to it.
- Row o of the weight belongs to group o mod G, so the weight viewed as (out/G, G, in) has its groups on axis 1 and one
  (G, in) mask serves all rows. The mask is the truth: masked weights may still drift by momentum and weight decay.
- `mask` and `stage` are buffers, so a checkpoint carries them.

Source: CondenseNet (CVPR 2018), section 3.1 (learned group convolution), equation 1 and figure 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.condensing_schedule import stages_due as stages_due  # also for importers


class LearnedGroupConv(nn.Module):
    """BN -> ReLU -> dropout -> 1x1 convolution whose weight is masked, no bias.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    mask: Tensor  # (G, in) of 0 and 1: which columns each group still has
    stage: Tensor  # scalar int64: condensing stages performed, 0..C-1

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, condense_factor: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.condense_factor, self.dropout = groups, condense_factor, dropout
        self.norm = nn.BatchNorm2d(in_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.register_buffer("mask", torch.ones(groups, in_channels))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / out_channels))

    @property
    def last_stage(self) -> int:
        """C - 1, the stage after which nothing is left to condense."""
        return self.condense_factor - 1

    @property
    def fully_condensed(self) -> bool:
        """Whether every group is down to in/C columns."""
        return int(self.stage) >= self.last_stage

    def grouped_weight(self) -> Tensor:
        """Return the masked weight as (out/G, G, in); [i, g] is row i * G + g."""
        return self.weight.view(-1, self.groups, self.in_channels) * self.mask

    @torch.no_grad()
    def condense_to(self, stage: int) -> bool:
        """Perform every condensing stage up to `stage` that hasn't been; return whether anything was dropped.

        In each stage each group drops in/C of its remaining columns, those with the smallest L1 norm over its rows.
        """
        before = int(self.stage)
        for _ in range(before, min(stage, self.last_stage)):
            norms = self.grouped_weight().abs().sum(0)  # (G, in)
            norms = norms.masked_fill(self.mask == 0, math.inf)  # what is gone can't be dropped again
            drop = norms.argsort(dim=1, stable=True)[:, : self.in_channels // self.condense_factor]
            self.mask.scatter_(1, drop, 0.0)
            self.stage += 1
        return int(self.stage) > before

    def group_lasso(self) -> Tensor:
        """Return the sum over groups and living columns of sqrt(sum over rows of w^2) (section 3.1, equation 1).

        Nothing here waits for the device.
        """
        squares = self.grouped_weight().square().sum(0)  # (G, in)
        norms = squares.clamp_min(1e-24).sqrt()  # sqrt has no gradient at 0
        return torch.where(self.mask > 0, norms, 0.0).sum()

    def kept_columns(self) -> Tensor:
        """Return (G, in/C) int64: the columns each group keeps, ascending. Only once fully condensed."""
        return self.mask.nonzero()[:, 1].view(self.groups, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        x = F.relu(self.norm(x))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return F.conv2d(x, self.grouped_weight().view_as(self.weight))
