"""The papers' numbers: counted, recomputed where the papers allow it, and found by a cell's levels."""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from ablatrix.errors import InvalidInput, SweepFileError
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.data import DATASETS
from ablatrix_reports.published import Protocol, Publication, Table, load_published, read_publication

# Table: (rows, columns, cells without a number), counted in the papers by hand.
SHAPES = {
    "mixmask/table1": (14, 3, 5),
    "mixmask/table2": (2, 6, 0),
    "mixmask/table3": (1, 3, 0),
    "mixmask/table4": (3, 2, 0),
    "mixmask/table5": (4, 7, 0),
    "mixmask/table6": (5, 3, 4),
    "mixmask/table7": (5, 9, 0),
    "mixmask/figure5": (5, 6, 30),
    "siameseim/table1": (5, 9, 0),
    "siameseim/table2a": (11, 3, 7),
    "siameseim/table2b": (11, 3, 0),
    "siameseim/table2c": (9, 4, 1),
    "siameseim/table2d": (8, 4, 0),
    "siameseim/table3": (13, 4, 0),
}

WEAK = {
    ("mixmask/table1", "grid 2×2", "CIFAR-100"): 68.1,
    ("mixmask/table1", "discrete", "CIFAR-100"): 68.1,
    ("mixmask/table1", "ratio 0.5", "CIFAR-100"): 68.1,
    ("mixmask/table1", "switch yes", "CIFAR-100"): 68.1,
    ("mixmask/table5", "MixMask", "CIFAR-100, MoCo"): 68.4,
    ("mixmask/table5", "MixMask", "Tiny-ImageNet, MoCo"): 47.4,
    ("mixmask/table2", "same", "Tiny-ImageNet, MoCo"): 47.4,
    ("mixmask/table5", "MixMask", "Tiny-ImageNet, BYOL"): 50.8,
    ("mixmask/table2", "same", "Tiny-ImageNet, BYOL"): 50.8,
}

SMALL = """\
schema: 1
publication: small
title: "Small"
source: "Nobody, nowhere"
axes:
  grid: "mask.grid"
tables:
  one:
    number: "Table 1"
    caption: "A caption"
    columns:
      left: {levels: {dataset: cifar100}}
      right: {levels: {dataset: digits}}
    rows:
      fine: {levels: {grid: 4}, values: [1.0, 2.0]}
      coarse: {levels: {grid: 2}, values: [3.0, –]}
contradictions:
  - same_setting: true
    note: "They differ."
    cells:
      - {table: one, row: fine, column: left}
      - {table: one, row: coarse, column: left}
"""


@pytest.fixture(scope="module")
def mixmask() -> Publication:
    return load_published("mixmask")


@pytest.fixture(scope="module")
def siameseim() -> Publication:
    return load_published("siameseim")


@pytest.fixture(scope="module", params=["mixmask", "siameseim"])
def publication(request: pytest.FixtureRequest) -> Publication:
    return load_published(request.param)


def row(table: Table, name: str) -> list[float | None]:
    """A row's numbers in the order of the columns."""
    values = [table.at(name, column) for column in table.columns]
    return [value.value if value else None for value in values]


def column(table: Table, name: str, rows: str = "") -> list[float]:
    """A column's numbers, of the rows whose name starts with `rows`."""
    values = [table.at(r, name) for r in table.rows if r.startswith(rows)]
    return [value.value for value in values if value]


def difference(a: list[float | None], b: list[float | None]) -> list[float]:
    return [round(x - y, 6) for x, y in zip(a, b, strict=True) if x is not None and y is not None]


@pytest.mark.parametrize("id", SHAPES)
def test_a_table_has_every_row_and_column_of_the_paper_and_says_which_cells_are_empty(id: str):
    table = load_published(id.partition("/")[0]).table(id)

    empty = sum(cell.value is None for cell in table.cells)

    assert (len(table.rows), len(table.columns), empty) == SHAPES[id]
    assert len(table.cells) == len(table.rows) * len(table.columns)
    assert len(table.values()) == len(table.cells) - empty


def test_no_table_is_left_uncounted(mixmask: Publication, siameseim: Publication):
    assert [table.id for table in (*mixmask.tables, *siameseim.tables)] == list(SHAPES)


