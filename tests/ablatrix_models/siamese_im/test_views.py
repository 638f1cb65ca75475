"""Relative geometry against the released numbers, its invariances, and images that encode their own coordinates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from ablatrix_models import augment
from ablatrix_models.augment.crop import resampling
from ablatrix_models.augment.geometry import RelativeGeometry, relative_geometry, same_geometry
from ablatrix_models.augment.parameters import Parameters, draw
from ablatrix_models.recipe.augment import Augment
from golden import load_golden

SIZE, GRID = 224, 14
PLAIN = Augment(crop_scale=(0.2, 1.0), flip=0.5, jitter_p=0.0, grey_p=0.0)
FLIP_FIRST = dataclasses.replace(PLAIN, flip_first=True)


def boxes(rows: np.ndarray, flips: np.ndarray) -> Parameters:
    """Views with the given (top, left, height, width) and flips, and nothing else drawn."""
    drawn = draw(FLIP_FIRST, len(rows), 600, 600, torch.Generator().manual_seed(0))
    top, left, height, width = torch.from_numpy(np.ascontiguousarray(rows)).long().unbind(dim=1)
    return dataclasses.replace(
        drawn, top=top, left=left, height=height, width=width, flip=torch.from_numpy(np.ascontiguousarray(flips)).bool()
    )


def drawn_pair(config: Augment, count: int, height: int, width: int) -> tuple[Parameters, Parameters]:
    generator = torch.Generator().manual_seed(1)
    return draw(config, count, height, width, generator), draw(config, count, height, width, generator)


def shifted(view: Parameters, rows: int, source_columns: int) -> Parameters:
    """The view with its box moved in the source image; in a mirrored frame that is a move to the left."""
    columns = torch.where(view.flip, -source_columns, source_columns)
    return dataclasses.replace(view, top=view.top + rows, left=view.left + columns)


def assert_same_positions(actual: RelativeGeometry, expected: RelativeGeometry) -> None:
    for ours, wanted in zip(actual.positions(GRID), expected.positions(GRID), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


def test_the_numbers_handed_to_the_model_equal_the_released_ones() -> None:
    golden = load_golden("sim_two_view_crop_params")
    rows = dict(zip(golden["columns"], golden["rows"].T, strict=True))
    views = [
        boxes(np.stack([rows[f"{side}_{view}"] for side in ("top", "left", "height", "width")], axis=1), rows[f"flip_{view}"])
        for view in "ab"
    ]

    geometry = relative_geometry(views[0], views[1], int(golden["image_width_px"]))

    released = dict(zip(golden["returned_columns"], torch.from_numpy(golden["returned_rows_f64"]).T, strict=True))
    names = {"delta_i": "row_offset", "delta_j": "column_offset", "delta_h": "row_scale", "delta_w": "column_scale"}
    for theirs, ours in (names | {"relative_flip": "flipped", "flip_delta_j": "mirrored_offset"}).items():
        torch.testing.assert_close(getattr(geometry, ours).double(), released[theirs], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", [4, 7, 14])
def test_positions_equal_the_released_ones_in_every_named_case(grid: int) -> None:
    golden = load_golden("sim_pos_embed_relative")
    widths = golden["image_width_px"].astype(int)
    a = boxes(golden["crop_a_top_left_height_width_px"], golden["flip_a"])
    b = boxes(golden["crop_b_top_left_height_width_px"], golden["flip_b"])

    per_case = [relative_geometry(a.rows(i, i + 1), b.rows(i, i + 1), int(widths[i])).positions(grid) for i in range(len(widths))]

    rows, columns = (torch.cat(parts) for parts in zip(*per_case, strict=True))
    torch.testing.assert_close(rows, torch.from_numpy(golden[f"row_position_grid{grid}_case_u_in_patches_of_a_f64"]))
    torch.testing.assert_close(columns, torch.from_numpy(golden[f"col_position_grid{grid}_case_v_in_patches_of_a_f64"]))


def test_identical_views_without_a_flip_give_each_patch_its_own_place() -> None:
    view = draw(dataclasses.replace(FLIP_FIRST, flip=0.0), 8, 300, 420, torch.Generator().manual_seed(0))

    geometry = relative_geometry(view, view, 420)

    own = torch.arange(GRID, dtype=torch.float64).expand(8, -1)
    for line in geometry.positions(GRID):
        torch.testing.assert_close(line, own)
    assert_same_positions(geometry, same_geometry(8))


def test_moving_both_boxes_alike_over_the_image_changes_nothing() -> None:
    a, b = drawn_pair(FLIP_FIRST, 64, 300, 420)
    assert (a.flip ^ b.flip).any()

    moved = relative_geometry(shifted(a, 13, 29), shifted(b, 13, 29), 420)

    assert_same_positions(moved, relative_geometry(a, b, 420))


def test_flipping_both_views_equals_reading_the_same_boxes_unflipped() -> None:
    a, b = drawn_pair(FLIP_FIRST, 32, 300, 420)
    both, neither = torch.ones(32, dtype=torch.bool), torch.zeros(32, dtype=torch.bool)

    flipped = relative_geometry(dataclasses.replace(a, flip=both), dataclasses.replace(b, flip=both), 420)

    assert_same_positions(flipped, relative_geometry(dataclasses.replace(a, flip=neither), dataclasses.replace(b, flip=neither), 420))


def test_the_paper_s_equation_2_would_miss_by_half_a_patch_at_scale_2() -> None:
    a = boxes(np.array([[100, 100, 100, 100]]), np.array([0]))
    b = boxes(np.array([[100, 100, 200, 200]]), np.array([0]))

    rows, _ = relative_geometry(a, b, 600).positions(GRID)

    without_centring = 2.0 * torch.arange(GRID, dtype=torch.float64)
    torch.testing.assert_close(rows[0] - without_centring, torch.full((GRID,), 0.5, dtype=torch.float64))


def measured_centres(view: Parameters, height: int, width: int, *, flip_first: bool) -> tuple[Tensor, Tensor]:
    """Source rows and columns, in pixels, that the view shows in the middle of its inner patches; each (batch, GRID - 2)."""
    weights = resampling(view, height, width, SIZE, "bicubic", torch.zeros((), dtype=torch.float64), flip_first=flip_first)
    lines = []
    for weight, length in zip(weights, (height, width), strict=True):
        shown = weight @ (torch.arange(length, dtype=torch.float64) + 0.5)
        lines.append(shown.view(len(view), GRID, SIZE // GRID).mean(dim=2)[:, 1:-1])  # the box's edge cuts the filter short
    return lines[0], lines[1]


@pytest.mark.parametrize("config", [FLIP_FIRST, PLAIN], ids=["flip-first", "crop-first"])
def test_predicted_positions_are_where_images_of_their_own_coordinates_show_them(config: Augment) -> None:
    height, width = 300, 420
    a, b = drawn_pair(config, 100, height, width)

    predicted = relative_geometry(a, b, width, flip_first=(config.flip_first, config.flip_first)).positions(GRID)

    shown_a = measured_centres(a, height, width, flip_first=config.flip_first)
    shown_b = measured_centres(b, height, width, flip_first=config.flip_first)
    for line, in_a, in_b in zip(predicted, shown_a, shown_b, strict=True):
        patch = (in_a[:, -1:] - in_a[:, :1]) / (GRID - 3)
        torch.testing.assert_close(line[:, 1:-1], 1 + (in_b - in_a[:, :1]) / patch, rtol=0, atol=1e-3)


def test_whole_augmented_views_show_the_predicted_columns_too() -> None:
    # Grey levels are columns, so that bytes carry the place to within a level; patches are at least 7 levels wide here.
    width = 256
    images = torch.arange(width, dtype=torch.uint8).expand(64, 3, width, width).contiguous()
    a, b = drawn_pair(FLIP_FIRST, 64, width, width)

    _, predicted = relative_geometry(a, b, width).positions(GRID)

    shown = [augment.apply(images, view, FLIP_FIRST, SIZE)[:, 0].mean(dim=1) * 255 for view in (a, b)]
    in_a, in_b = (line.view(64, GRID, SIZE // GRID).mean(dim=2).double() for line in shown)
    patch = (in_a[:, -1:] - in_a[:, :1]) / (GRID - 1)
    torch.testing.assert_close(predicted, (in_b - in_a[:, :1]) / patch, rtol=0, atol=0.2)


def test_views_of_different_batches_are_refused() -> None:
    a, b = drawn_pair(FLIP_FIRST, 3, 64, 64)

    with pytest.raises(ValueError, match=r"view a has 3 images and view b 2\. Draw both"):
        relative_geometry(a, b.rows(0, 2), 64)


def test_rotated_views_are_refused() -> None:
    a, b = drawn_pair(dataclasses.replace(FLIP_FIRST, rotation_deg=10.0), 3, 64, 64)

    with pytest.raises(ValueError, match=r"crops and flips alone\. Set augment\.rotation_deg to 0"):
        relative_geometry(a, b, 64)
