"""What the training loop and the evaluation may ask of every self-supervised framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.losses import unit

Diagnostics = dict[str, Tensor]


class Mixture(Protocol):
    """A batch of mixed images with the weights of its two loss terms; `ablatrix_models.mixing` makes them."""

    @property
    def images(self) -> Tensor:
        """(batch, 3, height, width), normalised like the views; of a data-parallel run this rank's rows, as the views are."""
        ...

    @property
    def own(self) -> Tensor:
        """(batch,): weight of the term that pairs row i with target i, of the global batch as are the other fields."""
        ...

    @property
    def other(self) -> Tensor | None:
        """(batch,): weight of the term that pairs row `restore[j]` with target j; None leaves that term out."""
        ...

    @property
    def restore(self) -> Tensor:
        """(batch,) int64 permutation: the row in which image j is the partner."""
        ...


class Method(nn.Module, ABC):
    """A framework with its networks. Its state_dict holds all that a bit-identical continuation needs.

    The loss is L = L_clean + sum over mixtures of mean(own * l) + mean(other * l_restored), where the frameworks
    differ in l (MixMask, eq. 4 and 6). Views that need batch norm statistics of their own are encoded apart. A method whose encoder has
    a CLS token has `cls_features` too: images to its raw CLS output (batch, width).
    """

    encoder: nn.Module
    head: nn.Module

    @abstractmethod
    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """The loss of one batch, with every side effect of seeing it.

        Mixtures are made from view a. generator: on the CPU, for shuffles and masks. Returns the scalar loss and detached
        diagnostics (scalars, still on the device). A step that accumulates gradients asks once for each of its parts.

        In a data-parallel run the views are this rank's rows of the global batch, and the mean over ranks, of the loss and of its
        gradient, is that of one process: losses of each row alone are averaged there, others are taken of gathered rows.
        """

    def before_step(self) -> None:
        """Called once before each optimiser step's first loss; where networks that follow the trained ones move, if they lead the loss."""

    def after_step(self, progress: float, epoch: int, epochs: int) -> None:
        """Called after each optimiser step; progress: 0..1 over the whole run, epoch: from 0, of `epochs`."""

    def features(self, images: Tensor) -> Tensor:
        """Pooled backbone features (batch, width) of images (batch, 3, size, size); set eval mode first."""
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        """The head's output (batch, dim), not normalised; set eval mode first."""
        return self.head(self.encoder(images))

    def embeddings(self, images: Tensor) -> Tensor:
        """What must not collapse: (rows, dim) for images (batch, 3, size, size); set eval mode first. By default the head's output."""
        return self.project(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters for the optimiser; a group with `constant_lr: True` skips the schedule."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]


def mixture_loss(mixture: Mixture, term: Callable[[Tensor | None], Tensor]) -> Tensor:
    """Both terms of a mixture (MixMask, eq. 6): the scalar mean(own * l) + mean(other * l_restored).

    term(rows) returns the (batch,) losses of pairing mixture row rows[j] with target j; None stands for j itself.
    """
    loss = (mixture.own * term(None)).mean()
    if mixture.other is not None:
        loss = loss + (mixture.other * term(mixture.restore)).mean()
    return loss


def take(values: Tensor, rows: Tensor | None) -> Tensor:
    """`values` in the order `rows`, or as they are."""
    return values if rows is None else values[rows]


def total(clean: Tensor, mixed: Sequence[Tensor]) -> tuple[Tensor, Diagnostics]:
    """The sum of the clean loss and the mixtures' losses, and both as diagnostics."""
    diagnostics = {"loss.clean": clean.detach()}
    if not mixed:
        return clean, diagnostics
    mixture = torch.stack(tuple(mixed)).sum()
    diagnostics["loss.mixture"] = mixture.detach()
    return clean + mixture, diagnostics


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    """How far from collapse: mean standard deviation of unit (batch, dim) rows times sqrt(dim), 0 collapsed, 1 spread evenly.

    Chen and He 2021, section 4.1 and figure 2.
    """
    return unit(embeddings).std(dim=0).mean() * embeddings.shape[1] ** 0.5
