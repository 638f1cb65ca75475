"""MAE: reconstruct the pixels of removed patches. The baseline that SiameseIM's Table 3 starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.methods.contract import Diagnostics, Mixture
from ablatrix_models.methods.transformer import TransformerMethod
from ablatrix_models.recipe import mae as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.patch_masks import sample_removed, visible_indices
from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify, pixel_loss
from ablatrix_models.siamese_im.positions import fixed_embedding
from ablatrix_models.siamese_im.token_norm import token_norm
from ablatrix_models.siamese_im.vit import TOKEN_STD, blocks, initialise


class PixelDecoder(nn.Module):
    """MAE's decoder: mask tokens in the removed places, transformer blocks, layer norm, a linear layer to pixels."""

    positions: Tensor

    def __init__(self, width: int, grid: int, values: int, config: config.MAE) -> None:
        super().__init__()
        self.embed = nn.Linear(width, config.dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.blocks = blocks(config.depth, config.dim, config.heads, "layer")
        self.norm = token_norm("layer")(config.dim)
        self.head = nn.Linear(config.dim, values)
        self.register_buffer("positions", fixed_embedding(grid, config.dim), persistent=False)
        initialise(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Pixels of every patch, (batch, patches, values), from encoded tokens (batch, 1 + visible, width), CLS first."""
        embedded = self.embed(tokens)
        whole = self.mask_token.to(embedded.dtype).expand(len(tokens), len(self.positions), -1)
        index = visible[:, :, None].expand(-1, -1, embedded.shape[2])
        patches = whole.scatter(1, index, embedded[:, 1:]) + self.positions
        decoded = self.blocks(torch.cat([embedded[:, :1], patches], dim=1))
        return self.head(self.norm(decoded[:, 1:]))


class MAE(TransformerMethod):
    """Masked autoencoder (He et al. 2022) on view a; view b goes unused. The embedding is the encoder's own feature."""

    def __init__(self, settings: config.MAE, backbone: ViT, image_size: int) -> None:
        super().__init__(backbone, image_size)
        self.settings, self.patch = settings, backbone.patch
        self.head = nn.Identity()
        self.decoder = PixelDecoder(backbone.width, self.encoder.grid, 3 * backbone.patch**2, settings)

    def loss(self, views: TwoViews, mixtures: Sequence[Mixture], generator: torch.Generator) -> tuple[Tensor, Diagnostics]:
        """See `Method.loss`; draws the masks. Raises ValueError for mixtures."""
        if mixtures:
            raise ValueError(f"MAE takes no mixtures, but got {len(mixtures)}. Use mixing: none.")
        loss = self.masked_loss(views.a, sample_removed(self.settings.mask, len(views.a), self.encoder.grid, generator))
        return loss, {"loss.clean": loss.detach()}

    def masked_loss(self, images: Tensor, removed: Tensor) -> Tensor:
        """The squared error on the patches that `removed` (batch, patches) marks; a scalar."""
        target = patchify(images, self.patch)
        target = norm_patches(target) if self.settings.norm_pixels else target
        return pixel_loss(self.predict(images, removed), target, removed.to(images.device, non_blocking=True))

    def predict(self, images: Tensor, removed: Tensor) -> Tensor:
        """Pixels of every patch, (batch, patches, values), from what `removed` leaves."""
        visible = visible_indices(removed).to(images.device, non_blocking=True)
        return self.decoder(self.encoder.tokens(images, visible), visible)