def test_every_place_leads_back_to_its_number(publication: Publication):
    for table in publication.tables:
        for value in table.values():
            assert publication.table(value.place.table).at(value.place.row, value.place.column) is value


def test_every_number_states_the_protocol_that_a_trial_is_held_against(publication: Publication):
    for value in (v for table in publication.tables for v in table.values()):
        protocol = value.protocol

        assert None not in (protocol.dataset, protocol.backbone, protocol.epochs, protocol.evaluation, protocol.metric), value.place
        assert protocol.dataset in DATASETS
        assert re.fullmatch(r"[a-z0-9-]+\.[a-z0-9_]+", protocol.metric or "")


def test_accuracies_are_percent_and_gains_are_points(publication: Publication):
    for value in (v for table in publication.tables for v in table.values()):
        low, high = (0, 15) if value.unit == "points" else (20, 90)

        assert value.unit == ("points" if value.place.row.startswith("gain") else "%")
        assert low <= value.value <= high, value.place
        assert value.value == round(value.value, 1)


def test_exactly_the_numbers_that_the_papers_contradict_are_weak_and_say_why(mixmask: Publication, siameseim: Publication):
    values = [v for paper in (mixmask, siameseim) for table in paper.tables for v in table.values()]
    weak = {(v.place.table, v.place.row, v.place.column): v for v in values if v.weak}

    assert {place: value.value for place, value in weak.items()} == WEAK
    assert all("Table 5" in (value.note or "") for value in weak.values())


def test_only_table_1_of_mixmask_says_how_many_runs_it_averages(mixmask: Publication, siameseim: Publication):
    told = {table.id: table.n for paper in (mixmask, siameseim) for table in paper.tables if table.n is not None}

    assert told == {"mixmask/table1": 3}


def test_mixmask_axes_name_recipe_keys(mixmask: Publication):
    from ablatrix_models.recipe.overlay import flatten

    keys = dict(flatten(Recipe().as_mapping()))
    text = (Path(__file__).parents[2] / "sweeps/published/mixmask.yaml").read_text()
    named = re.findall(r'^  \w+: "([a-z_.]+):', text, flags=re.MULTILINE)

    assert len(named) == 8
    assert set(named) <= set(keys)


# What the papers' numbers say about each other.


def test_each_dataset_has_its_best_grid_where_section_4_1_says(mixmask: Publication):
    table = mixmask.table("mixmask/table1")

    best = {name: column(table, name, "grid").index(max(column(table, name, "grid"))) for name in table.columns}

    assert {name: table.rows[i] for name, i in best.items()} == {
        "CIFAR-100": "grid 2×2",
        "Tiny-ImageNet": "grid 4×4",
        "ImageNet-1K": "grid 8×8",
    }


def test_the_default_of_mixmask_table_1_has_one_number_in_all_four_parts(mixmask: Publication):
    table = mixmask.table("mixmask/table1")

    parts = [[max(column(table, name, part)) for name in table.columns] for part in ("grid", "ratio", "switch")]
    patterns = [max(pair) for pair in zip(*(row(table, kind) for kind in ("blocked", "discrete")), strict=True) if None not in pair]

    assert [*parts, patterns] == [[68.1, 47.4, 69.2]] * 4


def test_mixmask_on_imagenet_is_one_number_in_tables_1_4_and_5(mixmask: Publication):
    first = mixmask.table("mixmask/table1").at("grid 8×8", "ImageNet-1K")
    fourth = mixmask.table("mixmask/table4").at("MixMask", "200 epochs")
    fifth = mixmask.table("mixmask/table5").at("MixMask", "ImageNet-1K, MoCo V2")
    assert first and fourth and fifth

    assert first.value == fourth.value == fifth.value == 69.2
    assert first.protocol.metric == fourth.protocol.metric == fifth.protocol.metric == "linear.top1"
    assert first.protocol.epochs == fourth.protocol.epochs == fifth.protocol.epochs == 200
    assert mixmask.table("mixmask/table4").at("MoCo V2", "200 epochs").value == 67.5  # type: ignore[union-attr]
    assert mixmask.table("mixmask/table5").at("vanilla", "ImageNet-1K, MoCo V2").value == 67.5  # type: ignore[union-attr]


