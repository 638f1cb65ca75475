"""Linear probes: how well one linear layer classifies frozen features.

Three published protocols: MoCo's, on augmented images (methods 2.5), the SimCLR/BYOL base's, on features computed once (2.6), and
SiameseIM's, in `evaluate.lars`. A fourth, `lbfgs`, ranks trials at a fraction of their cost. All report the last step; test labels
choose nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR

from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.classifier import (
    blank_classifier,
    features_of_views,
    fit,
    normal_classifier,
    top1,
    uniform_classifier,
)
from ablatrix_models.evaluate.features import Encoder, Precision, eval_mode, extract, width_of
from ablatrix_models.evaluate.lars import fit_with_lars
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Linear


def linear_top1(
    config: Linear,
    method: Encoder,
    train: ImageSet,
    test: ImageSet,
    data: Data,
    *,
    seed: int,
    device: torch.device | str,
    precision: Precision = "fp32",
) -> float:
    """Train a linear layer on `method.features` of `train` and score it on `test`, in percent.

    method: lies on `device`; its weights, running statistics and train/eval modes are left as they are.
    seed: of the classifier's start, the order of the images and their views; the global generators are not touched.
    Raises ValueError when the protocol is off.
    """
    generator = torch.Generator().manual_seed(seed)
    if config.kind == "off":
        raise ValueError("evaluate.linear.kind is 'off', so there is nothing to measure. Choose moco, cached, lbfgs or lars.")
    layer: nn.Module
    if config.kind == "lars":
        layer = fit_with_lars(config, method, train, data, generator, device, precision)
    elif config.kind == "moco":
        layer = fit_on_views(config, method, train, data, generator, device, precision)
    else:
        features = extract(method.features, train, data, device=device, precision=precision)
        labels, classes = train.labels.to(device), len(train.classes)
        if config.kind == "cached":
            layer = fit_on_features(config, features, labels, classes, generator)
        else:
            layer = fit_to_the_minimum(config, features, labels, classes)
    seen = "bicubic" if config.kind == "lars" else "bilinear"
    with torch.no_grad():
        return top1(layer(extract(method.features, test, data, device=device, precision=precision, interpolation=seen)), test.labels)


def fit_on_features(config: Linear, features: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> nn.Linear:
    """Adam on fixed features (images, width), its rate decaying by one factor an epoch from `lr` to `final_lr`."""
    layer = uniform_classifier(features.shape[1], classes, generator=generator, device=features.device)
    adam = torch.optim.Adam(layer.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    decay = ExponentialLR(adam, gamma=(config.final_lr / config.lr) ** (1 / config.epochs))

    def logits(chosen: Tensor) -> Tensor:
        return layer(features[chosen.to(features.device)])

    fit(logits, labels, adam, decay, epochs=config.epochs, batch_size=config.batch_size, generator=generator)
    return layer


def fit_to_the_minimum(config: Linear, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """L-BFGS (Liu and Nocedal 1989) on the mean cross-entropy of standardised features plus weight_decay / 2 |weight|^2.

    features: (images, width), labels: (images,) int64. Nothing is random: the problem is convex and starts at zero. At most
    `epochs` iterations, each at the cost of one to two passes. The layer returned takes features that are not standardised.
    """
    mean, spread = features.mean(0), features.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)  # a dead feature tells nothing
    inputs = (features - mean) / spread
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=config.epochs, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        lbfgs.zero_grad()
        value = functional.cross_entropy(inputs @ weight.T + bias, labels) + config.weight_decay / 2 * weight.square().sum()
        value.backward()
        return value

    lbfgs.step(loss)  # type: ignore[arg-type]
    layer = blank_classifier(features.shape[1], classes).to(features.device)
    with torch.no_grad():
        layer.weight.copy_(weight / spread)
        layer.bias.copy_(bias - layer.weight @ mean)
    return layer


def fit_on_views(
    config: Linear,
    method: Encoder,
    train: ImageSet,
    data: Data,
    generator: torch.Generator,
    device: torch.device | str,
    precision: Precision,
) -> nn.Linear:
    """MoCo's probe: SGD with momentum 0.9 on a fresh view of every image in every epoch, the network frozen in eval mode."""
    width = width_of(method.features, train, data, device=device, precision=precision)
    layer = normal_classifier(width, len(train.classes), generator=generator, device=device)
    sgd = torch.optim.SGD(layer.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.weight_decay, fused=True)
    steps = MultiStepLR(sgd, milestones=list(config.milestones), gamma=0.1)

    features = features_of_views(method, train, data, generator=generator, device=device, precision=precision)

    def logits(chosen: Tensor) -> Tensor:
        return layer(features(chosen))

    with eval_mode(method.features):
        fit(logits, train.labels.to(device), sgd, steps, epochs=config.epochs, batch_size=config.batch_size, generator=generator)
    return layer
