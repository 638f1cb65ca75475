"""A picture of dense prediction: what of view a stays visible, and where in view a the patches lie that are predicted."""

from __future__ import annotations

import colorsys
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ablatrix_models import augment
from ablatrix_models.augment.geometry import RelativeGeometry
from ablatrix_models.data.images import ImageSet
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.mae import MAE
from ablatrix_models.recipe.method import one_view
from ablatrix_models.recipe.siameseim import SiameseIM
from ablatrix_models.siamese_im.patch_masks import sample_removed

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

COLUMNS = 6
SIDE, GAP, MARGIN, DOT = 168, 8, 132, 3  # pixels: of one image of the sheet, between them, of the words at the left, half a dot
ROWS = ("view a,\nvisible patches", "view b,\npredicted patches", "view a, smaller,\nand where b's\npatches lie in it")
GREY = (128, 128, 128)


def patch_picture(recipe: Recipe, seed: int, train: ImageSet) -> bytes | None:
    """A PNG with a column for each of the first images; None for methods that predict no patches.

    A dot marks the centre of each predicted patch, of one colour in view b and in view a; the last row shows view a at half its
    size, since b reaches beyond it. All chance comes from a generator of its own, so training draws what it would without.
    """
    if not isinstance(recipe.method, SiameseIM | MAE) or not isinstance(recipe.backbone, ViT) or not recipe.schedule.epochs:
        return None
    data, generator = recipe.data, torch.Generator().manual_seed(seed)
    second = None if one_view(recipe.method) else recipe.augment_b or recipe.augment
    views = augment.two_views(train.images[:COLUMNS], recipe.augment, second, data.image_size, data.mean, data.std, generator)
    if views.geometry is None:
        return None
    grid = data.image_size // recipe.backbone.patch
    removed = sample_removed(recipe.method.mask, len(views.a), grid, generator)
    scored = removed if isinstance(recipe.method, MAE) or recipe.method.scores_removed_only else torch.ones_like(removed)
    return _sheet(_pixels(views.a, recipe), _pixels(views.b, recipe), views.geometry, removed, scored, grid)


def centres(geometry: RelativeGeometry, grid: int) -> Tensor:
    """Where b's patch centres lie in view a, as shares of its sides: (batch, patches, 2), x before y, 0..1 inside of a."""
    rows, columns = ((positions + 0.5) / grid for positions in geometry.positions(grid))
    x, y = columns[:, None, :].expand(-1, grid, -1), rows[:, :, None].expand(-1, -1, grid)
    return torch.stack([x, y], dim=-1).flatten(1, 2)


def _pixels(images: Tensor, recipe: Recipe) -> Tensor:
    """Normalised images as bytes: (batch, 3, size, size) to (batch, size, size, 3)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (recipe.data.mean, recipe.data.std))
    return ((images.cpu() * std + mean).clamp(0.0, 1.0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _sheet(a: Tensor, b: Tensor, geometry: RelativeGeometry, removed: Tensor, scored: Tensor, grid: int) -> bytes:
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (MARGIN + len(a) * (SIDE + GAP), len(ROWS) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, words in enumerate(ROWS):
        draw.multiline_text((GAP, row * (SIDE + GAP) + GAP), words, fill="black")
    own = (torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="xy"), dim=-1).flatten(0, 1) + 0.5) / grid
    there = centres(geometry, grid)
    for column in range(len(a)):
        left = MARGIN + column * (SIDE + GAP)
        first, second = _image(a[column], SIDE), _image(b[column], SIDE)
        half = _image(a[column], SIDE // 2)
        sheet.paste(first, (left, 0))
        _cover(draw, left, removed[column], grid)
        sheet.paste(second, (left, SIDE + GAP))
        _dots(draw, (left, SIDE + GAP), own, scored[column], grid)
        corner = (left, 2 * (SIDE + GAP))
        sheet.paste(half, (left + SIDE // 4, corner[1] + SIDE // 4))
        draw.rectangle([*corner, corner[0] + SIDE - 1, corner[1] + SIDE - 1], outline=GREY)
        _dots(draw, corner, 0.25 + there[column] / 2, scored[column], grid)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _image(pixels: Tensor, side: int) -> Image:
    from PIL import Image

    small = pixels.shape[0] < side  # small pixels stay sharp
    picture = Image.fromarray(pixels.contiguous().numpy())
    return picture.resize((side, side), Image.Resampling.NEAREST if small else Image.Resampling.BOX)


def _cover(draw: ImageDraw, left: int, removed: Tensor, grid: int) -> None:
    """Grey over the removed patches of the image at the top of a column."""
    for index in removed.nonzero().flatten().tolist():
        x, y = index % grid, index // grid
        box = [left + x * SIDE // grid, y * SIDE // grid, left + (x + 1) * SIDE // grid - 1, (y + 1) * SIDE // grid - 1]
        draw.rectangle(box, fill=GREY)


def _dots(draw: ImageDraw, corner: tuple[int, int], places: Tensor, shown: Tensor, grid: int) -> None:
    """A dot at each shown place (patches, 2), a share of the image at `corner`; what lies outside of the frame is left out."""
    for index in shown.nonzero().flatten().tolist():
        x, y = places[index].tolist()
        if 0 <= x < 1 and 0 <= y < 1:
            at = corner[0] + x * SIDE, corner[1] + y * SIDE
            draw.ellipse([at[0] - DOT, at[1] - DOT, at[0] + DOT, at[1] + DOT], fill=_colour(index, grid), outline="white")


def _colour(index: int, grid: int) -> tuple[int, int, int]:
    """Hue by column, brightness by row, so that a flip is seen."""
    hue, light = (index % grid) / grid * 0.85, 0.5 + 0.5 * (index // grid) / grid
    red, green, blue = (round(255 * share) for share in colorsys.hsv_to_rgb(hue, 1.0, light))
    return red, green, blue
