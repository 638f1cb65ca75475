"""The norm inside projector and decoder blocks: batch norm over all tokens of a batch (methods 1.4)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6


class TokenBatchNorm(nn.Module):
    """Batch norm of channels, with statistics of all tokens of all images, CLS included; always in 32 bits or more.

    Input and output: (batch, tokens, dim). The inner module is a plain BatchNorm1d, which
    `nn.SyncBatchNorm.convert_sync_batchnorm` can exchange.
    """

    def __init__(self, dim: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim, device=device, dtype=dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise; in training by the batch's statistics, which also move the running ones."""
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        with torch.autocast(tokens.device.type, enabled=False):
            return self.bn(wide.flatten(0, 1)).view(tokens.shape)


class TokenLayerNorm(nn.LayerNorm):
    """Layer norm of each token, always in 32 bits or more; autocast leaves it in 16 on CPUs. Any (..., dim)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(torch.promote_types(input.dtype, torch.float32)))


def token_norm(kind: Literal["batch", "layer"]) -> Any:
    """What makes the norm of a block from its width."""
    return TokenBatchNorm if kind == "batch" else partial(TokenLayerNorm, eps=LAYER_NORM_EPS)
