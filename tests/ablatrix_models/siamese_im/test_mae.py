"""MAE as a framework: what it sees, what it is scored on, and the released sizes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ablatrix_models.augment import TwoViews
from ablatrix_models.methods.mae import MAE
from ablatrix_models.recipe import mae as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.fields import build
from ablatrix_models.recipe.patch_mask import PatchMask
from ablatrix_models.siamese_im.patch_masks import sample_removed
from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify

TINY: dict[str, Any] = {"dim": 16, "heads": 2, "depth": 1}
BACKBONE: dict[str, Any] = {"final_norm": True, "train_patch_embedding": True}


def tiny() -> MAE:
    torch.manual_seed(0)
    return MAE(config.MAE(**TINY), ViT(patch=4, width=8, depth=1, heads=2, **BACKBONE), 16).double()


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def views() -> TwoViews:
    return TwoViews(images(), images(), None)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def masks(method: MAE) -> Tensor:
    return sample_removed(method.settings.mask, 4, 4, stream())


def with_removed_changed(a: Tensor, removed: Tensor) -> Tensor:
    pixels = removed.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(pixels, a + 1, a)


def test_only_removed_patches_are_scored_against_their_normed_pixels() -> None:
    method = tiny()
    a = images()
    removed = masks(method)

    loss, _ = method.loss(TwoViews(a, torch.full_like(a, torch.nan), None), (), stream())

    errors = (method.predict(a, removed) - norm_patches(patchify(a, 4))) ** 2
    torch.testing.assert_close(loss, errors[removed].mean())


def test_removed_pixels_reach_the_prediction_in_no_way() -> None:
    method = tiny()
    a = images()
    removed = masks(method)

    prediction = method.predict(a, removed)

    assert torch.equal(prediction, method.predict(with_removed_changed(a, removed), removed))
    assert not torch.equal(prediction, method.predict(with_removed_changed(a, ~removed), removed))


def test_the_decoder_puts_every_visible_token_in_its_own_place() -> None:
    decoder = tiny().decoder
    tokens = torch.randn(1, 4, 8, dtype=torch.float64, generator=stream())
    visible = torch.tensor([[9, 2, 5]])
    seen: list[Tensor] = []
    decoder.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    decoder(tokens, visible)

    embedded = decoder.embed(tokens)
    expected = decoder.mask_token[0] + decoder.positions
    for place, token in zip([9, 2, 5], embedded[0, 1:], strict=True):
        expected[place] = token + decoder.positions[place]
    torch.testing.assert_close(seen[0][0], torch.cat([embedded[0, :1], expected]))


def test_steps_on_one_batch_lower_the_loss_and_train_everything() -> None:
    method = tiny()
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=3e-3)
    before = copy.deepcopy(method.state_dict())

    losses = []
    for _ in range(25):
        loss, _ = method.loss(views(), (), stream())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(before[name], parameter) for name, parameter in method.named_parameters())


def test_the_released_setting_has_the_sizes_of_vit_b_and_its_decoder() -> None:
    with torch.device("meta"):
        method = MAE(config.MAE(), ViT(**BACKBONE), 224)

    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (method.encoder, method.decoder))

    block = 12 * 768**2 + 13 * 768
    assert encoder == 12 * block + 768 * 768 + 768 + 768 + 2 * 768
    assert decoder == 8 * (12 * 512**2 + 13 * 512) + 768 * 512 + 512 + 512 + 2 * 512 + 512 * 768 + 768


def test_the_default_masks_three_quarters_at_random() -> None:
    settings, problems = build(config.MAE, {"name": "mae"})

    assert problems == []
    assert settings is not None
    assert settings.mask == PatchMask(kind="random", ratio=0.75)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    _, problems = build(config.MAE, {"heads": 7})

    assert [problem.key for problem in problems] == ["heads"]
    assert "is 7, which does not divide the dim of 512" in problems[0].message


def test_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MAE takes no mixtures, but got 1\. Use mixing: none"):
        tiny().loss(views(), (object(),), stream())  # type: ignore[arg-type]
