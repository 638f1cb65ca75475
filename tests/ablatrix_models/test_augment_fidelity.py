"""Every transform equals torchvision's, image by image, under the same fixed parameters."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from ablatrix_models.augment import Parameters, apply, draw
from ablatrix_models.augment.blur import blur, radius
from ablatrix_models.augment.colour import grey, jitter, solarize
from ablatrix_models.augment.crop import Interpolation, crop, resampling
from ablatrix_models.augment.rotation import rotate
from ablatrix_models.recipe.augment import Augment
from golden import load_golden

LEVEL = 1 / 255
ADJUST = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue)
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def photographs(count: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    """uint8 (count, 3, height, width) with the 1/f spectrum of photographs, some grey, some saturated."""
    width = width or height
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]).clamp(min=1 / max(height, width))
    noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn(count, 3, height, width, generator=generator)) / frequency, s=(height, width))
    noise = noise / noise.std(dim=(1, 2, 3), keepdim=True)
    noise[0] = noise[0].mean(dim=0)
    noise[1] *= 4
    return (noise * 60 + 120).round().clamp(0, 255).to(torch.uint8)


def drawn(config: Augment, images: Tensor, **fixed: Tensor) -> Parameters:
    parameters = draw(config, len(images), images.shape[2], images.shape[3], torch.Generator().manual_seed(3))
    return dataclasses.replace(parameters, **fixed)


def in_levels(views: Tensor) -> Tensor:
    return (views * 255 + 0.5).floor()


def box(parameters: Parameters, i: int) -> list[int]:
    return [int(getattr(parameters, name)[i]) for name in ("top", "left", "height", "width")]


def reference_crop(image: Any, parameters: Parameters, i: int, size: int, interpolation: Interpolation) -> Any:
    view: Any = functional.resized_crop(image, *box(parameters, i), size=[size, size], interpolation=MODES[interpolation], antialias=True)
    return functional.horizontal_flip(view) if parameters.flip[i] else view


def reference_colour(image: Tensor, parameters: Parameters, i: int, config: Augment) -> Tensor:
    factors = (parameters.brightness, parameters.contrast, parameters.saturation, parameters.hue)
    for transform in parameters.order[i].tolist() if parameters.jitter[i] else []:
        image = ADJUST[transform](image, float(factors[transform][i]))
    if parameters.grey[i]:
        image = functional.rgb_to_grayscale(image, 3)
    if parameters.blur[i]:
        taps = [2 * radius(config.blur_sigma[1], pixels) + 1 for pixels in (image.shape[2], image.shape[1])]
        image = functional.gaussian_blur(image, taps, [float(parameters.blur_sigma[i])])
    return functional.solarize(image, config.solarize_threshold) if parameters.solarize[i] else image


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (28, 28, 32), (40, 90, 24), (8, 8, 32), (128, 128, 96)])
def test_crop_and_flip_equal_torchvision_on_bytes_up_to_rounding(height: int, width: int, size: int, interpolation: Interpolation) -> None:
    images = photographs(24, height, width)
    parameters = drawn(Augment(crop_scale=(0.08, 1.0)), images)

    views = in_levels(crop(images.float() / 255, parameters, size, interpolation))

    expected = torch.stack([reference_crop(image, parameters, i, size, interpolation) for i, image in enumerate(images)])
    assert (views - expected).abs().max() <= 2
    assert (views == expected).float().mean() >= 0.95


@pytest.mark.parametrize(
    ("source", "size", "interpolation", "least_equal"),
    [
        (32, 32, "bilinear", 0.95),
        (28, 32, "bilinear", 0.95),
        (8, 32, "bilinear", 0.95),
        (32, 32, "bicubic", 0.95),
        # Pillow 13 resamples the rows first where that is cheaper, torchvision on bytes and older versions never do.
        (128, 96, "bilinear", 0.85),
    ],
)
def test_crop_and_flip_equal_pillow_up_to_rounding(source: int, size: int, interpolation: Interpolation, least_equal: float) -> None:
    images = photographs(24, source)[2:]
    parameters = drawn(Augment(crop_scale=(0.08, 1.0)), images)

    views = in_levels(crop(images.float() / 255, parameters, size, interpolation))

    pillow = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = torch.stack(
        [functional.pil_to_tensor(reference_crop(image, parameters, i, size, interpolation)) for i, image in enumerate(pillow)]
    )
    assert (views - expected).abs().max() <= 2
    assert (views == expected).float().mean() >= least_equal


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (64, 48, 32), (8, 8, 32)])
def test_crop_and_flip_equal_torchvision_on_floats_within_the_rounding_between_the_passes(height: int, width: int, size: int) -> None:
    images = photographs(24, height, width).float() / 255
    parameters = drawn(Augment(crop_scale=(0.08, 1.0)), images)

    views = crop(images, parameters, size, "bilinear")

    expected = torch.stack([reference_crop(image, parameters, i, size, "bilinear") for i, image in enumerate(images)])
    assert (views - expected).abs().max() < 0.501 * LEVEL


def literal_weights(start: int, length: int, pixels: int, size: int) -> np.ndarray:
    """Pillow's coefficients of the triangle filter, one by one, in double precision."""
    weights = np.zeros((size, pixels))
    scale = length / size
    support = max(scale, 1.0)
    for u in range(size):
        centre = scale * (u + 0.5)
        for j in range(max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)):
            weights[u, start + j] = max(0.0, 1 - abs((j + 0.5 - centre) / support))
        weights[u] /= weights[u].sum()
    return weights


