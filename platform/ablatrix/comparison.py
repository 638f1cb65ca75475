"""Links that open MLflow on one sweep: its table, its curves, its comparison. Pure; formats as MLflow 3.17 reads them.

Without a link MLflow lands on an empty page for language-model traces, shows no metric in the table, and hides the
trials below their parent. So each link names the workflow, and two of them open a view that the mirror has stored
as a tag of the experiment (MLflow's own "share view" does the same).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

VIEW = "ablatrix"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
MACHINE_LEARNING = "workflowType=machine_learning"
MOST_COMPARED = 100


def links(
    base_url: str, experiment_id: str, parent_run_id: str, child_run_ids: Sequence[str], metric: str, goal: str = "max"
) -> dict[str, str]:
    """Addresses by name; `metric` is MLflow's key of the sweep's metric.

    `runs`: the table of the sweep's trials, a column for each axis and for the metric, best first. `charts`: parallel
    coordinates from the axes to the metric, and its curves. Both open the mirror's stored view; `filtered` is the table
    without it. `compare` and `curves`: MLflow's own compare page, where it picks the parameters itself (the first three
    that differ), and its plot of the metric over epochs, of at most 100 trials. `sweep`: the parent run.
    """
    page = f"{base_url.rstrip('/')}/#"
    experiment = f"{page}/experiments/{_encoded(experiment_id)}"
    several = {"runs": list(child_run_ids[:MOST_COMPARED]), "experiments": [experiment_id]}
    stored = f"{MACHINE_LEARNING}&viewStateShareKey={VIEW}"
    order = {"orderByKey": column("metrics", metric), "orderByAsc": "true" if goal == "min" else "false"}
    return {
        "runs": f"{experiment}/runs?{stored}",
        "charts": f"{experiment}/runs?{stored}&compareRunsMode=CHART",
        # These two pages read `runs` only as the first of the query.
        "compare": f"{page}/compare-runs?{_query(**_json(several))}&{MACHINE_LEARNING}",
        "curves": f"{page}/metric?{_query(**_json(several | _curves(metric)), x_axis='step', y_axis_scale='linear')}&{MACHINE_LEARNING}",
        "filtered": f"{experiment}/runs?{MACHINE_LEARNING}&{_query(searchFilter=children_of(parent_run_id), **order)}",
        "sweep": f"{experiment}/runs/{_encoded(parent_run_id)}?{MACHINE_LEARNING}",
    }


def shared_view(parent_run_id: str, axes: Mapping[str, Sequence[str]], metric: str, final_metric: str, goal: str = "max") -> str:
    """The view that `runs` and `charts` open, as the value of the experiment's tag `VIEW_TAG`.

    axes: the tag that holds an axis's label, and the parameters that it moves. The table shows labels, seed, state and
    metric; the charts are parallel coordinates from the parameters to the final metric, and the metric over epochs.
    """
    columns = [column("tags", tag) for tag in (*axes, "seed", "state")]
    columns += [column("metrics", key) for key in (final_metric, metric)]
    section = _identifier("section")
    keys = list(dict.fromkeys(key for moved in axes.values() for key in moved))
    view = {
        "searchFilter": children_of(parent_run_id), "orderByKey": column("metrics", final_metric), "orderByAsc": goal == "min",
        "startTime": "ALL", "lifecycleFilter": "Active", "modelVersionFilter": "All Runs", "datasetsFilter": [],
        "selectedColumns": columns, "columnOrder": columns, "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [_parallel(section, keys, final_metric), _lines(section, metric)],
        "compareRunSections": [_section(section, "Comparison", columns=2)],
    }  # fmt: skip
    return json.dumps(view, sort_keys=True)


def children_of(parent_run_id: str) -> str:
    """MLflow's filter for the trials of one sweep."""
    return f"tags.`mlflow.parentRunId` = '{parent_run_id}'"


def column(kind: str, key: str) -> str:
    """MLflow's name of a column of its table: `kind` is metrics, params, tags or attributes."""
    return f"{kind}.`{key}`"


def _curves(metric: str) -> dict[str, Any]:
    return {
        "metric": metric, "plot_metric_keys": [metric], "plot_layout": {}, "line_smoothness": 1, "show_point": False,
        "deselected_curves": [], "last_linear_y_axis_range": [],
    }  # fmt: skip


def _parallel(section: str, keys: Sequence[str], metric: str) -> dict[str, Any]:
    chosen = {"selectedParams": list(keys), "selectedMetrics": [metric], "showAllRuns": True}
    return {**_chart("PARALLEL", section, f"{metric} by {', '.join(keys)}"), **chosen}


def _lines(section: str, metric: str) -> dict[str, Any]:
    chosen = {"metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step", "lineSmoothness": 0, "useGlobalLineSmoothing": True}
    return {**_chart("LINE", section, metric), **chosen}


def _chart(kind: str, section: str, title: str) -> dict[str, Any]:
    return {
        "uuid": _identifier(f"{kind} {title}"), "type": kind, "displayName": title, "metricSectionId": section,
        "runsCountToCompare": MOST_COMPARED, "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _section(identifier: str, name: str, columns: int) -> dict[str, Any]:
    return {
        "uuid": identifier, "name": name, "columns": columns, "display": True,
        "isReordered": False, "deleted": False, "isGenerated": False,
    }  # fmt: skip


def _identifier(name: str) -> str:
    """Stable, so that an unchanged view is not written again."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _json(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, separators=(",", ":"), ensure_ascii=False) for name, value in values.items()}


def _query(**values: str) -> str:
    return "&".join(f"{name}={_encoded(value)}" for name, value in values.items())


def _encoded(text: str) -> str:
    return quote(text, safe="")
