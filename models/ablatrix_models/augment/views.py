"""From uint8 images in memory to the normalised views that a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ablatrix_models.augment.blur import blur
from ablatrix_models.augment.colour import grey, jitter, solarize
from ablatrix_models.augment.crop import crop
from ablatrix_models.augment.geometry import RelativeGeometry, relative_geometry, same_geometry
from ablatrix_models.augment.parameters import Parameters, draw
from ablatrix_models.augment.rotation import rotate
from ablatrix_models.distributed import rank, world_size
from ablatrix_models.recipe.augment import Augment

# Pixels that are worked on at once. A processor is fastest when they stay in its cache; a GPU wants them all.
_CPU_PIXELS = 128 * 32 * 32
_GPU_PIXELS = 512 * 256 * 256


@dataclass(frozen=True, eq=False)
class TwoViews:
    """Two views of each image of a batch, as a framework gets them."""

    a: Tensor  # (batch, 3, size, size), normalised
    b: Tensor  # the same shape; the very tensor `a` where the views are one
    geometry: RelativeGeometry | None  # where b lies in a, on the CPU; None where a rotation leaves no crop box to tell it by

    def channels_last(self) -> TwoViews:
        """The same with channels innermost in memory."""
        a = self.a.contiguous(memory_format=torch.channels_last)
        return TwoViews(a, a if self.b is self.a else self.b.contiguous(memory_format=torch.channels_last), self.geometry)


def apply(images: Tensor, parameters: Parameters, config: Augment, size: int) -> Tensor:
    """One view of each image, as drawn.

    images: uint8 (batch, 3, height, width). Returns float32 (batch, 3, size, size) in 0..1 on the images' device.
    Matrix products follow torch's float32 precision setting, never autocast; no gradient is kept.
    Order: rotation, crop with flip, jitter, grey, blur, solarize; the colours come before rotation where `config.order` is
    colour-first. (A flip commutes with everything that follows the crop, so its place there does not matter.)
    Raises ValueError where the images are of another kind, or were not those that the parameters were drawn for.
    """
    _check_images(images)
    return _render(images, parameters, config, size, scale=torch.ones(3), shift=torch.zeros(3))


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images - mean) / std per channel; images: float (batch, 3, height, width) in 0..1."""
    scale, shift = (values.to(images, non_blocking=True)[:, None, None] for values in _affine(mean, std))
    return (images * scale).add_(shift)


def two_views(
    images: Tensor, a: Augment, b: Augment | None, size: int, mean: Sequence[float], std: Sequence[float], generator: torch.Generator
) -> TwoViews:
    """Two independent, normalised views of each image, float32; the first is drawn first.

    images: uint8 (batch, 3, height, width). b: None makes view a both of them, with one crop and one draw of colours; the second
    view's numbers are drawn all the same, so that view a does not depend on it. A function of the images, the arguments and the
    CPU generator's state. The images are this rank's own of a global batch, whose numbers are all drawn.
    """
    _check_images(images)
    height, width = images.shape[2:]
    scale, shift = _affine(mean, std)
    drawn = [draw(config, len(images) * world_size(), height, width, generator).rows(rank(), None, world_size()) for config in (a, b or a)]
    first = _render(images, drawn[0], a, size, scale, shift)
    if b is None:
        return TwoViews(first, first, same_geometry(len(images)))
    second = _render(images, drawn[1], b, size, scale, shift)
    turned = a.rotation_deg or b.rotation_deg
    geometry = None if turned else relative_geometry(drawn[0], drawn[1], width, flip_first=(a.flip_first, b.flip_first))
    return TwoViews(first, second, geometry)


def _affine(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(x - mean) / std as scale * x + shift; each (3,)."""
    centre, spread = torch.tensor(mean), torch.tensor(std)
    return 1 / spread, -centre / spread


@torch.no_grad()
def _render(images: Tensor, parameters: Parameters, config: Augment, size: int, scale: Tensor, shift: Tensor) -> Tensor:
    """All views, chunk by chunk; the affine map is applied while a chunk is still in the cache."""
    _check_draw(images, parameters)
    views = torch.empty(len(images), 3, size, size, device=images.device)
    scale, shift = (values.to(views, non_blocking=True)[:, None, None] for values in (scale, shift))
    pixels = max(images.shape[2] * images.shape[3], size * size)
    chunk = max(4, (_CPU_PIXELS if images.device.type == "cpu" else _GPU_PIXELS) // pixels)
    with torch.autocast(images.device.type, enabled=False):  # the crop's matrix products need all their digits
        for start in range(0, len(images), chunk):
            stop = min(start + chunk, len(images))
            view = _view(images[start:stop], parameters.rows(start, stop), config, size)
            torch.add(view.mul_(scale), shift, out=views[start:stop])
    return views


def _view(images: Tensor, parameters: Parameters, config: Augment, size: int) -> Tensor:
    view = images.to(torch.float32).div_(255)
    if config.order == "colour-first":
        view = _colour(view, parameters, config)
    if config.rotation_deg:
        view = rotate(view, parameters.rotation_deg)
    view = crop(view, parameters, size, config.interpolation, flip_first=config.flip_first)
    return view if config.order == "colour-first" else _colour(view, parameters, config)


def _colour(view: Tensor, parameters: Parameters, config: Augment) -> Tensor:
    if config.jitter_p and any(config.jitter):
        view = jitter(view, parameters)
    if config.grey_p:
        view = grey(view, parameters)
    if config.blur_p:
        view = blur(view, parameters, config.blur_sigma[1])
    if config.solarize_p:
        view = solarize(view, parameters, config.solarize_threshold)
    return view


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"augmentation takes uint8 images (batch, 3, height, width), but got {images.dtype} {tuple(images.shape)}.")


def _check_draw(images: Tensor, parameters: Parameters) -> None:
    if len(parameters) != len(images):
        raise ValueError(f"{len(parameters)} views were drawn for {len(images)} images. Call draw() with count={len(images)}.")
    height, width = images.shape[2:]
    fits = (parameters.top + parameters.height <= height) & (parameters.left + parameters.width <= width)
    if not fits.all():
        raise ValueError(
            f"a crop box was drawn that leaves these images of {height} x {width} pixels. Call draw() with their height and width."
        )
