"""Position codes against the released ones and a literal transcription; MAE's order is another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ablatrix_models.augment.geometry import RelativeGeometry, same_geometry
from ablatrix_models.siamese_im.positions import fixed_embedding, relative_embedding
from golden import load_golden


def released_geometry(golden: dict[str, np.ndarray]) -> RelativeGeometry:
    arguments = {key: torch.from_numpy(golden[f"arg_{key}"]) for key in ("delta_i", "delta_j", "delta_h", "delta_w", "flip_delta_j")}
    return RelativeGeometry(
        row_offset=arguments["delta_i"],
        column_offset=arguments["delta_j"],
        row_scale=arguments["delta_h"],
        column_scale=arguments["delta_w"],
        flipped=torch.from_numpy(golden["arg_relative_flip"]),
        mirrored_offset=arguments["flip_delta_j"],
    )


def transcribed_code(value: float, dim: int) -> list[float]:
    """Methods 1.2, literally: all sines, then all cosines."""
    frequencies = [10000 ** (-k / (dim / 2)) for k in range(dim // 2)]
    return [math.sin(value * w) for w in frequencies] + [math.cos(value * w) for w in frequencies]


@pytest.mark.parametrize(("dim", "grid"), [(16, 2), (32, 4), (64, 7), (64, 14), (768, 14)])
def test_fixed_codes_equal_the_released_ones(dim: int, grid: int) -> None:
    golden = load_golden("sim_pos_embed_sincos2d")
    (key,) = (k for k in golden if k.startswith(f"siameseim_D{dim}_grid{grid}x{grid}_"))

    code = fixed_embedding(grid, dim)

    np.testing.assert_allclose(code, golden[key][1:], rtol=0, atol=1e-5)
    assert not golden[key][0].any(), "CLS has no position"


@pytest.mark.parametrize(("dim", "grid"), [(32, 4), (64, 14)])
def test_mae_puts_columns_first_so_its_code_is_the_transposed_one(dim: int, grid: int) -> None:
    mae = load_golden("sim_pos_embed_sincos2d")[f"mae_D{dim}_grid{grid}x{grid}_cls_first"][1:]

    code = fixed_embedding(grid, dim).numpy()

    assert np.abs(code - mae).max() > 1
    transposed = mae.reshape(grid, grid, dim).swapaxes(0, 1).reshape(-1, dim)
    np.testing.assert_allclose(code, transposed, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dim", "grid"), [(16, 4), (32, 7), (64, 4)])
def test_relative_codes_equal_the_released_ones(dim: int, grid: int) -> None:
    golden = load_golden("sim_pos_embed_relative")

    code = relative_embedding(released_geometry(golden), grid, dim)

    np.testing.assert_allclose(code, golden[f"embed_D{dim}_grid{grid}_case_token_2D_f32"], rtol=0, atol=1e-5)


def test_relative_codes_of_the_released_size_equal_the_released_ones() -> None:
    golden = load_golden("sim_pos_embed_relative")

    code = relative_embedding(released_geometry(golden), 14, 768)[:, golden["embed_D768_grid14_selected_token_index"]]

    np.testing.assert_allclose(code, golden["embed_D768_grid14_case_selectedtoken_2D_f32"], rtol=0, atol=1e-5)


def test_relative_codes_equal_a_literal_transcription() -> None:
    grid, dim = 3, 8
    one = {"row_offset": 0.3, "column_offset": 0.0, "row_scale": 1.7, "column_scale": 0.6, "mirrored_offset": 2.2}
    geometry = RelativeGeometry(**{k: torch.tensor([v], dtype=torch.float64) for k, v in one.items()}, flipped=torch.tensor([True]))
    expected = []
    for u in range(grid):
        for v in range(grid):
            row, column = 1.7 * (u + 0.5) + grid * 0.3 - 0.5, -0.6 * (v + 0.5) + grid * 2.2 - 0.5
            parts = (row, column, 10 * math.log(1.7), 10 * math.log(0.6))
            expected.append([number for part in parts for number in transcribed_code(part, dim // 2)])

    code = relative_embedding(geometry, grid, dim)

    torch.testing.assert_close(code[0], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", [4, 14])
def test_identical_views_give_view_b_the_positions_of_view_a(grid: int) -> None:
    code = relative_embedding(same_geometry(2), grid, 32)

    torch.testing.assert_close(code[:, :, :32], fixed_embedding(grid, 32).expand(2, -1, -1), rtol=0, atol=1e-6)


def test_a_width_that_cannot_hold_four_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="dim is 10, but sine and cosine of rows and columns need a multiple of 4"):
        fixed_embedding(4, 10)
