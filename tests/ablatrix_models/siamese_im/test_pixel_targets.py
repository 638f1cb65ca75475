"""Pixel targets and their loss against the released ones and a literal transcription."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify, pixel_loss
from golden import load_golden


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("patch", [8, 16])
def test_targets_loss_and_gradient_equal_the_released_ones(patch: int, normed: bool) -> None:
    golden = {
        key.removeprefix(f"img32_patch{patch}__"): value
        for key, value in load_golden("sim_pixel_target_mae_loss").items()
        if f"patch{patch}__" in key
    }
    prediction = torch.from_numpy(golden["prediction_BL_pp3_f32"]).requires_grad_()
    removed = torch.from_numpy(golden["mask_1_is_removed_BL"]).bool()
    patches = patchify(torch.from_numpy(golden["images_B3HW_f32"]), patch)
    target = norm_patches(patches) if normed else patches

    loss = pixel_loss(prediction, target, removed)
    loss.backward()

    key = f"norm_pix{int(normed)}__"
    np.testing.assert_array_equal(patches, golden["patchified_BL_pp3"])
    assert loss.item() == pytest.approx(float(golden[key + "loss_on_removed_f32"]), rel=1e-5)
    torch.testing.assert_close(prediction.grad, torch.from_numpy(golden[key + "grad_wrt_prediction_f32"]), rtol=1e-5, atol=1e-6)
    everywhere = pixel_loss(prediction.detach(), target)
    assert everywhere.item() == pytest.approx(float(golden[key + "loss_on_all_patches_f32"]), rel=1e-5)


def test_a_patch_is_read_row_by_row_with_colours_innermost() -> None:
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)

    patches = patchify(images, 2)

    expected = [
        [
            [images[i, c, 2 * r + y, 2 * s + x].item() for y in range(2) for x in range(2) for c in range(3)]
            for r in range(2)
            for s in range(2)
        ]
        for i in range(2)
    ]
    assert patches.tolist() == expected


def test_a_normed_patch_ignores_brightness_and_contrast() -> None:
    patches = torch.rand(2, 4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    normed = norm_patches(3 * patches + 5)

    torch.testing.assert_close(normed, norm_patches(patches), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normed.mean(dim=-1), torch.zeros(2, 4, dtype=torch.float64))


def test_patches_that_are_not_scored_change_nothing() -> None:
    prediction, target = torch.randn(2, 3, 4, 12, generator=torch.Generator().manual_seed(0)).unbind()
    scored = torch.tensor([[True, False, True, False]] * 3)
    changed = torch.where(scored[:, :, None], prediction, prediction + 100)

    assert pixel_loss(changed, target, scored) == pixel_loss(prediction, target, scored)
