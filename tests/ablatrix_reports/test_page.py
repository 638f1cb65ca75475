"""The HTML page and its pictures: complete, safe, and in need of nothing."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from ablatrix_reports import figures
from ablatrix_reports.curve_figure import curves
from ablatrix_reports.page import to_html
from ablatrix_reports.write import read_report
from page_outline import Outline

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture
def report(new_study):
    study = new_study(
        {"dataset": ["a", "b"], "grid": ["2", EVIL]}, rows=["grid"], baseline={"grid": "2"}, title=f"Title {EVIL}", question=EVIL
    )
    for name in ("dataset=a,grid=2", "dataset=b,grid=2"):
        study.finish(name, 60.0, 61.0, 62.0)
        for seed in study.seeds:
            study.reports(name, seed, 10.0, 50.0, 60.0)
    study.finish(f"dataset=a,grid={EVIL}", 70.0, 71.0, 72.5)
    study.cell("dataset=a,grid=2")["note"] = EVIL
    study.status(f"dataset=b,grid={EVIL}", 0, "failed", cause=EVIL, message=f"line one\n{EVIL}")
    return read_report(study.submit(), "masks", curves=True)


def test_nothing_of_a_sweep_or_a_trial_becomes_markup(report):
    page = to_html(report)
    outline = Outline(page)

    assert outline.open == []
    assert [tag for tag, _ in outline.elements].count("script") == 1
    assert "img" not in {tag for tag, _ in outline.elements}
    assert not any(name.startswith("on") for _, attrs in outline.elements for name in attrs)
    assert EVIL in "".join(outline.text)


def test_the_page_needs_no_network_and_runs_no_other_script(report):
    page = to_html(report)
    outline = Outline(page)
    script = re.search(r"<script>(.*?)</script>", page, re.S)
    policy = next(attrs["content"] for tag, attrs in outline.elements if attrs.get("http-equiv") == "Content-Security-Policy")

    links = [v for _, attrs in outline.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert all(v and v.startswith("#") for v in links)
    assert "url(http" not in page
    assert "@import" not in page
    assert script is not None
    assert policy is not None
    assert base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy


def test_the_page_can_be_read_by_a_screen_reader(report):
    outline = Outline(to_html(report))
    tags = [tag for tag, _ in outline.elements]
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]

    assert ("html", {"lang": "en"}) in outline.elements
    assert tags.count("h1") == 1
    assert "caption" in tags
    assert all("scope" in attrs for tag, attrs in outline.elements if tag == "th")
    assert all("aria-label" in attrs for tag, attrs in outline.elements if tag == "svg")
    assert len(ids) == len(set(ids))


def test_the_table_stands_first_and_shows_what_the_report_holds(report):
    page = to_html(report)

    assert page.index("<table") < page.index("<figure")
    assert '<strong class="value">71.2 ± 1.3</strong>' in page
    assert "Δ +10.2" in page
    assert '<span class="mark failed">✕</span>' in page
    assert "9 of 12 trials finished, 1 failed, 2 not run" in page
    assert "ablatrix run masks.yaml" in page
    assert report.trials[-3].log in page
    assert "2.11.0" in page


def test_rows_sort_by_the_number_not_by_its_text(report):
    cells = [attrs for tag, attrs in Outline(to_html(report)).elements if tag == "td" and "data-sort" in attrs]

    assert "71.16666666666667" in [attrs["data-sort"] for attrs in cells]
    assert "" in [attrs["data-sort"] for attrs in cells]


@pytest.mark.parametrize("axes", [{}, {"grid": ["2"]}, {"a": ["1", "2"], "b": ["1"], "c": ["1", "2"]}])
def test_a_sweep_without_a_finished_trial_is_a_page_all_the_same(new_study, axes):
    study = new_study(axes)

    report = read_report(study.submit(), "masks", curves=True)
    outline = Outline(to_html(report))

    assert outline.open == []
    assert figures.levels(report) is None
    assert curves(report) is None
    assert any(text.startswith("0 of") for text in outline.text)


@pytest.mark.parametrize(("reported", "dots"), [((20.0,), 1), ((20.0, 30.0), 0)])
def test_what_was_measured_at_one_epoch_alone_is_a_dot_in_the_curves(new_study, reported, dots):
    study = new_study({"grid": ["2", "none"]}, rows=["grid"])
    for cell in ("grid=2", "grid=none"):
        study.finish(cell, 50.0, 51.0, 52.0)
    for seed in study.seeds:
        study.reports("grid=2", seed, 10.0, 50.0)
        study.reports("grid=none", seed, *(value + seed for value in reported))
    picture = curves(read_report(study.submit(), "masks", curves=True))

    assert picture is not None
    assert len(re.findall(r"<use [^>]*fill: var\(--series-2\); stroke: var", picture.svg)) == dots


def test_three_axes_head_the_table_with_spans(new_study):
    study = new_study({"grid": ["2"], "dataset": ["a", "b"], "views": ["1", "2"]}, rows=["grid"])

    elements = Outline(to_html(read_report(study.submit(), "masks"))).elements

    assert sum(attrs.get("colspan") == "2" and attrs.get("scope") == "colgroup" for _, attrs in elements) == 2


def test_the_picture_shows_every_seed_in_the_colours_of_the_page(report):
    picture = figures.levels(report)

    assert picture is not None
    assert picture.svg.count("<use ") >= 9
    assert "currentColor" in picture.svg
    assert "var(--accent)" in picture.svg
    assert not re.search(r"#0[1-4]0[1-4]0\d", picture.svg)
    assert "<text" in picture.svg
    assert "Dashed: grid = 2" in picture.caption


def test_labels_with_dollars_and_foreign_letters_are_drawn_as_text(new_study):
    study = new_study({"grid": ["$x^2$", "网格", "a" * 80]})
    for cell in study.plan["cells"]:
        study.finish(cell["id"], 1.0, 2.0, 3.0)

    picture = figures.levels(read_report(study.submit(), "masks"))

    assert picture is not None
    assert ">$x^2$<" in picture.svg
    assert ">网格<" in picture.svg
    assert "a" * 27 + "…<" in picture.svg


def test_an_interval_that_leaves_the_picture_ends_in_an_arrow(new_study):
    wide, narrow = new_study({"grid": ["2", "4"]}, seeds=(0, 1)), (1.0, 2.0)
    wide.finish("grid=2", *narrow)
    wide.finish("grid=4", 1.4, 1.6)

    picture = figures.levels(read_report(wide.submit(), "masks"))

    assert picture is not None
    assert "arrow" in picture.caption
    assert len(re.findall(r"<defs>", picture.svg)) > 2


def test_curves_fall_back_to_the_training_loss_where_the_metric_came_once(new_study):
    study = new_study({"grid": ["2", "4"]}, seeds=(0,))
    for cell in ("grid=2", "grid=4"):
        study.reports(cell, 0, 5.0, 3.0, 2.0, name="train.loss")
        study.finish(cell, 60.0)

    picture = curves(read_report(study.submit(), "masks", curves=True))

    assert picture is not None
    assert picture.caption.startswith("train.loss over epochs")
    assert [key.label for key in picture.legend] == ["2", "4"]


def test_more_rows_than_colours_leave_the_best_and_the_baseline_coloured(new_study):
    study = new_study({"grid": [str(i) for i in range(9)]}, seeds=(0, 1), baseline={"grid": "0"})
    for i in range(9):
        study.reports(f"grid={i}", 0, 5.0, 10.0 + i)
        study.finish(f"grid={i}", 10.0 + i, 10.5 + i)

    picture = curves(read_report(study.submit(), "masks", curves=True))

    assert picture is not None
    assert [key.label for key in picture.legend] == ["0", "8", "the others"]


def test_a_wide_table_draws_what_fits_and_says_so(new_study):
    study = new_study({"grid": [str(i) for i in range(45)], "dataset": list("abcdefg")}, rows=["grid"], seeds=(0,))
    for cell in study.plan["cells"]:
        study.finish(cell["id"], 50.0)

    picture = figures.levels(read_report(study.submit(), "masks"))

    assert picture is not None
    assert "The first 40 of 45 rows. The first 6 of 7 columns." in picture.caption
