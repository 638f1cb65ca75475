"""What a plan will cost: from what trials of the same recipe have taken, in this store or in a probe."""

from __future__ import annotations

import contextlib
import heapq
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ablatrix import search_plan
from ablatrix.errors import AblatrixError, Refused
from ablatrix.identity import digest
from ablatrix.plan import Plan
from ablatrix.records import SCHEMA, encode, read_json, write_atomically
from ablatrix.schema import Budget, Resources
from ablatrix.store import Store, TrialDirectory

HOUR = 3600.0


@dataclass(frozen=True)
class Measure:
    """What one trial of a recipe takes: seconds of work, bytes in the store, peak memory in 1e6 bytes where known; and where from.

    `without` names parts of the trial that a probe did not measure.
    """

    seconds: float
    size: float
    memory_mb: float | None
    gpu_memory_mb: float | None
    source: str
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """The cost of what is to run. Sums are over the `known` of the trials `to_run`; the wall time is at `at_once` of them."""

    to_run: int
    known: int
    at_once: int
    cpu_hours: float
    gpu_hours: float
    wall_hours: float
    disk_gb: float
    memory_mb: float | None
    gpu_memory_mb: float | None
    sources: tuple[str, ...]
    without: tuple[str, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self)


def measures(plan: Plan, store: Store) -> dict[str, Measure]:
    """What is known of the cells' trials, by cell: from finished trials of the cell, of its recipe in other sweeps, or of a probe.

    Suggestions that a search has not made yet are expected to cost what the middle of the others does, else what a probe of one did.
    """
    known = _of_cells(plan, store)
    return known | _to_come(plan, store, known)


def _of_cells(plan: Plan, store: Store) -> dict[str, Measure]:
    gpu = plan.resources.gpus > 0
    own: dict[str, list[Measure]] = {}
    for trial in plan.trials:
        if found := _of_trial(store.trial(trial.id), gpu):
            own.setdefault(trial.cell, []).append(found)
    known = {cell: _middle(found, f"{len(found)} finished") for cell, found in own.items()}
    unknown = [cell for cell in plan.cells if cell.recipe and not cell.excluded and cell.id not in known]
    if not unknown:
        return known
    others = _by_recipe(store, {trial.id for trial in plan.trials}, gpu)
    for cell in unknown:
        assert cell.recipe is not None
        if found := others.get(digest(cell.recipe.as_mapping())):
            known[cell.id] = _middle(found, f"{len(found)} finished in other sweeps")
        elif probed := read_probe(store, digest(cell.recipe.identity()), plan.resources):
            known[cell.id] = probed
    return known


def _to_come(plan: Plan, store: Store, known: Mapping[str, Measure]) -> dict[str, Measure]:
    made = [cell.id for cell in plan.cells if not cell.included]
    found = [known[cell] for cell in made if cell in known]
    expected = replace(_middle(found, ""), source="suggestions that are known", without=found[0].without) if found else None
    if plan.suggestions and expected is None and (example := search_plan.example(plan.spec, plan.profile, plan.overrides)):
        expected = read_probe(store, digest(example.identity()), plan.resources)
    coming = range(len(made), plan.suggestions) if expected else ()
    return {f"{search_plan.SUGGESTION}={number}": expected for number in coming if expected}


def forecast(plan: Plan, left: Sequence[tuple[str, float]], known: Mapping[str, Measure], at_once: int) -> Forecast:
    """left: the cell of each trial to run, in order, and the share of it that is still to do."""
    resources, costs = plan.resources, [(known[cell], share) for cell, share in left if cell in known]
    seconds = [measure.seconds * share for measure, share in costs]
    used = list(dict.fromkeys(measure for measure, _ in costs))
    gpu_memory = [m.gpu_memory_mb for m in used if m.gpu_memory_mb is not None]
    return Forecast(
        to_run=len(left),
        known=len(costs),
        at_once=at_once,
        cpu_hours=sum(seconds) * resources.cpus * resources.workers / HOUR,
        gpu_hours=sum(seconds) * resources.gpus * resources.workers / HOUR,
        wall_hours=wall_seconds(seconds, at_once) / HOUR,
        disk_gb=sum(measure.size for measure, _ in costs) / 1e9,
        memory_mb=max((m.memory_mb for m in used if m.memory_mb is not None), default=None),
        gpu_memory_mb=max(gpu_memory, default=None),
        sources=tuple(dict.fromkeys(measure.source for measure in used)),
        without=tuple(sorted({part for measure in used for part in measure.without})),
    )


