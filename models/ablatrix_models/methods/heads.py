"""Projection and prediction heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(widths: Sequence[int], *, norm: bool, output_norm: bool = False, output_affine: bool = True, bias: bool = True) -> nn.Sequential:
    """Linear layers between the `widths`, each but the last followed by ReLU.

    norm: batch norm before each ReLU. output_norm: batch norm on the output, with weights of its own if `output_affine`. bias: of
    the linear layers. Two widths are one linear layer. Input (batch, widths[0]), output (batch, widths[-1]).
    """
    layers: list[nn.Module] = []
    for width_in, width in pairwise(widths[:-1]):
        layers += [nn.Linear(width_in, width, bias=bias), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias))
    if output_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=output_affine))
    return nn.Sequential(*layers)
