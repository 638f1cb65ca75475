"""Dense UniGrad, and what is normed before it (methods 1.6). Everything here computes in 32 bits or more."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ablatrix_models.distributed import mean_over_ranks, moments, world_size

NORM_EPS = 1e-5


def unigrad(prediction: Tensor, target: Tensor, negative_weight: float) -> tuple[Tensor, Tensor]:
    """Attraction and weighted repulsion, whose sum is SiameseIM's loss (Tao et al. 2023, eq. 4; sign, means and 1/dim as released).

    prediction: (tokens, dim). target: (tokens, dim), normed; no gradient reaches it. The attraction is the mean squared distance
    over tokens and dims, the repulsion lambda / dim times the mean of y^T C y, where C = mean of z z^T over this batch and all
    ranks: no moving average, no centring, positives included. Returns two scalars, whose means over the ranks are those of one
    process. O(tokens * dim^2) time, O(dim^2) extra memory.
    """
    prediction, target = _wide(prediction), _wide(target.detach())
    attraction = functional.mse_loss(prediction, target)
    if not negative_weight:
        return attraction, torch.zeros_like(attraction)
    with torch.autocast(prediction.device.type, enabled=False):
        correlation = mean_over_ranks(target.mT @ target / len(target))
        repulsion = ((prediction @ correlation) * prediction).mean()
    return attraction, negative_weight * repulsion


def layer_norm(tokens: Tensor) -> Tensor:
    """MAE-like norm: each token to mean 0 and variance 1 over its dims, without affine; (..., dim)."""
    return functional.layer_norm(_wide(tokens), tokens.shape[-1:], eps=NORM_EPS)


def batch_norm_unit(tokens: Tensor) -> Tensor:
    """MoCo-like norm: batch norm without affine over the tokens of all ranks, then unit length; (tokens, dim).

    Never released: one reading.
    """
    tokens = _wide(tokens)
    if world_size() == 1:
        return functional.normalize(functional.batch_norm(tokens, None, None, training=True, eps=NORM_EPS), dim=-1)
    mean, variance = moments(tokens, (0,))
    return functional.normalize((tokens - mean) * torch.rsqrt(variance + NORM_EPS), dim=-1)


def feature_terms(
    prediction: Tensor,
    target: Tensor,
    *,
    norm: Literal["mae-like", "moco-like"],
    negative_weight: float,
    pooled: bool = False,
    prediction_norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """Norm both sides of (batch, patches, dim) as Table 3 names it, and take UniGrad's two terms.

    pooled: the global loss, on each image's mean token, taken before the norm. prediction_norm: layer norm of the prediction too.
    """
    prediction, target = (_rows(_wide(tokens), pooled) for tokens in (prediction, target))
    if norm == "moco-like":
        prediction, target = batch_norm_unit(prediction), batch_norm_unit(target)
    else:
        target = layer_norm(target)
        prediction = layer_norm(prediction) if prediction_norm else prediction
    return unigrad(prediction, target, negative_weight)


def _rows(tokens: Tensor, pooled: bool) -> Tensor:
    return tokens.mean(dim=1) if pooled else tokens.flatten(0, 1)


def _wide(tokens: Tensor) -> Tensor:
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))
