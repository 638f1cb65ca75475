"""Spread and rank of embeddings, from limiting cases and a literal transcription."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ablatrix_models.collapse import effective_rank, embedding_metrics
from ablatrix_models.data.load import load
from ablatrix_models.recipe.data import Data

DATA = Data(name="digits", image_size=8)


def noise(rows: int, dim: int) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_rows_of_one_direction_have_rank_1() -> None:
    lengths = torch.rand(50, 1, dtype=torch.float64) + 0.1

    assert effective_rank(lengths * noise(1, 8)).item() == pytest.approx(1.0, abs=1e-5)


def test_rows_of_nothing_but_zeros_are_collapsed_too() -> None:
    assert effective_rank(torch.zeros(5, 3)).item() == 1.0


def test_orthogonal_rows_in_equal_numbers_use_every_direction() -> None:
    assert effective_rank(torch.eye(6).repeat(5, 1)).item() == pytest.approx(6.0)


@pytest.mark.parametrize("shape", [(40, 8), (5, 8), (8, 8)])
def test_the_rank_is_the_exponent_of_the_entropy_of_the_singular_values(shape: tuple[int, int]) -> None:
    embeddings = noise(*shape) * torch.linspace(0.1, 3, shape[1], dtype=torch.float64)
    rows = [[x / math.sqrt(sum(v * v for v in row)) for x in row] for row in embeddings.tolist()]
    values = torch.linalg.svdvals(torch.tensor(rows, dtype=torch.float64)).tolist()
    shares = [value / sum(values) for value in values]

    rank = effective_rank(embeddings)

    assert rank.item() == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)


def test_turning_all_embeddings_alike_changes_nothing() -> None:
    embeddings, (rotation, _) = noise(30, 6), torch.linalg.qr(noise(6, 6))

    torch.testing.assert_close(effective_rank(embeddings @ rotation), effective_rank(embeddings))


def test_a_collapsed_network_is_seen_in_both_metrics() -> None:
    train = load(DATA, "train")
    weight = noise(192, 5).float()

    def healthy(images: Tensor) -> Tensor:
        return images.flatten(1) @ weight

    def collapsed(images: Tensor) -> Tensor:
        return torch.ones(len(images), 5) + 1e-4 * healthy(images)

    good, bad = (embedding_metrics(embed, train, DATA, device=torch.device("cpu"), precision="fp32") for embed in (healthy, collapsed))

    assert good["train.embedding_std"] > 10 * bad["train.embedding_std"]
    assert good["train.embedding_rank"] > 1.5
    assert bad["train.embedding_rank"] == pytest.approx(1.0, abs=0.05)


def test_the_images_come_from_the_whole_set() -> None:
    seen: list[Tensor] = []

    embedding_metrics(lambda x: (seen.append(x), x.flatten(1))[1], load(DATA, "train"), DATA, device=torch.device("cpu"), precision="fp32")

    assert len(seen[0]) == 256


def test_embeddings_that_are_no_numbers_are_left_to_the_loss_to_tell() -> None:
    found = embedding_metrics(
        lambda x: torch.full((len(x), 3), torch.nan), load(DATA, "train"), DATA, device=torch.device("cpu"), precision="fp32"
    )

    assert found == {}
