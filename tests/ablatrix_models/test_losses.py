"""The losses against literal transcriptions of their papers, limiting cases, and under autocast."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ablatrix_models.losses import batch_info_nce, byol_regression, info_nce, log_negatives, negative_cosine, nt_xent, unit

BATCH, DIM, NEGATIVES = 5, 7, 11


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def length(vector: Tensor) -> Tensor:
    return vector.square().sum().sqrt()


def literal_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """He et al. 2020, eq. 1, row by row."""
    losses = []
    for q, k in zip(query, key, strict=True):
        positive = torch.exp((q * k).sum() / temperature)
        losses.append(-torch.log(positive / (positive + sum(torch.exp((q * n).sum() / temperature) for n in queue))))
    return torch.stack(losses)


def literal_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Chen et al. 2020, eq. 1, for the pairs (first[i], second[i]), mean of both directions."""
    rows = [*first, *second]
    batch = len(first)

    def similarity(i: int, j: int) -> Tensor:
        return torch.exp((rows[i] * rows[j]).sum() / (length(rows[i]) * length(rows[j])) / temperature)

    def direction(i: int, j: int) -> Tensor:
        return -torch.log(similarity(i, j) / sum(similarity(i, k) for k in range(2 * batch) if k != i))

    return torch.stack([(direction(i, i + batch) + direction(i + batch, i)) / 2 for i in range(batch)])


def literal_byol(prediction: Tensor, target: Tensor) -> Tensor:
    """Grill et al. 2020, eq. 2: squared distance of the unit vectors."""
    return torch.stack([(p / length(p) - t.detach() / length(t)).square().sum() for p, t in zip(prediction, target.detach(), strict=True)])


