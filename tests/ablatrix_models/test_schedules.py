from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablatrix_models.recipe.optimize import Schedule
from ablatrix_models.schedules import learning_rate_factor
from golden import load_golden

STEPS = 7  # per epoch


def by_epoch(schedule: Schedule, epochs: int) -> np.ndarray:
    """The factor in each epoch, which must not change within it."""
    factors = np.array([[learning_rate_factor(schedule, epoch * STEPS + i, STEPS) for i in range(STEPS)] for epoch in range(epochs)])
    assert (factors == factors[:, :1]).all()
    return factors[:, 0]


def test_moco_on_cifar_follows_the_released_cosine_with_epochs_from_one() -> None:
    golden = load_golden("small_dataset_schedules")
    factors = by_epoch(Schedule(epochs=1000, shape="cosine", per="epoch", first_epoch=1), 1000)

    np.testing.assert_allclose(0.06 * factors, golden["moco_lr_for_that_epoch"], rtol=0, atol=1e-15)
    assert golden["moco_cosine_epoch_1based_1_to_1000"][0] == 1


def test_moco_on_imagenet_follows_the_released_cosine_with_epochs_from_zero() -> None:
    golden = load_golden("small_dataset_schedules")
    factors = by_epoch(Schedule(epochs=200, shape="cosine", per="epoch", first_epoch=0), 200)

    np.testing.assert_allclose(0.03 * factors, golden["imagenet_moco_lr"], rtol=0, atol=1e-15)


def test_simclr_and_byol_follow_the_released_steps_before_the_end() -> None:
    golden = load_golden("small_dataset_schedules")
    schedule = Schedule(epochs=1000, shape="step", milestones=(-50, -25), gamma=0.2, warmup_steps=500)
    after_warmup = [0.003 * learning_rate_factor(schedule, max(500, epoch * 97), 97) for epoch in range(1000)]

    np.testing.assert_allclose(after_warmup, golden["htdt_adam_lr_after_500_iteration_linear_warmup"], rtol=1e-12)


def test_simclr_and_byol_follow_the_released_warm_up_by_iterations() -> None:
    golden = load_golden("small_dataset_schedules")
    schedule = Schedule(epochs=1000, shape="step", milestones=(-50, -25), gamma=0.2, warmup_steps=500)
    rising = [0.003 * learning_rate_factor(schedule, int(step), 97) for step in golden["htdt_warmup_iteration_0based"]]

    np.testing.assert_allclose(rising, golden["htdt_warmup_lr"], rtol=1e-12)


def transcription(schedule: Schedule, step: int) -> float:
    """The definition, word by word, for a cosine by steps."""
    warmup = schedule.warmup_epochs * STEPS
    if step < warmup:
        return (step + 1) / warmup
    total = schedule.epochs * STEPS
    return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_a_cosine_by_steps_is_its_definition(warmup: int) -> None:
    schedule = Schedule(epochs=9, shape="cosine", per="step", warmup_epochs=warmup)
    steps = range(9 * STEPS)

    np.testing.assert_allclose(
        [learning_rate_factor(schedule, step, STEPS) for step in steps], [transcription(schedule, step) for step in steps], atol=1e-14
    )


schedules = st.builds(
    Schedule,
    epochs=st.integers(2, 60),
    shape=st.sampled_from(["cosine", "step", "constant"]),
    per=st.sampled_from(["epoch", "step"]),
    first_epoch=st.sampled_from([0, 1]),
    warmup_epochs=st.just(0) | st.just(1),
    milestones=st.lists(st.integers(-5, 50), max_size=3).map(tuple),
    gamma=st.floats(0, 1),
) | st.builds(Schedule, epochs=st.integers(2, 60), shape=st.just("step"), warmup_steps=st.integers(0, 30), milestones=st.just((3, -2)))


@given(schedules)
def test_the_factor_stays_between_nought_and_one(schedule: Schedule) -> None:
    factors = [learning_rate_factor(schedule, step, STEPS) for step in range(schedule.epochs * STEPS)]

    assert all(0.0 <= factor <= 1.0 for factor in factors)


@given(schedules)
def test_after_the_warm_up_the_factor_never_rises(schedule: Schedule) -> None:
    warmup = schedule.warmup_steps or schedule.warmup_epochs * STEPS
    factors = [learning_rate_factor(schedule, step, STEPS) for step in range(warmup, schedule.epochs * STEPS)]

    assert factors == sorted(factors, reverse=True)


@given(st.integers(1, 20), st.sampled_from(["epoch", "step"]), st.sampled_from(["cosine", "constant"]))
def test_the_warm_up_rises_evenly_and_meets_what_follows(warmup: int, per: str, shape: str) -> None:
    schedule = Schedule(epochs=30, shape=shape, per=per, warmup_epochs=warmup)  # type: ignore[arg-type]
    rising = np.array([learning_rate_factor(schedule, step, STEPS) for step in range(warmup * STEPS + 1)])

    np.testing.assert_allclose(np.diff(rising[:-1]), 1 / (warmup * STEPS))
    assert rising[-2] == rising[-1] == 1.0


def test_a_cosine_with_epochs_from_one_ends_at_nought_and_one_from_nought_just_above() -> None:
    last = 10 * STEPS - 1

    assert learning_rate_factor(Schedule(epochs=10, first_epoch=1), last, STEPS) == pytest.approx(0.0, abs=1e-16)
    assert learning_rate_factor(Schedule(epochs=10, first_epoch=0), last, STEPS) == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)


def test_milestones_multiply_from_their_epoch_on_and_count_from_the_end_where_negative() -> None:
    schedule = Schedule(epochs=10, shape="step", milestones=(3, -2), gamma=0.5)

    assert by_epoch(schedule, 10).tolist() == [1.0] * 3 + [0.5] * 5 + [0.25] * 2
