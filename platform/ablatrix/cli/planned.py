"""`ablatrix plan`: what would run, what is there, what is left out, and what it will cost."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from ablatrix import board, cost, search_plan
from ablatrix.cli import output
from ablatrix.cli.options import fingerprint
from ablatrix.cost import Forecast, Measure
from ablatrix.errors import AblatrixError
from ablatrix.identity import digest
from ablatrix.packing import room
from ablatrix.plan import Plan
from ablatrix.schema import Budget, Resources
from ablatrix.search_plan import judged_on_test_images
from ablatrix.store import Store

DRIVER = Path("/proc/driver/nvidia/gpus")
LEFT = ("to run", "running here")


def show(plan: Plan, store: Store, as_json: bool, budget: Budget, cpus: int | None = None, probe: bool = False) -> None:
    """Print the plan against the store; raises Refused at the end where it is over its budget."""
    rows = listed(plan, store)
    measured = cost.measures(plan, store)
    if probe:
        measured = {**probed(plan, store, {row["cell"] for row in rows if row["plan"] in LEFT} - set(measured)), **measured}
    expected = foreseen(plan, rows, measured, cpus)
    warnings = sense(plan)
    counts = Counter(row["plan"] for row in rows)
    if as_json:
        head = {"schema": 1, "sweep": plan.name, "store": str(store.root), "counts": dict(counts), "cost": expected.as_mapping()}
        output.print_json({**head, "warnings": warnings, "trials": rows})
    else:
        _print(rows)
        notes = output.notes()
        notes.print(f"{plan.name}: " + (", ".join(f"{count} {state}" for state, count in counts.items()) or "no trials"))
        for line in told(expected, store):
            notes.print(line)
        for warning in warnings:
            notes.print(f"doubtful: {warning}", style="yellow")
    cost.hold_to(budget, expected)


def as_stored(plan: Plan, store: Store) -> Plan:
    """The plan; of a search with the suggestions that it has made so far in this store."""
    if not plan.suggestions:
        return plan
    from ablatrix.search import with_recorded

    return with_recorded(plan, store.sweep(plan.name), fingerprint)


def refuse_over_budget(plan: Plan, store: Store, budget: Budget, cpus: int | None) -> None:
    """Raise Refused where what is to run costs more than it may."""
    if budget.trials is None and budget.gpu_hours is None:
        return
    plan = as_stored(plan, store)
    rows = listed(plan, store)
    measured = cost.measures(plan, store) if budget.gpu_hours is not None else {}
    cost.hold_to(budget, foreseen(plan, rows, measured, cpus))


def limits(plan: Plan, trials: int | None, gpu_hours: float | None) -> Budget:
    """The budget of a plan: that of the profile or the file, with what the command line says instead."""
    profile = plan.spec.file.profiles[plan.profile].budget if plan.profile else None
    own = profile or plan.spec.file.budget
    return Budget(trials=own.trials if trials is None else trials, gpu_hours=own.gpu_hours if gpu_hours is None else gpu_hours)


def listed(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One row for each trial, each suggestion that is still to come, and each excluded cell.

    A trial that several cells share is listed once, for the first of them; `also` names the others.
    """
    now, owners = time.time(), _sweeps_of(store)
    by_trial: dict[str, dict[str, Any]] = {}
    for trial in plan.trials:
        if trial.id in by_trial:
            by_trial[trial.id]["also"].append(trial.cell)
        else:
            by_trial[trial.id] = _row(store, trial, owners, plan.name, now) | {"also": []}
    rows = list(by_trial.values())
    made = sum(not cell.included for cell in plan.cells) if plan.suggestions else 0
    rows += [
        {"plan": "to run", "trial": None, "cell": f"suggestion={number}", "seed": plan.seeds[0], "why": "not suggested yet", "left": 1.0}
        for number in range(made, plan.suggestions)
    ]
    rows += [
        {"plan": "excluded", "trial": None, "cell": cell.id, "seed": None, "why": cell.excluded, "left": 0.0}
        for cell in plan.cells
        if cell.excluded
    ]
    return rows


def _row(store: Store, trial: Any, owners: dict[str, list[str]], sweep: str, now: float) -> dict[str, Any]:
    state = board.state_of(store.trial(trial.id), trial.seed, now)
    others = [name for name in owners.get(trial.id, []) if name != sweep]
    kind, why, left = "to run", None, 1.0
    if state.state == "finished":
        kind, left = "in store", 0.0
        why = f"of {', '.join(others)}" if others and sweep not in owners.get(trial.id, []) else None
    elif state.state == "running":
        here = sweep in owners.get(trial.id, [])
        kind = "running here" if here and not others else "running elsewhere"
        why = f"on {state.host}, epoch {state.epoch}/{state.epochs}" + (f", of {', '.join(others)}" if others else "")
    elif state.state == "failed":
        why = f"failed before ({state.cause})"
    elif state.state in ("stopped", "lost"):
        why = f"from epoch {state.epoch}"
    if kind != "in store" and state.epochs:
        left = max(0.0, 1 - state.epoch / state.epochs)
    return {"plan": kind, "trial": trial.id, "cell": trial.cell, "seed": trial.seed, "why": why, "left": round(left, 4)}


