"""From collected trials to the table model: what each cell says, and the facts around the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ablatrix_reports import verdicts
from ablatrix_reports.claims import judge
from ablatrix_reports.collect import Collected, Trial
from ablatrix_reports.compare import baseline_label, compare, tied_columns
from ablatrix_reports.grid import lay_out
from ablatrix_reports.plan import Plan, PlannedCell
from ablatrix_reports.report import Cell, CellState, Cost, Coverage, Environment, Report
from ablatrix_reports.statistics import summarise
from ablatrix_reports.trend import trends

_PRESSING: tuple[CellState, ...] = ("running", "failed", "stopped", "waiting")


def build(collected: Collected) -> Report:
    """The whole report of a sweep; it may be partial at any time."""
    plan, grid = collected.plan, lay_out(collected.plan)
    cells = compare([_cell(c, *grid.places[c.id], collected.trials[c.id]) for c in plan.cells], plan.layout.baseline)
    cells = verdicts.compare(cells, plan, collected.recipes)
    trials = tuple(t for cell in plan.cells for t in collected.trials[cell.id])
    return Report(
        sweep=plan.sweep,
        profile=plan.profile,
        title=plan.title,
        question=plan.question,
        file=plan.file,
        commit=plan.commit,
        dirty=plan.dirty,
        command=plan.command,
        metric=plan.metric,
        axes=plan.axes,
        row_axes=plan.layout.rows,
        column_axes=plan.layout.columns,
        seeds=plan.seeds,
        n=_usual(c.planned for c in cells if c.excluded is None),
        rows=grid.rows,
        columns=grid.columns,
        baseline=baseline_label(cells, plan.layout.baseline),
        cells=tuple(cells),
        tied=tied_columns(cells),
        trials=trials,
        coverage=_coverage(trials, plan),
        cost=_cost(trials),
        environment=_environment(trials),
        published=plan.layout.published,
        claims=judge(plan, cells),
        trend=trends(cells),
    )


def _cell(planned: PlannedCell, row: str, column: str, trials: tuple[Trial, ...]) -> Cell:
    values = {t.seed: t.value for t in trials if t.value is not None}
    summary = summarise(list(values.values()))
    return Cell(
        id=planned.id,
        row=row,
        column=column,
        levels=planned.levels,
        label=planned.label,
        metric=planned.metric,
        state=_state(planned, trials),
        mean=summary.mean,
        std=summary.std,
        n=summary.n,
        planned=len(planned.trials),
        values=values,
        trials=tuple(t.id for t in trials),
        excluded=planned.excluded,
        note=planned.note,
    )


def _state(planned: PlannedCell, trials: tuple[Trial, ...]) -> CellState:
    if planned.excluded is not None:
        return "excluded"
    for state in _PRESSING:
        if any(t.state == state for t in trials):
            return state
    return "finished" if trials else "waiting"


def _usual(counts: Iterable[int]) -> int:
    """The most frequent count, the larger of two equally frequent ones; 0 without cells."""
    return max(Counter(counts).items(), key=lambda item: (item[1], item[0]), default=(0, 0))[0]


def _coverage(trials: tuple[Trial, ...], plan: Plan) -> Coverage:
    once = {t.id: t for t in trials}.values()  # cells that differ in their metric share a trial
    count = Counter(t.state for t in once)
    return Coverage(
        planned=len(once),
        finished=count["finished"],
        running=count["running"],
        failed=count["failed"],
        stopped=count["stopped"],
        waiting=count["waiting"],
        excluded_cells=sum(c.excluded is not None for c in plan.cells),
    )


def _cost(trials: tuple[Trial, ...]) -> Cost:
    """A trial that stands in several cells ran once and costs once."""
    once = {t.id: t for t in trials if t.seconds is not None}.values()
    finished = sum(t.seconds or 0.0 for t in once if t.state == "finished")
    return Cost(round(finished, 3), round(sum(t.seconds or 0.0 for t in once) - finished, 3))


def _environment(trials: tuple[Trial, ...]) -> Environment:
    versions: dict[str, set[str]] = {}
    for trial in trials:
        for package, version in trial.versions.items():
            versions.setdefault(package, set()).add(version)
    return Environment(
        versions={package: tuple(sorted(found)) for package, found in sorted(versions.items())},
        devices=tuple(sorted({t.device for t in trials if t.device})),
        hosts=tuple(sorted({t.host for t in trials if t.host})),
        threads=tuple(sorted({t.threads for t in trials if t.threads is not None})),
    )