def test_different_partners_of_table_2_are_mixmask_with_unmix_of_table_5(mixmask: Publication):
    second, fifth = mixmask.table("mixmask/table2"), mixmask.table("mixmask/table5")
    shared = [name for name in second.columns if name in fifth.columns]

    pairs = [(second.at("different", name), fifth.at("MixMask and Un-Mix", name)) for name in shared]

    assert len(shared) == 5
    assert all(a and b and a.value == b.value and a.protocol.metric == b.protocol.metric for a, b in pairs)


def test_the_best_p_of_table_3_is_mixmask_with_unmix_of_table_5(mixmask: Publication):
    third, fifth = mixmask.table("mixmask/table3"), mixmask.table("mixmask/table5")

    assert max(row(third, "top-1"), key=lambda v: v or 0) == row(fifth, "MixMask and Un-Mix")[-1] == 69.5
    assert [v.value for v in third.lookup({"probability": "0.5"})] == [69.5]


def test_mixmask_with_unmix_is_best_in_every_column_of_table_5(mixmask: Publication):
    table = mixmask.table("mixmask/table5")

    assert [max(column(table, name)) for name in table.columns] == row(table, "MixMask and Un-Mix")


def test_mixmask_beats_mscn_by_about_a_point_at_200_epochs(mixmask: Publication):
    table = mixmask.table("mixmask/table4")

    assert difference(row(table, "MixMask"), row(table, "MSCN")) == [1.0, 0.2]


def test_no_method_of_table_7_is_above_mixmask_and_only_mscn_ties_it_once(mixmask: Publication):
    table = mixmask.table("mixmask/table7")
    others = {name: difference(row(table, "MixMask"), row(table, name)) for name in table.rows if name != "MixMask"}

    assert min(min(gaps) for gaps in others.values()) == 0.0
    assert [name for name, gaps in others.items() for gap in gaps if gap == 0] == ["MSCN"]


def test_table_6_puts_mixmask_above_mscn_and_swav_with_a_hundredth_of_the_labels_but_below_barlow_twins(mixmask: Publication):
    hundredth = {name: row(mixmask.table("mixmask/table6"), name)[0] for name in mixmask.table("mixmask/table6").rows}

    assert sorted(hundredth, key=lambda name: hundredth[name] or 0) == ["MoCo V2", "SwAV", "MSCN", "MixMask", "Barlow Twins"]


@pytest.mark.parametrize("other", ["MoCo-v3", "MAE"])
def test_siameseim_table_1_prints_the_gains_that_its_rows_have(siameseim: Publication, other: str):
    table = siameseim.table("siameseim/table1")

    assert difference(row(table, "SiameseIM"), row(table, other)) == row(table, f"gain over {other}")


@pytest.mark.parametrize("part", ["table2a", "table2b", "table2c", "table2d"])
def test_siameseim_table_2_prints_gains_over_the_better_main_baseline(siameseim: Publication, part: str):
    table = siameseim.table(f"siameseim/{part}")
    main = [max(pair) for pair in zip(row(table, "MoCo-v3, 600 epochs"), row(table, "MAE, 1600 epochs"), strict=True) if None not in pair]

    assert difference(row(table, "SiameseIM, 1600 epochs"), main) == row(table, "gain of SiameseIM, 1600 epochs")


@pytest.mark.parametrize(
    ("short", "long"),
    [("MoCo-v3", "MoCo-v3, 600 epochs"), ("MAE", "MAE, 1600 epochs"), ("SiameseIM", "SiameseIM, 1600 epochs")],
)
def test_siameseim_table_1_repeats_table_2_and_averages_its_robustness(siameseim: Publication, short: str, long: str):
    first = row(siameseim.table("siameseim/table1"), short)
    a, b, c, d = (row(siameseim.table(f"siameseim/table2{part}"), long) for part in "abcd")

    mean = sum(Decimal(str(value)) for value in d) / 4

    assert first[:-1] == [*a, *b, c[1], c[3]]
    assert first[-1] == float(mean.quantize(Decimal("0.1"), ROUND_HALF_UP))


