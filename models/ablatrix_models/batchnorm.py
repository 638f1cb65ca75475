"""Batch normalisation whose statistics come from groups of the batch, or from the batches of all ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ablatrix_models.distributed import mean_over_ranks, moments, world_size


class SplitBatchNorm(nn.BatchNorm2d):
    """Batch norm over interleaved groups: image n belongs to group n mod `splits` (MoCo's CIFAR demo).

    In training each group is normalised by its own statistics, and the running statistics move towards the
    mean of the groups' statistics; in evaluation it is plain batch norm. `num_batches_tracked` stays 0, as in
    the released code. Input and output: (batch, channels, height, width), whose memory format is kept; in
    training `batch` must be a multiple of `splits`, else ValueError. While `consecutive` is true the groups are
    blocks of the batch instead, which a network that has put its images into `block_order` may ask for.
    """

    def __init__(self, num_features: int, splits: int) -> None:
        super().__init__(num_features)
        self.splits = splits
        self.consecutive = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`; in training also update the running statistics."""
        if not self.training or self.splits == 1:
            return super().forward(input)
        if len(input) % self.splits:
            raise ValueError(
                f"A batch of {len(input)} images cannot be split into {self.splits} equal groups for batch norm. "
                "Use a batch size that is a multiple of method.bn_splits, or bn_splits 1."
            )
        assert self.running_mean is not None
        assert self.running_var is not None
        means, variances = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        normalise = _block_by_block if self.consecutive else _grouping(input)
        output = normalise(self, input, means, variances)
        self.running_mean.copy_(means.view(self.splits, -1).mean(0))
        self.running_var.copy_(variances.view(self.splits, -1).mean(0))
        return output

    def extra_repr(self) -> str:
        """What printing the module shows."""
        return f"{super().extra_repr()}, splits={self.splits}"


class GlobalBatchNorm(nn.SyncBatchNorm):
    """Batch norm over the batches of all ranks, which hold equally many rows; on the CPU too, where PyTorch has none.

    Input and output: (batch, channels, ...). Weights and buffers are named as in plain batch norm, which it equals in evaluation
    and in a run of one process.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`; in training also update the running statistics, which stay equal on all ranks."""
        if not self.training or input.is_cuda or world_size() == 1:
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance = moments(wide, (0, *range(2, input.ndim)))
        self._follow(mean.detach(), variance.detach(), world_size() * input.numel() // input.shape[1])
        shape = (1, -1, *[1] * (input.ndim - 2))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        output = (wide - mean.view(shape)) * scale.view(shape)
        return (output if self.bias is None else output + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)


def spread_over_ranks(network: nn.Module) -> None:
    """Let the batch norms of `network` see, on each rank's rows, what they would see in one process; in place.

    Plain batch norm takes its statistics over all ranks. Split batch norm needs none of that: its groups are interleaved as the
    ranks' rows are, so each rank has whole groups, and emulated GPUs become real ones. Raises ValueError where the ranks do not
    divide the splits. The running statistics of split batch norm differ between ranks until `average_running_statistics`.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SplitBatchNorm):
                if child.splits % world_size():
                    raise ValueError(
                        f"{child.splits} batch norm splits cannot be dealt to {world_size()} ranks. Use ranks that divide them."
                    )
                child.splits //= world_size()
            elif isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                setattr(parent, name, _over_ranks(child))


def _over_ranks(norm: _BatchNorm) -> GlobalBatchNorm:
    copy = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    copy.weight, copy.bias = norm.weight, norm.bias  # the same parameters, also for whoever holds them already
    copy.running_mean, copy.running_var, copy.num_batches_tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
    return copy.train(norm.training)


@torch.no_grad()
def average_running_statistics(network: nn.Module) -> None:
    """Bring the running statistics of split batch norm to the ranks' mean, which one process has at every step.

    In one process nothing changes. They move linearly with the groups' statistics, so it makes no difference that this is done only
    before they are read.
    """
    for module in network.modules():
        if isinstance(module, SplitBatchNorm):
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                statistic.copy_(mean_over_ranks(statistic))


def block_order(batch: int, splits: int) -> Tensor:
    """(batch,) int64: the interleaved groups one after another. `argsort` of it puts them back."""
    return torch.arange(batch).view(-1, splits).T.flatten()


def _block_by_block(norm: SplitBatchNorm, input: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """One kernel a block; the blocks are views in any memory format."""
    statistics = zip(means.view(norm.splits, -1), variances.view(norm.splits, -1), strict=True)
    return torch.cat([_batch_norm(norm, block, *pair, 1) for block, pair in zip(input.chunk(norm.splits), statistics, strict=True)])


def _grouping(input: Tensor) -> Callable[[SplitBatchNorm, Tensor, Tensor, Tensor], Tensor]:
    """The way through memory that copies least: groups are a free view of NCHW, but not of channels-last."""
    if input.is_contiguous() or not input.is_contiguous(memory_format=torch.channels_last):
        return _as_channels
    return _as_last_channels if input.is_cuda else _group_by_group


def _batch_norm(norm: SplitBatchNorm, input: Tensor, mean: Tensor, variance: Tensor, copies: int) -> Tensor:
    assert norm.momentum is not None
    weight, bias = norm.weight.repeat(copies), norm.bias.repeat(copies)
    return functional.batch_norm(input, mean, variance, weight, bias, True, norm.momentum, norm.eps)


def _as_channels(norm: SplitBatchNorm, input: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Read the groups as further channels: (batch / splits, splits * channels, height, width)."""
    channels, height, width = input.shape[1:]
    grouped = input.reshape(-1, norm.splits * channels, height, width)
    return _batch_norm(norm, grouped, means, variances, norm.splits).view(input.shape)


def _as_last_channels(norm: SplitBatchNorm, input: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """As `_as_channels` in channels-last memory: one kernel for all groups, at the cost of two copies."""
    rows = input.permute(0, 2, 3, 1).unflatten(0, (-1, norm.splits))
    grouped = rows.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
    output = _batch_norm(norm, grouped, means, variances, norm.splits).permute(0, 2, 3, 1)
    rows = output.unflatten(3, (norm.splits, -1)).permute(0, 3, 1, 2, 4)
    return rows.flatten(0, 1).permute(0, 3, 1, 2)


def _group_by_group(norm: SplitBatchNorm, input: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """One kernel a group, after bringing its images together; on a CPU faster than regrouping channels."""
    rows = input.permute(0, 2, 3, 1).unflatten(0, (-1, norm.splits)).transpose(0, 1)
    output = _block_by_block(norm, rows.flatten(0, 1).permute(0, 3, 1, 2), means, variances)
    rows = output.permute(0, 2, 3, 1).unflatten(0, (norm.splits, -1)).transpose(0, 1)
    return rows.flatten(0, 1).permute(0, 3, 1, 2)
