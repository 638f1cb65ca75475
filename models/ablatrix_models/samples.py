"""A picture of what a network is shown: views, and where the recipe mixes images, masks and mixtures, for a few training images."""

from __future__ import annotations

from io import BytesIO

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ablatrix_models import augment
from ablatrix_models.data.images import ImageSet
from ablatrix_models.draws import draws_from
from ablatrix_models.masks import sample_cells, upsample
from ablatrix_models.mixing import draw_unmix, erase, mixmask, unmix
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.siameseim import SiameseIM

COLUMNS = 8
SIDE, GAP = 64, 3  # pixels of one image of the sheet, and between them


def sample_sheet(recipe: Recipe, seed: int, train: ImageSet) -> bytes | None:
    """A PNG with a column for each of the first images; None for an untrained network, which is shown nothing, and
    for methods that predict patches, which `patch_picture` draws.

    Rows: both views, then what the recipe mixes of the first. Each column has a mask of its own, also where training draws one for
    the whole batch. All chance comes from a generator of its own, so training draws what it would without the sheet.
    """
    if not recipe.schedule.epochs or isinstance(recipe.method, SiameseIM | MAE):
        return None
    generator = torch.Generator().manual_seed(seed)
    data, second = recipe.data, recipe.augment_b or recipe.augment
    views = augment.two_views(train.images[:COLUMNS], recipe.augment, second, data.image_size, data.mean, data.std, generator)
    rows = [_pixels(view, recipe) for view in (views.a, views.b)]
    rows += _mixtures(views.a, recipe, generator)
    return _png(torch.stack([_resized(row) for row in rows]))


def _mixtures(images: Tensor, recipe: Recipe, generator: torch.Generator) -> list[Tensor]:
    """Rows of pixels in 0..1, each (columns, 3, size, size): Un-Mix's mixture, the masks, what they make."""
    rows, mixing = [], recipe.mixing
    if mixing.kind in ("unmix", "both"):
        rows.append(_pixels(unmix(images, *draw_unmix(mixing, images.shape[-1], draws_from(generator))).images, recipe))
    if mixing.masks:
        cells = sample_cells(recipe.mask, len(images), generator)
        rows.append(upsample(cells, images.shape[-1]).float().expand(-1, 3, -1, -1))
        partners = torch.arange(len(images) - 1, -1, -1)
        fill = 0.0 if mixing.erase_fill == "zero" else torch.randn(images.shape, generator=generator)
        mixed = erase(images, cells, fill) if mixing.kind == "erase" else mixmask(images, cells, partners)
        rows.append(_pixels(mixed.images, recipe))
    return rows


def _pixels(images: Tensor, recipe: Recipe) -> Tensor:
    """Normalised images back in 0..1."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (recipe.data.mean, recipe.data.std))
    return (images * std + mean).clamp(0.0, 1.0)


def _resized(images: Tensor) -> Tensor:
    """Small images by whole factors, so that their pixels stay sharp; large ones by averaging."""
    size = images.shape[-1]
    if size <= SIDE:
        return images.repeat_interleave(SIDE // size, dim=2).repeat_interleave(SIDE // size, dim=3)
    return interpolate(images, size=SIDE + SIDE // 2, mode="area")


def _png(rows: Tensor) -> bytes:
    """rows: (rows, columns, 3, side, side) in 0..1, on white."""
    from PIL import Image

    count, columns, _, side, _ = rows.shape
    sheet = torch.ones(3, count * (side + GAP) - GAP, columns * (side + GAP) - GAP)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (side + GAP), j * (side + GAP)
            sheet[:, top : top + side, left : left + side] = image
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
