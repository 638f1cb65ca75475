"""SiameseIM as a framework: what reaches the loss, what is trained, and that every row of Table 3 trains."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ablatrix_models.augment import RelativeGeometry, TwoViews
from ablatrix_models.augment.geometry import same_geometry
from ablatrix_models.methods.siameseim import SiameseIM
from ablatrix_models.recipe import siameseim as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.recipe.fields import build
from ablatrix_models.siamese_im.patch_masks import sample_removed
from ablatrix_models.siamese_im.pixel_targets import norm_patches, patchify

Rows = dict[str, dict[str, Any]]
BATCH, SIZE, PATCH, GRID = 4, 16, 4, 4
TINY: dict[str, Any] = {"dim": 16, "heads": 2, "projector_depth": 1, "decoder_depth": 1}
BACKBONE = ViT(patch=PATCH, width=8, depth=1, heads=2)


def tiny(row: dict[str, Any] | None = None, *, seed: int = 0) -> SiameseIM:
    merged = TINY | (row or {})
    settings, problems = build(config.SiameseIM, merged | {"mask": {"min_block": 2} | merged.get("mask", {})})
    assert settings is not None, problems
    torch.manual_seed(seed)
    return SiameseIM(settings, BACKBONE, SIZE).double()


def images(seed: int = 1) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, BATCH, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a, b


def views(method: SiameseIM, seed: int = 1, dtype: torch.dtype = torch.float64) -> TwoViews:
    """Two views, or one for both where the method wants that."""
    a, b = (view.to(dtype) for view in images(seed))
    return TwoViews(a, a, same_geometry(BATCH)) if method.settings.one_view else TwoViews(a, b, geometry())


def geometry() -> RelativeGeometry:
    numbers = torch.rand(5, BATCH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    flipped = torch.tensor([False, True, False, True])
    return RelativeGeometry(numbers[0], numbers[1], 0.5 + numbers[2], 0.5 + numbers[3], flipped, 1 + numbers[4])


def stream(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masks(method: SiameseIM) -> Tensor:
    return sample_removed(method.settings.mask, BATCH, GRID, stream())


def pixels_of(removed: Tensor) -> Tensor:
    """(batch, patches) to (batch, 1, SIZE, SIZE)."""
    return removed.view(-1, 1, GRID, GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def test_every_row_of_table_3_trains_each_of_its_parameters(row: dict[str, Any]) -> None:
    method = tiny(row).train()

    loss, diagnostics = method.loss(views(method), (), stream())
    loss.backward()

    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) and not value.requires_grad for value in diagnostics.values())
    for name, parameter in method.named_parameters():
        gradient = parameter.grad
        if not parameter.requires_grad:
            assert gradient is None, name
        else:
            assert gradient is not None, name
            assert torch.isfinite(gradient).all(), name
    trained = {id(parameter) for group in method.parameter_groups() for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in method.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("letter", ["a", "i"])
def test_steps_on_one_batch_lower_the_loss(letter: str, table3: Rows) -> None:
    method = tiny(table3[letter]).train()
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=3e-3)

    losses = []
    for _ in range(25):
        method.before_step()
        loss, _ = method.loss(views(method), (), stream())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]


def test_removed_patches_of_view_a_reach_the_prediction_in_no_way() -> None:
    method = tiny().train()
    a, _ = images()
    removed = masks(method)
    hidden = torch.where(pixels_of(removed), torch.randn_like(a), a)

    prediction = method.predict(hidden, geometry(), removed)

    assert torch.equal(prediction, method.predict(a, geometry(), removed))
    assert not torch.equal(prediction, method.predict(torch.where(pixels_of(removed), a, a + 1), geometry(), removed))


def test_predictions_depend_on_where_view_b_lies() -> None:
    method = tiny().eval()
    a, _ = images()
    removed = masks(method)

    prediction = method.predict(a, geometry(), removed)

    assert prediction.shape == (BATCH, GRID**2, 16)
    assert not torch.allclose(prediction, method.predict(a, same_geometry(BATCH), removed))


@pytest.mark.parametrize("letter", ["a", "b-c"])
def test_same_views_refuse_a_second_view(letter: str, table3: Rows) -> None:
    method = tiny(table3[letter]).train()
    a, b = images()

    with pytest.raises(ValueError, match="predicts view a itself, but got two views"):
        method.loss(TwoViews(a, b, geometry()), (), stream())


@pytest.mark.parametrize("letter", ["a", "d"])
def test_pixel_rows_score_the_patches_that_they_should(letter: str, table3: Rows) -> None:
    method = tiny(table3[letter]).train()
    seen = views(method)
    assert seen.geometry is not None
    removed = masks(method)

    loss, _ = copy.deepcopy(method).masked_loss(seen, removed)

    errors = (method.predict(seen.a, seen.geometry, removed) - norm_patches(patchify(seen.b, PATCH))) ** 2
    expected = errors[removed].mean() if letter == "a" else errors.mean()
    torch.testing.assert_close(loss, expected)


def test_raw_pixels_are_the_target_without_a_norm(table3: Rows) -> None:
    method = tiny(table3["d"] | {"target_norm": "none"}).train()
    a, b = images()
    removed = masks(method)

    loss, _ = copy.deepcopy(method).masked_loss(TwoViews(a, b, geometry()), removed)

    torch.testing.assert_close(loss, ((method.predict(a, geometry(), removed) - patchify(b, PATCH)) ** 2).mean())


def test_the_target_moves_once_before_a_step_with_the_weights_before_it() -> None:
    method = tiny({"momentum": 0.9}).train()
    for follower in (method.target_encoder, method.target_head):
        for parameter in follower.parameters():
            parameter.data.fill_(1.0)
    expected = {
        name: 0.9 + 0.1 * parameter.detach() for name, parameter in method.named_parameters() if name.startswith(("encoder.", "head."))
    }

    method.before_step()
    for _ in range(2):  # the parts of an accumulated step
        method.loss(views(method), (), stream())

    targets = dict(method.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(targets[f"target_{name}"].data, value)


def test_batch_norm_statistics_of_the_target_are_its_own() -> None:
    method = tiny().train()

    method.loss(views(method), (), stream())

    online, target = (head.blocks[0].norm1.bn.running_mean for head in (method.head, method.target_head))  # type: ignore[union-attr]
    assert not torch.allclose(online, target)  # type: ignore[arg-type]


def test_half_precision_gives_the_loss_of_full_precision_to_within_its_rounding() -> None:
    method = tiny().float().train()
    seen = views(method, dtype=torch.float32)
    expected, _ = copy.deepcopy(method).loss(seen, (), stream())

    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method.loss(seen, (), stream())
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_momentum_rises_to_one_with_progress() -> None:
    method = tiny()
    momenta = [method.momentum]

    for step in range(1, 5):
        method.after_step(step / 4, step - 1, 4)
        momenta.append(method.momentum)

    assert momenta == sorted(momenta)
    assert momenta[0] == pytest.approx(0.995)
    assert momenta[2] == pytest.approx(0.9975)
    assert momenta[-1] == 1.0


def test_a_restored_method_goes_on_bit_for_bit() -> None:
    method, restored = tiny().train(), tiny(seed=9).train()
    method.loss(views(method), (), stream())
    method.after_step(0.7, 0, 1)

    restored.load_state_dict(copy.deepcopy(method.state_dict()))

    losses = [m.loss(views(m, 5), (), stream(6))[0] for m in (method, restored)]
    assert losses[0] == losses[1]
    for (key, ours), theirs in zip(method.state_dict().items(), restored.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


def test_an_encoder_that_leaves_nothing_out_sees_the_whole_image() -> None:
    encoder = tiny().encoder
    a, _ = images()

    kept = encoder.tokens(a, torch.arange(GRID**2).expand(BATCH, -1))

    torch.testing.assert_close(kept, encoder.tokens(a))
    torch.testing.assert_close(encoder(a), kept[:, 1:].mean(dim=1))


def test_features_can_be_the_cls_token() -> None:
    torch.manual_seed(0)
    method = SiameseIM(config.SiameseIM(**TINY), ViT(patch=4, width=8, depth=1, heads=2, pool="cls"), SIZE).eval()
    a = images()[0].float()

    torch.testing.assert_close(method.features(a), method.encoder.tokens(a)[:, 0])
    assert method.project(a).shape == (BATCH, 16)


def test_the_patch_embedding_is_frozen_unless_asked_for() -> None:
    trained = SiameseIM(config.SiameseIM(**TINY), ViT(patch=4, width=8, depth=1, heads=2, train_patch_embedding=True), SIZE)

    assert not tiny().encoder.patch_embedding.weight.requires_grad
    assert trained.encoder.patch_embedding.weight.requires_grad


def test_the_released_setting_has_the_released_number_of_trained_parameters() -> None:
    with torch.device("meta"):
        method = SiameseIM(config.SiameseIM(), ViT(), 224)

    def millions(*modules: torch.nn.Module) -> float:
        return round(sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad) / 1e6, 1)

    assert (millions(method.encoder), millions(method.head), millions(method.decoder)) == (85.1, 14.8, 30.1)
    assert millions(method) == 129.9


def test_linear_layers_start_xavier_uniform_with_bias_0() -> None:
    method = SiameseIM(config.SiameseIM(dim=64, heads=4), ViT(patch=4, width=64, depth=1, heads=4), SIZE)

    for layer in (method.head.embed, method.decoder.head, method.encoder.blocks[0].mlp.fc1):  # type: ignore[union-attr]
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5  # type: ignore[union-attr, operator]
        assert 0.9 * bound < layer.weight.abs().max() <= bound  # type: ignore[union-attr, operator]
        assert not layer.bias.any()  # type: ignore[union-attr, operator]
    patch = method.encoder.patch_embedding.weight
    assert 0.9 * (6 / (48 + 64)) ** 0.5 < patch.abs().max() <= (6 / (48 + 64)) ** 0.5
    assert method.encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.4)


def test_two_views_without_their_geometry_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the geometry is unknown\. Use views without rotation"):
        tiny().loss(TwoViews(*images(), None), (), stream())


def test_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes no mixtures, but got 1\. Use mixing: none"):
        tiny().loss(views(tiny()), (object(),), stream())  # type: ignore[arg-type]


def test_a_progress_in_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"progress is 3\.5, but it is a share of the run"):
        tiny().after_step(3.5, 3, 10)


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 5 pixels do not divide images of 16"):
        SiameseIM(config.SiameseIM(**TINY), ViT(patch=5, width=8, depth=1, heads=2), SIZE)


def test_blocks_use_the_fused_attention_and_the_recipe_s_mlp() -> None:
    encoder = SiameseIM(config.SiameseIM(**TINY), ViT(patch=4, width=8, depth=2, heads=2, mlp_ratio=2.0), SIZE).encoder

    blocks: list[Any] = list(encoder.blocks)

    assert [block.attn.fused_attn for block in blocks] == [True, True]
    assert [block.mlp.fc1.out_features for block in blocks] == [16, 16]


def test_a_compiled_encoder_compiles_what_its_tokens_pass() -> None:
    encoder = tiny().encoder

    encoder.compile(backend="eager")

    assert encoder.blocks._compiled_call_impl is not None
