"""Networks that follow another one as an exponential moving average (EMA)."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


def follower(network: Network) -> Network:
    """A copy of `network` that no gradient trains."""
    return copy.deepcopy(network).requires_grad_(False)


def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Move the follower's parameters: theta <- momentum * theta + (1 - momentum) * theta_leader.

    Parameters only, as in the released MoCo and BYOL code: batch norm buffers stay the follower's own. Keep both in
    32 bits or more; in bfloat16 a momentum of 0.999 moves nothing.
    """
    update = get_ema_multi_avg_fn(momentum)
    update(list(follower.parameters()), list(leader.parameters()), None)
