"""Mixed images and the weights of their loss terms: MixMask, Un-Mix, both, and the erase baseline (methods 2.1-2.4).

Randomness stands in `sample_mixtures` and `draw_unmix`; `mixmask`, `unmix` and `erase` are functions of their arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ablatrix_models.distributed import gather_rows, own_rows, world_size
from ablatrix_models.draws import Draws, draw_seed, draws_from
from ablatrix_models.masks import pixel_share, sample_cells, upsample
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.mixing import Mixing


@dataclass(frozen=True, eq=False)
class Mixture:
    """A batch whose row i mixes image i with image pi(i), and what its rows are worth against the targets.

    With q the features of `images` and k the targets, a loss is
    mean_i own[i] * term(q[i], k[i]) + mean_j other[j] * term(q[restore[j]], k[j]).
    """

    images: Tensor  # (batch, channels, size, size); of a data-parallel run this rank's rows alone, the rest being of the global batch
    own: Tensor  # (batch,) float32: lambda of row i, the weight of pairing it with target i
    other: Tensor | None  # (batch,) float32: 1 - lambda of row restore[j], which is paired with target j; None drops that term
    restore: Tensor  # (batch,) int64: argsort(pi), the row in which image j is the partner


class Box(NamedTuple):
    """The rectangle that cutmix takes from the partner, in pixels; `bottom` and `right` are excluded."""

    top: int
    left: int
    bottom: int
    right: int


def sample_mixtures(images: Tensor, mixing: Mixing, mask: Mask, generator: torch.Generator) -> tuple[Mixture, ...]:
    """Draw the mixtures of one step: none, one, or for `both` Un-Mix and then MixMask.

    images: (batch, channels, size, size), normalised, on any device. All randomness comes from `generator`, which lives on the CPU; no
    draw waits for the device. Gaussian fill alone is drawn on the images' device, seeded from `generator`.

    In a data-parallel run the images are this rank's rows, and partners may lie on any rank: the released code mixes within each
    GPU's batch, with masks of its own, but then the number of GPUs would change the result. The images are gathered for it, as MoCo
    gathers them to shuffle.
    """
    _check(images)
    if world_size() == 1 or mixing.kind == "none":
        return _sample(images, mixing, mask, generator)
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    mixtures = _sample(gather_rows(images), mixing, mask, generator)
    return tuple(replace(mixture, images=own_rows(mixture.images).contiguous(memory_format=layout)) for mixture in mixtures)


def _sample(images: Tensor, mixing: Mixing, mask: Mask, generator: torch.Generator) -> tuple[Mixture, ...]:
    mixtures: list[Mixture] = []
    if mixing.kind in ("unmix", "both"):
        share, box = draw_unmix(mixing, images.shape[-1], draws_from(generator))
        mixtures.append(unmix(images, share, box, switch=mixing.switch))
    if mixing.masks:
        cells = sample_cells(mask, 1 if mask.per == "step" else len(images), generator).to(images.device, non_blocking=True)
        if mixing.kind == "erase":
            mixtures.append(erase(images, cells, _fill(images, mixing, generator)))
        else:
            partners = _reverse(images) if mixing.permutation == "reverse" else torch.randperm(len(images), generator=generator)
            mixtures.append(mixmask(images, cells, partners.to(images.device, non_blocking=True), switch=mixing.switch))
    return tuple(mixtures)


def mixmask(images: Tensor, cells: Tensor, partners: Tensor, *, switch: bool = True) -> Mixture:
    """Row i keeps image i where the mask is 1 and shows image partners[i] elsewhere (Vishniakov et al. 2024, eq. 1 and algorithm 1).

    cells: (1 or batch, grid, grid) bool. partners: (batch,) int64, a permutation. Lambda is the mask's share of *pixels*. With
    one mask and the reverse permutation, the switch image of eq. 2 is row B-1-i of this batch, so it is never encoded a second time.
    """
    mask = upsample(cells, images.shape[-1])
    mixed = torch.where(mask, images, _take_rows(images, partners))
    return _mixture(mixed, pixel_share(mask).expand(len(images)), torch.argsort(partners), switch)


def draw_unmix(mixing: Mixing, size: int, draws: Draws) -> tuple[float, Box | None]:
    """Un-Mix's lambda and box for the whole batch, in the released order of draws (Shen et al. 2022; methods 2.4).

    With probability `unmix_probability` mixup, whose box is None; else cutmix, whose lambda is recomputed from its clipped box.
    """
    mixup = draws.uniform(0.0, 1.0) < mixing.unmix_probability
    share = draws.betavariate(mixing.unmix_beta, mixing.unmix_beta)
    if mixup:
        return share, None
    half = int(size * math.sqrt(1.0 - share)) // 2
    row, column = draws.randint(0, size - 1), draws.randint(0, size - 1)
    box = Box(max(row - half, 0), max(column - half, 0), min(row + half, size), min(column + half, size))
    return 1.0 - (box.bottom - box.top) * (box.right - box.left) / size**2, box


def unmix(images: Tensor, share: float, box: Box | None, *, switch: bool = True) -> Mixture:
    """Mixup with weight `share` on the own image, or the reversed batch pasted into `box` (Shen et al. 2022; methods 2.4)."""
    partners = _reverse(images)
    reversed_images = _take_rows(images, partners)
    if box is None:
        mixed = share * images + (1.0 - share) * reversed_images
    else:
        mixed = images.clone()
        mixed[:, :, box.top : box.bottom, box.left : box.right] = reversed_images[:, :, box.top : box.bottom, box.left : box.right]
    return _mixture(mixed, torch.full((len(images),), share, device=images.device), partners, switch)


def erase(images: Tensor, cells: Tensor, fill: Tensor | float) -> Mixture:
    """The erase baseline: `fill` where the mask is 0, weight 1, no second term (Vishniakov et al. 2024, section 3.1; methods 2.1)."""
    mixed = torch.where(upsample(cells, images.shape[-1]), images, fill)
    rows = torch.arange(len(images), device=images.device)
    return _mixture(mixed, torch.ones(len(images), device=images.device), rows, switch=False)


def _mixture(mixed: Tensor, own: Tensor, restore: Tensor, switch: bool) -> Mixture:
    return Mixture(images=mixed, own=own, other=(1.0 - own).index_select(0, restore) if switch else None, restore=restore)


def _take_rows(images: Tensor, rows: Tensor) -> Tensor:
    """images[rows] in the same memory layout. Plain indexing takes twice as long, and starts threads for the smallest batch."""
    if images.is_contiguous(memory_format=torch.channels_last):
        return images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return images.index_select(0, rows)


def _reverse(images: Tensor) -> Tensor:
    """The permutation i -> B-1-i; its own inverse."""
    return torch.arange(len(images) - 1, -1, -1, device=images.device)


def _fill(images: Tensor, mixing: Mixing, generator: torch.Generator) -> Tensor | float:
    if mixing.erase_fill == "zero":
        return 0.0
    noise = torch.Generator(images.device).manual_seed(draw_seed(generator))
    return torch.randn(images.shape, generator=noise, device=images.device, dtype=images.dtype)


def _check(images: Tensor) -> None:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"images have the shape {shape}, but (batch, channels, size, size) is needed. Crop them to squares first.")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, but mixing needs normalised floats. Augment and normalise them first.")