def literal_negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Chen and He 2021, eq. 1."""
    return torch.stack([-((p / length(p)) * (t / length(t))).sum() for p, t in zip(prediction, target.detach(), strict=True)])


def assert_same_loss_and_gradient(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    weights = torch.linspace(0.5, 2.0, len(expected), dtype=torch.float64)  # tells the samples apart
    gradients = torch.autograd.grad((actual * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)

    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_equals_its_formula(temperature: float) -> None:
    query, key, queue = (normal(rows, DIM, seed=seed) for seed, rows in enumerate((BATCH, BATCH, NEGATIVES)))
    negatives = unit(queue).detach()

    actual = info_nce(unit(query), unit(key), log_negatives(unit(query), negatives, temperature), temperature)

    assert_same_loss_and_gradient(actual, literal_info_nce(unit(query), unit(key), negatives, temperature), [query, key])


def test_info_nce_of_equal_logits_is_the_logarithm_of_their_number() -> None:
    same = unit(torch.ones(1, DIM, dtype=torch.float64))
    queue = same.expand(NEGATIVES, DIM)

    loss = info_nce(same, same, log_negatives(same, queue, 0.1), 0.1)

    assert loss.item() == pytest.approx(math.log(1 + NEGATIVES))


def test_info_nce_survives_logits_beyond_the_range_of_exp() -> None:
    query = unit(torch.ones(1, DIM)).requires_grad_()
    queue = -query.detach().expand(NEGATIVES, DIM)

    near = info_nce(query, query.detach(), log_negatives(query, queue, 1e-3), 1e-3)
    far = info_nce(query, -query.detach(), log_negatives(query, -queue, 1e-3), 1e-3)
    (gradient,) = torch.autograd.grad(far.sum(), query)

    assert near.item() == 0.0
    assert far.item() == pytest.approx(2000 + math.log(NEGATIVES), rel=1e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_info_nce_among_a_batchs_keys_equals_its_formula(temperature: float) -> None:
    query, keys, own = normal(BATCH, DIM), normal(NEGATIVES, DIM, seed=1), torch.tensor([3, 0, 10, 4, 7])

    actual = batch_info_nce(unit(query), unit(keys), own, temperature)

    others = [[row for row in range(NEGATIVES) if row != positive] for positive in own]
    expected = [
        literal_info_nce(unit(query)[i : i + 1], unit(keys)[own[i : i + 1]], unit(keys)[rows], temperature) for i, rows in enumerate(others)
    ]
    assert_same_loss_and_gradient(actual, 2 * temperature * torch.cat(expected), [query, keys])


def test_info_nce_among_two_keys_at_a_high_temperature_differs_from_its_limit_by_the_gap_of_the_cosines() -> None:
    query, keys = unit(normal(1, DIM)), unit(normal(2, DIM, seed=1))
    temperature = 1e4

    loss = batch_info_nce(query, keys, torch.tensor([0]), temperature)

    gap = (query @ (keys[1] - keys[0])).item()
    assert loss.item() - 2 * temperature * math.log(2) == pytest.approx(gap, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xents_diagonal_equals_its_formula(temperature: float) -> None:
    first, second = normal(BATCH, DIM), normal(BATCH, DIM, seed=1)

    actual = nt_xent(first, second, temperature).diagonal()

    assert_same_loss_and_gradient(actual, literal_nt_xent(first, second, temperature), [first, second])


def test_nt_xents_other_entries_are_the_losses_of_a_permuted_second_view() -> None:
    first, second, order = normal(BATCH, DIM), normal(BATCH, DIM, seed=1), torch.tensor([3, 0, 4, 1, 2])

    actual = nt_xent(first, second, 0.5)[torch.arange(BATCH), order]

    assert_same_loss_and_gradient(actual, literal_nt_xent(first, second[order], 0.5), [first, second])


def test_nt_xent_does_not_care_which_view_is_first() -> None:
    first, second = normal(BATCH, DIM), normal(BATCH, DIM, seed=1)

    swapped = nt_xent(second, first, 0.5).T

    torch.testing.assert_close(nt_xent(first, second, 0.5), swapped)


@pytest.mark.parametrize(("loss", "literal"), [(byol_regression, literal_byol), (negative_cosine, literal_negative_cosine)])
def test_cosine_losses_equal_their_formulas(loss, literal) -> None:
    prediction, target = normal(BATCH, DIM), normal(BATCH, DIM, seed=1)

    actual = loss(prediction, target)

    assert_same_loss_and_gradient(actual, literal(prediction, target), [prediction])


@pytest.mark.parametrize(("loss", "best", "worst"), [(byol_regression, 0.0, 4.0), (negative_cosine, -1.0, 1.0)])
def test_cosine_losses_see_directions_only(loss, best: float, worst: float) -> None:
    prediction = normal(BATCH, DIM).detach()

    aligned, opposed = loss(prediction, 3 * prediction), loss(prediction, -0.1 * prediction)

    torch.testing.assert_close(aligned, torch.full_like(aligned, best))
    torch.testing.assert_close(opposed, torch.full_like(opposed, worst))


@pytest.mark.parametrize("loss", [byol_regression, negative_cosine])
def test_no_gradient_reaches_the_target_of_a_cosine_loss(loss) -> None:
    prediction, target = normal(BATCH, DIM), normal(BATCH, DIM, seed=1)

    loss(prediction, target).sum().backward()

    assert prediction.grad is not None
    assert target.grad is None


def test_every_loss_computes_in_32_bits_under_autocast() -> None:
    first, second = normal(BATCH, DIM).detach().bfloat16(), normal(BATCH, DIM, seed=1).detach().bfloat16()
    queue = unit(normal(NEGATIVES, DIM, seed=2).detach()).float()

    def losses(first: Tensor, second: Tensor) -> list[Tensor]:
        q, k = unit(first), unit(second)
        contrast = info_nce(q, k, log_negatives(q, queue, temperature=0.1), 0.1)
        return [contrast, nt_xent(first, second, 0.1), byol_regression(first, second), negative_cosine(first, second)]

    expected = losses(first.float(), second.float())
    with torch.autocast("cpu", torch.bfloat16):
        actual = losses(first, second)

    for value, wanted in zip(actual, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted)
