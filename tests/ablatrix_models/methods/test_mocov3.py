"""MoCo v3, with and without a mask, against a literal transcription; what reaches its loss, and what its recipe says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablatrix_models.augment import TwoViews
from ablatrix_models.methods import build_method
from ablatrix_models.methods.mocov3 import MoCoV3
from ablatrix_models.recipe import Recipe, RecipeError
from ablatrix_models.recipe import mocov3 as config
from ablatrix_models.recipe.backbone import ViT
from ablatrix_models.siamese_im.patch_masks import sample_removed, visible_indices

BATCH, SIZE, PATCH, GRID = 6, 16, 4, 4
BACKBONE = ViT(name="vit-tiny", patch=PATCH, width=8, depth=2, heads=2, pool="cls", final_norm=True)


def tiny(**settings: Any) -> MoCoV3:
    torch.manual_seed(0)
    method = MoCoV3(config.MoCoV3(**{"hidden": 12, "dim": 6, "momentum": 0.9, **settings}), BACKBONE, SIZE).double()
    with torch.no_grad():  # keys that differ from the queries' networks
        for parameter in (*method.key_encoder.parameters(), *method.key_head.parameters()):
            parameter += 0.1 * torch.randn_like(parameter)
    return method


def views(seed: int = 1) -> TwoViews:
    a, b = torch.randn(2, BATCH, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return TwoViews(a, b, None)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def masks(method: MoCoV3) -> list[Tensor]:
    generator = stream()
    assert method.settings.mask is not None
    return [sample_removed(method.settings.mask, BATCH, GRID, generator) for _ in range(2)]


def with_removed_changed(images: Tensor, removed: Tensor) -> Tensor:
    pixels = removed.view(-1, 1, GRID, GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    return torch.where(pixels, images + 1, images)


def literal_feature(encoder: nn.Module, image: Tensor, kept: list[int]) -> Tensor:
    """The CLS token of one image's kept patches, cut out one by one."""
    tokens = [encoder.cls_token[0, 0]]
    for patch in kept:
        row, column = divmod(patch, GRID)
        pixels = image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        embedded = (encoder.patch_embedding.weight * pixels).sum((1, 2, 3)) + encoder.patch_embedding.bias
        tokens.append(embedded + encoder.positions[patch])
    return encoder.norm(encoder.blocks(torch.stack(tokens)[None]))[0, 0]


def literal_head(head: nn.Sequential, rows: Tensor) -> Tensor:
    """Linear layers without bias; batch norm by this batch's biased variance; the last norm has no weights."""
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    norms = [layer for layer in head if isinstance(layer, nn.BatchNorm1d)]
    assert len(norms) == len(linears)
    for linear, norm in zip(linears, norms, strict=True):
        rows = rows @ linear.weight.T
        rows = (rows - rows.mean(0)) / ((rows - rows.mean(0)).square().mean(0) + 1e-5).sqrt()
        if norm is norms[-1]:
            assert norm.weight is None
            assert norm.bias is None
            return rows
        rows = (rows * norm.weight + norm.bias).clamp(min=0)
    raise AssertionError


def unit(row: Tensor) -> Tensor:
    return row / row.square().sum().sqrt()


def literal_loss(method: MoCoV3, pair: TwoViews, removed: list[Tensor]) -> Tensor:
    """Algorithm 1 of Chen et al. 2021 with masked queries, image by image."""
    every, temperature = list(range(GRID**2)), method.settings.temperature
    loss = torch.zeros((), dtype=torch.float64)
    for queried, keyed, mask in ((pair.a, pair.b, removed[0]), (pair.b, pair.a, removed[1])):
        kept = [[patch for patch in every if not gone[patch]] for gone in mask]
        features = torch.stack([literal_feature(method.encoder, *image) for image in zip(queried, kept, strict=True)])
        queries = literal_head(method.predictor, literal_head(method.head, features))
        with torch.no_grad():
            keys = literal_head(method.key_head, torch.stack([literal_feature(method.key_encoder, image, every) for image in keyed]))
        for own, query in enumerate(queries):
            logits = torch.stack([unit(query) @ unit(key) / temperature for key in keys])
            loss = loss + 2 * temperature * (torch.logsumexp(logits, 0) - logits[own]) / BATCH
    return loss


