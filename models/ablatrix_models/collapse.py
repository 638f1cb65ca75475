"""How far embeddings are from collapse: their spread, and how many directions they use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ablatrix_models import augment
from ablatrix_models.data.images import ImageSet
from ablatrix_models.evaluate.features import Precision, autocast, eval_mode
from ablatrix_models.losses import unit
from ablatrix_models.methods.contract import spread
from ablatrix_models.recipe.data import DATASETS, Data

IMAGES = 256  # enough to see a collapse; the rank cannot exceed the number of rows


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> Tensor:
    """Directions that unit (rows, dim) rows use: exp of the entropy of their normalised singular values; a scalar float64.

    Roy and Vetterli 2007, definition 1; Garrido et al. 2023 for embeddings. 1 means that all point one way, min(rows, dim) that they
    use every direction alike; rows that are all 0 count as 1 too. O(rows * dim^2) time, in float64, because small singular values are many.
    """
    rows = unit(embeddings.double())
    # The triangle of a QR has the same singular values; those of a Gram matrix would lose half of their digits.
    triangle = torch.linalg.qr(rows if len(rows) >= rows.shape[1] else rows.mT, mode="r").R
    values = torch.linalg.svdvals(triangle)
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


def embedding_metrics(
    embed: Callable[[Tensor], Tensor], train: ImageSet, data: Data, *, device: torch.device, precision: Precision
) -> dict[str, float]:
    """`train.embedding_std` and `train.embedding_rank` of training images from all over the set, in eval mode; draws nothing.

    embed: normalised images to (rows, dim), one row or more for each image. Nothing is told of embeddings that are no numbers; the loss
    of the next step, or the evaluation, says so.
    """
    chosen = torch.linspace(0, len(train) - 1, min(IMAGES, len(train))).round().long()
    pixels = augment.centre(train.images[chosen].to(device), data.image_size, None if DATASETS[data.name][0] else data.store_size)
    with torch.no_grad(), eval_mode(embed), autocast(device, precision):
        embeddings = embed(augment.normalise(pixels.to(torch.get_default_dtype()), data.mean, data.std)).double()
    if not embeddings.isfinite().all():
        return {}
    return {"train.embedding_std": spread(embeddings).item(), "train.embedding_rank": effective_rank(embeddings).item()}
