"""The report's files: five views of one truth, the same bytes for the same store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablatrix.errors import InvalidInput
from ablatrix_reports.write import read_report, write_report

FILES = ["report.csv", "report.html", "report.json", "report.md", "report.tex"]


@pytest.fixture
def study(new_study):
    study = new_study({"dataset": ["a", "b"], "grid": ["2", "4"]}, rows=["grid"], baseline={"grid": "2"})
    for i, cell in enumerate(study.plan["cells"]):
        study.finish(cell["id"], 60.0 + i, 61.0 + i, 62.5 + i + 0.5 * (i % 2))
        study.reports(cell["id"], 0, 10.0, 50.0, 60.0)
    return study


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_five_files_are_written_beside_the_plan(study):
    store = study.submit()

    directory = write_report(store, "masks")

    assert directory == store.root / "sweeps" / "masks" / "report"
    assert sorted(contents(directory)) == FILES


def test_the_same_store_gives_the_same_bytes_in_another_process(study):
    store = study.submit()
    first = contents(write_report(store, "masks"))

    code = "import sys; from pathlib import Path; from ablatrix.store import Store; from ablatrix_reports.write import write_report\n"
    run = f"{code}write_report(Store(Path(sys.argv[1])), 'masks')"
    other = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", run, str(store.root)], check=True, timeout=120, env=other)

    assert contents(store.sweep("masks").report) == first


def test_report_json_is_strict_and_holds_every_cell(study):
    store = study.submit()

    raw = json.loads((write_report(store, "masks") / "report.json").read_text(), parse_constant=pytest.fail)
    cell = next(c for c in raw["cells"] if c["id"] == "dataset=b,grid=4")

    assert (raw["schema"], raw["sweep"], raw["profile"], raw["commit"], raw["title"]) == (1, "masks", None, "0123456789abcdef", "Mask grid")
    assert [r["labels"] for r in raw["rows"]] == [["2"], ["4"]]
    assert [c["labels"] for c in raw["columns"]] == [["a"], ["b"]]
    assert (raw["claims"], raw["trend"], cell["published"], cell["verdict"]) == ([], [], None, None)
    assert (cell["row"], cell["column"], cell["n"], cell["planned"], cell["state"]) == ("grid=4", "dataset=b", 3, 3, "finished")
    assert cell["values"] == {"0": 63.0, "1": 64.0, "2": 66.0}
    assert cell["delta"].keys() == {"mean", "low", "high", "n", "p", "holm", "seeds_needed"}
    assert cell["delta"]["mean"] == pytest.approx(7 / 6)
    assert 0 < cell["delta"]["low"] < cell["delta"]["mean"] < cell["delta"]["high"]
    assert cell["best"]


def test_a_report_follows_the_store(study):
    study.plan["cells"][0]["trials"].append({"trial": study.trial_id("dataset=a,grid=2", 3), "seed": 3})
    store = study.submit()
    before = contents(write_report(store, "masks"))
    study.seeds = [3]
    study.finish("dataset=a,grid=2", 99.0)

    after = contents(write_report(store, "masks"))

    assert all(before[name] != after[name] for name in FILES)


def test_a_torn_trial_leaves_the_rest_of_the_report_whole(study):
    store = study.submit()
    (study.directory("dataset=a,grid=2", 0).path / "result.json").write_text('{"tri')

    pages = contents(write_report(store, "masks"))
    cells = {c.id: c for c in read_report(store, "masks").cells}

    assert sorted(pages) == FILES
    assert (cells["dataset=a,grid=2"].n, cells["dataset=a,grid=2"].state) == (2, "failed")
    assert cells["dataset=a,grid=4"].n == 3
    assert b"cannot be read" in pages["report.html"]


def test_a_profile_has_a_report_of_its_own(study):
    study.plan["profile"] = "smoke"
    study.store.sweep("masks@smoke").submit("schema: 1\n", study.plan)

    directory = write_report(study.store, "masks@smoke")

    assert directory.parent.name == "masks@smoke"
    assert read_report(study.store, "masks@smoke").name == "masks@smoke"
    with pytest.raises(InvalidInput, match="no sweep 'masks'"):
        write_report(study.store, "masks")


def test_the_users_matplotlib_settings_do_not_reach_the_report(study):
    import matplotlib as mpl

    store = study.submit()
    first = contents(write_report(store, "masks"))
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        second = contents(write_report(store, "masks"))

    assert first == second


def test_the_terminal_table_needs_none_of_the_heavy_libraries(study):
    store = study.submit()
    code = (
        "import sys; from pathlib import Path; from ablatrix.store import Store\n"
        "from ablatrix_reports.write import read_report, render_terminal; from rich.console import Console\n"
        "Console().print(render_terminal(read_report(Store(Path(sys.argv[1])), 'masks')))\n"
        "print([m for m in ('matplotlib', 'pandas', 'scipy.stats', 'jinja2', 'torch', 'ray', 'mlflow') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code, str(store.root)], check=True, capture_output=True, text=True, timeout=120)

    assert done.stdout.strip().endswith("[]")


@pytest.mark.slow
def test_a_report_is_linear_in_the_number_of_trials(new_study, monkeypatch):
    def cpu_seconds(cells: int, name: str) -> float:
        study = new_study({"grid": [str(i) for i in range(cells)]}, seeds=range(5), baseline={"grid": "0"}, sweep=name)
        for i in range(cells):
            study.finish(f"grid={i}", *(60.0 + i % 7 + 0.1 * s for s in range(5)))
        store = study.submit()
        start = time.process_time()
        write_report(store, name)
        return time.process_time() - start

    monkeypatch.setattr("os.fsync", lambda _: None)
    cpu_seconds(10, "warm")
    small, large = cpu_seconds(100, "small"), cpu_seconds(1000, "large")

    assert large < 20 * small
