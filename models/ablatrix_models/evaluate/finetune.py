"""Full and semi-supervised finetuning: MixMask's (section 4.4 and Table 10) here, a ViT's in `evaluate.finetune_vit`."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from ablatrix_models.batchnorm import SplitBatchNorm
from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.classifier import fit, normal_classifier, top1, training_view
from ablatrix_models.evaluate.features import Encoder, Precision, autocast, extract, width_of
from ablatrix_models.evaluate.finetune_vit import finetune_vit
from ablatrix_models.evaluate.labels import protocol_generator, share_of
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import Finetune


def finetune_top1(
    config: Finetune,
    method: Encoder,
    train: ImageSet,
    test: ImageSet,
    data: Data,
    *,
    seed: int,
    device: torch.device | str,
    precision: Precision = "fp32",
) -> float:
    """Train a copy of `method.encoder` and a new classifier on a share of the labels; score the last epoch on `test`, in percent.

    Which images keep their label is fixed by the protocol, not by `seed`, so that trials are compared on the same ones.
    `method`, which lies on `device`, and the global generators are left as they are. Raises ValueError when the protocol is off.
    """
    if config.kind == "off":
        raise ValueError("evaluate.finetune.kind is 'off', so there is nothing to measure. Choose sgd or vit.")
    labelled = train.subset(share_of(train.labels, config.labels, protocol_generator()))
    with _own_randomness(seed, device):
        generator = torch.Generator().manual_seed(seed)
        train_on = finetune_vit if config.kind == "vit" else _train
        model = train_on(config, method.encoder, labelled, data, generator, device, precision)
    seen = "bicubic" if config.kind == "vit" else "bilinear"
    return top1(extract(model, test, data, device=device, precision=precision, interpolation=seen), test.labels)


def _train(
    config: Finetune,
    pretrained: nn.Module,
    labelled: ImageSet,
    data: Data,
    generator: torch.Generator,
    device: torch.device | str,
    precision: Precision,
) -> nn.Module:
    encoder = _trainable_copy(pretrained)
    width = width_of(encoder, labelled, data, device=device, precision=precision)
    classifier = normal_classifier(width, len(labelled.classes), generator=generator, device=device)
    model = nn.Sequential(encoder, classifier).train()
    groups = [
        {"params": encoder.parameters(), "lr": config.lr},
        {"params": classifier.parameters(), "lr": config.classifier_lr},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay, fused=True)
    steps = MultiStepLR(sgd, milestones=list(config.milestones), gamma=0.1)

    def logits(chosen: Tensor) -> Tensor:
        views = training_view(labelled.images[chosen.to(labelled.images.device)], data, generator=generator, device=device)
        with autocast(device, precision):
            return model(views).float()

    fit(logits, labelled.labels.to(device), sgd, steps, epochs=config.epochs, batch_size=config.batch_size, generator=generator)
    return model


def _trainable_copy(encoder: nn.Module) -> nn.Module:
    copied = copy.deepcopy(encoder).requires_grad_(True)
    for part in copied.modules():
        if isinstance(part, SplitBatchNorm):
            part.splits = 1  # the groups stand for the GPUs of pretraining; here they would only forbid odd batches
    return copied


@contextmanager
def _own_randomness(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed what networks and timm may draw from globally (dropout, stochastic depth, RandAugment), and put it back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[torch.device(device)] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
