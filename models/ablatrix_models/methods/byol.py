"""BYOL: predict the features of a momentum network, without negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.backbones import build_backbone
from ablatrix_models.distributed import gather_rows
from ablatrix_models.losses import byol_regression
from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, mixture_loss, spread, take, total
from ablatrix_models.methods.heads import mlp
from ablatrix_models.methods.momentum import follow, follower
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet


class BYOL(Method):
    """BYOL (Grill et al. 2020) as in MixMask's base: the sum of both directions, target in training mode.

    A mixture passes through the online side only and predicts view b's target; with `target_side` it also passes
    through the target, which view b's prediction then has to meet (Un-Mix's recipe read literally).
    """

    def __init__(self, settings: config.BYOL, backbone: ResNet, *, target_side: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.target_side = target_side
        self.encoder = build_backbone(backbone)
        self.head = mlp((self.encoder.width_out, settings.hidden, settings.dim), norm=True)
        self.predictor = mlp((settings.dim, settings.hidden, settings.dim), norm=True)
        self.target_encoder: nn.Module = follower(self.encoder)
        self.target_head: nn.Module = follower(self.head)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws nothing."""
        predictions = self._predict(views.a), self._predict(views.b)
        mixed = [self._predict(mixture.images) for mixture in mixtures]
        targets = self._target(views.a), self._target(views.b)
        mixed_targets = [self._target(mixture.images) for mixture in mixtures] if self.target_side else None
        return byol_loss(predictions, targets, mixed, mixtures, mixed_targets)

    def after_step(self, progress: float, epoch: int, epochs: int) -> None:
        """Move the target with the epoch's momentum."""
        momentum = self.settings.momentum
        if self.settings.momentum_schedule == "cosine":
            momentum = 1 - (1 - momentum) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_head, self.head, momentum)

    def _predict(self, images: Tensor) -> Tensor:
        return gather_rows(self.predictor(self.project(images)))

    @torch.no_grad()
    def _target(self, images: Tensor) -> Tensor:
        return gather_rows(self.target_head(self.target_encoder(images)))


def byol_loss(
    predictions: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    mixed: Sequence[Tensor],
    mixtures: Sequence[Mixture],
    mixed_targets: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Diagnostics]:
    """BYOL's loss with mixtures, from features (Grill et al. 2020, eq. 2, summed over both directions).

    predictions, targets: of views a and b; mixed: the mixtures' predictions; all (batch, dim), not normalised.
    mixed_targets: their targets, where the mixture also passes through the target side. Returns the scalar and its parts.
    """
    clean = byol_regression(predictions[0], targets[1]).mean() + byol_regression(predictions[1], targets[0]).mean()

    def mixture_term(index: int) -> Tensor:
        def term(rows: Tensor | None) -> Tensor:
            loss = byol_regression(take(mixed[index], rows), targets[1])
            if mixed_targets is None:
                return loss
            return loss + byol_regression(predictions[1], take(mixed_targets[index], rows))

        return mixture_loss(mixtures[index], term)

    loss, diagnostics = total(clean, [mixture_term(index) for index in range(len(mixtures))])
    return loss, {**diagnostics, "embedding.std": spread(targets[0])}
