"""What do the patch masks cost beside a SiameseIM training step?

Command: python benchmarks/masks.py [--images 8] [--rounds 7]. Both on one CPU thread, blockwise masks as released: ViT-S/16 at 224 pixels
(118 of 196 patches), and the smoke profile's ViT at 32 pixels (39 of 64). About 2 CPU-minutes. Bar: a batch's masks take under 5 % of
a step on it, by the worse quartile of the paired ratios. Masks are drawn on the CPU: the last rate is the one from which on a device's step
would be so short that they take more, if they were not drawn while the device works. Exit code: 0 passed, 1 failed, 2 inconclusive.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

from ablatrix_models.augment import TwoViews
from ablatrix_models.augment.geometry import same_geometry
from ablatrix_models.descent import Descent
from ablatrix_models.methods import build_method
from ablatrix_models.recipe import Recipe
from ablatrix_models.siamese_im.patch_masks import sample_removed
from paired import paired_ratios

SHARE, MASKS = 0.05, 512
SIZES: dict[str, dict[str, Any]] = {
    "ViT-S/16, 224": {
        "method": {"name": "siameseim", "dim": 384, "heads": 8},
        "backbone": {"name": "vit-small", "patch": 16},
        "data": {"image_size": 224},
    },
    "smoke, 32": {
        "method": {"name": "siameseim", "dim": 96, "heads": 4, "projector_depth": 1, "decoder_depth": 2, "mask": {"min_block": 4}},
        "backbone": {"name": "vit-tiny", "patch": 4, "width": 96, "depth": 4},
        "data": {"image_size": 32},
    },
}
ADAMW = {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.05, "clip_norm": 1.0}


def step_of(recipe: Recipe, images: int) -> Callable[[], object]:
    """A whole training step on given views, its own masks left out."""
    torch.manual_seed(0)
    method: Any = build_method(recipe).train()
    descent = Descent(recipe.optimizer, method.parameter_groups(), torch.device("cpu"))
    a, b = torch.randn(2, images, 3, recipe.data.image_size, recipe.data.image_size)
    views = TwoViews(a, b, same_geometry(images))
    removed = sample_removed(method.settings.mask, images, method.encoder.grid, torch.Generator().manual_seed(0))

    def step() -> None:
        method.before_step()
        descent.step((loss for loss, _ in [method.masked_loss(views, removed)]), 1.0)

    return step


def masks_of(recipe: Recipe) -> Callable[[], object]:
    """The masks of `MASKS` images."""
    backbone: Any = recipe.backbone
    method: Any = recipe.method
    generator = torch.Generator().manual_seed(0)
    return lambda: sample_removed(method.mask, MASKS, recipe.data.image_size // backbone.patch, generator)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="images of the step; masks are always timed for 512 and scaled")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    verdicts = []
    print(f"{'case':<15} {'step, ms/image':>15} {'512 masks, ms':>14} {'share':>8} {'quartiles':>18} {'5 % from images/s':>18}  verdict")
    for name, sections in SIZES.items():
        recipe = Recipe.read(sections | {"optimizer": ADAMW})
        rounds = paired_ratios({"step": step_of(recipe, arguments.images), "masks": masks_of(recipe)}, arguments.rounds)
        ratio, scale = rounds.ratio("masks", "step"), arguments.images / MASKS
        verdict = rounds.verdict(rounds.ratio("step", "masks"), scale / SHARE)
        step, masks = rounds.median_seconds("step") / arguments.images * 1e3, rounds.median_seconds("masks") * 1e3
        quartiles = f"[{ratio.lower * scale:.2%}, {ratio.upper * scale:.2%}]"
        limit = SHARE * MASKS / (masks / 1e3)
        print(f"{name:<15} {step:>15.1f} {masks:>14.1f} {ratio.median * scale:>8.2%} {quartiles:>18} {limit:>18.0f}  {verdict}")
        verdicts.append(verdict)
    return 1 if "failed" in verdicts else 0 if set(verdicts) == {"passed"} else 2


if __name__ == "__main__":
    sys.exit(main())
