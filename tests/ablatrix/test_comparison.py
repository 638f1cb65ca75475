"""Links into MLflow: what they say once a browser has decoded them."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablatrix.comparison import MOST_COMPARED, VIEW, VIEW_TAG, links, shared_view

BASE = "http://127.0.0.1:5000/"


def decoded(link: str) -> tuple[str, dict[str, str]]:
    """Path and query of the part behind `#`, as MLflow's page reads them."""
    route = urlsplit(urlsplit(link).fragment)
    return route.path, dict(parse_qsl(route.query, strict_parsing=True))


def test_the_table_and_the_charts_open_the_stored_view():
    found = links(BASE, "4", "parent", ["a", "b"], "knn.top1")

    stored = {"workflowType": "machine_learning", "viewStateShareKey": VIEW}
    assert decoded(found["runs"]) == ("/experiments/4/runs", stored)
    assert decoded(found["charts"]) == ("/experiments/4/runs", {**stored, "compareRunsMode": "CHART"})
    assert found["runs"].startswith("http://127.0.0.1:5000/#/experiments/4/runs?")
    assert f"mlflow.sharedViewState.{VIEW}" == VIEW_TAG


def test_the_compare_page_names_every_run_first():
    found = links(BASE, "4", "parent", ["a", "b"], "knn.top1")

    path, query = decoded(found["compare"])
    assert (path, next(iter(query))) == ("/compare-runs", "runs")
    assert (json.loads(query["runs"]), json.loads(query["experiments"])) == (["a", "b"], ["4"])


def test_the_curves_show_the_metric_of_every_run():
    path, query = decoded(links(BASE, "4", "parent", ["a", "b"], "knn.top1")["curves"])

    assert (path, next(iter(query))) == ("/metric", "runs")
    assert (json.loads(query["metric"]), json.loads(query["plot_metric_keys"]), query["x_axis"]) == ("knn.top1", ["knn.top1"], "step")


@pytest.mark.parametrize(("goal", "ascending"), [("max", "false"), ("min", "true")])
def test_the_filtered_table_has_the_sweeps_trials_only_and_the_best_first(goal, ascending):
    _, query = decoded(links(BASE, "4", "p1", [], "knn.top1", goal)["filtered"])

    assert query["searchFilter"] == "tags.`mlflow.parentRunId` = 'p1'"
    assert (query["orderByKey"], query["orderByAsc"]) == ("metrics.`knn.top1`", ascending)


def test_the_sweeps_page_is_the_parents():
    assert decoded(links(BASE, "4", "p1", [], "knn.top1")["sweep"])[0] == "/experiments/4/runs/p1"


def test_a_compare_link_stays_short_enough_for_a_browser():
    found = links(BASE, "4", "parent", [f"{n:032x}" for n in range(5000)], "knn.top1")

    assert len(json.loads(decoded(found["compare"])[1]["runs"])) == MOST_COMPARED
    assert max(len(link) for link in found.values()) < 8000


@given(metric=st.text(min_size=1), runs=st.lists(st.text(min_size=1), max_size=3))
def test_every_character_survives_the_encoding(metric, runs):
    found = links(BASE, "4", "parent", runs, metric)

    _, query = decoded(found["curves"])
    assert (json.loads(query["metric"]), json.loads(query["runs"])) == (metric, runs)
    assert decoded(found["filtered"])[1]["orderByKey"] == f"metrics.`{metric}`"
    assert all(" " not in link and '"' not in link and link.count("#") == 1 for link in found.values())


def test_the_stored_view_shows_axes_seed_state_and_metric_in_that_order():
    view = json.loads(shared_view("p1", {"axis.grid": ["mask.grid"], "axis.data": ["data.name"]}, "knn.top1", "final.knn.top1"))

    assert view["selectedColumns"] == [
        "tags.`axis.grid`", "tags.`axis.data`", "tags.`seed`", "tags.`state`", "metrics.`final.knn.top1`", "metrics.`knn.top1`",
    ]  # fmt: skip
    assert view["columnOrder"] == view["selectedColumns"]
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`final.knn.top1`", False)
    assert view["searchFilter"] == "tags.`mlflow.parentRunId` = 'p1'"


def test_the_stored_view_draws_the_axes_parameters_against_the_metric():
    axes = {"axis.size": ["mask.grid", "mask.ratio"], "axis.grid": ["mask.grid"]}

    view = json.loads(shared_view("p1", axes, "knn.top1", "final.knn.top1"))

    parallel, lines = view["compareRunCharts"]
    assert (parallel["type"], parallel["selectedParams"]) == ("PARALLEL", ["mask.grid", "mask.ratio"])
    assert parallel["selectedMetrics"] == ["final.knn.top1"]
    assert (lines["type"], lines["metricKey"]) == ("LINE", "knn.top1")
    assert {c["metricSectionId"] for c in view["compareRunCharts"]} == {view["compareRunSections"][0]["uuid"]}


def test_an_unchanged_view_is_the_same_text():
    arguments = ("p1", {"axis.grid": ["mask.grid"]}, "knn.top1", "final.knn.top1", "min")

    assert shared_view(*arguments) == shared_view(*arguments)
