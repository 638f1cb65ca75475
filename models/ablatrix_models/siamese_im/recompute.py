"""Transformer blocks that can compute their activations again instead of keeping them (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """Blocks in a row, (batch, tokens, dim) to the same. With `recompute` each keeps its input alone until the backward pass.

    The values, the gradients and the running statistics of batch norms are those of a pass that keeps everything, bit for bit.
    """

    recompute = False

    def forward(self, input: Tensor) -> Tensor:
        """Run every block."""
        if not (self.recompute and torch.is_grad_enabled()):
            return super().forward(input)
        for block in self:
            # Nothing in a block is random, so no generator's state has to be kept.
            context = partial(_contexts, block)
            input = checkpoint(block, input, use_reentrant=False, preserve_rng_state=False, context_fn=context)  # type: ignore[assignment]
        return input


def set_recompute(network: nn.Module, recompute: bool) -> None:
    """Switch it on or off in all blocks of `network`."""
    for part in network.modules():
        if isinstance(part, Blocks):
            part.recompute = recompute


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass over a batch must not move the running statistics again, nor touch what the backward pass may still read."""
    norms = [part for part in block.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
