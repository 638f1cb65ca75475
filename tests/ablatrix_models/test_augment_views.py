"""What a caller of the augmentation can rely on."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ablatrix_models.augment import apply, centre, draw, normalise, two_views, views
from ablatrix_models.augment.geometry import relative_geometry
from ablatrix_models.recipe.augment import Augment

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
EVERYTHING = Augment(rotation_deg=10.0, blur_p=0.5, solarize_p=0.5)


def images_of(count: int, height: int, width: int | None = None) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width or height), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("source", "size"), [((32, 32), 32), ((28, 28), 32), ((64, 64), 48), ((20, 50), 32)])
@pytest.mark.parametrize("order", ["crop-first", "colour-first"])
def test_views_are_floats_between_zero_and_one_at_the_size_asked_for(source: tuple[int, int], size: int, order: str) -> None:
    images = images_of(12, *source)
    config = dataclasses.replace(EVERYTHING, order=order, interpolation="bicubic")

    result = apply(images, draw(config, 12, *source, seeded()), config, size)

    assert result.shape == (12, 3, size, size)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert 0 <= result.min() < result.max() <= 1


def test_views_are_a_function_of_the_generator() -> None:
    images = images_of(10, 32)

    first, again, other = (two_views(images, EVERYTHING, EVERYTHING, 32, MEAN, STD, seeded(seed)) for seed in (1, 1, 2))

    assert torch.equal(first.a, again.a)
    assert torch.equal(first.b, again.b)
    assert not torch.equal(first.a, other.a)
    assert not torch.equal(first.a, first.b)


def test_autocast_around_the_call_changes_nothing() -> None:
    images = images_of(10, 32)
    outside = two_views(images, EVERYTHING, EVERYTHING, 32, MEAN, STD, seeded()).a

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = two_views(images, EVERYTHING, EVERYTHING, 32, MEAN, STD, seeded()).a

    assert torch.equal(outside, inside)


def test_every_step_runs_on_the_images_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no data, but refuses to meet a tensor of another device; only autocast does not know it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    images = images_of(6, 32).to("meta")
    config = dataclasses.replace(EVERYTHING, flip_first=True, interpolation="bicubic")

    both = two_views(images, EVERYTHING, config, 24, MEAN, STD, seeded())

    assert both.a.device == both.b.device == centre(images, 24).device == torch.device("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_views_of_the_processor() -> None:
    images = images_of(64, 32)
    parameters = draw(EVERYTHING, 64, 32, 32, seeded())

    difference = (apply(images.cuda(), parameters, EVERYTHING, 32).cpu() - apply(images, parameters, EVERYTHING, 32)).abs()

    assert (difference > 1.1 / 255).float().mean() < 1e-3  # rounding between the passes, and next to the solarize threshold


def test_images_are_left_as_they_were() -> None:
    images = images_of(10, 32)
    before = images.clone()

    two_views(images, EVERYTHING, EVERYTHING, 32, MEAN, STD, seeded())

    assert torch.equal(images, before)


@pytest.mark.parametrize("chunk", [4, 7, 1000])
@pytest.mark.parametrize("order", ["crop-first", "colour-first"])
def test_views_do_not_depend_on_how_the_batch_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int, order: str) -> None:
    images = images_of(37, 32)
    config = dataclasses.replace(EVERYTHING, order=order)
    parameters = draw(config, 37, 32, 32, seeded())
    whole = apply(images, parameters, config, 32)

    monkeypatch.setattr(views, "_CPU_PIXELS", chunk * 32 * 32)
    in_chunks = apply(images, parameters, config, 32)

    difference = (whole - in_chunks).abs()
    assert (difference > 1e-5).float().mean() < 1e-4  # rounding next to the solarize threshold


def test_an_images_view_does_not_depend_on_its_neighbours() -> None:
    images = images_of(20, 32)
    config = dataclasses.replace(EVERYTHING, solarize_p=0.0)
    parameters = draw(config, 20, 32, 32, seeded())

    alone = torch.cat([apply(images[i : i + 1], parameters.rows(i, i + 1), config, 32) for i in range(20)])

    assert torch.allclose(alone, apply(images, parameters, config, 32), atol=1e-5)


def test_two_views_are_the_two_draws_in_turn_normalised() -> None:
    images = images_of(6, 40)
    a, b = Augment(blur_p=1.0), Augment(solarize_p=0.5, interpolation="bicubic")

    both = two_views(images, a, b, 32, MEAN, STD, seeded())

    generator = seeded()
    drawn_a, drawn_b = draw(a, 6, 40, 40, generator), draw(b, 6, 40, 40, generator)
    assert torch.allclose(both.a, normalise(apply(images, drawn_a, a, 32), MEAN, STD), atol=1e-5)
    assert torch.allclose(both.b, normalise(apply(images, drawn_b, b, 32), MEAN, STD), atol=1e-5)


def test_geometry_tells_where_the_second_view_lies_in_the_first() -> None:
    config = dataclasses.replace(Augment(), flip_first=True)
    generator = seeded()

    both = two_views(images_of(6, 40), config, config, 32, MEAN, STD, seeded())

    expected = relative_geometry(draw(config, 6, 40, 40, generator), draw(config, 6, 40, 40, generator), 40)
    assert both.geometry is not None
    for ours, drawn in zip(both.geometry.positions(4), expected.positions(4), strict=True):
        assert torch.equal(ours, drawn)


def test_one_view_serves_as_both_and_leaves_the_other_draws_as_they_are() -> None:
    images, generator, other = images_of(6, 40), seeded(), seeded()
    config = Augment(blur_p=0.5)

    one = two_views(images, config, None, 32, MEAN, STD, generator)
    two = two_views(images, config, config, 32, MEAN, STD, other)

    assert one.b is one.a
    assert torch.equal(one.a, two.a)
    assert torch.equal(generator.get_state(), other.get_state())
    assert one.geometry is not None
    torch.testing.assert_close(one.geometry.positions(4)[1], torch.arange(4.0, dtype=torch.float64).expand(6, -1))


def test_rotated_views_have_no_geometry() -> None:
    turned = Augment(rotation_deg=5.0)

    assert two_views(images_of(3, 40), Augment(), turned, 32, MEAN, STD, seeded()).geometry is None


def test_normalising_equals_torchvision() -> None:
    images = images_of(3, 8).float() / 255

    assert torch.allclose(normalise(images, MEAN, STD), functional.normalize(images, list(MEAN), list(STD)), atol=1e-6)


def test_transforms_of_probability_zero_are_not_even_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("called")

    for name in ("jitter", "grey", "blur", "solarize", "rotate"):
        monkeypatch.setattr(views, name, refuse)
    config = Augment(jitter_p=0.0, grey_p=0.0)

    apply(images_of(5, 32), draw(config, 5, 32, 32, seeded()), config, 32)


def test_the_same_draw_means_the_same_crop_whichever_colours_come_first() -> None:
    images = images_of(8, 32)
    plain = Augment(jitter_p=0.0, grey_p=0.0)

    crop_first, colour_first = (
        apply(images, draw(config, 8, 32, 32, seeded()), config, 32) for config in (plain, dataclasses.replace(plain, order="colour-first"))
    )

    assert torch.equal(crop_first, colour_first)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_images_of_another_kind_are_refused_with_what_is_needed(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes uint8 images \(batch, 3, height, width\), but got torch"):
        apply(images, draw(Augment(), 2, 8, 8, seeded()), Augment(), 8)
    with pytest.raises(ValueError, match="takes uint8 images"):
        two_views(images, Augment(), Augment(), 8, MEAN, STD, seeded())


def test_a_draw_for_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"4 views were drawn for 5 images. Call draw\(\) with count=5"):
        apply(images_of(5, 8), draw(Augment(), 4, 8, 8, seeded()), Augment(), 8)


def test_a_draw_for_larger_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a crop box was drawn that leaves these images of 8 x 8 pixels"):
        apply(images_of(5, 8), draw(Augment(crop_scale=(1.0, 1.0)), 5, 32, 32, seeded()), Augment(), 8)


@pytest.mark.parametrize(
    ("source", "size", "resize"), [((32, 32), 32, None), ((28, 28), 32, None), ((64, 48), 32, 40), ((64, 64), 33, 64), ((37, 90), 24, 24)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_equals_torchvisions_resize_and_centre_crop(
    source: tuple[int, int], size: int, resize: int | None, interpolation: str
) -> None:
    images = images_of(5, *source)

    ours = centre(images, size, resize, interpolation)  # pyright: ignore[reportArgumentType]

    mode = functional.InterpolationMode(interpolation)
    resized = functional.resize(images.float() / 255, [resize or size], mode, antialias=True).clamp(0, 1)
    assert torch.allclose(ours, functional.center_crop(resized, [size, size]), atol=1e-6)


def test_the_centre_of_native_images_is_the_image_itself() -> None:
    images = images_of(300, 8)

    assert torch.equal(centre(images, 8), images.float() / 255)


def test_rectangles_without_a_resize_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 x 12 pixels are not square. Give `resize`"):
        centre(images_of(2, 8, 12), 8)


def test_a_centre_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(ValueError, match="a centre of 224 pixels does not fit images resized to 200"):
        centre(images_of(2, 8), 224, resize=200)