@pytest.mark.parametrize("size", [4, 13])
def test_crop_equals_a_literal_transcription_in_double_precision(size: int) -> None:
    images = torch.rand(10, 3, 11, 9, generator=torch.Generator().manual_seed(0))
    parameters = drawn(Augment(crop_scale=(0.1, 1.0), flip=0.0), images)

    rows, columns = resampling(parameters, 11, 9, size, "bilinear", images)
    views = crop(images, parameters, size, "bilinear")

    for i, image in enumerate(images.double().numpy()):
        top, left, height, width = box(parameters, i)
        literal_rows, literal_columns = literal_weights(top, height, 11, size), literal_weights(left, width, 9, size)
        np.testing.assert_allclose(rows[i], literal_rows, atol=1e-6)
        np.testing.assert_allclose(columns[i], literal_columns, atol=1e-6)
        np.testing.assert_allclose(views[i], literal_rows @ np.floor(image @ literal_columns.T * 255 + 0.5) / 255, atol=2e-6)


def test_the_whole_image_at_its_own_size_passes_the_crop_unchanged() -> None:
    images = photographs(4, 32).float() / 255
    parameters = drawn(Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0), images)

    assert torch.allclose(crop(images, parameters, 32, "bilinear"), images, atol=1e-6)
    assert torch.allclose(crop(images, parameters, 32, "bicubic"), images, atol=1e-6)


def test_flip_first_reads_the_box_in_the_mirrored_image() -> None:
    images = torch.rand(16, 3, 20, 30)
    parameters = drawn(Augment(), images)

    rows, columns = resampling(parameters, 20, 30, 16, "bilinear", images, flip_first=True)

    unflipped = dataclasses.replace(parameters, flip=torch.zeros(16, dtype=torch.bool))
    rows_of_mirrored, columns_of_mirrored = resampling(unflipped, 20, 30, 16, "bilinear", images)
    mirrored_back = torch.where(parameters.flip[:, None, None], columns_of_mirrored.flip(2), columns_of_mirrored)
    assert torch.equal(rows, rows_of_mirrored)
    assert torch.allclose(columns, mirrored_back, atol=1e-5)


