"""The encoder: a ViT that can leave patches out, and the transformer blocks that projector and decoder share with it (methods 1.4)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.positions import fixed_embedding
from ablatrix_models.siamese_im.recompute import Blocks
from ablatrix_models.siamese_im.token_norm import token_norm

TOKEN_STD = 0.02


def blocks(depth: int, dim: int, heads: int, norm: Literal["batch", "layer"], mlp_ratio: float = 4.0) -> Blocks:
    """Pre-norm transformer blocks, exact GELU, fused attention, no dropout; (batch, tokens, dim) to the same."""
    return Blocks(*(Block(dim, heads, mlp_ratio, qkv_bias=True, norm_layer=token_norm(norm)) for _ in range(depth)))


def initialise(network: nn.Module) -> None:
    """The released initialisation: linear layers Xavier-uniform with bias 0; norms keep theirs, 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at `index`: (batch, patches, dim) and (batch, kept) to (batch, kept, dim)."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def token_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Optimiser groups as timm's grouping makes them: matrices, and with them CLS and mask token, decay; vectors do not (methods 1.7)."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": [p for p in trained if p.ndim > 1]}, {"params": vectors, "weight_decay": 0.0}]


class Encoder(nn.Module):
    """A vision transformer on images of one size, with fixed sine-cosine positions.

    Raises ValueError where the patch does not divide the image.
    """

    positions: Tensor

    def __init__(self, config: ViT, image_size: int) -> None:
        super().__init__()
        if image_size % config.patch:
            raise ValueError(f"patches of {config.patch} pixels do not divide images of {image_size}. Use a divisor as backbone.patch.")
        self.width_out, self.grid, self.pool = config.width, image_size // config.patch, config.pool
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.blocks = blocks(config.depth, config.width, config.heads, "layer", config.mlp_ratio)
        self.norm: nn.Module = token_norm("layer")(config.width) if config.final_norm else nn.Identity()
        self.register_buffer("positions", fixed_embedding(self.grid, config.width), persistent=False)
        initialise(self)
        nn.init.xavier_uniform_(self.patch_embedding.weight.view(config.width, -1))
        nn.init.normal_(self.cls_token, std=TOKEN_STD)
        self.patch_embedding.requires_grad_(config.train_patch_embedding)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks, which every way in goes through (see `nn.Module.compile`)."""
        self.blocks.compile(*args, **kwargs)

    def tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encoded CLS and patches of images (batch, 3, size, size): (batch, 1 + patches, width).

        visible: (batch, kept) patches that alone are encoded, which makes that (batch, 1 + kept, width).
        """
        patches = self.patch_embedding(images).flatten(2).mT + self.positions
        if visible is not None:
            patches = gather(patches, visible)
        cls_token = self.cls_token.expand(len(images), -1, -1)  # its position is zero
        return self.norm(self.blocks(torch.cat([cls_token, patches], dim=1)))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of whole images: (batch, width)."""
        return self.pooled(self.tokens(images))

    def pooled(self, tokens: Tensor) -> Tensor:
        """The features of encoded tokens, CLS first, of all patches or some: (batch, 1 + patches, width) to (batch, width)."""
        return tokens[:, 1:].mean(dim=1) if self.pool == "patches" else tokens[:, 0]
