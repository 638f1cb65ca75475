"""The grammar of claims, its errors with their places, and the cells that a claim speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablatrix.claim import Call, CellRef, ClaimError, Comparison, Number, Sum, cases, parse
from tiny_sweep import SWEEP, make_plan, problems_of


def cell(**levels: str) -> CellRef:
    return CellRef(tuple(levels.items()))


def test_a_claim_is_read_as_what_must_be_larger():
    read = parse("cell(grid=16) < max(cell(grid=4), cell(grid=8)) - 0.5")

    best = Call("max", (cell(grid="4"), cell(grid="8")))
    assert read.comparisons == (Comparison(Sum(((1, best), (-1, Number(0.5)))), cell(grid="16")),)


def test_a_chain_and_an_and_are_several_comparisons():
    read = parse("cell(a=1) > cell(a=2) >= cell(a=3) and 10 < cell(a=1)")

    first, second, third = cell(a="1"), cell(a="2"), cell(a="3")
    assert read.comparisons == (Comparison(first, second), Comparison(second, third), Comparison(first, Number(10.0)))
    assert read.cells == (first, second, third)


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("0.50", "0.5"),
        ("true", "true"),
        ("none", "none"),
        ("[0.25, 0.750]", "[0.25, 0.75]"),
        ('"MoCo, v2 (MLP)"', "MoCo, v2 (MLP)"),
        ("MoCo v2", "MoCo v2"),
        ("-1", "-1"),
    ],
)
def test_levels_are_written_as_in_the_sweep_file(written: str, level: str):
    assert parse(f"cell(x={written}, grid=2) > 0").cells == (cell(x=level, grid="2"),)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("cell(grid=2)", 13, "a comparison (<, <=, > or >=) is needed here"),
        ("cell(grid=2) == cell(grid=4)", 14, "write abs(a - b) < margin"),
        ("1 < 2", 4, "One side must name a cell"),
        ("cell(grid) > 1", 10, "'=' is needed here"),
        ("max cell(a=1) > 1", 5, "'max' needs an opening parenthesis"),
        ("foo(1) > cell(a=1)", 1, "'foo' stands where"),
        ("cell(a=2) >", 12, "the end of the claim"),
        ("cell(a=2) > 1 or cell(a=1) > 2", 15, "joined by `and`"),
        ("cell(a=2, a=3) > 1", 11, "stands twice in one cell"),
        ("abs(cell(a=1), 2) < 3", 1, "abs takes one argument, not 2"),
        ("(" * 30 + "cell(a=1)", 21, "nested more than 20 deep"),
        ("__import__('os').system('ls') > 1", 1, "'__import__' stands where"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, position: int, said: str):
    with pytest.raises(ClaimError) as caught:
        parse(text)

    assert caught.value.position == position
    assert said in str(caught.value)


@given(st.text("cel(grid=2)<>max- ,+.and1\"'[]", max_size=60) | st.text(max_size=40))
def test_no_text_does_more_than_be_read_or_refused(text: str):
    try:
        parse(text)
        position = 1
    except ClaimError as error:
        position = error.position

    assert 1 <= position <= len(text) + 1


AXES = {"data": ["a", "b"], "grid": ["2", "4"]}
CELLS = [{"data": d, "grid": g} for d in "ab" for g in "24"] + [{"data": "–", "grid": "none"}]


def test_a_claim_is_asked_for_each_level_of_the_axes_that_it_leaves_open():
    found = cases(parse("cell(grid=2) > cell(grid=4)"), {}, AXES, CELLS)

    assert [(c.levels, list(c.cells.values())) for c in found] == [({"data": "a"}, [0, 1]), ({"data": "b"}, [2, 3])]


def test_for_narrows_a_claim():
    found = cases(parse("cell(grid=2) > cell(grid=4)"), {"data": "b"}, AXES, CELLS)

    assert [c.levels for c in found] == [{"data": "b"}]


def test_for_may_be_a_comparison():
    found = cases(parse("cell(data=a) > cell(data=b)"), {"grid": "> 2"}, AXES, CELLS)

    assert [c.levels for c in found] == [{"grid": "4"}]


def test_a_cell_that_leaves_an_axis_open_serves_every_level_of_it():
    found = cases(parse("cell(grid=2) > cell(grid=none)"), {}, AXES, CELLS)

    assert [list(c.cells.values()) for c in found] == [[0, 4], [2, 4]]


TWO_AXES = SWEEP.replace("  grid:", "  ratio: {key: mask.ratio, levels: [0.25, 0.5]}\n  grid:")


@pytest.mark.parametrize(
    ("check", "levels", "said"),
    [
        ("cell(gird=2) > 1", "{}", "'gird' is no axis of this sweep. Did you mean 'grid'?"),
        ("cell(grid=3) > 1", "{}", "axis 'grid' has no level 3"),
        ("cell(grid=2) > 1", "{ratio: 0.3}", "axis 'ratio' has no level 0.3"),
        ("cell(grid=2) >> 1", "{}", "cannot be read, at character 15"),
        ("cell(grid=2) > cell(grid=4, ratio=0.5)", "{}", "which is no cell of the table. Name every axis in it"),
        ("cell(grid=4) > cell(grid=2)", "{}", "is excluded at ratio=0.25 (too coarse). Narrow the claim with `for`"),
    ],
)
def test_check_tells_what_is_wrong_with_a_claim_on_its_line(tmp_path: Path, check: str, levels: str, said: str):
    text = (
        TWO_AXES
        + f"""\
exclude: [{{if: {{grid: 4, ratio: 0.25}}, reason: too coarse}}]
claims:
  - {{text: fine, check: "cell(grid=2, ratio=0.25) > 0"}}
  - {{text: wrong, check: "{check}", for: {levels}}}
"""
    )
    assert [(line, said in message) for line, message in problems_of(tmp_path, text)] == [(13, True)]


def test_a_claim_of_more_cases_than_can_be_judged_is_refused_and_never_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ablatrix.claim.MAX_CASES", 1)
    claims = 'claims: [{text: all, check: "cell(grid=2) > 0"}, {text: one, check: "cell(grid=2, ratio=0.5) > 0"}]\n'
    problems = problems_of(tmp_path, TWO_AXES + claims)

    assert [message for _, message in problems] == ["the claim speaks of 2 cases, but at most 1 can be judged. Narrow it with `for`."]


def test_an_unknown_published_table_is_told_with_the_nearest(tmp_path: Path):
    problems = problems_of(tmp_path, SWEEP + "table: {rows: grid, published: mixmask/tabel1}\n")

    assert problems == [(9, "'mixmask/tabel1' is no published table. Did you mean 'mixmask/table1'?")]


def test_claims_and_published_tables_reach_the_plan(tmp_path: Path):
    text = SWEEP + 'table: {rows: grid, published: mixmask/table1}\nclaims: [{text: t, check: "cell(grid=2) > 1", for: {grid: 2}}]\n'
    kept = make_plan(tmp_path, text).as_mapping()

    assert kept["claims"] == [{"text": "t", "check": "cell(grid=2) > 1", "for": {"grid": 2}}]
    assert kept["table"]["published"] == ["mixmask/table1"]


def test_a_profile_may_drop_a_level_that_a_claim_names(tmp_path: Path):
    text = SWEEP + 'profiles: {smoke: {axes: {grid: {levels: [2]}}}}\nclaims: [{text: t, check: "cell(grid=4) > cell(grid=2)"}]\n'

    assert problems_of(tmp_path, text) == []
