"""Cells against each other: the best of a column, what cannot be told from it, and the difference to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablatrix_reports.plan import Metric
from ablatrix_reports.report import Cell
from ablatrix_reports.statistics import holm, paired_difference

Group = tuple[str, Metric]


def compare(cells: Sequence[Cell], baseline: dict[str, str] | None) -> list[Cell]:
    """The same cells, in the same order, with `best`, `tied`, `to_best`, `baseline` and `delta` filled in."""
    leaders = {group: max(members, key=_merit) for group, members in _groups(cells).items()}
    judged = [_against(cell, leaders.get((cell.column, cell.metric))) for cell in cells]
    return _with_holm(_with_delta(judged, baseline) if baseline else judged)


def tied_columns(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The columns in which every complete cell is the best or cannot be told from it."""
    groups = _groups(cells)
    mixed = {column for column, metric in groups if any(c == column and m != metric for c, m in groups)}
    return tuple(column for (column, _), members in groups.items() if column not in mixed and all(c.best or c.tied for c in members))


def baseline_label(cells: Sequence[Cell], baseline: dict[str, str] | None) -> str | None:
    """How a caption names the baseline: by the one label of its cells, else by its levels; None where there is no cell."""
    found = [c for c in cells if baseline and _matches(c, baseline)]
    if not baseline or not found:
        return None
    labels = {c.label for c in found}
    only = labels.pop() if len(labels) == 1 else None
    return only or ", ".join(f"{axis} = {level}" for axis, level in baseline.items())


def _groups(cells: Sequence[Cell]) -> dict[Group, list[Cell]]:
    """Complete cells that may be compared: those of one column and one metric, where there are at least two."""
    groups: dict[Group, list[Cell]] = {}
    for cell in cells:
        if cell.complete:
            groups.setdefault((cell.column, cell.metric), []).append(cell)
    return {group: members for group, members in groups.items() if len(members) > 1}


def _merit(cell: Cell) -> float:
    return cell.metric.sign * cell.mean if cell.mean is not None else float("-inf")


def _against(cell: Cell, leader: Cell | None) -> Cell:
    """Bold needs all seeds; `tied` needs an interval, which two common seeds are enough for."""
    if leader is None or cell.mean is None:
        return cell
    if cell.complete and cell.mean == leader.mean:
        return replace(cell, best=True)
    difference = paired_difference(cell.values, leader.values)
    return replace(cell, to_best=difference, tied=bool(difference and difference.tied))


def _with_delta(cells: Sequence[Cell], baseline: dict[str, str]) -> list[Cell]:
    references = [c for c in cells if _matches(c, baseline)]
    exact = {frozenset(_others(c, baseline).items()): c for c in references}
    axes = {axis for cell in cells for axis in cell.levels}
    open_ended = [c for c in references if c.levels.keys() < axes]
    found = [exact.get(frozenset(_others(c, baseline).items())) or _only(c, open_ended, baseline) for c in cells]
    return [_delta(cell, reference, baseline) for cell, reference in zip(cells, found, strict=True)]


def _with_holm(cells: Sequence[Cell]) -> list[Cell]:
    """p-values corrected for all comparisons of the table: those to the baseline together, and those to the best together."""
    for name in ("to_best", "delta"):
        found = [(i, difference) for i, cell in enumerate(cells) if (difference := getattr(cell, name)) and difference.p is not None]
        corrected = dict(zip((i for i, _ in found), holm([d.p for _, d in found]), strict=True))
        cells = [replace(c, **{name: replace(getattr(c, name), holm=corrected[i])}) if i in corrected else c for i, c in enumerate(cells)]
    return list(cells)


def _delta(cell: Cell, reference: Cell | None, baseline: dict[str, str]) -> Cell:
    if reference is None or _matches(cell, baseline) or reference.metric != cell.metric:
        return cell
    return replace(cell, baseline=reference.id, delta=paired_difference(cell.values, reference.values))


def _only(cell: Cell, open_ended: Sequence[Cell], baseline: dict[str, str]) -> Cell | None:
    """The one baseline cell that leaves some axes open and agrees with `cell` on all others; None where there are more."""
    mine = _others(cell, baseline)
    found = [r for r in open_ended if all(mine.get(axis, level) == level for axis, level in _others(r, baseline).items())]
    return found[0] if len(found) == 1 else None


def _matches(cell: Cell, baseline: dict[str, str]) -> bool:
    return all(cell.levels.get(axis) == level for axis, level in baseline.items())


def _others(cell: Cell, baseline: dict[str, str]) -> dict[str, str]:
    return {axis: level for axis, level in cell.levels.items() if axis not in baseline}
