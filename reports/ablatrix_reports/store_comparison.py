"""Two stores side by side: the cells of the sweeps that both have, seed by seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablatrix.errors import InvalidInput
from ablatrix.store import Store
from ablatrix_reports.markdown import escape
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.statistics import Difference, holm, paired_difference
from ablatrix_reports.wording import CellText, cell_texts, decimals, difference
from ablatrix_reports.write import read_report

HEAD = ("cell", "first", "second", "second less first", "")


@dataclass(frozen=True)
class ComparedCell:
    """A cell in both stores; `difference` is the second less the first over common seeds. `same`: all common seeds have equal values.

    `shown` is how the two and their difference are written.
    """

    id: str
    first: float | None
    second: float | None
    shown: tuple[str, str, str]
    difference: Difference | None
    same: bool
    words: str


@dataclass(frozen=True)
class ComparedSweep:
    """A sweep in both stores. `only_first` and `only_second` are cells that the other lacks."""

    sweep: str
    title: str
    metric: str
    cells: tuple[ComparedCell, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare_stores(first: Store, second: Store) -> list[ComparedSweep]:
    """Every sweep that both stores have, by name; InvalidInput where there is none."""
    names = [sweep.name for sweep in first.sweeps()]
    others = [sweep.name for sweep in second.sweeps()]
    shared = [name for name in names if name in others]
    if not shared:
        held = [f"{store.root} has {', '.join(found) or 'none'}" for store, found in ((first, names), (second, others))]
        raise InvalidInput(f"the stores have no sweep in common: {'; '.join(held)}.")
    return [_compared(read_report(first, name), read_report(second, name)) for name in shared]


def as_mapping(sweeps: list[ComparedSweep]) -> dict[str, Any]:
    """For `--json`."""
    return {"schema": 1, "sweeps": [asdict(sweep) for sweep in sweeps]}


def to_markdown(sweeps: list[ComparedSweep], first: Store, second: Store) -> str:
    """The comparison as a page of its own."""
    parts = [f"# {escape(str(first.root))} beside {escape(str(second.root))}"]
    for sweep in sweeps:
        rows = [HEAD, ("---", "---:", "---:", "---:", "---"), *(tuple(map(escape, _row(cell))) for cell in sweep.cells)]
        parts += [f"## {escape(sweep.title)}", escape(_caption(sweep)), "\n".join("| " + " | ".join(row) + " |" for row in rows)]
        parts += [escape(text) + "." for text in _lacking(sweep)]
    return "\n\n".join(parts) + "\n"


def render_terminal(sweeps: list[ComparedSweep]) -> RenderableType:
    """A rich renderable; texts of the sweep file are never read as markup."""
    parts: list[RenderableType] = []
    for sweep in sweeps:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in HEAD:
            table.add_column(name, overflow="fold")
        for cell in sweep.cells:
            table.add_row(*map(Text, _row(cell)))
        parts += [Text(sweep.title, style="bold"), table, Text(_caption(sweep), style="dim"), *map(Text, _lacking(sweep))]
    return Group(*parts)


def _compared(first: Report, second: Report) -> ComparedSweep:
    theirs, digits = {cell.id: cell for cell in second.cells}, decimals(first)
    texts = cell_texts(first), cell_texts(second)
    cells = []
    for cell in (c for c in first.cells if c.id in theirs and c.excluded is None):
        other = theirs[cell.id]
        shown = texts[0][cell.row, cell.column], texts[1][other.row, other.column]
        cells.append(_cell(cell, other, shown, digits[cell.metric.name]))
    known = [i for i, cell in enumerate(cells) if cell.difference and cell.difference.p is not None]
    corrected = dict(zip(known, holm([cells[i].difference.p for i in known]), strict=True))  # type: ignore[union-attr]
    judged = tuple(_judged(cell, corrected.get(i)) for i, cell in enumerate(cells))
    mine = {cell.id for cell in first.cells}
    return ComparedSweep(
        first.name,
        first.title,
        first.metric.name,
        judged,
        tuple(cell.id for cell in first.cells if cell.id not in theirs),
        tuple(cell.id for cell in second.cells if cell.id not in mine),
    )


def _cell(first: Cell, second: Cell, texts: tuple[CellText, CellText], digits: int) -> ComparedCell:
    common = first.values.keys() & second.values.keys()
    same = bool(common) and all(first.values[seed] == second.values[seed] for seed in common)
    found = paired_difference(second.values, first.values)
    shown = texts[0].value, texts[1].value, "" if found is None else difference(found, digits)
    return ComparedCell(first.id, first.mean, second.mean, shown, found, same, "")


def _judged(cell: ComparedCell, corrected: float | None) -> ComparedCell:
    found = cell.difference
    if found is None:
        return replace(cell, words="no common seed")
    if cell.same:
        return replace(cell, words="equal")
    found = replace(found, holm=corrected)
    told = "" if corrected is None else "differs" if corrected < 0.05 else "cannot be told apart"
    return replace(cell, difference=found, words=told + f" (Holm p = {corrected:.2g})" * (corrected is not None))


def _row(cell: ComparedCell) -> tuple[str, ...]:
    return cell.id, *cell.shown, cell.words


def _caption(sweep: ComparedSweep) -> str:
    return f"{sweep.metric}; differences over common seeds with paired 95 % t intervals, p corrected for the cells of the table (Holm)."


def _lacking(sweep: ComparedSweep) -> list[str]:
    sides = (("first", sweep.only_first), ("second", sweep.only_second))
    return [f"Only in the {side} store: {'; '.join(cells)}" for side, cells in sides if cells]
