"""Which patches are removed from the encoder's input. The samplers are in `ablatrix_models.siamese_im.patch_masks`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class PatchMask:
    """Which patches of view a are removed. Every image loses equally many, so that sequences have one length."""

    kind: Literal["blockwise", "random"] = value("blockwise", "BEiT's rectangles, topped up to the exact count, or independent patches")
    ratio: float = value(0.6, "share removed; of 196 patches 0.6 removes the released 118", low=0.0, high=1.0)
    min_block: int = value(16, "smallest rectangle in patches, blockwise only", low=1)

    def visible(self, patches: int) -> int:
        """How many of `patches` stay, rounded down as in MAE."""
        return int(patches * (1 - self.ratio))

    def read(self) -> tuple[str, ...]:
        """The fields that this kind of mask depends on."""
        return ("kind", "ratio", "min_block") if self.kind == "blockwise" else ("kind", "ratio")


def grid_problems(mask: PatchMask | None, backbone: object, image_size: int) -> Iterator[Problem]:
    """Rules between a method that removes patches, its encoder and the images, with keys as seen from the recipe's root.

    mask: None where the method could remove patches, but does not.
    """
    if not isinstance(backbone, ViT):
        yield Problem(
            "backbone.name",
            "is no ViT, but this method leaves removed patches out of the encoder. Use backbone: vit-base, or another size.",
        )
        return
    if image_size % backbone.patch or image_size <= backbone.patch:
        yield Problem("backbone.patch", f"is {backbone.patch}, but images of {image_size} pixels need a smaller patch that divides them.")
        return
    if mask is None:
        return
    grid = image_size // backbone.patch
    visible = mask.visible(grid**2)
    if not 0 < visible < grid**2:
        yield Problem("method.mask.ratio", f"is {mask.ratio:g}, so {visible} of {grid**2} patches stay. Some must stay, and some must go.")
    if mask.kind == "blockwise" and mask.min_block > (grid - 1) ** 2:
        yield Problem(
            "method.mask.min_block",
            f"is {mask.min_block}, but the largest block that fits {grid} x {grid} patches has {(grid - 1) ** 2}. Use fewer.",
        )
