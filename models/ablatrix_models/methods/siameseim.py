"""SiameseIM: predict the dense features of another view of the same image from a masked one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ablatrix_models.methods.contract import Diagnostics, Method, Mixture, spread
from ablatrix_models.methods.momentum import follow, follower
from ablatrix_models.recipe import siameseim as config
from ablatrix_models.siamese_im.heads import Decoder, Projector
from ablatrix_models.siamese_im.patch_masks import sample_removed, visible_indices
from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify, pixel_loss
from ablatrix_models.siamese_im.positions import relative_embedding
from ablatrix_models.siamese_im.schedule import target_momentum
from ablatrix_models.siamese_im.unigrad import feature_terms
from ablatrix_models.siamese_im.views import RelativeGeometry, same_geometry
from ablatrix_models.siamese_im.vit import Encoder, token_groups


class SiameseIM(Method):
    """SiameseIM (Tao et al. 2023) as released, and the variants of its Table 3.

    View a is always the masked, online one and view b the target; roles are never swapped. Every step the target networks move
    after the online pass and before their own. With `views: same` the target is view a itself, unmasked, and b goes unused.
    """

    # Narrower than the contract, which reads them only.
    encoder: Encoder
    head: Projector

    def __init__(self, settings: config.SiameseIM, backbone: config.ViT, image_size: int) -> None:
        super().__init__()
        self.settings, self.patch = settings, backbone.patch
        self.progress = 0.0
        self.encoder = Encoder(backbone, image_size)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.head = Projector(backbone.width, settings)  # pyright: ignore[reportIncompatibleVariableOverride]
        values = settings.dim if settings.target == "feature" else 3 * backbone.patch**2
        self.decoder = Decoder(self.encoder.grid, values, settings)
        if settings.target == "feature":
            self.target_encoder = follower(self.encoder)
            self.target_head = follower(self.head)

    def loss(
        self, a: Tensor, b: Tensor, mixtures: Sequence[Mixture], generator: torch.Generator, geometry: RelativeGeometry | None = None
    ) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws the masks and moves the target. geometry: where b lies in a, needed where the views are two.

        Raises ValueError for mixtures, and for two views without their geometry.
        """
        if mixtures:
            raise ValueError(f"SiameseIM takes no mixtures, but got {len(mixtures)}. Use mixing: none.")
        if self.settings.views == "same":
            geometry = same_geometry(len(a))
        elif geometry is None:
            raise ValueError("SiameseIM with two views needs to know where view b lies. Pass relative_geometry(...) as geometry.")
        removed = sample_removed(self.settings.mask, len(a), self.encoder.grid, generator)
        return self.masked_loss(a, b, geometry, removed, self.momentum)

    @property
    def momentum(self) -> float:
        """The EMA momentum of the next step."""
        return target_momentum(self.settings.momentum, self.progress, constant=self.settings.momentum_schedule == "constant")

    def masked_loss(self, a: Tensor, b: Tensor, geometry: RelativeGeometry, removed: Tensor, momentum: float) -> tuple[Tensor, Diagnostics]:
        """The loss for a given geometry, mask (batch, patches), True where removed, and EMA momentum; moves the target."""
        target_view = a if self.settings.views == "same" else b
        prediction = self.predict(a, geometry, removed)
        if self.settings.target == "pixel":
            return self._pixel_loss(prediction, target_view, removed.to(a.device))
        with torch.no_grad():
            self.move_target(momentum)
            target = self.target_head(self.target_encoder.tokens(target_view))[:, 1:]
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
    def move_target(self, momentum: float) -> None:
        """One EMA step of the target's parameters, CLS token and patch embedding included."""
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_head, self.head, momentum)

    def _pixel_loss(self, prediction: Tensor, images: Tensor, removed: Tensor) -> tuple[Tensor, Diagnostics]:
        target = patchify(images, self.patch)
        if self.settings.target_norm == "mae-like":
            target = norm_patches(target)
        loss = pixel_loss(prediction, target, removed if self.settings.scores_removed_only else None)
        return loss, {"loss.attraction": loss.detach()}

    def after_step(self, progress: float, epoch: int, epochs: int) -> None:
        """Note how far the run is, for the next step's momentum. Raises ValueError for a progress outside 0..1."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress:g}, but it is a share of the run. Pass steps done over all steps.")
        self.progress = progress

    def get_extra_state(self) -> Tensor:
        """The progress, which the state dict must hold for an exact continuation."""
        return torch.tensor(self.progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the progress back."""
        self.progress = float(state)

    def project(self, images: Tensor) -> Tensor:
        """The projector's mean patch token, (batch, dim), of whole images; set eval mode first."""
        return self.head(self.encoder.tokens(images))[:, 1:].mean(dim=1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices, and with them CLS and mask token, decay; vectors do not (methods 1.7)."""
        return token_groups(self)
