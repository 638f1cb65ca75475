"""Projector and decoder of SiameseIM (Tao et al. 2023, section 3.2; methods 1.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablatrix_models.recipe.siameseim import SiameseIM
from ablatrix_models.siamese_im.positions import fixed_embedding
from ablatrix_models.siamese_im.vit import TOKEN_STD, blocks, gather, initialise


class Projector(nn.Module):
    """A linear layer and transformer blocks: (batch, tokens, width) to (batch, tokens, dim)."""

    def __init__(self, width: int, config: SiameseIM) -> None:
        super().__init__()
        self.embed = nn.Linear(width, config.dim)
        self.blocks = blocks(config.projector_depth, config.dim, config.heads, config.projector_norm)
        initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Project every token, CLS included."""
        return self.blocks(self.embed(tokens))


class Decoder(nn.Module):
    """Predicts all patches of view b from the visible ones of view a and b's relative positions."""

    positions: Tensor

    def __init__(self, grid: int, width_out: int, config: SiameseIM) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.embed_positions = nn.Linear(2 * config.dim, config.dim)
        self.blocks = blocks(config.decoder_depth, config.dim, config.heads, config.decoder_norm)
        self.head = nn.Linear(config.dim, width_out)
        self.register_buffer("positions", fixed_embedding(grid, config.dim), persistent=False)
        initialise(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, projected: Tensor, visible: Tensor, relative: Tensor) -> Tensor:
        """Predictions for b's patches: (batch, patches, width_out).

        projected: (batch, 1 + visible, dim), CLS first. visible: (batch, visible), their places in view a.
        relative: (batch, patches, 2 * dim) from `relative_embedding`.
        """
        places = gather(self.positions.expand(len(projected), -1, -1), visible)
        known = torch.cat([projected[:, :1], projected[:, 1:] + places], dim=1)
        asked = self.mask_token + self.embed_positions(relative)
        decoded = self.blocks(torch.cat([known, asked], dim=1))
        return self.head(decoded[:, known.shape[1] :])