def _sweeps_of(store: Store) -> dict[str, list[str]]:
    """The sweeps that want a trial, by trial."""
    found: dict[str, list[str]] = {}
    for sweep in store.sweeps():
        try:
            cells = sweep.plan()["cells"]
            for trial in dict.fromkeys(trial["trial"] for cell in cells for trial in cell["trials"]):
                found.setdefault(trial, []).append(sweep.name)
        except (AblatrixError, KeyError, TypeError):  # another sweep's damaged plan is no reason to refuse this one
            continue
    return found


def foreseen(plan: Plan, rows: list[dict[str, Any]], measured: dict[str, Measure], cpus: int | None) -> Forecast:
    """The cost of the rows that are to run."""
    return cost.forecast(plan, [(row["cell"], row["left"]) for row in rows if row["plan"] in LEFT], measured, at_once(plan.resources, cpus))


def at_once(resources: Resources, cpus: int | None) -> int:
    """How many trials this machine runs side by side."""
    cores = cpus or len(os.sched_getaffinity(0))
    places = cores // resources.cpus
    if resources.gpus:
        gpus = len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
        asked = Resources(cpus=resources.cpus, gpus=resources.gpus)
        places = room(asked, 1.0, [{"Alive": True, "Resources": {"CPU": cores, "GPU": gpus}}]) if gpus else places
    return max(1, places // resources.workers)


def probed(plan: Plan, store: Store, cells: set[str]) -> dict[str, Measure]:
    """Run a few real steps of every distinct recipe among `cells`; each measure is kept in the store."""
    from ablatrix.probe import probe

    recipes = {cell.id: cell.recipe for cell in plan.cells if cell.id in cells and cell.recipe}
    if coming := sorted(cells - {cell.id for cell in plan.cells}):  # suggestions, for which one of them has to stand
        example = search_plan.example(plan.spec, plan.profile, plan.overrides)
        recipes |= dict.fromkeys(coming, example) if example else {}
    by_recipe: dict[str, Measure] = {}
    for cell, recipe in recipes.items():
        key = digest(recipe.identity())
        if key not in by_recipe:
            output.notes().print(f"probing {cell} …")
            measured = probe(recipe, plan.resources)
            cost.write_probe(store, key, plan.resources, measured)
            by_recipe[key] = cost.by_workers(measured, plan.resources)
    return {cell: by_recipe[digest(recipe.identity())] for cell, recipe in recipes.items()}


def sense(plan: Plan) -> list[str]:
    """Doubts about the cells' recipes, each told once with the first cell that it concerns, and about what a search chooses by."""
    from ablatrix_models.recipe.sense import doubts

    found: dict[str, list[str]] = {}
    for cell in plan.cells:
        for doubt in doubts(cell.recipe) if cell.recipe else ():
            found.setdefault(f"{doubt.key} {doubt.message}", []).append(cell.id)
    told = [f"{message} ({cells[0]}{f' and {len(cells) - 1} more cells' if len(cells) > 1 else ''})" for message, cells in found.items()]
    if plan.spec.file.search and judged_on_test_images(plan.spec, plan.profile, plan.overrides):
        told.append(
            "search chooses by the test images, so the best suggestion's accuracy on them is too high to report. Set data.held_out, which "
            "judges on training images set apart, and run the best on the test images as a sweep."
        )
    return told


def told(expected: Forecast, store: Store) -> list[str]:
    """The forecast in words."""
    if not expected.to_run:
        return ["Nothing is to run."]
    if not expected.known:
        return ["The cost is unknown: no trial of these recipes has finished in this store. `ablatrix plan --probe` measures a few steps."]
    gpu = f"{expected.gpu_hours:.2f} GPU-hours, " if expected.gpu_hours else ""
    memory = f", {expected.memory_mb / 1000:.1f} GB of memory each" if expected.memory_mb else ""
    memory += f", {expected.gpu_memory_mb / 1000:.1f} GB of GPU memory" if expected.gpu_memory_mb else ""
    lines = [
        f"Cost: {gpu}{expected.cpu_hours:.2f} CPU-hours, {_clock(expected.wall_hours)} with {expected.at_once} at a time; "
        f"{expected.disk_gb:.2f} GB of disk ({store.free_gb():.0f} free){memory}. From {'; '.join(expected.sources)}."
    ]
    if expected.known < expected.to_run:
        lines.append(f"That is for {expected.known} of {expected.to_run} trials; of the others nothing is known. `--probe` measures them.")
    if expected.without:
        lines.append(f"Not in it: the evaluation by {', '.join(expected.without)}, which a probe does not measure.")
    return lines


def _clock(hours: float) -> str:
    minutes = hours * 60
    return f"{hours:.1f} hours" if hours >= 2 else f"{minutes:.0f} minutes" if minutes >= 2 else f"{minutes * 60:.0f} seconds"


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("plan", "trial", "cell", "seed", "why"):
        table.add_column(name)
    for row in rows:
        more = f" (+{len(row['also'])})" if row.get("also") else ""
        table.add_row(
            row["plan"], row["trial"] or "", row["cell"] + more, "" if row["seed"] is None else str(row["seed"]), row["why"] or ""
        )
    output.data().print(table)
