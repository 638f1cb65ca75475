"""One optimiser step: gradients of a batch's parts, their scaling and clipping, and the new weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ablatrix_models.optimizers import build_optimizer, set_learning_rate
from ablatrix_models.recipe.optimize import Optimizer


class Descent:
    """An optimiser, with what stands between the losses and its step; both states are in `state_dict`.

    scaled: multiplies the loss so that half-precision gradients do not vanish, and skips the steps whose gradients overflow
    (torch's GradScaler, which works on CPUs too).
    """

    def __init__(self, config: Optimizer, groups: list[dict[str, Any]], device: torch.device, *, scaled: bool = False) -> None:
        self.config = config
        self.optimizer = build_optimizer(config, groups)
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self, losses: Iterable[Tensor], factor: float, *, parts: int = 1) -> tuple[Tensor, Tensor | None]:
        """One step down the mean of `losses`, scalars asked for one after the other, at `factor` times the peak learning rate.

        Returns that mean (float64, detached), and the norm of all gradients before the clip, None where nothing is clipped; both
        still on the device.
        """
        set_learning_rate(self.optimizer, self.config.lr, factor)
        self.optimizer.zero_grad(set_to_none=True)
        means = []
        for loss in losses:
            self.scaler.scale(loss / parts).backward()
            means.append(loss.detach().double() / parts)
        norm = self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack(means).sum(), norm

    def _clip(self) -> Tensor | None:
        if self.config.clip_norm is None:
            return None
        self.scaler.unscale_(self.optimizer)
        return torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)

    def state_dict(self) -> dict[str, Any]:
        """Of the optimiser and the scaler."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back; checkpoints of before there was a scaler have none. Rates and the like stay those of this config."""
        own = [{name: given for name, given in group.items() if name != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