def gradients(method: MoCoV3, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}


def test_loss_and_gradient_equal_a_literal_transcription() -> None:
    method = tiny().train()
    pair, removed = views(), masks(method)

    loss, _ = method.masked_loss(pair, removed)
    expected = literal_loss(copy.deepcopy(method), pair, removed)

    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    other = copy.deepcopy(method)
    found, wanted = gradients(method, loss), gradients(other, literal_loss(other, pair, removed))
    assert found.keys() == wanted.keys()
    assert not any(name.startswith(("key", "encoder.patch_embedding")) for name in found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-8, atol=1e-12)


def test_the_unigrad_loss_is_that_of_siameseim_on_the_unit_features() -> None:
    method = tiny(loss="unigrad", symmetric=False, negative_weight=0.3).train()
    pair, removed = views(), masks(method)[:1]

    loss, _ = copy.deepcopy(method).masked_loss(pair, removed)

    query = method.predict(pair.a, removed[0])
    features = method.key_head(method.key_encoder(pair.b))
    target = torch.stack([unit(row) for row in features])
    attraction = (query - target).square().sum(1).mean()
    repulsion = torch.stack([(y @ z) ** 2 for y in query for z in target]).mean()
    torch.testing.assert_close(loss, (attraction + 0.3 * repulsion) / 6)


def test_a_mask_that_removes_nothing_leaves_plain_moco_v3() -> None:
    method, plain = tiny().train(), tiny(mask=None).train()
    pair = views()

    loss, _ = method.masked_loss(pair, [torch.zeros(BATCH, GRID**2, dtype=torch.bool)] * 2)

    torch.testing.assert_close(loss, plain.loss(pair, (), stream())[0])


def test_removed_patches_reach_no_query_but_every_key() -> None:
    method = tiny(symmetric=False).train()
    pair, (removed, _) = views(), masks(method)
    hidden = TwoViews(with_removed_changed(pair.a, removed), pair.b, None)
    other_key = TwoViews(pair.a, with_removed_changed(pair.b, removed), None)

    loss, _ = copy.deepcopy(method).masked_loss(pair, [removed])

    assert torch.equal(loss, copy.deepcopy(method).masked_loss(hidden, [removed])[0])
    assert not torch.isclose(loss, copy.deepcopy(method).masked_loss(other_key, [removed])[0])


def test_every_query_view_has_a_mask_of_its_own_of_the_exact_share() -> None:
    method = tiny()
    seen: list[Tensor] = []
    method.encoder.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    method.loss(views(), (), stream())

    first, second = masks(method)
    assert [tokens.shape[1] for tokens in seen] == [1 + 6, 1 + 6]  # 16 patches less 60 %, rounded down, and CLS
    assert not torch.equal(visible_indices(first), visible_indices(second))


def test_swapping_the_views_with_their_masks_changes_nothing() -> None:
    method = tiny().train()
    pair, removed = views(), masks(method)

    loss, _ = copy.deepcopy(method).masked_loss(pair, removed)
    swapped, _ = copy.deepcopy(method).masked_loss(TwoViews(pair.b, pair.a, None), removed[::-1])

    torch.testing.assert_close(loss, swapped)


