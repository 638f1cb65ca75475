"""k nearest neighbours of test features among training features (methods 2.6).

Two protocols with the same name in the literature: MoCo's weighted cosine vote, and the unweighted Euclidean one of the
SimCLR/BYOL base. Ties, in both: among equally near images the lower class index is taken into the k, and among classes
with equal votes the lower index wins. The order of the bank, the chunk and the device's order of summation play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ablatrix_models.evaluate.labels import per_class, protocol_generator
from ablatrix_models.recipe.evaluate import Knn
from ablatrix_models.recipe.fields import Problem, RecipeError

Weigh = Callable[[Tensor], tuple[Tensor, Tensor | float]]


@torch.no_grad()
def vote_cosine(
    bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float, classes: int, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Vote with weight exp(cosine / temperature) (Wu et al. 2018, as in MoCo's CIFAR demo).

    bank: (images, dim), queries: (queries, dim); both are l2-normalised here. labels: (images,) int64 below `classes`.
    chunk: queries at a time; memory is chunk * images floats beside the inputs, never queries * k * classes.
    Returns scores (queries, classes) float64, the sum of the weights of each class among the k nearest, and predictions
    (queries,) int64. Scores overflow to infinity where cosine / temperature exceeds 709; predictions do not.
    Raises ValueError for a k, temperature or label out of range.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature:g}, but votes weigh exp(cosine / temperature). Use a value above 0.")

    def weigh(cosines: Tensor) -> tuple[Tensor, Tensor]:
        logits = cosines.double() / temperature
        nearest = logits[:, :1]
        return (logits - nearest).exp(), nearest.exp()

    bank, labels = _in_class_order(bank, labels, k, classes)
    columns = functional.normalize(bank, dim=1).t()
    rows = functional.normalize(queries, dim=1)
    return _vote(_nearest(rows, columns, None, k, chunk), labels, weigh, k, classes)


@torch.no_grad()
def vote_euclidean(bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, classes: int, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """One vote for each of the k images at the smallest Euclidean distance (the SimCLR/BYOL base: k = 5).

    bank: (images, dim), queries: (queries, dim), compared as they are. labels: (images,) int64 below `classes`.
    Returns scores (queries, classes) float64, the counts, and predictions (queries,) int64. ValueError as in `vote_cosine`.
    """
    bank, labels = _in_class_order(bank, labels, k, classes)
    middle = bank.mean(0)  # distances do not move with the origin, but rounding is least around it
    bank, queries = bank - middle, queries - middle
    # -|q - b|^2 = 2 q.b - |b|^2 - |q|^2; the last term is the same for every image
    neighbours = _nearest(queries * 2, bank.t(), -bank.square().sum(1), k, chunk)
    return _vote(neighbours, labels, lambda near: (torch.ones_like(near, dtype=torch.float64), 1.0), k, classes)


def knn_top1(config: Knn, bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, classes: int) -> float:
    """Share of queries (queries, dim) given their own label, in percent; the mean over `config.draws` where labels are few.

    Few-label subsets of the bank (images, dim) come from the protocol's own seed: the same for every trial.
    Raises RecipeError when `config` asks for more neighbours or labels than the bank has.
    """
    if problems := problems_with(config, bank_labels):
        raise RecipeError(problems)
    generator = protocol_generator()
    scores: list[float] = []
    for _ in range(config.draws if config.labels_per_class else 1):
        some, some_labels = bank, bank_labels
        if config.labels_per_class:
            chosen = per_class(bank_labels, config.labels_per_class, generator).to(bank.device)
            some, some_labels = bank[chosen], bank_labels[chosen.to(bank_labels.device)]
        scores.append(_top1(config, some, some_labels.to(bank.device), queries, query_labels.to(bank.device), classes))
    return sum(scores) / len(scores)


def problems_with(config: Knn, bank_labels: Tensor) -> list[Problem]:
    """What this protocol asks that the labelled images (images,) cannot give; none when it is off."""
    if config.kind == "off":
        return []
    sizes = torch.bincount(bank_labels)
    sizes = sizes[sizes > 0]
    wanted = config.labels_per_class
    if wanted and wanted > (least := int(sizes.min())):
        rule = f"is {wanted}, but the smallest class has {least} training images. Use {least} or less."
        return [Problem("evaluate.knn.labels_per_class", rule)]
    held = wanted * len(sizes) if wanted else len(bank_labels)
    if config.k > held:
        return [Problem("evaluate.knn.k", f"is {config.k}, more than the {held} labelled images. Use {held} or less.")]
    return []


def _top1(config: Knn, bank: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, classes: int) -> float:
    if config.kind == "cosine":
        _, predicted = vote_cosine(bank, labels, queries, k=config.k, temperature=config.temperature, classes=classes)
    elif config.kind == "euclidean":
        _, predicted = vote_euclidean(bank, labels, queries, k=config.k, classes=classes)
    else:
        raise ValueError(f"evaluate.knn.kind is {config.kind!r}, so there is nothing to measure. Choose cosine or euclidean.")
    return 100.0 * int((predicted == query_labels).sum()) / len(query_labels)


def _in_class_order(bank: Tensor, labels: Tensor, k: int, classes: int) -> tuple[Tensor, Tensor]:
    """The bank sorted by label, so that the earlier of two images is never of the higher class."""
    if not 1 <= k <= len(bank):
        raise ValueError(f"k is {k}, but the bank holds {len(bank)} images. Use 1 to {len(bank)} neighbours.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"labels run from {int(labels.min())} to {int(labels.max())}, but {classes} classes need 0 to {classes - 1}.")
    labels, order = labels.sort(stable=True)
    return bank[order], labels


def _nearest(rows: Tensor, columns: Tensor, bias: Tensor | None, k: int, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each chunk of rows, the k largest of rows @ columns + bias, largest first, and their columns: (chunk, k) each."""
    images = columns.shape[1]
    buffer = rows.new_empty(min(chunk, len(rows)), images)  # one matrix for all chunks: fresh pages would cost as much as the top-k
    for part in rows.split(chunk):
        similar = torch.mm(part, columns, out=buffer[: len(part)])
        if bias is not None:
            similar += bias
        # one place more than asked for shows whether the last place is contested
        values, indices = similar.topk(min(k + 1, images), dim=1)
        if images > k:
            tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
            indices[tied] = similar[tied].sort(dim=1, descending=True, stable=True).indices[:, : k + 1]
        yield values[:, :k], indices[:, :k]


def _vote(neighbours: Iterator[tuple[Tensor, Tensor]], labels: Tensor, weigh: Weigh, k: int, classes: int) -> tuple[Tensor, Tensor]:
    # Votes are summed as fixed-point integers: their order, which a GPU does not fix, then cannot change a sum or hide a tie.
    unit = 2.0 ** (62 - math.ceil(math.log2(k + 1)))
    scores: list[Tensor] = []
    predictions: list[Tensor] = []
    for similar, indices in neighbours:
        weights, scale = weigh(similar)
        votes = torch.zeros(len(similar), classes, dtype=torch.int64, device=similar.device)
        votes.scatter_add_(1, labels[indices], (weights * unit).round().long())
        predictions.append(votes.argmax(dim=1))
        scores.append(votes.double() / unit * scale)
    return torch.cat(scores), torch.cat(predictions)
