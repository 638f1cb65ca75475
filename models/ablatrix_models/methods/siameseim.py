"""SiameseIM: predict the dense features of another view of the same image from a masked one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ablatrix_models.augment import RelativeGeometry, TwoViews
from ablatrix_models.methods.contract import Diagnostics, Mixture, spread
from ablatrix_models.methods.momentum import follow, follower
from ablatrix_models.methods.transformer import FollowedTransformer
from ablatrix_models.recipe import siameseim as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.heads import Decoder, Projector
from ablatrix_models.siamese_im.patch_masks import sample_removed, visible_indices
from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify, pixel_loss
from ablatrix_models.siamese_im.positions import relative_embedding
from ablatrix_models.siamese_im.unigrad import feature_terms


class SiameseIM(FollowedTransformer[config.SiameseIM]):
    """SiameseIM (Tao et al. 2023) as released, and the variants of its Table 3.

    View a is always the masked, online one and view b the target; roles are never swapped. With `views: same` the two views are one,
    so that the target is view a itself, unmasked.
    """

    head: Projector  # narrower than the contract, which reads it only

    def __init__(self, settings: config.SiameseIM, backbone: ViT, image_size: int) -> None:
        super().__init__(settings, backbone, image_size)
        self.patch = backbone.patch
        self.head = Projector(backbone.width, settings)  # pyright: ignore[reportIncompatibleVariableOverride]
        values = settings.dim if settings.target == "feature" else 3 * backbone.patch**2
        self.decoder = Decoder(self.encoder.grid, values, settings)
        if settings.target == "feature":
            self.target_encoder = follower(self.encoder)
            self.target_head = follower(self.head)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws the masks. Raises ValueError for mixtures, and for views whose geometry is unknown."""
        if mixtures:
            raise ValueError(f"SiameseIM takes no mixtures, but got {len(mixtures)}. Use mixing: none.")
        return self.masked_loss(views, sample_removed(self.settings.mask, len(views.a), self.encoder.grid, generator))

    def masked_loss(self, views: TwoViews, removed: Tensor) -> tuple[Tensor, Diagnostics]:
        """The loss for a given mask (batch, patches), True where removed."""
        if views.geometry is None:
            raise ValueError(
                "SiameseIM needs to know where view b lies in view a, but the geometry is unknown. Use views without rotation."
            )
        if self.settings.one_view and views.b is not views.a:
            raise ValueError("`views: same` predicts view a itself, but got two views. Draw them with b=None.")
        prediction = self.predict(views.a, views.geometry, removed)
        if self.settings.target == "pixel":
            return self._pixel_loss(prediction, views.b, removed.to(views.a.device))
        with torch.no_grad():
            target = self.target_head(self.target_encoder.tokens(views.b))[:, 1:]
        attraction, repulsion = feature_terms(
            prediction,
            target,
            norm="moco-like" if self.settings.target_norm == "moco-like" else "mae-like",
            negative_weight=self.settings.negatives,
            pooled=self.settings.loss == "global",
            prediction_norm=self.settings.prediction_norm,
        )
        diagnostics = {"loss.attraction": attraction.detach(), "loss.repulsion": repulsion.detach()}
        return attraction + repulsion, {**diagnostics, "embedding.std": spread(target.flatten(0, 1))}

    def predict(self, a: Tensor, geometry: RelativeGeometry, removed: Tensor) -> Tensor:
        """Predictions for view b's patches, (batch, patches, values), from what `removed` leaves of view a."""
        visible = visible_indices(removed).to(a.device, non_blocking=True)
        relative = relative_embedding(geometry.to(a.device), self.encoder.grid, self.settings.dim).to(self.decoder.positions)
        return self.decoder(self.head(self.encoder.tokens(a, visible)), visible, relative)

    @torch.no_grad()
    def before_step(self) -> None:
        """One EMA step of the target's parameters, CLS token and patch embedding included.

        The release moves them between the online and the target pass. The online weights are the same then, and so is the result.
        """
        if self.settings.target == "feature":
            follow(self.target_encoder, self.encoder, self.momentum)
            follow(self.target_head, self.head, self.momentum)

    def _pixel_loss(self, prediction: Tensor, images: Tensor, removed: Tensor) -> tuple[Tensor, Diagnostics]:
        target = patchify(images, self.patch)
        if self.settings.target_norm == "mae-like":
            target = norm_patches(target)
        loss = pixel_loss(prediction, target, removed if self.settings.scores_removed_only else None)
        return loss, {"loss.attraction": loss.detach()}

    def project(self, images: Tensor) -> Tensor:
        """The projector's mean patch token, (batch, dim), of whole images; set eval mode first."""
        return self.head(self.encoder.tokens(images))[:, 1:].mean(dim=1)

    def embeddings(self, images: Tensor) -> Tensor:
        """See `Method.embeddings`: the target's patch tokens (batch * patches, dim), or, with pixel targets, the projector's mean token."""
        if self.settings.target == "pixel":
            return self.project(images)
        return self.target_head(self.target_encoder.tokens(images))[:, 1:].flatten(0, 1)
