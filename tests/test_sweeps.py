"""The shipped sweeps as a whole: tables of one paper share their trials, and each file tells what it is."""

from __future__ import annotations

from functools import cache

import pytest

from ablatrix import plan, shipped, spec
from ablatrix.plan import Plan

NAMES = sorted(shipped.sweeps())
TABLES = [name for name in NAMES if "/" in name and not name.endswith("-transfer")]  # those need evaluations that are not built
TABLE_1 = [name for name in NAMES if name.startswith("mixmask/table1-")]


@cache
def planned(name: str, profile: str | None = None) -> Plan:
    return plan.make(spec.load(shipped.sweeps()[name]), profile, lambda data: f"print of {data.name}")


def trials(name: str, profile: str | None = None) -> set[str]:
    return {trial.id for trial in planned(name, profile).trials}


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_file_opens_with_its_question_command_cost_and_expectation(name):
    text = shipped.sweeps()[name].read_text()
    opening = [line for line in text.splitlines() if line.startswith("# ")]

    assert text.startswith("# Question: ")
    assert [start for start in ("# Command: ", "# Cost: ", "# Expect: ") if not any(line.startswith(start) for line in opening)] == []
    assert f"ablatrix run {name}" in text or f"ablatrix run sweeps/{name}.yaml" in text


@pytest.mark.parametrize("name", TABLES)
def test_a_table_ships_with_a_short_and_a_smoke_profile(name):
    assert {"short", "smoke"} <= set(spec.load(shipped.sweeps()[name]).file.profiles)


@pytest.mark.parametrize("name", TABLES)
def test_a_smoke_profile_is_small_enough_for_a_laptop(name):
    smoke = planned(name, "smoke")
    recipes = [cell.recipe for cell in smoke.cells if cell.recipe]

    assert len({trial.id for trial in smoke.trials}) <= 20
    assert all(recipe.data.train_images is not None and recipe.data.train_images <= 5000 for recipe in recipes)
    assert smoke.resources.gpus == 0


def test_the_tables_of_a_paper_share_their_trials():
    single = {name: trials(name) for name in TABLES if name.startswith("mixmask/")}
    together = set().union(*single.values())

    assert len(together) < sum(map(len, single.values()))
    assert len(trials("mixmask/table5-imagenet") & trials("mixmask/table3-probability")) == 3  # P = 0.5, three seeds
    assert len(trials("siameseim/table2a") & trials("siameseim/table3")) == 2  # MAE and row (i), of 400 epochs
    assert len(trials("mixmask/table2-permutation") & trials("mixmask/table5-frameworks")) == 15  # "different": five columns, three seeds


def test_the_blocks_of_table_1_share_their_default_and_their_baseline():
    shared = set.intersection(*[trials(name) for name in TABLE_1])

    assert len(shared) == 3 * 2 * 3  # seeds, MixMask's default and MoCo, datasets
