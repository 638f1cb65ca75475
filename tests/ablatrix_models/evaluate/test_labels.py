"""Stratified subsets: counts, fixed draws, nesting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablatrix_models.evaluate.labels import per_class, protocol_generator, share_of

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(torch.tensor)


@given(labels=LABELS, count=st.integers(1, 10))
def test_every_class_gives_its_count_or_all_it_has(labels: torch.Tensor, count: int) -> None:
    chosen = per_class(labels, count, protocol_generator())

    assert labels[chosen].bincount(minlength=7).tolist() == labels.bincount(minlength=7).clamp(max=count).tolist()
    assert chosen.tolist() == sorted(set(chosen.tolist()))


@given(labels=LABELS, share=st.floats(0.0001, 1.0))
def test_a_share_is_rounded_within_each_class_and_never_empty(labels: torch.Tensor, share: float) -> None:
    chosen = share_of(labels, share, protocol_generator())

    expected = [max(1, round(n * share)) if n else 0 for n in labels.bincount(minlength=7).tolist()]
    assert labels[chosen].bincount(minlength=7).tolist() == expected


@pytest.mark.parametrize("draw", [per_class, share_of])
def test_all_of_everything_is_the_whole_set(draw) -> None:
    labels = torch.arange(40) % 3

    chosen = draw(labels, 40 if draw is per_class else 1.0, protocol_generator())

    assert torch.equal(chosen, torch.arange(40))


def test_fewer_labels_are_a_subset_of_more() -> None:
    labels = torch.arange(200) % 7

    few, more = (set(per_class(labels, n, protocol_generator()).tolist()) for n in (3, 9))

    assert few < more


def test_draws_differ_from_each_other_but_not_from_trial_to_trial() -> None:
    labels = torch.arange(200) % 7
    first, second = protocol_generator(), protocol_generator()
    torch.manual_seed(5)

    draws = [per_class(labels, 3, first).tolist() for _ in range(4)]

    assert draws == [per_class(labels, 3, second).tolist() for _ in range(4)]
    assert len({tuple(d) for d in draws}) == 4


def test_each_image_of_a_class_is_as_likely_as_any_other() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5)
    generator = protocol_generator()

    taken = torch.stack([torch.bincount(per_class(labels, 2, generator), minlength=15) for _ in range(1500)]).double().mean(0)

    expected = torch.tensor([0.2] * 10 + [0.4] * 5, dtype=torch.float64)
    assert (taken - expected).abs().max() < 0.06  # 4.7 standard errors of a share of 0.4 at 1500 draws
