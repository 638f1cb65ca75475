"""Two stores side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ablatrix.cli import main
from ablatrix.store import Store
from ablatrix_reports.comparison_page import to_html
from ablatrix_reports.store_comparison import caption, compare_stores, summary
from page_outline import Outline
from study import Study


def store(root: Path, grids: tuple[str, ...], **cells: tuple[float, ...]) -> Store:
    study = Study(Store(root), {"grid": list(grids)})
    for grid, values in cells.items():
        study.finish(f"grid={grid[1:]}", *values)
    return study.submit()


def compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--compare", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_equal_cells_are_equal_and_others_are_told_apart_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = store(tmp_path / "one", ("2", "4", "8"), g2=(60.0, 61.0, 62.0), g4=(65.0, 66.0, 67.0), g8=(50.0, 52.0, 51.0))
    second = store(tmp_path / "two", ("2", "4", "8"), g2=(60.0, 61.0, 62.0), g4=(67.0, 68.1, 69.2), g8=(51.0, 50.0, 52.5))
    code, out, _ = compare(capsys, str(first.root), str(second.root), "--json")
    cells = {cell["id"]: cell for cell in json.loads(out)["sweeps"][0]["cells"]}

    assert code == 0
    assert cells["grid=2"]["words"] == "equal"
    assert cells["grid=4"]["words"].startswith("differs (Holm p = ")
    assert cells["grid=4"]["difference"]["mean"] == pytest.approx(2.1)
    assert cells["grid=8"]["words"].startswith("cannot be told apart")


def test_cells_of_one_store_alone_are_named_and_the_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = store(tmp_path / "one", ("2", "4"), g2=(60.0, 61.0, 62.0))
    second = store(tmp_path / "two", ("2",), g2=(60.5, 61.0, 62.0))
    code, out, _ = compare(capsys, str(first.root), str(second.root), "--output", str(tmp_path / "page"))

    assert code == 0
    assert "Only in the first store: grid=4" in out
    assert "| grid=2 | 61.0 ± 1.0 | 61.2 ± 0.8 |" in (tmp_path / "page" / "comparison.md").read_text()
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["comparison.html", "comparison.json", "comparison.md"]


def test_seeds_that_all_differ_alike_tell_nothing(tmp_path: Path):
    first = store(tmp_path / "one", ("2", "4"), g2=(60.0, 61.0, 62.0), g4=(65.0,))
    second = store(tmp_path / "two", ("2", "4"), g2=(60.5, 61.5, 62.5), g4=(66.0,))
    cells = compare_stores(first, second)[0].cells

    assert [cell.words for cell in cells] == ["all seeds differ alike, which tells nothing", "one common seed tells nothing"]
    assert not any(cell.differs for cell in cells)


def test_a_sweep_is_summed_up_in_a_sentence(tmp_path: Path):
    first = store(tmp_path / "one", ("2", "4", "8"), g2=(60.0, 61.0, 62.0), g4=(65.0, 66.0, 67.0))
    second = store(tmp_path / "two", ("2", "4", "8"), g2=(60.0, 61.0, 62.0), g4=(67.0, 68.1, 69.2))
    (sweep,) = compare_stores(first, second)

    assert summary(sweep).startswith("3 cells in both stores: 1 equal, 1 differs, 1 without a common seed. First: 6 of 9 trials finished,")
    assert "All cells are the same trials in both" in caption(sweep)


EVIL = '"><script>alert(1)</script>'


def test_the_page_has_the_table_first_then_the_differences_and_needs_nothing(tmp_path: Path):
    first = store(tmp_path / f"a{EVIL.replace('/', '')}", ("2", "4"), g2=(60.0, 61.0, 62.0), g4=(65.0, 66.0, 67.0))
    second = store(tmp_path / "b", ("2", "4"), g2=(60.0, 61.0, 62.0), g4=(67.0, 68.1, 69.2))
    page = to_html(compare_stores(first, second), first, second)
    outline = Outline(page)
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]

    assert outline.open == []
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in outline.elements].count("script") == 1
    assert page.index("<table") < page.index("<svg")
    assert all(text in "".join(outline.text) for text in ("grid=4", "66.0 ± 1.0", "68.1 ± 1.1", "differs (Holm p = ", str(first.root)))
    assert re.search(r"\+2\.1 \[\+1\.\d,.\+2\.\d\]", page)
    assert all(v and v.startswith("#") for _, attrs in outline.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href"))


def test_the_same_stores_give_the_same_page(tmp_path: Path):
    first = store(tmp_path / "one", ("2",), g2=(60.0, 61.0, 62.0))
    second = store(tmp_path / "two", ("2",), g2=(60.5, 61.0, 62.0))

    assert to_html(compare_stores(first, second), first, second) == to_html(compare_stores(first, second), first, second)


@pytest.mark.parametrize("given", [(), ("nowhere", "elsewhere")])
def test_without_two_stores_there_is_nothing_to_compare(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    code, _, err = compare(capsys, *given)

    assert code == 2
    assert "error: " in err