def test_rows_of_siameseim_table_3_share_classification_with_table_2_but_not_its_longer_detection(siameseim: Publication):
    ablation = siameseim.table("siameseim/table3")
    pairs = [("(i)", "SiameseIM, 400 epochs"), ("MAE", "MAE, 400 epochs")]

    for ours, theirs in pairs:
        assert row(ablation, ours)[:2] == row(siameseim.table("siameseim/table2a"), theirs)[:2]
        assert row(ablation, ours)[2:] != row(siameseim.table("siameseim/table2b"), theirs)[:2]


def test_siameseim_section_4_3_states_differences_that_its_table_3_has(siameseim: Publication):
    table = siameseim.table("siameseim/table3")
    a, e, f, g, k = (row(table, f"({letter})") for letter in "aefgk")

    assert difference(f, e)[1] == 3.5
    assert difference(g, k)[2:] == [2.8, 2.3]
    assert difference(f, a)[1] == pytest.approx(11, abs=0.5)


def test_neighbouring_rows_of_siameseim_table_3_differ_in_what_the_paper_ablates(siameseim: Publication):
    settings = {v.place.row: v.protocol.settings for v in siameseim.table("siameseim/table3").values()}

    def changed(a: str, b: str) -> set[str]:
        return {name for name in settings[a] if settings[a][name] != settings[b][name]} - {"row"}

    assert changed("MAE", "(a)") == changed("(k)", "MoCo-v3 with mask") == set()
    assert changed("(a)", "(b)") == changed("(d)", "(e)") == {"target", "loss_norm", "loss_form"}
    assert [changed(a, b) for a, b in (("(a)", "(c)"), ("(a)", "(d)"), ("(e)", "(f)"))] == [{"colour"}, {"views"}, {"colour"}]
    assert [changed(a, b) for a, b in (("(f)", "(g)"), ("(g)", "(h)"), ("(h)", "(i)"))] == [{"norm"}, {"mask"}, {"loss_norm"}]
    assert [changed(a, b) for a, b in (("(i)", "(j)"), ("(g)", "(k)"))] == [{"loss_form"}, {"loss_type"}]


# Finding a number.


def test_a_cell_is_found_by_the_levels_of_a_sweep(mixmask: Publication):
    (value,) = mixmask.table("mixmask/table1").lookup({"dataset": "tiny-imagenet", "grid": "8"})

    assert (value.value, value.unit, value.weak) == (46.5, "%", False)
    assert str(value.place) == "mixmask/table1, grid 8×8, Tiny-ImageNet"


def test_every_number_is_found_by_its_own_levels(publication: Publication):
    for table in publication.tables:
        for cell in table.cells:
            for i in range(max(len(allowed) for allowed in cell.levels.values())):
                levels = {axis: allowed[i % len(allowed)] for axis, allowed in cell.levels.items()}
                found = [value.place for value in table.lookup(levels) if not value.weak]

                assert found == ([cell.place] if cell.value and not cell.value.weak else [])


def test_where_the_paper_prints_two_numbers_both_are_found(mixmask: Publication):
    first = mixmask.table("mixmask/table1").lookup({"dataset": "cifar100", "grid": "2"})
    fifth = mixmask.table("mixmask/table5").lookup({"dataset": "cifar100", "framework": "moco", "mixing": "mixmask"})

    assert [(v.value, v.place.table) for v in first] == [(68.1, "mixmask/table1"), (68.4, "mixmask/table5")]
    assert [(v.value, v.place.table) for v in fifth] == [(68.4, "mixmask/table5"), (68.1, "mixmask/table1")]


def test_one_number_printed_for_two_settings_is_weak_but_has_no_rival(mixmask: Publication):
    (value,) = mixmask.table("mixmask/table5").lookup({"dataset": "tiny-imagenet", "framework": "byol", "mixing": "mixmask"})

    assert (value.value, value.weak) == (50.8, True)


def test_a_row_for_two_levels_is_found_by_either(mixmask: Publication):
    table = mixmask.table("mixmask/table1")

    found = [table.lookup({"dataset": "cifar100", "ratio": ratio}) for ratio in ("0.25", "0.75", "[0.25, 0.75]")]

    assert [[v.value for v in values] for values in found] == [[66.8], [66.8], [67.8]]


