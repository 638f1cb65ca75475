"""Where the cells of a plan stand in the table: its rows, its columns, and their labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ablatrix_reports.plan import UNSET, Plan, PlannedCell
from ablatrix_reports.report import Line

Place = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Rows and columns, outer axes first, levels in the order in which cells first need them; `places` maps cell ids to keys."""

    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    places: dict[str, tuple[str, str]]


def lay_out(plan: Plan) -> Grid:
    """Give every cell a place of its own. No row axis: one row named by label or title; no column axis: one named by the metric."""
    rows: dict[Place, list[PlannedCell]] = {}
    columns: dict[Place, None] = {}
    places: dict[str, tuple[Place, Place]] = {}
    taken: set[tuple[Place, Place]] = set()
    for cell in plan.cells:
        row, column = _place(cell, plan.layout.rows), _place(cell, plan.layout.columns)
        if (row, column) in taken:  # the two differ in something that no axis names
            row = (*row, cell.id)
        taken.add((row, column))
        rows.setdefault(row, []).append(cell)
        columns[column] = None
        places[cell.id] = row, column
    row_lines = {place: _row(plan, place, rows[place]) for place in _ordered(rows, plan.layout.rows)}
    column_lines = {place: _column(plan, place) for place in _ordered(columns, plan.layout.columns)}
    keys = {cell: (row_lines[row].key, column_lines[column].key) for cell, (row, column) in places.items()}
    return Grid(tuple(row_lines.values()), tuple(column_lines.values()), keys)


def _place(cell: PlannedCell, axes: tuple[str, ...]) -> Place:
    return tuple(cell.levels.get(axis, UNSET) for axis in axes)


def _ordered(places: Iterable[Place], axes: tuple[str, ...]) -> list[Place]:
    """By level, axis by axis; what belongs to no level of an axis comes last."""
    found = list(places)
    ranks = [{level: rank for rank, level in enumerate(dict.fromkeys(p[i] for p in found))} | {UNSET: len(found)} for i in range(len(axes))]
    return sorted(found, key=lambda place: [ranks[i][place[i]] for i in range(len(axes))])


def _row(plan: Plan, place: Place, cells: list[PlannedCell]) -> Line:
    axes = plan.layout.rows
    given = " / ".join(dict.fromkeys(c.label for c in cells if c.label))
    labels = _labels(plan, place[: len(axes)], given) if axes else (given or plan.title,)
    return Line(_key(axes, place) or "all", labels, _levels(axes, place))


def _labels(plan: Plan, levels: Place, given: str) -> tuple[str, ...]:
    """A given label stands for the levels that their axis does not list (`include` added them), else for the last level."""
    if not given:
        return levels
    known = {axis.name: axis.levels for axis in plan.axes}
    added = [i for i, axis in enumerate(plan.layout.rows) if levels[i] not in known.get(axis, ())] or [len(levels) - 1]
    return tuple(given if i == added[0] else "–" if i in added else level for i, level in enumerate(levels))


def _column(plan: Plan, place: Place) -> Line:
    axes = plan.layout.columns
    return Line(_key(axes, place) or plan.metric.name, place or (plan.metric.name,), _levels(axes, place))


def _key(axes: tuple[str, ...], place: Place) -> str:
    named = [f"{axis}={level}" for axis, level in zip(axes, place, strict=False)]
    return ",".join([*named, *place[len(axes) :]])


def _levels(axes: tuple[str, ...], place: Place) -> dict[str, str]:
    return {axis: level for axis, level in zip(axes, place, strict=False) if level != UNSET}
