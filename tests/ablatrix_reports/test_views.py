"""Markdown, LaTeX, CSV and the terminal: views of the same report."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from ablatrix_reports.latex import escape, to_latex
from ablatrix_reports.markdown import to_markdown
from ablatrix_reports.terminal import render_terminal
from ablatrix_reports.trial_rows import to_csv
from ablatrix_reports.write import read_report

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def table(new_study):
    """Two datasets, a baseline, one tie, one failure, one running trial, one exclusion."""
    study = new_study({"dataset": ["a", "b"], "grid": ["2", "4"]}, rows=["grid"], baseline={"grid": "none"})
    for dataset in ("a", "b"):
        study.add({"dataset": dataset, "grid": "none"}, label="MoCo", included=True)
    study.finish("dataset=a,grid=2", 70.0, 71.0, 72.0)
    study.finish("dataset=a,grid=4", 70.1, 70.9, 72.2)
    study.finish("dataset=a,grid=none", 60.0, 61.5, 62.0)
    study.finish("dataset=b,grid=4", 40.0)
    study.status("dataset=b,grid=4", 1, "failed", cause="diverged", message="Traceback\nDiverged: loss is NaN")
    study.status("dataset=b,grid=4", 2, "running")
    study.cell("dataset=b,grid=2").update(excluded="not in the paper", trials=[])
    return read_report(study.submit(), "masks")


@pytest.fixture
def hostile(new_study):
    """Labels that are markup in every language that we write."""
    levels = ["[0.2, 1.0]", "*a|b* _c_", "$x_1$ & 5% #~^\\{}", EVIL, '"=1+1"', "[red]x[/red]", "掩码 α → β"]
    study = new_study({"crop": levels}, title=f"{EVIL} \\input{{secret}} & 100 %", question="a `b` | c", sweep="masks")
    for i, cell in enumerate(study.plan["cells"]):
        cell["note"] = f"note {EVIL}"
        study.finish(cell["id"], 10.0 + i, 11.0 + i, 12.5 + i)
    return read_report(study.submit(), "masks")


def test_markdown_pivots_with_bold_underline_marks_and_differences(table):
    text = to_markdown(table)

    assert "| grid | a | Δ to MoCo | b |" in text
    assert re.search(r"^\| 2 \| <ins>71\.0 ± 1\.0</ins> \| \+9\.8 \[\+9\.1,.\+10\.6\] \| n/a \|$", text, re.M)
    assert re.search(r"^\| 4 \| \*\*71\.1 ± 1\.1\*\* \| .* \| 40\.0 \(n = 1, …\) \|$", text, re.M)
    assert "| MoCo | 61.2 ± 1.0 |  | – |" in text
    assert "diverged: Diverged: loss is NaN" in text
    assert "ablatrix run masks.yaml" in text


def test_markdown_keeps_every_row_as_wide_as_its_head(hostile):
    rows = [line for line in to_markdown(hostile).splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}

    assert len(rows) == 2 + 7
    assert columns == {3}
    assert EVIL not in to_markdown(hostile)


def test_latex_has_booktabs_bold_underline_and_differences_below(table):
    text = to_latex(table)

    assert r"\toprule" in text
    assert r"\textbf{\boldmath 71.1 \ensuremath{\pm} 1.1}" in text
    assert r"\underline{71.0 \ensuremath{\pm} 1.0}" in text
    assert r"{\scriptsize +9.8 [+9.1, +10.6]}" in text
    assert r"40.0 {\scriptsize (n = 1, \ldots{})}" in text
    assert text.isascii()


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 5%", r"a\_b \& 5\%"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("71 ± 2", r"71 \ensuremath{\pm} 2"),
        ("a\nb", "a b"),
        ("$#^~", r"\$\#\textasciicircum{}\textasciitilde{}"),
        ("run --seeds 3 - `x` – y", r"run -{}-seeds 3 - \textasciigrave{}x\textasciigrave{} -- y"),
        ("---", "-{}-{}-"),
    ],
)
def test_latex_sets_text_as_it_reads(text: str, latex: str):
    assert escape(text) == latex


def test_latex_heads_span_their_columns(new_study):
    study = new_study({"grid": ["2"], "dataset": ["a", "b"], "views": ["1", "2"]}, rows=["grid"])

    text = to_latex(read_report(study.submit(), "masks"))

    assert r" & \multicolumn{2}{c}{a} & \multicolumn{2}{c}{b} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text
    assert r"grid & \multicolumn{1}{r}{1} & \multicolumn{1}{r}{2} & \multicolumn{1}{r}{1} & \multicolumn{1}{r}{2} \\" in text


def test_latex_says_when_a_label_needs_another_engine(hostile, table):
    assert "LuaLaTeX" in to_latex(hostile)
    assert "LuaLaTeX" not in to_latex(table)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs, to compile the LaTeX table")
@pytest.mark.parametrize("name", ["table", "hostile"])
def test_latex_compiles(request, tmp_path, name: str):
    body = re.sub(r"[\u4e00-\u9fff]", "x", to_latex(request.getfixturevalue(name)))  # pdflatex has no such fonts
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 1000


def test_csv_has_one_row_for_each_trial_with_all_its_facts(table):
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))

    assert len(rows) == table.coverage.planned == 15
    first = rows[0]
    assert (first["sweep"], first["axis.dataset"], first["axis.grid"], first["seed"]) == ("masks", "a", "2", "0")
    assert (float(first["value"]), float(first["metric.knn.top1"]), first["state"]) == (70.0, 70.0, "finished")
    failed = next(r for r in rows if r["state"] == "failed")
    assert (failed["cause"], failed["value"]) == ("diverged", "")


def test_csv_gives_hostile_labels_back_as_they_were(hostile):
    rows = list(csv.DictReader(io.StringIO(to_csv(hostile))))

    assert list(dict.fromkeys(r["axis.crop"] for r in rows)) == [r.labels[0] for r in hostile.rows]


def rendered(report, **options) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, **options)
    console.print(render_terminal(report))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_shows_the_table_and_what_failed(table):
    text = rendered(table, no_color=True)

    assert "7 of 15" not in text
    assert "10 of 15 trials finished, 1 running, 1 failed, 3 not run." in text
    assert "\x1b[1m71.1 ± 1.1" in text
    assert "\x1b[4m71.0 ± 1.0" in text
    assert "dataset=b,grid=4, seed 1: diverged: Diverged: loss is NaN" in text


def test_the_terminal_has_no_colour_where_none_is_wanted(table):
    assert "\x1b[31m" in rendered(table, color_system="standard")
    assert "\x1b[31m" not in rendered(table, color_system="standard", no_color=True)


def test_the_terminal_reads_labels_as_text_not_as_markup(hostile):
    text = rendered(hostile, no_color=True)

    assert "[red]x[/red]" in text
    assert "[0.2, 1.0]" in text


def test_control_characters_of_a_label_never_reach_a_terminal(new_study):
    study = new_study({"grid": ["2\x1b]0;gotcha\x07", "4\u202e8"]}, title="a\x1b[2Jb")

    report = read_report(study.submit(), "masks")
    text = rendered(report, no_color=True) + to_markdown(report) + to_csv(report)

    assert "\x07" not in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