def test_a_level_that_the_row_was_not_run_at_finds_nothing_of_it(mixmask: Publication):
    table = mixmask.table("mixmask/table1")

    found = table.lookup({"dataset": "tiny-imagenet", "grid": "4", "mask": "discrete"})

    assert [(v.value, v.place.row) for v in found] == [(46.4, "discrete")]
    assert table.lookup({"dataset": "tiny-imagenet", "grid": "8", "mask": "discrete"}) == ()


@pytest.mark.parametrize("mask", ["blocked", "discrete"])
def test_the_mask_that_the_paper_leaves_open_on_cifar_excludes_neither(mixmask: Publication, mask: str):
    found = mixmask.table("mixmask/table1").lookup({"dataset": "cifar100", "grid": "8", "mask": mask})

    assert [v.value for v in found] == [67.5]


@pytest.mark.parametrize(
    "levels",
    [
        {"dataset": "cifar100", "grid": "16"},
        {"dataset": "cifar100", "grid": "none"},
        {"dataset": "imagenette", "grid": "4"},
        {"grid": "4"},
        {},
    ],
    ids=["no number", "no such row", "no such column", "no column named", "nothing named"],
)
def test_levels_that_the_table_does_not_have_find_nothing(mixmask: Publication, levels: dict[str, str]):
    assert mixmask.table("mixmask/table1").lookup(levels) == ()


def test_an_axis_that_the_paper_never_names_is_no_hindrance(mixmask: Publication):
    levels = {"dataset": "tiny-imagenet", "grid": "8", "queue": "512"}

    assert [v.value for v in mixmask.table("mixmask/table1").lookup(levels)] == [46.5]


def test_a_gain_is_found_only_by_what_it_is_measured_against(siameseim: Publication):
    table, levels = siameseim.table("siameseim/table1"), {"framework": "siameseim", "metric": "linear.top1"}

    assert [v.value for v in table.lookup(levels)] == [78.0]
    assert [v.value for v in table.lookup(levels | {"baseline": "mae"})] == [10.0]


def test_a_table_says_by_which_axes_it_is_asked(mixmask: Publication, siameseim: Publication):
    assert mixmask.table("mixmask/table5").axes == ("dataset", "framework", "mixing")
    assert siameseim.table("siameseim/table3").axes == ("metric", "row")


# Protocols against each other.


def test_a_protocol_tells_where_a_trial_departs_from_it(mixmask: Publication):
    (value,) = mixmask.table("mixmask/table1").lookup({"dataset": "tiny-imagenet", "grid": "8"})

    trial = {"dataset": "tiny-imagenet", "epochs": 20, "metric": "linear.top1", "ratio": 0.5, "switch": False, "lr": 0.1}

    assert value.protocol.differences(trial) == ("epochs 20 ≠ 1000", "metric linear.top1 ≠ knn.top1", "switch false ≠ true")


def test_a_protocol_that_allows_several_levels_differs_from_none_of_them():
    protocol = Protocol(settings={"mask": ("discrete", "blocked")})

    assert [protocol.differences({"mask": mask}) for mask in ("discrete", "blocked")] == [(), ()]
    assert protocol.differences({"mask": "striped"}) == ("mask striped ≠ discrete or blocked",)


def test_a_setting_that_does_not_apply_to_a_row_is_no_part_of_its_protocol(mixmask: Publication):
    table = mixmask.table("mixmask/table5")
    plain, mixed = table.at("vanilla", "CIFAR-100, MoCo"), table.at("MixMask", "CIFAR-100, MoCo")
    assert plain and mixed

    assert plain.protocol.differences({"grid": 8}) == ()
    assert mixed.protocol.differences({"grid": 8}) == ("grid 8 ≠ 2",)


# Files that are wrong.


def read_text(tmp_path: Path, text: str) -> Publication:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return read_publication(path)


