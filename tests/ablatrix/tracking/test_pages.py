"""MLflow's pages behind our links, in a real browser against a real server, without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablatrix import cli, tracking
from ablatrix.records import Status, TrialRecipe
from ablatrix.store import Store
from browser import Browser, program
from stored_sweep import START, SWEEP, end, plan, report, use

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
    pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning"),
]
DATASETS, GRIDS = ("cifar100", "tiny-imagenet"), ("2", "4", "8")
AXES = [
    {"name": "dataset", "keys": ["data.name"], "levels": list(DATASETS)},
    {"name": "grid", "keys": ["mask.grid"], "levels": list(GRIDS)},
]
# MLflow's assistant would open over the page on a first visit.
SEEN_BEFORE = {"mlflow.assistant.panelOpen_v1": "false", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Six finished trials, of two axes and one seed, mirrored into the store's own database."""
    store = Store(tmp_path_factory.mktemp("pages") / "runs")
    levels = [(dataset, grid) for dataset in DATASETS for grid in GRIDS]
    wanted = plan(grids=[f"{dataset},{grid}" for dataset, grid in levels], seeds=[0], axes=AXES)
    for number, (cell, (dataset, grid)) in enumerate(zip(wanted["cells"], levels, strict=True)):
        cell |= {"id": f"dataset={dataset},grid={grid}", "levels": {"dataset": dataset, "grid": grid}}
        trial = store.trial(cell["trials"][0]["trial"])
        trial.create(TrialRecipe(trial.id, 0, "data-1", {"data": {"name": dataset}, "mask": {"grid": int(grid), "kind": "discrete"}}))
        trial.write_status(Status(trial.id, "running", 1, "node-1", 7, 1, started=START + number, updated=START))
        use(trial, [5, 10, 15])
        report(trial, range(1, 11))
        end(trial, epochs=10)
    store.sweep(SWEEP).submit("sweep: grid-sweep\n", wanted)
    mirror = tracking.Mirror(store, SWEEP, tracking.tracking_uri(None, store))
    mirror.cell_means({cell["id"]: 60.0 for cell in wanted["cells"]})
    mirror.mirror_once()
    yield store
    tracking.stop_server(store)


@pytest.fixture(scope="module")
def links(store: Store) -> dict[str, str]:
    """What `ablatrix ui` prints."""
    return printed(store)["links"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"))
    browser.open(links["runs"].partition("#")[0])
    browser.evaluate(f"Object.entries({json.dumps(SEEN_BEFORE)}).forEach(([name, value]) => localStorage.setItem(name, value))")
    yield browser
    browser.close()


def printed(store: Store) -> dict[str, Any]:
    import contextlib
    import io

    written = io.StringIO()
    with contextlib.redirect_stdout(written), pytest.raises(SystemExit) as ended:
        cli.main(["ui", SWEEP, "--store", str(store.root), "--json"])
    assert ended.value.code == 0
    return json.loads(written.getvalue())


def see(browser: Browser, link: str, name: str, *words: str) -> str:
    """The text of a page once it shows `words`; its picture goes to ABLATRIX_SCREENSHOTS, where that is set."""
    browser.open(link)
    try:
        return browser.wait_for(*words)
    finally:
        if place := os.environ.get("ABLATRIX_SCREENSHOTS"):
            browser.screenshot(Path(place) / f"{name}.png")


def test_the_table_has_the_sweeps_runs_with_a_column_for_each_axis_and_the_metric(browser, links):
    names = [f"dataset={dataset}, grid={grid}" for dataset in DATASETS for grid in GRIDS]

    text = see(browser, links["runs"], "runs", *names, "axis.dataset", "axis.grid", "final.knn.top1")

    assert "65" in text  # the last trial's 50 + 10 epochs + 5


def test_the_charts_are_parallel_coordinates_from_the_axes_to_the_metric_and_its_curves(browser, links):
    shown = ("Parallel Coordinates", "data.name", "mask.grid", "final.knn.top1", "tiny-imagenet", "dataset=cifar100, grid=2")

    text = see(browser, links["charts"], "charts", *shown)

    assert browser.evaluate("document.querySelectorAll('svg, canvas').length") > 2
    assert "No charts" not in text


def test_the_compare_page_shows_the_axes_and_every_run(browser, links):
    see(browser, links["compare"], "compare", "Comparing 6 Runs", "Parallel Coordinates Plot", "data.name", "mask.grid", "final.knn.top1")


def test_the_curves_page_draws_the_metric_of_every_run(browser, links):
    see(browser, links["curves"], "curves", "knn.top1", "dataset=tiny-imagenet, grid=8", "56 (step=1)", "65 (step=10)")


def test_the_filtered_table_shows_the_trials_and_not_the_sweeps_own_run(browser, links):
    see(browser, links["filtered"], "filtered", "dataset=cifar100, grid=2", "dataset=tiny-imagenet, grid=8")


def test_the_sweeps_page_has_its_cell_means(browser, links):
    see(browser, links["sweep"], "sweep", SWEEP, "cell.dataset_cifar100_grid_2", "Mask grid")


def test_a_second_ui_finds_the_server_and_no_page_asked_for_anything_outside_this_machine(store, browser, links):
    again = printed(store)["links"]
    outside = {url for url in browser.requested if url.startswith("http") and not url.startswith("http://127.0.0.1:")}

    assert again == links
    assert outside == set()
    assert len(browser.requested) > 20
