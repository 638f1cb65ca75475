"""The paper, the trend and the claims, the same in every view; several sweeps in one document; pictures of trials."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from ablatrix_models.data.images import ImageSet
from ablatrix_reports.captions import caption
from ablatrix_reports.latex import to_latex
from ablatrix_reports.markdown import to_markdown
from ablatrix_reports.page import to_html
from ablatrix_reports.samples import read_samples
from ablatrix_reports.terminal import render_terminal
from ablatrix_reports.trial_rows import to_csv
from ablatrix_reports.write import read_report, write_combined, write_report
from page_outline import Outline


@pytest.fixture
def study(new_study):
    study = new_study({"grid": ["2", "4", "8"]}, question=None)
    study.plan["table"]["published"] = ["mixmask/table1"]
    study.plan["claims"] = [
        {"text": "coarse is best", "check": "cell(grid=2) > max(cell(grid=4), cell(grid=8))", "for": {}},
        {"text": "finer is better", "check": "cell(grid=8) > cell(grid=4)", "for": {"grid": "8"}},
    ]
    study.give("grid=2", schedule__epochs=20)
    study.give("grid=4", mask__grid=4)
    study.give("grid=8", mask__grid=8)
    study.finish("grid=2", 71.0, 72.0, 73.1)
    study.finish("grid=4", 67.1, 67.6, 68.2)
    study.finish("grid=8", 63.0, 63.6, 64.0)
    return study


@pytest.fixture
def report(study):
    return read_report(study.submit(), "masks", curves=True)


def views(report) -> dict[str, str]:
    """Every view for readers as plain text."""
    console = Console(file=io.StringIO(), width=400, no_color=True)
    console.print(render_terminal(report))
    page = " ".join("".join(Outline(to_html(report)).text).split())
    latex = to_latex(report).replace(r"\ensuremath{\neq}", "≠").replace("''", '"').replace("{}", "")
    return {"terminal": console.file.getvalue(), "page": page, "markdown": to_markdown(report).replace("\\", ""), "latex": latex}  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", ["terminal", "page", "markdown", "latex"])
def test_every_view_says_the_same_of_paper_trend_and_claims(report, view: str):
    text = views(report)[view]

    assert "67.6" in text
    assert "agrees" in text
    assert "lower" in text
    assert "not comparable, because epochs 20 ≠ 1000" in text
    assert "with the paper's order of 3 cells" in text
    assert "coarse is best" in text
    assert re.search(r"holds\W+coarse is best", text)
    assert re.search(r"fails\W+finer is better", text)


def test_a_cheap_profile_marks_the_number_and_gives_no_verdict_on_its_value(report):
    row = next(line for line in to_markdown(report).splitlines() if line.startswith("| 2 "))

    assert "68.1 or 68.4\\~\\*" in row
    assert not re.search("agrees|higher|lower", row)


def test_agreement_says_how_far_off_a_number_may_be_and_still_agree(study):
    study.finish("grid=4", 59.0, 67.5, 74.0)  # so wide that nearly any number agrees
    report = read_report(study.submit(), "masks")
    halves = sorted((cell.verdict.high - cell.verdict.low) / 2 for cell in report.cells if cell.verdict and cell.verdict.high is not None)

    assert halves[-1] > 20
    assert f"at our spread: ± {halves[0]:.2g} to ± {halves[-1]:.2g} here." in " ".join(caption(report))


@pytest.mark.parametrize(
    ("profile", "said"), [(None, "Not reproduced (of 2"), ("smoke", "Not reproduced in orders and differences, under")]
)
def test_a_cheap_profile_concludes_on_orders_and_differences_alone(study, profile, said: str):
    study.give("grid=2")
    study.plan["profile"] = profile
    page = to_html(read_report(study.submit(), "masks"))

    assert said in page


def test_csv_has_the_papers_number_and_the_verdict_for_each_trial(report):
    rows = {row["axis.grid"]: row for row in csv.DictReader(io.StringIO(to_csv(report)))}

    assert (rows["4"]["published"], rows["4"]["verdict"]) == ("67.6", "agrees")
    assert (rows["8"]["published"], rows["8"]["verdict"]) == ("67.5", "lower")


def test_report_json_has_the_keys_that_were_promised(study):
    raw = json.loads((write_report(study.submit(), "masks") / "report.json").read_text())

    cell = {"row", "column", "mean", "std", "n", "planned", "state", "values", "trials", "published", "verdict", "delta"}
    assert cell <= raw["cells"][0].keys()
    assert {"title", "rows", "columns", "metric", "claims", "trend", "sweep", "profile", "commit"} <= raw.keys()
    assert [claim["state"] for claim in raw["claims"]] == ["holds", "fails"]
    assert raw["trend"][0]["tau"] == 1.0


def test_the_page_draws_the_papers_numbers_and_what_cells_cost(report):
    page = to_html(report)

    assert "Diamonds are the paper" in page
    assert "Mean time of a finished trial" in page
    assert page.index("<table") < page.index("Is it reproduced?") < page.index("Seeds and means")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs, to compile the LaTeX table")
def test_the_judged_table_compiles(report, tmp_path):
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + to_latex(report) + "\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout[-2000:]


def test_several_sweeps_make_one_document_whose_parts_keep_their_ids_apart(study):
    store = study.submit()
    study.plan |= {"sweep": "others", "title": "Another table"}
    study.submit()

    directory = write_combined(store, ["masks", "others"])
    page = (directory / "report.html").read_text()
    outline = Outline(page)
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    links = [attrs["href"] for tag, attrs in outline.elements if tag == "a"]

    assert directory == store.root / "combined" / "masks+others"
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    assert [tag for tag, _ in outline.elements].count("h1") == 1
    assert outline.open == []
    assert [sweep["sweep"] for sweep in json.loads((directory / "report.json").read_text())["sweeps"]] == ["masks", "others"]
    assert len(list(csv.DictReader(io.StringIO((directory / "report.csv").read_text())))) == 18
    assert (directory / "report.tex").read_text().count(r"\begin{table}") == 2


def picture(study, cell: str, name: str = "samples"):
    place = study.directory(cell, 0).pictures / f"{name}.png"
    place.parent.mkdir(exist_ok=True)
    return place


def test_sheets_of_trials_stand_in_the_page_once_each(study):
    import torch

    from ablatrix_models.recipe import Recipe
    from ablatrix_models.samples import sample_sheet

    images = torch.arange(8 * 3 * 32 * 32, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(8, 3, 32, 32)
    sheet = sample_sheet(Recipe(), 0, ImageSet(images, torch.zeros(8, dtype=torch.int64), ("a",)))
    assert sheet is not None
    for cell in ("grid=2", "grid=4"):
        picture(study, cell).write_bytes(sheet)
    picture(study, "grid=4", "knn").write_bytes(sheet)  # a trial's curves show nothing that a network is shown
    picture(study, "grid=8").write_bytes(b"<svg onload=alert(1)>")
    store = study.submit()
    report = read_report(store, "masks")
    samples = read_samples(store, report)

    assert [sample.cells for sample in samples] == ["grid = 2; grid = 4"]
    assert to_html(report, samples).count("<img") == 1
