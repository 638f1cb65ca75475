"""UniGrad and the norms of Table 3 against released and derived values, and against the naive M x M form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.utils._python_dispatch import TorchDispatchMode

from ablatrix_models.siamese_im.unigrad import batch_norm_unit, feature_terms, layer_norm, unigrad
from golden import load_golden

SHAPES = ["B2_N4_D8", "B3_N16_D32", "B2_N49_D64", "B1_N196_D16"]


def value_and_gradient(loss: Callable[[Tensor], tuple[Tensor, Tensor]], prediction: Tensor) -> tuple[Tensor, Tensor]:
    leaf = prediction.clone().requires_grad_()
    total = sum(loss(leaf), start=torch.zeros((), dtype=prediction.dtype))
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient


def naive(prediction: Tensor, target: Tensor, negative_weight: float) -> tuple[Tensor, Tensor]:
    """Methods 1.6, literally, through all M x M products: the mean over k of y_k^T C y_k is a mean of squared products."""
    tokens, dim = prediction.shape
    attraction = sum(((y - z) ** 2).sum() for y, z in zip(prediction, target, strict=True)) / tokens / dim
    return attraction, negative_weight * (prediction @ target.T).square().sum() / tokens**2 / dim  # type: ignore[return-value]


@pytest.mark.parametrize("negative_weight", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_equal_the_released_ones(shape: str, negative_weight: float) -> None:
    golden = load_golden("sim_unigrad_dense_loss")
    prediction, target = (torch.from_numpy(golden[f"{shape}__{name}"]) for name in ("prediction_y", "target_z_before_norm"))

    loss, gradient = value_and_gradient(lambda y: feature_terms(y, target, norm="mae-like", negative_weight=negative_weight), prediction)

    key = f"{shape}__lambda{negative_weight}__"
    assert loss.item() == pytest.approx(float(golden[key + "loss_f32"]), rel=1e-5)
    np.testing.assert_allclose(gradient, golden[key + "grad_wrt_y_f32"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_terms_equal_the_independent_float64_ones(shape: str) -> None:
    golden = load_golden("sim_unigrad_dense_loss")
    prediction, target = (torch.from_numpy(golden[f"{shape}__{name}"]).double() for name in ("prediction_y", "target_z_before_norm"))
    dim = prediction.shape[-1]

    attraction, repulsion = feature_terms(prediction, target, norm="mae-like", negative_weight=1.0)

    assert attraction.item() * dim == pytest.approx(
        float(golden[f"{shape}__lambda1.0__pos_term_sum_over_D_mean_over_tokens_f64"]), rel=1e-6
    )
    assert repulsion.item() * dim == pytest.approx(float(golden[f"{shape}__lambda1.0__neg_term_mean_over_tokens_f64"]), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_normed_prediction_equals_the_released_online_norm(shape: str) -> None:
    golden = load_golden("sim_unigrad_dense_loss")
    prediction, target = (torch.from_numpy(golden[f"{shape}__{name}"]) for name in ("prediction_y", "target_z_before_norm"))

    loss, gradient = value_and_gradient(
        lambda y: feature_terms(y, target, norm="mae-like", negative_weight=0.02, prediction_norm=True), prediction
    )

    assert loss.item() == pytest.approx(float(golden[f"{shape}__lambda0.02_online_ln__loss_f32"]), rel=1e-5)
    np.testing.assert_allclose(gradient, golden[f"{shape}__lambda0.02_online_ln__grad_wrt_y_f32"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["dense", "global_meanpooled"])
@pytest.mark.parametrize(("name", "norm"), [("mae_like", "mae-like"), ("moco_like", "moco-like")])
@pytest.mark.parametrize("shape", ["B2_N9_D8", "B4_N16_D32"])
def test_norms_and_global_loss_equal_the_derived_values(shape: str, name: str, norm: Literal["mae-like", "moco-like"], form: str) -> None:
    golden = load_golden("sim_loss_norms_mae_like_and_moco_like_DERIVED")
    prediction, target = (torch.from_numpy(golden[f"{shape}__{key}_f64"]) for key in ("prediction_y", "target_z"))
    prefix = f"{shape}__{form}__{name}__lambda"
    weights = {key.removeprefix(prefix).split("__")[0] for key in golden if key.startswith(prefix)}
    assert len(weights) == 4

    for weight in weights:
        loss, gradient = value_and_gradient(
            lambda y, weight=weight: feature_terms(
                y,
                target,
                norm=norm,
                negative_weight=float(weight),
                pooled=form != "dense",
            ),
            prediction,
        )

        assert loss.item() == pytest.approx(float(golden[f"{prefix}{weight}__loss_f64"]), rel=1e-9)
        np.testing.assert_allclose(gradient, golden[f"{prefix}{weight}__grad_wrt_y_f64"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", ["B2_N9_D8", "B4_N16_D32"])
def test_normed_targets_equal_the_derived_ones(shape: str) -> None:
    golden = load_golden("sim_loss_norms_mae_like_and_moco_like_DERIVED")
    target = torch.from_numpy(golden[f"{shape}__target_z_f64"]).flatten(0, 1)

    np.testing.assert_allclose(layer_norm(target), golden[f"{shape}__target_mae_like_LN_flat"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(batch_norm_unit(target), golden[f"{shape}__target_moco_like_BN_then_l2_flat"], rtol=1e-9, atol=1e-12)


def test_value_and_gradient_equal_the_naive_form_over_all_pairs_of_tokens() -> None:
    prediction, target = torch.randn(2, 37, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    loss, gradient = value_and_gradient(lambda y: unigrad(y, target, 0.3), prediction)

    expected, expected_gradient = value_and_gradient(lambda y: naive(y, target, 0.3), prediction)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)


def test_the_gradient_is_the_one_of_methods_1_6() -> None:
    tokens, dim, weight = 21, 6, 0.7
    prediction, target = torch.randn(2, tokens, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    correlation = torch.stack([torch.outer(z, z) for z in target]).sum(0) / tokens

    _, gradient = value_and_gradient(lambda y: unigrad(y, target, weight), prediction)

    expected = torch.stack([2 / (tokens * dim) * (y - z + weight * correlation @ y) for y, z in zip(prediction, target, strict=True)])
    torch.testing.assert_close(gradient, expected)


def test_no_array_of_tokens_by_tokens_is_made() -> None:
    shapes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            shapes.extend([result.numel()] if isinstance(result, Tensor) else [])
            return result

    prediction, target = torch.randn(2, 1000, 4)
    with Sizes():
        unigrad(prediction, target, 0.02)

    assert max(shapes) <= 4000


def test_rotating_both_sides_changes_nothing() -> None:
    prediction, target = torch.randn(2, 30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))

    turned = unigrad(prediction @ rotation, target @ rotation, 0.5)

    torch.testing.assert_close(turned, unigrad(prediction, target, 0.5))


def test_without_negatives_only_the_squared_distance_remains() -> None:
    prediction, target = torch.randn(2, 10, 4)

    attraction, repulsion = unigrad(prediction, target, 0.0)

    torch.testing.assert_close(attraction, ((prediction - target) ** 2).mean())
    assert repulsion == 0


def test_no_gradient_reaches_the_target() -> None:
    prediction, target = torch.randn(2, 3, 5, 4).requires_grad_().unbind()
    target.retain_grad()

    sum(feature_terms(prediction, target, norm="moco-like", negative_weight=1.0)).backward()  # type: ignore[union-attr]

    assert target.grad is None


def test_several_processes_share_the_mean_of_their_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, target, other = torch.randn(3, 20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda values: values.add_(other.T @ other / 20))

    _, repulsion = unigrad(prediction, target, 0.1)

    correlation = (target.T @ target + other.T @ other) / 40
    torch.testing.assert_close(repulsion, 0.1 * ((prediction @ correlation) * prediction).sum() / 20 / 5)


def test_half_precision_features_lose_no_digits_in_the_loss() -> None:
    prediction, target = torch.randn(2, 2, 50, 16, generator=torch.Generator().manual_seed(5)).bfloat16().unbind()
    expected = feature_terms(prediction.float(), target.float(), norm="mae-like", negative_weight=1.0)

    with torch.autocast("cpu", torch.bfloat16):
        terms = feature_terms(prediction, target, norm="mae-like", negative_weight=1.0)

    torch.testing.assert_close(terms, expected, rtol=1e-6, atol=1e-6)
