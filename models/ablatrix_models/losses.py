"""Losses of the siamese frameworks, one function each, before any weighting or averaging over the batch.

Every function computes in 32 bits or more, whatever autocast is in force around it: softmax over thousands of
negatives, and cosines near 1, lose their digits in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional

Rest = ParamSpec("Rest")


def _in_full_precision(function: Callable[Concatenate[Tensor, Rest], Tensor]) -> Callable[Concatenate[Tensor, Rest], Tensor]:
    """Turn autocast off inside `function` and widen its floats to at least float32."""

    def widen(value: object) -> object:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.to(torch.promote_types(value.dtype, torch.float32))

    @wraps(function)
    def wrapped(first: Tensor, *args: Rest.args, **kwargs: Rest.kwargs) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return function(*map(widen, (first, *args)), **{key: widen(value) for key, value in kwargs.items()})  # type: ignore[call-arg]

    return wrapped


@_in_full_precision
def unit(features: Tensor) -> Tensor:
    """Rows of `features` (batch, dim) scaled to Euclidean length 1."""
    return functional.normalize(features, dim=1)


@_in_full_precision
def log_negatives(query: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """The logarithm of InfoNCE's sum over the negatives, which the terms of a mixture share.

    query: (batch, dim), queue: (negatives, dim), both of unit rows. Returns (batch,).
    """
    return torch.logsumexp((query / temperature) @ queue.T, dim=1)


@_in_full_precision
def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE with one positive and a queue of negatives (He et al. 2020, eq. 1).

    query, key: (batch, dim), unit rows. negatives: (batch,) from `log_negatives` for the same queries.
    Returns (batch,). O(batch * dim), because the positive never joins the negatives in one array.
    """
    positive = (query * key).sum(dim=1) / temperature
    return -functional.logsigmoid(positive - negatives)


@_in_full_precision
def batch_info_nce(query: Tensor, keys: Tensor, own: Tensor, temperature: float) -> Tensor:
    """InfoNCE among the keys of one batch, times twice the temperature (Chen et al. 2021, algorithm 1).

    query: (batch, dim), keys: (keys, dim), both of unit rows. own: (batch,) int64, the row of each query's own key; the others
    are its negatives. Returns (batch,). O(batch * keys) memory.
    """
    return 2 * temperature * functional.cross_entropy(query @ keys.T / temperature, own, reduction="none")


@_in_full_precision
def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent for every pairing of two views (Chen et al. 2020, eq. 1, mean of both directions).

    first, second: (batch, dim), not normalised. Returns (batch, batch): entry [i, j] is the loss of taking
    first[i] and second[j] as the positive pair among all 2 * batch rows. The diagonal's mean is SimCLR's loss;
    a permutation of `second` picks other entries, since it leaves each row's negatives as they are.
    """
    first, second = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    across = first @ second.T / temperature
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    among_first = (first @ first.T / temperature).masked_fill(own, float("-inf"))
    among_second = (second @ second.T / temperature).masked_fill(own, float("-inf"))
    first_total = torch.logaddexp(across.logsumexp(dim=1), among_first.logsumexp(dim=1))
    second_total = torch.logaddexp(across.logsumexp(dim=0), among_second.logsumexp(dim=1))
    return (first_total[:, None] + second_total[None, :]) / 2 - across


@_in_full_precision
def byol_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 - 2 cos (Grill et al. 2020, eq. 2).

    prediction, target: (batch, dim), not normalised; no gradient reaches the target. Returns (batch,).
    """
    return 2 - 2 * functional.cosine_similarity(prediction, target.detach(), dim=1)


@_in_full_precision
def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative cosine similarity with stopped gradient (Chen and He 2021, eq. 1 and 3).

    prediction, target: (batch, dim), not normalised; no gradient reaches the target. Returns (batch,).
    """
    return -functional.cosine_similarity(prediction, target.detach(), dim=1)
