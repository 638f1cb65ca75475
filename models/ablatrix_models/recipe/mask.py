"""What a mask is: shape, grain and share. The samplers are in `ablatrix_models.masks`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ablatrix_models.recipe.fields import Problem, value


@dataclass(frozen=True)
class Mask:
    """MixMask's image mask (Vishniakov et al., section 3.1). 1 keeps the own pixel, 0 takes the partner's."""

    kind: Literal["blocked", "discrete"] = value("blocked", "rectangles of cells (BEiT's algorithm), or independent cells")
    grid: int = value(8, "cells per side", low=2, high=512)
    ratio: float | tuple[float, float] = value(
        0.5, "released `mask_lam`: share kept (blocked) or taken (discrete); [a, b] draws it uniformly per mask", low=0.0, high=1.0
    )
    min_block: int = value(4, "smallest rectangle in cells, blocked only; the released MixMask uses 4", low=1)
    per: Literal["step", "image"] = value("step", "one mask for the whole batch, as released, or one for each image")

    def problems(self) -> Iterator[Problem]:
        """Rules across fields."""
        low, high = self.ratio if isinstance(self.ratio, tuple) else (self.ratio, self.ratio)
        if low > high:
            yield Problem("ratio", f"runs from {low:g} down to {high:g}. Write the smaller bound first.")
        if low == high and low in (0.0, 1.0):
            yield Problem("ratio", f"is always {low:g}, so nothing would be mixed. Use a value between 0 and 1, or `mixing: none`.")
        if self.kind == "blocked" and self.grid < 4 and self.min_block >= 4:
            yield Problem(
                "grid",
                f"is {self.grid}, too few cells for blocks of {self.min_block} or more: at grid 2 and ratio 0.5, 94 % of the blocked masks "
                "are empty and show nothing but the partner. Set mask.kind: discrete, or mask.min_block: 1.",
            )
        elif self.kind == "blocked" and self.min_block > (self.grid - 1) ** 2:
            yield Problem(
                "min_block",
                f"is {self.min_block}, but the largest block that fits a grid of {self.grid} has {(self.grid - 1) ** 2} cells. Use fewer.",
            )
