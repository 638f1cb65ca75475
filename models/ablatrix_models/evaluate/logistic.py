"""Logistic regression on frozen CLS features: SiameseIM's "1 % of ImageNet", which the paper calls finetuning (methods 1.8)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.classifier import top1
from ablatrix_models.evaluate.features import CLSEncoder, Encoder, Precision, extract
from ablatrix_models.evaluate.labels import protocol_generator, share_of
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Logistic

_ITERATIONS = 10_000  # at most; hundreds are usual
_SLOPE = 1e-4  # largest entry of the gradient of the summed loss at the optimum


class NotConverged(RuntimeError):
    """The solver stopped before the optimum, so its score would mean nothing."""


def logistic_top1(
    config: Logistic,
    method: Encoder,
    train: ImageSet,
    test: ImageSet,
    data: Data,
    *,
    device: torch.device | str,
    precision: Precision = "fp32",
) -> float:
    """Fit a share of the labels on frozen, unaugmented CLS features and score on `test`, in percent.

    Which images keep their label is fixed by the protocol; the release reads a list of ImageNet files instead. Nothing else is random.
    Raises ValueError when the protocol is off or `method` has no `cls_features`.
    """
    if config.kind == "off":
        raise ValueError("evaluate.logistic.kind is 'off', so there is nothing to measure. Choose cls.")
    if not isinstance(method, CLSEncoder):
        raise ValueError(f"{type(method).__name__} has no CLS features, which evaluate.logistic classifies. Use a method with a ViT.")
    labelled = train.subset(share_of(train.labels, config.labels, protocol_generator()))
    known, asked = (
        unit_rows(extract(method.cls_features, images, data, device=device, precision=precision)) for images in (labelled, test)
    )
    weight = fit_logistic(known, labelled.labels, len(train.classes), config.penalty)
    return top1(asked.double() @ weight.T, test.labels)


def unit_rows(features: Tensor) -> Tensor:
    """Each row of (images, width) less its own mean, scaled to unit length; a row of equal values becomes 0."""
    return functional.normalize(features - features.mean(dim=1, keepdim=True), dim=1)


def fit_logistic(features: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """The weights (classes, width), float64, that minimise mean cross-entropy + penalty / (2 images) |weight|^2; there is no bias.

    features: (images, width), labels: (images,) int64, on one device. SciPy's L-BFGS-B from zero; the problem is strictly convex.
    Raises NotConverged where it stops before the slope vanishes.
    """
    from scipy.optimize import minimize  # half a second, which the trials that never come here are spared

    inputs, labels = features.double(), labels.to(features.device)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat).to(inputs.device).view(classes, -1).requires_grad_()
        value = functional.cross_entropy(inputs @ weight.T, labels, reduction="sum") + penalty / 2 * weight.square().sum()
        (slope,) = torch.autograd.grad(value, weight)
        return value.item(), slope.flatten().cpu().numpy()

    start = np.zeros(classes * inputs.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS, "gtol": _SLOPE, "ftol": 1e-14})
    if (steepest := float(np.abs(found.jac).max())) > 10 * _SLOPE:
        raise NotConverged(f"logistic regression stopped at a slope of {steepest:.1g}. Raise evaluate.logistic.penalty ({penalty:g}).")
    return torch.from_numpy(found.x).view(classes, -1).to(features.device)
