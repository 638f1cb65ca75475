"""MoCo v3 on a ViT, with or without a mask: contrast with the batch's keys, without a queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.distributed import gather_rows, own_rows
from ablatrix_models.losses import batch_info_nce, unit
from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, spread
from ablatrix_models.methods.heads import mlp
from ablatrix_models.methods.momentum import follow, follower
from ablatrix_models.methods.transformer import FollowedTransformer
from ablatrix_models.recipe import mocov3 as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.patch_masks import sample_removed, visible_indices
from ablatrix_models.siamese_im.unigrad import unigrad


class MoCoV3(FollowedTransformer[config.MoCoV3]):
    """MoCo v3 (Chen et al. 2021, algorithm 1), and MoCo v3 with mask (Tao et al. 2023, Table 3, last row).

    Queries are made of what a mask leaves of the views, keys of the whole views by networks that follow; each query meets the keys
    of all images of the batch, those of other ranks included. The predictor has no copy on the key side.
    """

    def __init__(self, settings: config.MoCoV3, backbone: ViT, image_size: int) -> None:
        super().__init__(settings, backbone, image_size)
        self.head = _head(backbone.width, settings.projector_layers, settings)
        self.predictor = _head(settings.dim, settings.predictor_layers, settings)
        self.key_encoder = follower(self.encoder)
        self.key_head = follower(self.head)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws a mask for every query's view. Raises ValueError for mixtures."""
        if mixtures:
            raise ValueError(f"MoCo v3 takes no mixtures, but got {len(mixtures)}. Use mixing: none.")
        queried = (views.a, views.b) if self.settings.symmetric else (views.a,)
        return self.masked_loss(views, [self._removed(view, generator) for view in queried])

    @torch.no_grad()
    def before_step(self) -> None:
        """Move the key networks: the release does so between queries and keys, which makes no difference to either."""
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_head, self.head, self.momentum)

    def masked_loss(self, views: TwoViews, removed: Sequence[Tensor | None]) -> tuple[Tensor, Diagnostics]:
        """The loss for given masks (batch, patches) of view a's queries and, if symmetric, view b's; True where removed."""
        queries = [self.predict(view, gone) for view, gone in zip((views.a, views.b), removed, strict=False)]
        with torch.no_grad():
            keys = [unit(self.key_head(self.key_encoder(view))) for view in (views.b, views.a)[: len(queries)]]
        loss = torch.stack([self._direction(*pair) for pair in zip(queries, keys, strict=True)]).sum()
        return loss, {"loss.clean": loss.detach(), "embedding.std": spread(keys[0])}

    def predict(self, images: Tensor, removed: Tensor | None) -> Tensor:
        """Unit queries (batch, dim) of what `removed` leaves of the images, or of all."""
        if removed is None:
            return unit(self.predictor(self.project(images)))
        visible = visible_indices(removed).to(images.device, non_blocking=True)
        return unit(self.predictor(self.head(self.encoder.pooled(self.encoder.tokens(images, visible)))))

    def _removed(self, view: Tensor, generator: torch.Generator) -> Tensor | None:
        mask = self.settings.mask
        return None if mask is None else sample_removed(mask, len(view), self.encoder.grid, generator)

    def _direction(self, query: Tensor, key: Tensor) -> Tensor:
        if self.settings.loss == "unigrad":
            attraction, repulsion = unigrad(query, key, self.settings.negatives)
            return attraction + repulsion
        keys = gather_rows(key)
        own = own_rows(torch.arange(len(keys), device=keys.device))
        return batch_info_nce(query, keys, own, self.settings.temperature).mean()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices and the CLS token decay; vectors do so only with `decay_vectors`."""
        return Method.parameter_groups(self) if self.settings.decay_vectors else super().parameter_groups()


def _head(width: int, layers: int, settings: config.MoCoV3) -> nn.Sequential:
    """`layers` linear layers without bias, batch norm after each, the last without affine: (batch, width) to (batch, dim)."""
    widths = (width, *[settings.hidden] * (layers - 1), settings.dim)
    return mlp(widths, norm=True, output_norm=True, output_affine=False, bias=False)