def test_flip_first_puts_patches_where_the_official_siameseim_code_does() -> None:
    """Each row of weights has its centre of mass at a source pixel; b's lie where a's grid and the formula say."""
    golden = load_golden("sim_two_view_crop_params")
    rows, returned = torch.from_numpy(golden["rows"][:16]), torch.from_numpy(golden["returned_rows_f64"][:16])
    grid = 448  # finer than every box, where linear interpolation is exact on coordinates
    height, width = int(golden["image_height_px"]), int(golden["image_width_px"])
    places = []
    for flip, top in ((1, 3), (2, 7)):
        fixed = {name: rows[:, top + k] for k, name in enumerate(("top", "left", "height", "width"))}
        parameters = draw(Augment(), len(rows), height, width, torch.Generator())
        parameters = dataclasses.replace(parameters, flip=rows[:, flip].bool(), **fixed)
        weights = resampling(parameters, height, width, grid, "bilinear", torch.empty(0, dtype=torch.float64), flip_first=True)
        places.append([matrix @ torch.arange(matrix.shape[2]).double() for matrix in weights])

    patch = torch.arange(grid)[None] + 0.5
    _, delta_i, delta_j, rho_h, rho_w, relative_flip, flip_delta = (column[:, None] for column in returned.T)
    row = rho_h * patch + grid * delta_i - 0.5
    column = torch.where(relative_flip > 0, -rho_w * patch + grid * flip_delta, rho_w * patch + grid * delta_j) - 0.5
    inner = slice(4, -4)  # half a source pixel at the box's edge is replicated
    for predicted, a, b in ((row, places[0][0], places[1][0]), (column, places[0][1], places[1][1])):
        slope = (a[:, 301:302] - a[:, 101:102]) / 200
        assert (a[:, 101:102] + slope * (predicted - 101) - b)[:, inner].abs().max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 34)])
def test_rotation_equals_torchvision(height: int, width: int) -> None:
    images = photographs(6, height, width).float() / 255
    angles = torch.tensor([0.0, 7.5, -12.0, 90.0, 179.0, -60.0])

    rotated = rotate(images, angles)

    expected = torch.stack(
        [functional.rotate(image, float(angle), InterpolationMode.BILINEAR) for image, angle in zip(images, angles, strict=True)]
    )
    assert (rotated - expected).abs().max() < 1e-4


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_jitter_equals_torchvision_in_every_order(order: tuple[int, ...]) -> None:
    images = photographs(8, 16).float() / 255
    config = Augment(jitter=(0.8, 0.8, 0.8, 0.5), jitter_p=0.8, grey_p=0.0)
    parameters = drawn(config, images, order=torch.tensor(order).expand(8, 4))

    expected = torch.stack([reference_colour(image, parameters, i, config) for i, image in enumerate(images)])
    ours = jitter(images.clone(), parameters)

    assert (ours - expected).abs().max() < 1e-3 * LEVEL
    assert parameters.jitter.any()
    assert torch.equal(ours[~parameters.jitter], images[~parameters.jitter])


def test_hue_equals_a_literal_transcription_in_double_precision() -> None:
    images = photographs(4, 6).float() / 255
    turns = torch.tensor([0.3, -0.5, 0.5, -0.123])
    neutral = torch.ones(4)
    parameters = drawn(Augment(), images, jitter=neutral.bool(), brightness=neutral, contrast=neutral, saturation=neutral, hue=turns)

    ours = jitter(images.clone(), parameters)

    for i, image in enumerate(images):
        for y, x in np.ndindex(6, 6):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            expected = colorsys.hsv_to_rgb((hue + float(turns[i])) % 1, saturation, value)
            np.testing.assert_allclose(ours[i, :, y, x].numpy(), expected, atol=1e-6)


def test_two_half_turns_of_the_hue_are_none() -> None:
    images = photographs(4, 8).float() / 255
    neutral = torch.ones(4)
    half = drawn(Augment(), images, jitter=neutral.bool(), brightness=neutral, contrast=neutral, saturation=neutral, hue=neutral / 2)

    assert torch.allclose(jitter(jitter(images.clone(), half), half), images, atol=1e-6)


