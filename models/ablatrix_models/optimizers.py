"""Optimisers from recipes."""

from __future__ import annotations

from typing import Any

import torch

from ablatrix_models.recipe.optimize import Optimizer


def build_optimizer(config: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser over a method's parameter groups.

    The fused kernels do the same arithmetic in one pass; the foreach ones are slower than a loop on CPUs.
    """
    common = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, betas=config.betas, **common)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, factor: float) -> float:
    """Set every group's rate; a group with `constant_lr` keeps the peak. Returns the rate of the others."""
    for group in optimizer.param_groups:
        group["lr"] = peak if group.get("constant_lr") else peak * factor
    return peak * factor