def test_a_small_file_is_read_whole(tmp_path: Path):
    table = read_text(tmp_path, SMALL).table("small/one")

    assert [(c.value.value if c.value else None, len(c.rivals)) for c in table.cells] == [(1.0, 1), (2.0, 0), (3.0, 1), (None, 0)]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("    caption:", "    captoin:", 10, "'captoin' is not a known key of tables.one. Did you mean 'caption'?"),
        ("title:", "titel:", 3, "'titel' is not a known key of the file. Did you mean 'title'?"),
        ("{grid: 4}, values", "{grid: 4}, value", 15, "the key 'values' of tables.one.rows.fine is missing."),
        ("{grid: 4}", "{gird: 4}", 15, "'gird' is no axis of this publication. Did you mean 'grid'?"),
        ("{dataset: digits}", "{dataset: [digits, cifar10]}", 13, "dataset is ['digits', 'cifar10'], but a protocol states one level."),
        ("{dataset: digits}", "{epochs: many}", 13, "epochs is 'many', but a protocol states one whole number."),
        ("{grid: 4}", "{grid: []}", 15, "grid has no level, so it would match none."),
        ("{grid: 4}", "{dataset: mnist}", 15, "'dataset' is a level of this row and of a column."),
        ("[1.0, 2.0]", "[1.0]", 15, "row 'fine' has 1 values for 2 columns."),
        ("[1.0, 2.0]", "[1.0, 2.0, 3.0]", 15, "row 'fine' has 3 values for 2 columns."),
        ("[1.0, 2.0]", '[1.0, "2.0"]', 15, "tables.one.rows.fine.values.1 is '2.0', which is refused"),
        ("[1.0, 2.0]", "[1.0, true]", 15, "tables.one.rows.fine.values.1 is True, which is refused"),
        ("[1.0, 2.0]", "[1.0, .nan]", 15, "tables.one.rows.fine.values.1 is nan, which is refused"),
        ("{grid: 2}", "{grid: 4}", 16, "'coarse' and 'fine' of rows have the same levels (grid = 4)"),
        ("{grid: 2}", "{grid: [2, 4]}", 16, "'coarse' and 'fine' of rows have the same levels (grid = 2 or 4)"),
        ("{dataset: digits}", "{dataset: cifar100}", 13, "'right' and 'left' of columns have the same levels (dataset = cifar100)"),
        ("      coarse:", "      fine:", 16, "the key 'fine' stands here again; it was first on line 15. Keep one."),
        ("column: left}\n", "column: lift}\n", 21, "'lift' is no column of one. Did you mean 'left'?"),
        ("{table: one, row: coarse", "{table: one, row: course", 22, "'course' is no row of one. Did you mean 'coarse'?"),
        ("{table: one, row: coarse", "{table: two, row: coarse", 22, "'two' is no table of this file. Known: one."),
        ("coarse, column: left", "coarse, column: right", 22, "one prints no number at (coarse, right), so nothing can contradict it."),
        ("schema: 1", "schema: 2", 1, "schema is 2, which is refused"),
    ],
)
def test_a_wrong_file_is_refused_on_the_line_of_its_fault(tmp_path: Path, old: str, new: str, line: int, message: str):
    assert old in SMALL

    with pytest.raises(SweepFileError) as caught:
        read_text(tmp_path, SMALL.replace(old, new, 1))

    told = {problem.line: problem.message for problem in caught.value.problems}
    assert told[line].startswith(message) or any(p.line == line and p.message.startswith(message) for p in caught.value.problems)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path):
    text = SMALL.replace("{grid: 4}", "{gird: 4}").replace("[3.0, –]", "[3.0]").replace("column: left", "column: lift")

    with pytest.raises(SweepFileError) as caught:
        read_text(tmp_path, text)

    assert [problem.line for problem in caught.value.problems] == [15, 16, 21, 22]


def test_an_unknown_publication_or_table_is_answered_with_the_nearest(mixmask: Publication):
    with pytest.raises(InvalidInput, match=r"there are no published numbers named 'mixmsk'. Did you mean 'mixmask'\?"):
        load_published("mixmsk")
    with pytest.raises(InvalidInput, match=r"'mixmask/tabel1' is no published table of MixMask. Did you mean 'mixmask/table1'\?"):
        mixmask.table("mixmask/tabel1")


def test_a_place_that_a_table_does_not_have_is_an_error_and_not_an_empty_cell(mixmask: Publication):
    table = mixmask.table("mixmask/table1")

    assert table.at("grid 16×16", "CIFAR-100") is None
    with pytest.raises(KeyError):
        table.at("grid 64×64", "CIFAR-100")


def test_no_number_is_lost_to_floating_point(publication: Publication):
    assert all(math.isfinite(v.value) and f"{v.value:.1f}" == str(v.value) for t in publication.tables for v in t.values())