def test_grey_and_solarize_equal_torchvision() -> None:
    images = photographs(8, 16).float() / 255
    parameters = drawn(Augment(grey_p=0.5, solarize_p=0.5), images)

    ours = solarize(grey(images.clone(), parameters), parameters, 0.4)

    config = Augment(solarize_threshold=0.4)
    calm = dataclasses.replace(parameters, jitter=torch.zeros(8, dtype=torch.bool))
    assert torch.allclose(ours, torch.stack([reference_colour(image, calm, i, config) for i, image in enumerate(images)]), atol=1e-6)


def test_the_solarize_threshold_itself_is_inverted() -> None:
    images = torch.tensor([0.25, 0.5, 0.75]).expand(1, 3, 1, 3).clone()
    parameters = drawn(Augment(solarize_p=1.0), images)

    assert solarize(images, parameters, 0.5)[0, 0, 0].tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (12, 40)])
def test_blur_equals_torchvision(height: int, width: int) -> None:
    images = photographs(8, height, width).float() / 255
    config = Augment(blur_p=0.7, jitter_p=0.0, grey_p=0.0)
    parameters = drawn(config, images)

    ours = blur(images.clone(), parameters, config.blur_sigma[1])

    expected = torch.stack([reference_colour(image, parameters, i, config) for i, image in enumerate(images)])
    assert (ours - expected).abs().max() < 1e-5
    assert torch.equal(ours[~parameters.blur], images[~parameters.blur])


def test_blur_leaves_a_flat_image_alone_and_a_tiny_sigma_leaves_any_image_alone() -> None:
    images = photographs(2, 16).float() / 255
    flat = torch.full_like(images, 0.3)
    chosen = torch.ones(2, dtype=torch.bool)

    assert torch.allclose(blur(flat, drawn(Augment(), images, blur=chosen), 2.0), torch.tensor(0.3))
    assert torch.allclose(blur(images.clone(), drawn(Augment(), images, blur=chosen, blur_sigma=torch.full((2,), 0.01)), 2.0), images)


def test_blur_spreads_a_point_as_far_as_its_sigma_says() -> None:
    point = torch.zeros(1, 3, 41, 41)
    point[:, :, 20, 20] = 1

    spread = blur(point, drawn(Augment(), point, blur=torch.tensor([True]), blur_sigma=torch.tensor([1.7])), 2.0)[0, 0].double()

    distance = torch.arange(41.0).double() - 20
    assert math.sqrt(float((spread.sum(dim=0) * distance**2).sum())) == pytest.approx(1.7, abs=0.01)


@pytest.mark.parametrize("order", ["crop-first", "colour-first"])
@pytest.mark.parametrize("rotation_deg", [0.0, 15.0])
def test_a_whole_view_equals_torchvisions_functions_in_sequence(order: str, rotation_deg: float) -> None:
    images = photographs(40, 40, 36)
    config = Augment(order=order, rotation_deg=rotation_deg, blur_p=0.5, solarize_p=0.3)  # pyright: ignore[reportArgumentType]
    parameters = drawn(config, images)

    views = apply(images, parameters, config, 32)

    expected = []
    for i, image in enumerate(images.float() / 255):
        view = reference_colour(image, parameters, i, config) if order == "colour-first" else image
        if rotation_deg:
            view = functional.rotate(view, float(parameters.rotation_deg[i]), InterpolationMode.BILINEAR)
        view = reference_crop(view, parameters, i, 32, "bilinear")
        expected.append(reference_colour(view, parameters, i, config) if order == "crop-first" else view)
    difference = (views - torch.stack(expected)).abs()
    assert difference.mean() < 0.25 * LEVEL  # the crop rounds between its passes, the float path does not
