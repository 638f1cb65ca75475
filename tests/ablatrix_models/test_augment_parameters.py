"""The law of the drawn parameters is torchvision's."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from ablatrix_models.augment import Parameters, draw
from ablatrix_models.recipe.augment import Augment
from golden import load_golden

COUNT = 3000


def drawn(config: Augment, height: int, width: int, count: int = COUNT, seed: int = 0) -> Parameters:
    return draw(config, count, height, width, torch.Generator().manual_seed(seed))


def boxes(parameters: Parameters) -> np.ndarray:
    return torch.stack([parameters.top, parameters.left, parameters.height, parameters.width], dim=1).numpy()


def same_law(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return stats.ks_2samp(ours, theirs).pvalue > 1e-3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, (0.08, 1.0)), (60, 40, (0.2, 1.0)), (20, 64, (0.6, 1.0))])
def test_crop_boxes_follow_torchvisions_law(height: int, width: int, scale: tuple[float, float]) -> None:
    config = Augment(crop_scale=scale)
    image = torch.empty(3, height, width)
    torch.manual_seed(1)

    ours = boxes(drawn(config, height, width))
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(config.crop_ratio)) for _ in range(COUNT)])

    for column in range(4):
        assert same_law(ours[:, column], theirs[:, column])
    assert same_law(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same_law(ours[:, 0] / (height - ours[:, 2] + 1), theirs[:, 0] / (height - theirs[:, 2] + 1))


def test_crop_boxes_follow_the_official_siameseim_ones() -> None:
    golden = load_golden("sim_two_view_crop_params")
    config = Augment(crop_scale=tuple(golden["crop_scale_range"]), crop_ratio=tuple(golden["crop_aspect_range"]))
    rows = golden["rows"]
    official = np.concatenate([rows[:, 3:7], rows[:, 7:11]])

    ours = boxes(drawn(config, int(golden["image_height_px"]), int(golden["image_width_px"])))

    for column in range(4):
        assert same_law(ours[:, column], official[:, column])


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, (0.08, 1.0)), (20, 64, (0.6, 1.0)), (40, 30, (2.0, 3.0))])
def test_a_clamped_crop_follows_the_law_of_one_draw_cut_to_the_image(height: int, width: int, scale: tuple[float, float]) -> None:
    config = Augment(crop_scale=scale)
    random = np.random.default_rng(1)

    ours = boxes(draw(config, COUNT, height, width, torch.Generator().manual_seed(0), clamp=True))

    areas = random.uniform(*scale, COUNT) * height * width
    aspects = np.exp(random.uniform(*np.log(config.crop_ratio), COUNT))
    widths, heights = (np.minimum(np.round(np.sqrt(areas * a)), side) for a, side in ((aspects, width), (1 / aspects, height)))
    tops, lefts = (random.integers(0, side - length + 1) for side, length in ((height, heights), (width, widths)))
    for column, theirs in enumerate((tops, lefts, heights, widths)):
        assert same_law(ours[:, column], theirs)
    assert same_law(ours[:, 2] * ours[:, 3], heights * widths)
    assert (ours[:, 0] + ours[:, 2]).max() == height
    assert (ours[:, 1] + ours[:, 3]).max() == width


def test_a_clamped_crop_shares_every_other_draw_with_a_plain_one() -> None:
    plain, clamped = (draw(Augment(), 50, 24, 32, torch.Generator().manual_seed(3), clamp=clamp) for clamp in (False, True))

    unlike = {f.name for f in dataclasses.fields(plain) if not torch.equal(getattr(plain, f.name), getattr(clamped, f.name))}
    fitted = (clamped.height < 24) & (clamped.width < 32)  # its first try fitted, so both took it
    assert unlike == {"top", "left", "height", "width"}
    assert torch.equal(plain.top[fitted], clamped.top[fitted])
    assert torch.equal(plain.width[fitted], clamped.width[fitted])


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (30, 32)])
def test_a_crop_that_never_fits_falls_back_to_torchvisions_centre(height: int, width: int) -> None:
    # Areas above the whole image never fit, so all ten tries fail.
    config = Augment(crop_scale=(2.0, 3.0))

    ours = boxes(drawn(config, height, width, count=5))

    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), [2.0, 3.0], list(config.crop_ratio))
    assert (ours == np.array(expected)).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 40)])
def test_crop_boxes_never_leave_the_image(height: int, width: int) -> None:
    top, left, box_height, box_width = boxes(drawn(Augment(crop_scale=(0.001, 1.0)), height, width)).T

    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (box_height >= 1).all()
    assert (box_width >= 1).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


def test_colour_factors_follow_torchvisions_law() -> None:
    config = Augment(jitter=(0.4, 1.5, 0.2, 0.1))
    ranges = [[0.6, 1.4], [0.0, 2.5], [0.8, 1.2], [-0.1, 0.1]]
    theirs = ColorJitter(*config.jitter)
    torch.manual_seed(1)

    ours = drawn(config, 32, 32)
    samples = [ColorJitter.get_params(*ranges) for _ in range(COUNT)]

    assert ranges == [pytest.approx(getattr(theirs, name)) for name in ("brightness", "contrast", "saturation", "hue")]
    for index, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        assert same_law(getattr(ours, name).numpy(), np.array([sample[index + 1] for sample in samples]))


def test_the_colour_transforms_come_in_every_order_equally_often() -> None:
    orders = Counter(map(tuple, drawn(Augment(), 32, 32).order.tolist()))

    assert set(orders) == set(permutations(range(4)))
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    ("flag", "key"), [("flip", "flip"), ("jitter", "jitter_p"), ("grey", "grey_p"), ("blur", "blur_p"), ("solarize", "solarize_p")]
)
def test_each_transform_is_chosen_with_its_probability(flag: str, key: str) -> None:
    chosen, never, always = (getattr(drawn(dataclasses.replace(Augment(), **{key: p}), 32, 32), flag) for p in (0.3, 0.0, 1.0))

    assert stats.binomtest(int(chosen.sum()), COUNT, 0.3).pvalue > 1e-3
    assert not never.any()
    assert always.all()


def test_blur_widths_and_angles_are_uniform_between_their_bounds() -> None:
    ours = drawn(Augment(blur_sigma=(0.5, 2.0), rotation_deg=10.0), 32, 32)

    assert stats.kstest(ours.blur_sigma.numpy(), stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3
    assert stats.kstest(ours.rotation_deg.numpy(), stats.uniform(-10, 20).cdf).pvalue > 1e-3


def test_parameters_of_one_image_do_not_depend_on_each_other() -> None:
    ours = drawn(Augment(), 32, 32)
    columns = np.stack([ours.width, ours.order[:, 0], ours.flip, ours.jitter, ours.brightness, ours.hue, ours.grey])

    correlations = np.corrcoef(columns) - np.eye(len(columns))

    assert np.abs(correlations).max() < 4 / np.sqrt(COUNT)


def test_cells_that_differ_in_one_probability_share_all_the_other_draws() -> None:
    with_grey, without = (drawn(Augment(grey_p=p), 32, 32, count=50) for p in (0.5, 0.0))

    for field in dataclasses.fields(Parameters):
        if field.name != "grey":
            assert torch.equal(getattr(with_grey, field.name), getattr(without, field.name))


def test_equal_generators_draw_equal_parameters_and_move_on() -> None:
    generator = torch.Generator().manual_seed(5)

    first, second = (draw(Augment(), 20, 32, 32, generator) for _ in range(2))

    assert torch.equal(first.hue, drawn(Augment(), 32, 32, count=20, seed=5).hue)
    assert not torch.equal(first.hue, second.hue)
