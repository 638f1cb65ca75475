"""Two stores side by side: the cells of the sweeps that both have, seed by seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablatrix.errors import InvalidInput
from ablatrix.store import Store
from ablatrix_reports.captions import progress
from ablatrix_reports.markdown import escape
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.statistics import Difference, holm, paired_difference
from ablatrix_reports.wording import CellText, cell_texts, decimals, difference
from ablatrix_reports.write import read_report

HEAD = ("cell", "first", "second", "second less first", "")
TOLD = 0.05  # corrected p below which two cells differ


@dataclass(frozen=True)
class ComparedCell:
    """A cell in both stores; `difference` is the second less the first over common seeds. `same`: all common seeds have equal values.

    `same_trials`: both have the very same trials, so that recipe, seeds, data and version of the training code are equal. `name` is the
    cell by its levels alone, for pictures; `shown` is how the two and their difference are written.
    """

    id: str
    name: str
    metric: str
    first: float | None
    second: float | None
    shown: tuple[str, str, str]
    difference: Difference | None
    same: bool
    same_trials: bool
    words: str

    @property
    def differs(self) -> bool:
        """Whether the two can be told apart."""
        return self.difference is not None and self.difference.holm is not None and self.difference.holm < TOLD


@dataclass(frozen=True)
class ComparedSweep:
    """A sweep in both stores. `finished` tells how far each is; `only_first` and `only_second` are cells that the other lacks."""

    sweep: str
    title: str
    metric: str
    finished: tuple[str, str]
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
        parts += [f"## {escape(sweep.title)}", escape(summary(sweep)), "\n".join("| " + " | ".join(row) + " |" for row in rows)]
        parts += [escape(caption(sweep)), *(escape(text) for text in lacking(sweep))]
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
        parts += [Text(sweep.title, style="bold"), Text(summary(sweep)), table, Text(caption(sweep), style="dim")]
        parts += map(Text, lacking(sweep))
    return Group(*parts)


def summary(sweep: ComparedSweep) -> str:
    """`4 cells in both stores: 2 equal, 1 differs, 1 cannot be told apart.`, and how far each store is."""
    differing, equal = sum(cell.differs for cell in sweep.cells), sum(cell.same for cell in sweep.cells)
    open_ = sum(bool(cell.difference) for cell in sweep.cells) - differing - equal
    without = sum(cell.difference is None for cell in sweep.cells)
    counts = [(equal, "equal"), (differing, "differs" if differing == 1 else "differ"), (open_, "cannot be told apart")]
    said = ", ".join(f"{n} {words}" for n, words in (*counts, (without, "without a common seed")) if n)
    cells = f"{len(sweep.cells)} {'cell' if len(sweep.cells) == 1 else 'cells'} in both stores"
    return f"{cells}{': ' if said else ''}{said}. First: {sweep.finished[0]}; second: {sweep.finished[1]}."


def caption(sweep: ComparedSweep) -> str:
    """How to read the table."""
    same = sum(cell.same_trials for cell in sweep.cells)
    trials = "All cells are" if same == len(sweep.cells) else f"{same} of {len(sweep.cells)} cells are"
    intervals = "differences over common seeds with paired 95 % t intervals, p corrected for the cells of the table (Holm)"
    return f"{sweep.metric}; {intervals}. {trials} the same trials in both: the same recipe, seeds, data and version of the training code."


def lacking(sweep: ComparedSweep) -> list[str]:
    """The cells that one of the stores lacks, a sentence for each store."""
    sides = (("first", sweep.only_first), ("second", sweep.only_second))
    return [f"Only in the {side} store: {'; '.join(cells)}." for side, cells in sides if cells]


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
        ", ".join(dict.fromkeys(cell.metric for cell in judged)) or first.metric.name,
        (progress(first), progress(second)),
        judged,
        tuple(cell.id for cell in first.cells if cell.id not in theirs),
        tuple(cell.id for cell in second.cells if cell.id not in mine),
    )


def _cell(first: Cell, second: Cell, texts: tuple[CellText, CellText], digits: int) -> ComparedCell:
    common = first.values.keys() & second.values.keys()
    comparable = first.metric == second.metric
    same = comparable and bool(common) and all(first.values[seed] == second.values[seed] for seed in common)
    found = paired_difference(second.values, first.values) if comparable else None
    shown = texts[0].value, texts[1].value, "" if found is None else difference(found, digits)
    words = "" if comparable else f"another metric: {second.metric.name}"
    name = ", ".join(first.levels.values()) or first.id
    return ComparedCell(
        first.id, name, first.metric.name, first.mean, second.mean, shown, found, same, first.trials == second.trials, words
    )


def _judged(cell: ComparedCell, corrected: float | None) -> ComparedCell:
    found = cell.difference
    if found is None:
        return replace(cell, words=cell.words or "no common seed")
    if cell.same:
        return replace(cell, words="equal")
    if corrected is None:
        return replace(cell, words="one common seed tells nothing" if found.n == 1 else "all seeds differ alike, which tells nothing")
    judged = replace(cell, difference=replace(found, holm=corrected))
    return replace(judged, words=f"{'differs' if judged.differs else 'cannot be told apart'} (Holm p = {corrected:.2g})")


def _row(cell: ComparedCell) -> tuple[str, ...]:
    return cell.id, *cell.shown, cell.words
