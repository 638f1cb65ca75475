"""What the processes of a data-parallel run share; in a run of one process every function here is the identity.

The rule of the house: n processes compute what one process computes on the same global batch. That batch is dealt out like
cards: rank r of n has the rows r, r + n, r + 2n, ... of it, so interleaved batch norm groups stay whole on their rank. Each
rank's loss is one whose mean over ranks is the loss of one process, and so is the gradient. A launcher makes the process group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

_control: Any = None  # a gloo group for flags and states, made at first use where the run's own group is on GPUs


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def own_rows(values: Tensor) -> Tensor:
    """This rank's rows of a global batch: (batch, ...) to (batch / n, ...), a view. The same on every rank is expected in."""
    return values[rank() :: world_size()]


def gather_rows(values: Tensor) -> Tensor:
    """The global batch in its order, from each rank's own rows: (batch / n, ...) to (batch, ...), in the same memory format.

    Every rank must then compute the same scalar of the result. The backward pass relies on it and needs no communication: a
    rank keeps its own rows' gradient, times n because the gradients of the ranks are averaged later.
    """
    if world_size() == 1:
        return values
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous():
        return gather_rows(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return _Gather.apply(values)  # type: ignore[no-any-return]


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` over all ranks, on each of them; differentiable, the gradient being the mean of the ranks' ones."""
    return values if world_size() == 1 else _Mean.apply(values)  # type: ignore[no-any-return]


def moments(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of `values` over `dims` and all ranks, which hold equally many; differentiable.

    In two passes: the mean of squares less the square of the mean would lose its digits.
    """
    mean = mean_over_ranks(values.mean(dims))
    shape = [1 if dim in dims else size for dim, size in enumerate(values.shape)]
    return mean, mean_over_ranks((values - mean.view(shape)).square().mean(dims))


def any_rank(flag: bool) -> bool:
    """Whether any rank says so, on the CPU: a GPU's queue of work does not have to be waited for."""
    if world_size() == 1:
        return flag
    votes = torch.tensor([int(flag)])
    distributed.all_reduce(votes, distributed.ReduceOp.MAX, group=_control_group())
    return bool(votes.item())


def from_first(value: Any) -> Any:
    """Rank 0's `value` on every rank, tensors on the CPU; what the others pass is ignored."""
    if world_size() == 1:
        return value
    box = [value if rank() == 0 else None]
    distributed.broadcast_object_list(box, src=0, group=_control_group())
    return box[0]


def _control_group() -> Any:
    global _control
    if distributed.get_backend() == "gloo":
        return distributed.group.WORLD
    if _control is None or _control[0] is not distributed.group.WORLD:
        _control = (distributed.group.WORLD, distributed.new_group(backend="gloo"))
    return _control[1]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        dealt = values.new_empty(world_size(), *values.shape)
        distributed.all_gather(list(dealt.unbind()), values.contiguous())
        return dealt.transpose(0, 1).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return own_rows(gradient) * world_size()


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _mean(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _mean(gradient)


def _mean(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total / world_size()
