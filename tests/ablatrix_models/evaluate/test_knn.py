"""k-NN: the official numbers, a literal transcription, invariances, limits, ties and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ablatrix_models.evaluate.knn import knn_top1, vote_cosine, vote_euclidean
from ablatrix_models.evaluate.labels import per_class, protocol_generator
from ablatrix_models.recipe.evaluate import Knn
from ablatrix_models.recipe.fields import RecipeError
from golden import load_golden

GOLDEN_CASES = [
    ("bank300_query40_D16_classes10_k20_t0.1", 20, 10),
    ("bank1000_query50_D32_classes100_k200_t0.1", 200, 100),
    ("bank300_query40_D16_classes10_k200_t0.1", 200, 10),
]


def clusters(images: int = 120, queries: int = 40, dim: int = 6, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Overlapping Gaussian clusters: bank, bank labels, queries, query labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    labels, wanted = (torch.randint(classes, (n,), generator=generator) for n in (images, queries))
    return (
        centres[labels] + 0.8 * torch.randn(images, dim, generator=generator),
        labels,
        centres[wanted] + 0.8 * torch.randn(queries, dim, generator=generator),
        wanted,
    )


def literal_votes(nearness: np.ndarray, weights: np.ndarray, labels: np.ndarray, k: int, classes: int) -> np.ndarray:
    """One query, one neighbour at a time."""
    scores = np.zeros((len(nearness), classes))
    for query in range(len(nearness)):
        for image in sorted(range(len(labels)), key=lambda i: -nearness[query, i])[:k]:
            scores[query, labels[image]] += weights[query, image]
    return scores


@pytest.mark.parametrize(("case", "k", "classes"), GOLDEN_CASES)
def test_cosine_votes_are_those_of_the_official_code(case: str, k: int, classes: int) -> None:
    golden = {name: torch.from_numpy(a) for name, a in load_golden("knn_predictions").items() if name.startswith(case)}
    bank, labels = golden[f"{case}__bank_features_unnormalised"], golden[f"{case}__bank_labels"]
    queries = golden[f"{case}__query_features_unnormalised"]

    scores, predictions = vote_cosine(bank, labels, queries, k=k, temperature=0.1, classes=classes)

    torch.testing.assert_close(scores, golden[f"{case}__class_scores_f64"], rtol=1e-5, atol=1e-6)
    assert torch.equal(predictions, golden[f"{case}__weighted_cosine_predicted_labels_sorted"][:, 0])


@pytest.mark.parametrize(("case", "k", "classes"), GOLDEN_CASES)
def test_top1_of_both_kinds_is_that_of_the_official_code(case: str, k: int, classes: int) -> None:
    golden = {name: torch.from_numpy(np.asarray(a)) for name, a in load_golden("knn_predictions").items() if name.startswith(case)}
    names = ("bank_features_unnormalised", "bank_labels", "query_features_unnormalised", "query_labels")
    bank, labels, queries, wanted = (golden[f"{case}__{name}"] for name in names)

    cosine = knn_top1(Knn(kind="cosine", k=k), bank, labels, queries, wanted, classes)
    euclidean = knn_top1(Knn(kind="euclidean", k=5), bank, labels, queries, wanted, classes)

    assert cosine == pytest.approx(100 * golden[f"{case}__top1_accuracy"].item(), abs=1e-4)
    assert euclidean == pytest.approx(100 * golden[f"{case}__htdt_unweighted_euclidean_k5_accuracy_raw_features"].item(), abs=1e-4)


def test_cosine_votes_equal_a_literal_transcription() -> None:
    bank, labels, queries, _ = clusters()
    cosines = np.array([[float(q @ b) / math.sqrt(float(q @ q) * float(b @ b)) for b in bank.double()] for q in queries.double()])

    scores, predictions = vote_cosine(bank, labels, queries, k=7, temperature=0.3, classes=5)

    expected = literal_votes(cosines, np.exp(cosines / 0.3), labels.numpy(), k=7, classes=5)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(predictions.numpy(), expected.argmax(axis=1))


def test_euclidean_votes_equal_a_literal_transcription() -> None:
    bank, labels, queries, _ = clusters()
    distances = np.array([[math.dist(q, b) for b in bank.tolist()] for q in queries.tolist()])

    scores, predictions = vote_euclidean(bank, labels, queries, k=5, classes=5)

    expected = literal_votes(-distances, np.ones_like(distances), labels.numpy(), k=5, classes=5)
    np.testing.assert_array_equal(scores.numpy(), expected)
    np.testing.assert_array_equal(predictions.numpy(), expected.argmax(axis=1))


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    bank, labels, queries, _ = clusters()

    cosine = vote_cosine(bank, labels, queries, k=9, temperature=0.1, classes=5, chunk=chunk)
    euclidean = vote_euclidean(bank, labels, queries, k=9, classes=5, chunk=chunk)

    torch.testing.assert_close(cosine, vote_cosine(bank, labels, queries, k=9, temperature=0.1, classes=5), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(euclidean, vote_euclidean(bank, labels, queries, k=9, classes=5))


def test_cosine_ignores_the_length_of_features_and_euclidean_does_not() -> None:
    bank, labels, queries, _ = clusters()
    stretched = bank * torch.linspace(0.1, 10, len(bank))[:, None]

    cosine = vote_cosine(stretched, labels, 7 * queries, k=9, temperature=0.1, classes=5)[0]
    euclidean = vote_euclidean(stretched, labels, 7 * queries, k=9, classes=5)[0]

    torch.testing.assert_close(cosine, vote_cosine(bank, labels, queries, k=9, temperature=0.1, classes=5)[0], rtol=1e-4, atol=0.0)
    assert not torch.equal(euclidean, vote_euclidean(bank, labels, queries, k=9, classes=5)[0])


def test_euclidean_ignores_where_the_origin_lies() -> None:
    bank, labels, queries, _ = clusters()

    far = vote_euclidean(bank + 500, labels, queries + 500, k=5, classes=5)

    torch.testing.assert_close(far, vote_euclidean(bank, labels, queries, k=5, classes=5))


def test_one_neighbour_alone_decides_when_the_temperature_vanishes() -> None:
    bank, labels, queries, _ = clusters()
    nearest = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2).argmax(dim=1)

    _, predictions = vote_cosine(bank, labels, queries, k=50, temperature=1e-6, classes=5)

    assert torch.equal(predictions, labels[nearest])


def test_the_most_frequent_class_wins_when_all_vote_alike() -> None:
    bank, labels, queries, _ = clusters()
    labels[:60] = 3

    _, hot = vote_cosine(bank, labels, queries, k=len(bank), temperature=1e6, classes=5)
    _, all_vote = vote_euclidean(bank, labels, queries, k=len(bank), classes=5)

    assert hot.tolist() == all_vote.tolist() == [3] * len(queries)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_equal_votes_go_to_the_lower_class(order: list[int]) -> None:
    bank = torch.tensor([[1.0, 1.0], [1.0, -1.0]])[order]
    labels = torch.tensor([2, 1])[order]
    query = torch.tensor([[1.0, 0.0]])

    cosine = vote_cosine(bank, labels, query, k=2, temperature=0.1, classes=3)[1]
    euclidean = vote_euclidean(bank, labels, query, k=2, classes=3)[1]

    assert cosine.tolist() == euclidean.tolist() == [1]


def test_a_contested_last_place_goes_to_the_lower_class_in_any_order_of_the_bank() -> None:
    twins = torch.tensor([[0.5, 0.5]] * 6 + [[-1.0, 0.2]] * 6)
    labels = torch.tensor([4, 2, 3, 1, 2, 4, 0, 0, 0, 0, 0, 0])
    query = torch.tensor([[1.0, 0.9]])
    orders = [torch.randperm(12, generator=torch.Generator().manual_seed(s)) for s in range(20)]

    cosine = [vote_cosine(twins[o], labels[o], query, k=3, temperature=0.1, classes=5)[0] for o in orders]
    euclidean = [vote_euclidean(twins[o], labels[o], query, k=3, classes=5)[0] for o in orders]

    assert all((scores[0] > 0).tolist() == [False, True, True, False, False] for scores in cosine)
    assert all(scores[0].tolist() == [0, 1, 2, 0, 0] for scores in euclidean)


def test_no_tensor_of_queries_by_neighbours_by_classes_is_made() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for made in result if isinstance(result, tuple | list) else [result]:
                self.numel = max(self.numel, made.numel() if isinstance(made, Tensor) else 0)
            return result

    bank, labels, queries, _ = clusters(images=300, queries=64)

    with Largest() as largest:
        vote_cosine(bank, labels, queries, k=200, temperature=0.1, classes=1000)

    assert largest.numel == 64 * 1000  # the scores; a one-hot of the neighbours would be 200 times as large


def test_few_labels_average_over_the_protocols_own_draws() -> None:
    bank, labels, queries, wanted = clusters()
    config = Knn(kind="euclidean", k=5, labels_per_class=4, draws=3)
    generator = protocol_generator()
    subsets = [per_class(labels, 4, generator) for _ in range(3)]

    measured = knn_top1(config, bank, labels, queries, wanted, 5)

    each = [knn_top1(Knn(kind="euclidean", k=5), bank[s], labels[s], queries, wanted, 5) for s in subsets]
    assert len(set(each)) > 1
    assert measured == pytest.approx(sum(each) / 3)


def test_few_label_subsets_do_not_depend_on_the_state_of_the_global_generator() -> None:
    bank, labels, queries, wanted = clusters()
    config = Knn(kind="cosine", k=5, labels_per_class=2, draws=2)

    torch.manual_seed(1)
    first = knn_top1(config, bank, labels, queries, wanted, 5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = knn_top1(config, bank, labels, queries, wanted, 5)

    assert first == second
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_permuted_test_labels_change_only_the_count() -> None:
    bank, labels, queries, wanted = clusters()
    permuted = wanted.roll(1)
    _, predictions = vote_cosine(bank, labels, queries, k=5, temperature=0.1, classes=5)

    measured = knn_top1(Knn(k=5), bank, labels, queries, permuted, 5)

    assert measured == 100 * (predictions == permuted).double().mean().item()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Knn(k=121), r"evaluate\.knn\.k: is 121, more than the 120 labelled images\. Use 120 or less\."),
        (Knn(k=21, labels_per_class=4), r"evaluate\.knn\.k: is 21, more than the 20 labelled images"),
        (Knn(k=1, labels_per_class=99), r"evaluate\.knn\.labels_per_class: is 99, but the smallest class has \d+ training images"),
    ],
)
def test_asking_for_more_than_the_bank_holds_is_an_error(config: Knn, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        knn_top1(config, *clusters(), 5)


def test_a_protocol_that_is_off_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="'off', so there is nothing to measure"):
        knn_top1(Knn(kind="off"), *clusters(), 5)


def test_votes_refuse_what_they_cannot_count() -> None:
    bank, labels, queries, _ = clusters()

    with pytest.raises(ValueError, match="k is 121, but the bank holds 120"):
        vote_euclidean(bank, labels, queries, k=121, classes=5)
    with pytest.raises(ValueError, match="labels run from 0 to 4, but 4 classes need 0 to 3"):
        vote_cosine(bank, labels, queries, k=5, temperature=0.1, classes=4)
    with pytest.raises(ValueError, match="temperature is 0"):
        vote_cosine(bank, labels, queries, k=5, temperature=0.0, classes=5)
