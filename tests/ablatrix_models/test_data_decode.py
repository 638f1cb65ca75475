"""Encoded images become the RGB squares that torchvision would make of them, or a named failure."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from ablatrix_models.data.decode import Failure, decoded, pixel_size, to_square
from data_samples import encoded, pixels


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 300), (333, 257), (224, 224), (100, 177)])
def test_a_centre_crop_of_the_stored_square_is_the_official_evaluation_crop(height, width):
    photo = Image.fromarray(pixels(0, height, width))
    official = v2.CenterCrop(224)(v2.Resize(256)(photo))

    square = to_square(saved(photo), 256)

    assert square.shape == (3, 256, 256)
    assert np.array_equal(square[:, 16:240, 16:240].transpose(1, 2, 0), np.asarray(official))


def test_an_image_of_the_stored_size_is_untouched():
    assert np.array_equal(to_square(encoded(pixels(1, 8, 8)), 8).transpose(1, 2, 0), pixels(1, 8, 8))


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "JPEG")]
)
def test_every_colour_mode_becomes_the_rgb_that_pillow_shows(mode, format):
    content = encoded(pixels(2, 8, 8), format, mode)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))

    assert np.array_equal(to_square(content, 8).transpose(1, 2, 0), expected)


def test_a_grey_image_has_three_equal_channels():
    red, green, blue = to_square(encoded(pixels(3, 8, 8), "PNG", "L"), 8)

    assert np.array_equal(red, green)
    assert np.array_equal(green, blue)


def test_an_alpha_channel_is_dropped_as_torchvision_does():
    rgba = np.concatenate([pixels(4, 8, 8), np.zeros((8, 8, 1), np.uint8)], axis=2)

    assert np.array_equal(to_square(saved(Image.fromarray(rgba)), 8).transpose(1, 2, 0), pixels(4, 8, 8))


def test_a_palette_with_transparency_keeps_its_colours_and_warns_of_nothing():
    palette = Image.fromarray(pixels(5, 8, 8)).quantize(16)
    content = saved(palette, transparency=bytes(range(16)))

    assert np.array_equal(to_square(content, 8).transpose(1, 2, 0), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_grey_keeps_its_contrast_instead_of_turning_white():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)

    square = to_square(saved(Image.fromarray(ramp)), 8)

    assert square[0].reshape(-1).tolist() == (ramp.reshape(-1) // 257).tolist()


def test_failures_keep_their_place_and_the_other_images_arrive_in_order():
    items = [(f"image {n}", encoded(pixels(n, 4, 4))) for n in range(100)]
    items[40] = ("image 40", encoded(pixels(40, 64, 64), "JPEG")[:900])

    results = list(decoded(items, 4))

    assert isinstance(results[40], Failure)
    for number, result in enumerate(results):
        assert number == 40 or (isinstance(result, np.ndarray) and np.array_equal(result.transpose(1, 2, 0), pixels(number, 4, 4)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (None, "it is empty"),
        (b"not an image", "it is none of JPEG, PNG"),
        (encoded(pixels(0, 64, 64), "JPEG")[:900], "truncated"),
        (encoded(pixels(0, 64, 64))[:900], "truncated"),
    ],
)
def test_an_unreadable_image_says_where_and_why(content, reason):
    (failure,) = decoded([("shard.parquet row 3", content)], 4)

    assert str(failure).startswith("shard.parquet row 3 (")
    assert reason in str(failure)


def test_a_file_that_vanished_is_a_failure_and_no_traceback(tmp_path):
    (failure,) = decoded([("gone.png", tmp_path / "gone.png")], 4)

    assert isinstance(failure, Failure)
    assert "No such file" in failure.reason


def test_the_size_of_an_unreadable_image_is_unknown():
    assert pixel_size(encoded(pixels(0, 5, 7))) == (7, 5)
    assert pixel_size(b"junk") is None
