"""A run that several ranks share: one method, one session, one result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ablatrix_models.batchnorm import spread_over_ranks
from ablatrix_models.distributed import any_rank, from_first, rank, world_size
from ablatrix_models.methods.contract import Diagnostics, Method
from ablatrix_models.session import Session


class SharedLoss:
    """A method's loss on this rank's rows of the global batch; the backward pass averages the gradients over the ranks.

    By PyTorch's DistributedDataParallel, which sends gradients in buckets while the rest of the backward pass still runs; averaging
    them ourselves would wait for its end. It is told of the trained parameters alone: the ranks' other state is equal by itself, or
    averaged before it is read. Batch norms of `method` are changed in place, see `spread_over_ranks`. In a run of one process all
    this is `method.loss`.
    """

    def __init__(self, method: Method) -> None:
        self._loss: Callable[..., tuple[Tensor, Diagnostics]] = method.loss
        self._parallel: DistributedDataParallel | None = None
        if world_size() > 1:
            spread_over_ranks(method)
            self._parallel = DistributedDataParallel(_Loss(method), gradient_as_bucket_view=True)
            self._loss = self._parallel

    def __call__(self, *arguments: Any, last: bool = True) -> tuple[Tensor, Diagnostics]:
        """`Method.loss(*arguments)`. last: whether this is the last part of a step, whose backward pass alone sends gradients."""
        if self._parallel is None or last:
            return self._loss(*arguments)
        with self._parallel.no_sync():
            return self._loss(*arguments)


class _Loss(nn.Module):
    """What DistributedDataParallel takes for its module: the method's trained parameters, and no buffers that it would broadcast."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameter for parameter in method.parameters() if parameter.requires_grad)
        self.loss = method.loss

    def forward(self, *arguments: Any) -> tuple[Tensor, Diagnostics]:
        return self.loss(*arguments)


class SharedSession:
    """One `Session` for all ranks: rank 0's reports, saves and loads for all of them; a rank that is asked to stop stops all."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def report(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """See `Session.report`; of rank 0 alone."""
        if rank() == 0:
            self._session.report(epoch, step, values)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Rank 0's checkpoint, on every rank; the others need not see where it lies."""
        return from_first(self._session.load_checkpoint() if rank() == 0 else None)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """See `Session.save_checkpoint`; of rank 0 alone, since all ranks have the same state."""
        if rank() == 0:
            self._session.save_checkpoint(state)

    def stop_requested(self) -> bool:
        """Whether any rank's session says so; every rank gets the same answer at the same step."""
        return any_rank(self._session.stop_requested())
