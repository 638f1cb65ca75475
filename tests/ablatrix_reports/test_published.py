"""The papers' numbers: all there, and found by a cell's levels."""

from __future__ import annotations

import re

import pytest

from ablatrix import shipped
from ablatrix.errors import InvalidInput
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.data import DATASETS
from ablatrix_models.recipe.overlay import flatten
from ablatrix_reports.published import Protocol, Publication, load_published

# Table: (rows, columns, cells without a number, sum of the numbers), counted and summed in the papers' text.
SHAPES = {
    "mixmask/table1": (14, 3, 5, 2266.0),
    "mixmask/table2": (2, 6, 0, 723.4),
    "mixmask/table3": (1, 3, 0, 207.3),
    "mixmask/table4": (3, 2, 0, 419.2),
    "mixmask/table5": (4, 7, 0, 1773.6),
    "mixmask/table6": (5, 3, 4, 698.1),
    "mixmask/table7": (5, 9, 0, 2354.0),
    "mixmask/figure5": (5, 6, 30, 0.0),
    "siameseim/table1": (5, 9, 0, 1456.5),
    "siameseim/table2a": (11, 3, 7, 1715.7),
    "siameseim/table2b": (11, 3, 0, 1420.5),
    "siameseim/table2c": (9, 4, 1, 1004.0),
    "siameseim/table2d": (8, 4, 0, 1246.2),
    "siameseim/table3": (13, 4, 0, 3093.8),
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


@pytest.fixture(scope="module")
def mixmask() -> Publication:
    return load_published("mixmask")


@pytest.fixture(scope="module")
def siameseim() -> Publication:
    return load_published("siameseim")


@pytest.fixture(scope="module", params=["mixmask", "siameseim"])
def publication(request: pytest.FixtureRequest) -> Publication:
    return load_published(request.param)


@pytest.mark.parametrize("id", SHAPES)
def test_a_table_has_every_number_of_the_paper_and_says_which_cells_are_empty(id: str):
    table = load_published(id.partition("/")[0]).table(id)

    empty = sum(cell.value is None for cell in table.cells)
    total = round(sum(value.value for value in table.values()), 1)

    assert (len(table.rows), len(table.columns), empty, total) == SHAPES[id]
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
    keys = dict(flatten(Recipe().as_mapping()))
    text = (shipped.root() / "published" / "mixmask.yaml").read_text(encoding="utf-8")
    named = re.findall(r'^  \w+: "([a-z_.]+):', text, flags=re.MULTILINE)

    assert len(named) == 8
    assert set(named) <= set(keys)


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
    told = [value and value.protocol.differences({"grid": 8}) for value in (plain, mixed)]

    assert told == [(), ("grid 8 ≠ 2",)]


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
    assert all(f"{v.value:.1f}" == str(v.value) for t in publication.tables for v in t.values())
