"""SimSiam: predict the other view's features of the same network, without negatives or momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.backbones import build_backbone
from ablatrix_models.distributed import gather_rows
from ablatrix_models.losses import negative_cosine
from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, mixture_loss, spread, take, total
from ablatrix_models.methods.heads import mlp
from ablatrix_models.recipe import method as config
from ablatrix_models.recipe.backbone import ResNet


class SimSiam(Method):
    """SimSiam (Chen and He 2021): half the sum of both directions, with stopped gradients.

    A mixture passes through the predictor side only and predicts view b's projection as one whole directional term;
    with `target_side` its projection is also predicted from view b, and each direction counts half (Un-Mix's recipe
    read literally).
    """

    def __init__(self, settings: config.SimSiam, backbone: ResNet, *, target_side: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.target_side = target_side
        self.encoder = build_backbone(backbone)
        widths = (self.encoder.width_out, *[settings.hidden] * (settings.layers - 1), settings.dim)
        self.head = mlp(widths, norm=True, output_norm=True)
        self.predictor = mlp((settings.dim, settings.predictor_hidden, settings.dim), norm=True)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws nothing."""
        projections = [self.project(view) for view in (views.a, views.b, *(mixture.images for mixture in mixtures))]
        predictions = [gather_rows(self.predictor(projection)) for projection in projections]
        return simsiam_loss(predictions, [gather_rows(p.detach()) for p in projections], mixtures, target_side=self.target_side)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Encoder and projector, then the predictor, whose learning rate may stay constant."""
        trained = [*self.encoder.parameters(), *self.head.parameters()]
        flag = {"constant_lr": True} if self.settings.constant_predictor_lr else {}
        return [{"params": trained}, {"params": list(self.predictor.parameters()), **flag}]


def simsiam_loss(
    predictions: Sequence[Tensor],
    projections: Sequence[Tensor],
    mixtures: Sequence[Mixture],
    *,
    target_side: bool,
) -> tuple[Tensor, Diagnostics]:
    """SimSiam's loss with mixtures, from features (Chen and He 2021, eq. 4).

    predictions, projections: of view a, view b, then each mixture; (batch, dim), not normalised; projections get no
    gradient here. Returns the scalar and its parts.
    """
    clean = (negative_cosine(predictions[0], projections[1]).mean() + negative_cosine(predictions[1], projections[0]).mean()) / 2

    def mixture_term(prediction: Tensor, projection: Tensor, mixture: Mixture) -> Tensor:
        def term(rows: Tensor | None) -> Tensor:
            loss = negative_cosine(take(prediction, rows), projections[1])
            if not target_side:
                return loss
            return (loss + negative_cosine(predictions[1], take(projection, rows))) / 2

        return mixture_loss(mixture, term)

    mixed = [mixture_term(*parts) for parts in zip(predictions[2:], projections[2:], mixtures, strict=True)]
    loss, diagnostics = total(clean, mixed)
    return loss, {**diagnostics, "embedding.std": spread(projections[0])}
