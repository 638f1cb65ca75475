"""Which encoder. The networks are in `ablatrix_models.backbones` and `ablatrix_models.siamese_im.vit`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value

SINCOS_PARTS = 4  # sine and cosine of rows and of columns

# name -> (width, depth, heads): tiny and small of DeiT (Touvron et al. 2021, table 1), base and large of Dosovitskiy et al. (2021, table 1)
VIT_SIZES: dict[str, tuple[int, int, int]] = {
    "vit-tiny": (192, 12, 3),
    "vit-small": (384, 12, 6),
    "vit-base": (768, 12, 12),
    "vit-large": (1024, 24, 16),
}


@dataclass(frozen=True)
class ResNet:
    """A residual network (He et al. 2016) without its classifier; features are the pooled last stage."""

    name: Literal["resnet18", "resnet50"] = value("resnet18", "depth")
    stem: Literal["cifar", "imagenet"] = value("cifar", "3x3 stride 1, or 7x7 stride 2")
    max_pool: bool | None = value(None, "keep the stem's max-pool; empty means only with the imagenet stem")
    width: float = value(1.0, "multiplies every channel count; below 1 for CPU profiles", low=0.01, high=4.0)

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "resnet18|resnet50"

    @property
    def pools(self) -> bool:
        """Whether the stem ends in a max-pool."""
        return self.stem == "imagenet" if self.max_pool is None else self.max_pool

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        if round(64 * self.width) < 1:
            yield Problem("width", f"is {self.width:g}, so the first stage would have no channel. Use at least 0.016.")


@dataclass(frozen=True)
class ViT:
    """A vision transformer (Dosovitskiy et al. 2021) without classifier; features are pooled patch tokens.

    A width, depth or number of heads of 0 is that of the name, which the object then holds.
    """

    name: Literal["vit-tiny", "vit-small", "vit-base", "vit-large"] = value("vit-base", "size")
    patch: int = value(16, "pixels per side of a patch", low=1)
    width: int = value(0, "of a token; 0 means the name's, 768 for vit-base", low=0)
    depth: int = value(0, "transformer blocks; 0 means the name's, 12 for vit-base", low=0)
    heads: int = value(0, "of the attention; must divide the width; 0 means the name's, 12 for vit-base", low=0)
    mlp_ratio: float = value(4.0, "hidden width of the blocks' MLP over the token's width", low=0.1)
    pool: Literal["patches", "cls"] = value("patches", "features are the mean of the patch tokens, or the CLS token")
    final_norm: bool = value(False, "layer norm after the blocks: MAE has one, SiameseIM none")
    train_patch_embedding: bool = value(False, "released SiameseIM keeps it at its random initialisation, as MoCo v3 does")

    def __post_init__(self) -> None:
        for key, own in zip(("width", "depth", "heads"), VIT_SIZES[self.name], strict=True):
            if not getattr(self, key):
                object.__setattr__(self, key, own)

    @staticmethod
    def tag() -> str:
        """The `name` values that choose this class."""
        return "|".join(VIT_SIZES)

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        yield from width_problems("width", self.width, self.heads)


Backbone = ResNet | ViT


def width_problems(key: str, width: int, heads: int) -> Iterator[Problem]:
    """Rules between a transformer's width, under `key`, its heads and its positions."""
    if width % SINCOS_PARTS:
        yield Problem(key, f"is {width}, but sine-cosine positions need a multiple of {SINCOS_PARTS}.")
    if width % heads:
        yield Problem("heads", f"is {heads}, which does not divide the {key} of {width}. Use a divisor.")
