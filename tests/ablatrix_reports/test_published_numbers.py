"""The papers' numbers against each other: what their texts and tables say twice must agree."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest

from ablatrix_reports.published import Publication, Table, load_published


@pytest.fixture(scope="module")
def mixmask() -> Publication:
    return load_published("mixmask")


@pytest.fixture(scope="module")
def siameseim() -> Publication:
    return load_published("siameseim")


def row(table: Table, name: str) -> list[float | None]:
    """A row's numbers in the order of the columns."""
    values = [table.at(name, column) for column in table.columns]
    return [value.value if value else None for value in values]


def column(table: Table, name: str, rows: str = "") -> list[float]:
    """A column's numbers, of the rows whose name starts with `rows`."""
    values = [table.at(r, name) for r in table.rows if r.startswith(rows)]
    return [value.value for value in values if value]


def larger(a: list[float | None], b: list[float | None]) -> list[float | None]:
    return [x if y is None or (x is not None and x > y) else y for x, y in zip(a, b, strict=True)]


def difference(a: list[float | None], b: list[float | None]) -> list[float]:
    return [round(x - y, 6) for x, y in zip(a, b, strict=True) if x is not None and y is not None]


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
    patterns = larger(row(table, "blocked"), row(table, "discrete"))

    assert [*parts, patterns] == [[68.1, 47.4, 69.2]] * 4


def test_mixmask_on_imagenet_is_one_number_in_tables_1_4_and_5(mixmask: Publication):
    places = [("table1", "grid 8×8", "ImageNet-1K"), ("table4", "MixMask", "200 epochs"), ("table5", "MixMask", "ImageNet-1K, MoCo V2")]
    values = [mixmask.table(f"mixmask/{table}").at(name, column) for table, name, column in places]

    protocols = [(v.value, v.protocol.metric, v.protocol.epochs) for v in values if v]

    assert protocols == [(69.2, "linear.top1", 200)] * 3


def test_the_imagenet_baseline_is_one_number_in_tables_4_and_5(mixmask: Publication):
    fourth, fifth = mixmask.table("mixmask/table4"), mixmask.table("mixmask/table5")

    assert row(fourth, "MoCo V2")[0] == row(fifth, "vanilla")[-1] == 67.5


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
    main = larger(row(table, "MoCo-v3, 600 epochs"), row(table, "MAE, 1600 epochs"))

    assert difference(row(table, "SiameseIM, 1600 epochs"), main) == row(table, "gain of SiameseIM, 1600 epochs")


@pytest.mark.parametrize(
    ("short", "long"),
    [("MoCo-v3", "MoCo-v3, 600 epochs"), ("MAE", "MAE, 1600 epochs"), ("SiameseIM", "SiameseIM, 1600 epochs")],
)
def test_siameseim_table_1_repeats_table_2_and_averages_its_robustness(siameseim: Publication, short: str, long: str):
    first = row(siameseim.table("siameseim/table1"), short)
    a, b, c, d = (row(siameseim.table(f"siameseim/table2{part}"), long) for part in "abcd")

    mean = sum((Decimal(str(value)) for value in d), Decimal(0)) / 4

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