def test_the_order_of_the_batch_changes_nothing() -> None:
    method = tiny().train()
    pair, removed = views(), masks(method)
    order = torch.randperm(BATCH, generator=stream())

    loss, _ = copy.deepcopy(method).masked_loss(pair, removed)
    moved, _ = copy.deepcopy(method).masked_loss(TwoViews(pair.a[order], pair.b[order], None), [mask[order] for mask in removed])

    torch.testing.assert_close(loss, moved)


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [0.9, 0.95, 1.0]), ("constant", [0.9] * 3)])
def test_the_momentum_follows_its_schedule_and_moves_parameters_only(schedule: str, expected: list[float]) -> None:
    method = tiny(momentum_schedule=schedule)

    for progress, momentum in zip((0.0, 0.5, 1.0), expected, strict=True):
        method.after_step(progress, 0, 1)
        assert method.momentum == pytest.approx(momentum)
        before, buffers = copy.deepcopy(method.key_head.state_dict()), dict(method.key_head.named_buffers())
        method.before_step()
        for name, parameter in method.key_head.named_parameters():
            leader = method.head.get_parameter(name)
            torch.testing.assert_close(parameter, momentum * before[name] + (1 - momentum) * leader)
        assert all(torch.equal(value, before[name]) for name, value in buffers.items())


@pytest.mark.parametrize("loss", ["infonce", "unigrad"])
def test_steps_on_one_batch_lower_the_loss(loss: str) -> None:
    method = tiny(loss=loss).train()
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=3e-3)
    pair = views()

    losses = []
    for _ in range(20):
        method.before_step()
        value, _ = method.loss(pair, (), stream())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())

    assert losses[-1] < 0.8 * losses[0]


def test_the_heads_have_the_released_sizes() -> None:
    with torch.device("meta"):
        method = MoCoV3(config.MoCoV3(), ViT(), 224)

    projector, predictor = (sum(p.numel() for p in part.parameters()) for part in (method.head, method.predictor))

    assert projector == 768 * 4096 + 4096 * 4096 + 4096 * 256 + 2 * 2 * 4096
    assert predictor == 256 * 4096 + 4096 * 256 + 2 * 4096


def test_vectors_decay_only_where_the_recipe_says_so() -> None:
    undecayed = {p.ndim for group in tiny().parameter_groups() if group.get("weight_decay") == 0.0 for p in group["params"]}

    assert undecayed == {1}
    assert all("weight_decay" not in group for group in tiny(decay_vectors=True).parameter_groups())


def test_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MoCo v3 takes no mixtures, but got 1\. Use mixing: none"):
        tiny().loss(views(), (object(),), stream())  # type: ignore[arg-type]


def recipe(method: dict[str, Any], **rest: Any) -> Recipe:
    return Recipe.read({"method": {"name": "mocov3", **method}, "backbone": {"name": "vit-tiny", "patch": 4}, **rest})


def test_a_recipe_builds_it_with_or_without_a_mask() -> None:
    masked, plain = build_method(recipe({"hidden": 8})), build_method(recipe({"hidden": 8, "mask": None}))

    assert isinstance(masked, MoCoV3)
    assert isinstance(plain, MoCoV3)
    assert masked.settings.mask is not None
    assert (masked.settings.mask.kind, masked.settings.mask.ratio) == ("random", 0.6)
    assert plain.settings.mask is None


@pytest.mark.parametrize(
    ("method", "rest", "message"),
    [
        ({"negative_weight": 1.0}, {}, r"negative_weight: is 1, but infonce weighs no negatives"),
        ({}, {"mixing": "mixmask"}, r"mixing.kind: is mixmask, but mocov3 takes no mixtures"),
        ({"mask": None}, {"backbone": "resnet18"}, r"backbone.name: is no ViT"),
        ({"mask": {"kind": "random", "ratio": 1.0}}, {}, r"method.mask.ratio: is 1, so 0 of 64 patches stay"),
    ],
)
def test_what_cannot_be_run_is_refused(method: dict[str, Any], rest: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(method, **rest)


def test_what_a_run_never_reads_does_not_change_its_identity() -> None:
    plain = recipe({}).identity()["method"]

    assert plain == recipe({"mask": {"kind": "random", "ratio": 0.6, "min_block": 9}}).identity()["method"]
    assert "negative_weight" not in plain
    assert plain != recipe({"temperature": 0.3}).identity()["method"]
    assert recipe({"loss": "unigrad"}).identity() == recipe({"loss": "unigrad", "negative_weight": 0.02 * 256}).identity()
    assert recipe({"loss": "unigrad"}).identity() == recipe({"loss": "unigrad", "temperature": 0.5}).identity()