def wall_seconds(seconds: Iterable[float], at_once: int) -> float:
    """When the last of these trials ends, started in order on `at_once` places."""
    places = [0.0] * max(1, at_once)
    for length in seconds:
        heapq.heapreplace(places, places[0] + length)
    return max(places)


def hold_to(budget: Budget, cost: Forecast) -> None:
    """Raise Refused where a plan costs more than its budget, or where its GPU-hours cannot be told."""
    problems = []
    if budget.trials is not None and cost.to_run > budget.trials:
        problems.append(f"{cost.to_run} trials are to run, but the budget is {budget.trials}")
    if budget.gpu_hours is not None and cost.gpu_hours > budget.gpu_hours:
        problems.append(f"{cost.gpu_hours:.2f} GPU-hours are expected, but the budget is {budget.gpu_hours:g}")
    elif budget.gpu_hours is not None and cost.known < cost.to_run:
        unknown = cost.to_run - cost.known
        problems.append(
            f"the budget is {budget.gpu_hours:g} GPU-hours, but the cost of {unknown} of {cost.to_run} trials is unknown. "
            "`ablatrix plan --probe` measures it"
        )
    if problems:
        raise Refused(f"over budget: {'; '.join(problems)}. Raise `budget` or the option, or make the sweep smaller.")


def write_probe(store: Store, recipe: str, resources: Resources, measure: Measure) -> None:
    """Keep a probe's measure of a recipe, by the digest of its identity."""
    write_atomically(_probe_file(store, recipe, resources), encode({"schema": SCHEMA, **asdict(measure)}))


def read_probe(store: Store, recipe: str, resources: Resources) -> Measure | None:
    """The measure of an earlier probe, None where there is none that can be read."""
    with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
        raw = read_json(_probe_file(store, recipe, resources))
        if raw:
            values = {name: raw[name] for name in Measure.__dataclass_fields__}
            return by_workers(Measure(**{**values, "without": tuple(raw["without"])}), resources)
    return None


def by_workers(probed: Measure, resources: Resources) -> Measure:
    """What a probe of one process says of a trial whose workers share its batches."""
    return replace(probed, seconds=probed.seconds / resources.workers)


def _probe_file(store: Store, recipe: str, resources: Resources) -> Any:
    return store.root / "probes" / f"{recipe}-{'gpu' if resources.gpus else 'cpu'}.json"


def _of_trial(directory: TrialDirectory, gpu: bool) -> Measure | None:
    """What a finished trial took, on the same kind of device."""
    try:
        result = directory.result()
        if result is None or (result.device != "cpu") != gpu:
            return None
        usage = directory.usage()
        size = sum(path.stat().st_size for path in directory.path.rglob("*") if path.is_file())
    except (AblatrixError, OSError):  # a damaged trial says nothing of its cost
        return None
    peaks = [max((u.values[name] for u in usage if name in u.values), default=None) for name in ("memory_mb", "gpu_memory_peak_mb")]
    return Measure(result.seconds, size, peaks[0], peaks[1], "")


def _by_recipe(store: Store, own: set[str], gpu: bool) -> dict[str, list[Measure]]:
    """Finished trials of other sweeps by the digest of their recipe."""
    found: dict[str, list[Measure]] = {}
    for directory in store.trials():
        if directory.id in own:
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if (directory.path / "result.json").exists():
                recipe = json.loads((directory.path / "recipe.json").read_text(encoding="utf-8"))["recipe"]
                if measure := _of_trial(directory, gpu):
                    found.setdefault(digest(recipe), []).append(measure)
    return found


def _middle(found: Sequence[Measure], source: str) -> Measure:
    memory = [m.memory_mb for m in found if m.memory_mb is not None]
    gpu_memory = [m.gpu_memory_mb for m in found if m.gpu_memory_mb is not None]
    return Measure(
        statistics.median(m.seconds for m in found),
        statistics.median(m.size for m in found),
        max(memory, default=None),
        max(gpu_memory, default=None),
        source,
    )
