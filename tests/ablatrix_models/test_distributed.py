"""Two processes compute what one computes on the same global batch: value, gradient and state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import rank_cases
from ablatrix_models import distributed
from ablatrix_models.batchnorm import SplitBatchNorm, _over_ranks, spread_over_ranks
from ablatrix_models.recipe.workers import worker_problems
from ranks import on_two_ranks
from tiny_sweep import tiny_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two processes start, which a busy machine makes long

Found = list[dict[str, dict[str, Mapping[str, Any]]]]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return on_two_ranks("rank_cases", ["CASES", "RUNS", "RUNS_IN_FLOAT32", "TRIALS"], tmp_path_factory.mktemp("ranks"))


def assert_same_on_every_rank(found: list[Mapping[str, Any]], expected: Mapping[str, Any], *, rtol: float, atol: float) -> None:
    assert expected
    for results in found:
        assert results.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(results[key], value, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", rank_cases.CASES)
def test_two_ranks_compute_what_one_process_does(name: str, two_ranks: Found) -> None:
    expected = rank_cases.CASES[name]()

    assert_same_on_every_rank([found["CASES"][name] for found in two_ranks], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", rank_cases.RUNS)
def test_two_ranks_train_as_one_process_does_and_the_first_alone_reports(name: str, two_ranks: Found) -> None:
    assert_same_run([found["RUNS"][name] for found in two_ranks], rank_cases.RUNS[name](), tolerance=1e-8)


@pytest.mark.parametrize("name", rank_cases.RUNS_IN_FLOAT32)
def test_two_ranks_train_as_one_process_does_in_float32_but_for_rounding(name: str, two_ranks: Found) -> None:
    assert_same_run([found["RUNS_IN_FLOAT32"][name] for found in two_ranks], rank_cases.RUNS_IN_FLOAT32[name](), tolerance=1e-5)


@pytest.mark.parametrize("name", rank_cases.TRIALS)
def test_a_trial_of_two_ranks_stops_as_one_resumes_and_is_evaluated_by_the_first_alone(name: str, two_ranks: Found) -> None:
    first, second = (dict(found["TRIALS"][name]) for found in two_ranks)
    expected = dict(rank_cases.TRIALS[name]())

    assert second.pop("metrics on rank 1") == 0
    assert second.pop("checkpoints on rank 1") == 0
    assert first.pop("metrics on rank 0") == expected.pop("metrics on rank 0") == 2
    assert first.pop("checkpoints on rank 0") == expected.pop("checkpoints on rank 0") == 1
    assert expected["stops"] == 1
    assert_same_on_every_rank([first, second], expected, rtol=1e-4, atol=1e-4)


def assert_same_run(found: list[Mapping[str, Any]], expected: Mapping[str, Any], *, tolerance: float) -> None:
    first, second = (dict(results) for results in found)
    assert second.pop("number of reports on rank 1") == 0
    second["number of reports on rank 0"] = first["number of reports on rank 0"]
    assert_same_on_every_rank([first, second], expected, rtol=tolerance, atol=tolerance)


def test_batch_norm_splits_that_the_ranks_do_not_divide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablatrix_models.batchnorm.world_size", lambda: 3)

    with pytest.raises(ValueError, match=r"8 batch norm splits cannot be dealt to 3 ranks\. Use ranks that divide them"):
        spread_over_ranks(nn.Sequential(SplitBatchNorm(4, 8)))


def test_in_one_process_everything_is_left_as_it_is() -> None:
    values, network = torch.randn(4, 3), nn.BatchNorm1d(3)

    found = (distributed.gather_rows(values), distributed.mean_over_ranks(values), distributed.from_first(values))

    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert all(result is values for result in found)
    assert torch.equal(distributed.own_rows(values), values)
    assert [distributed.any_rank(flag) for flag in (True, False)] == [True, False]
    assert torch.equal(_over_ranks(network)(values), nn.BatchNorm1d(3)(values))


@pytest.mark.parametrize(
    ("changes", "workers", "messages"),
    [
        ({}, 1, []),
        ({"schedule__batch_size": 32}, 4, []),
        (
            {"schedule__batch_size": 30, "method__queue": 60},
            4,
            ["gives parts of 30 images, which 4 workers cannot share equally. Use a multiple of 4."],
        ),
        ({"schedule__batch_size": 32, "schedule__accumulate": 4}, 16, ["gives parts of 8 images, which 16 workers cannot share equally."]),
        ({"schedule__epochs": 0, "schedule__batch_size": 30}, 4, []),
        ({"method__bn_splits": 8}, 4, []),
        ({"method__bn_splits": 4}, 8, ["is 4, whose groups 8 workers cannot share equally. Use workers that divide it, or bn_splits 1."]),
    ],
)
def test_a_recipe_says_which_numbers_of_workers_it_takes(changes: dict[str, Any], workers: int, messages: list[str]) -> None:
    problems = list(worker_problems(tiny_recipe(**changes), workers))

    assert len(problems) == len(messages)
    assert all(problem.message.startswith(message) for problem, message in zip(problems, messages, strict=True))
