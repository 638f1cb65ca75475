"""The papers' numbers: each with its protocol and its place, found by the levels of a sweep's cell.

The files are `sweeps/published/*.yaml`. Levels and facts are compared as labels, as a sweep writes its own levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ablatrix import shipped
from ablatrix.errors import InvalidInput
from ablatrix.grid import label
from ablatrix_models.recipe.fields import nearest
from ablatrix_reports.published_file import STATED, ContradictionPart, Labels, PublishedFile, TablePart, read


@dataclass(frozen=True)
class Protocol:
    """How a number came about; None and absent settings are what the paper does not state.

    `dataset` is the one pretrained on, `epochs` are those of pretraining, `metric` is named as trials name theirs.
    `settings` maps further axes to the labels that they were held at: more than one where a number stands for several.
    """

    dataset: str | None = None
    framework: str | None = None
    backbone: str | None = None
    epochs: int | None = None
    evaluation: str | None = None
    metric: str | None = None
    settings: Labels = field(default_factory=dict)

    def facts(self) -> Labels:
        """Everything that is stated, as labels by name."""
        stated = {name: getattr(self, name) for name in STATED}
        return {name: (label(value),) for name, value in stated.items() if value is not None} | self.settings

    def differences(self, other: Mapping[str, Any]) -> tuple[str, ...]:
        """Where `other` departs from what is stated, such as `epochs 20 ≠ 1000`; names that only one side has are not compared."""
        return tuple(
            f"{name} {label(other[name])} ≠ {' or '.join(allowed)}"
            for name, allowed in self.facts().items()
            if name in other and label(other[name]) not in allowed
        )


@dataclass(frozen=True)
class Place:
    """Where a number stands: a table's id, and the labels of its row and column."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}, {self.row}, {self.column}"


@dataclass(frozen=True)
class Value:
    """One printed number. `weak`: the paper contradicts it elsewhere, as `note` says."""

    value: float
    unit: str
    weak: bool
    note: str | None
    place: Place
    protocol: Protocol


@dataclass(frozen=True)
class Cell:
    """One place of a table. `value` is None where the paper prints none; `rivals` are its other numbers for the same setting."""

    place: Place
    levels: Labels
    value: Value | None
    rivals: tuple[Value, ...] = ()

    def answers(self, levels: Mapping[str, str]) -> bool:
        """Whether `levels` name all that this cell varies, and contradict nothing that its protocol states."""
        if self.value is None or not self.levels.keys() <= levels.keys():
            return False
        return all(levels[name] in allowed for name, allowed in self.value.protocol.facts().items() if name in levels)


@dataclass(frozen=True)
class Table:
    """One table of a paper. `n` is the number of runs behind each number, None where the paper does not say."""

    id: str
    number: str
    caption: str
    n: int | None
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """What the table varies, in its own order: `lookup` finds a number only by all axes of its row and column."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.levels))

    def at(self, row: str, column: str) -> Value | None:
        """The number in a place, None where the paper prints none; KeyError where the table has no such place."""
        return {(c.place.row, c.place.column): c.value for c in self.cells}[row, column]

    def values(self) -> tuple[Value, ...]:
        """Every printed number, row by row."""
        return tuple(cell.value for cell in self.cells if cell.value)

    def lookup(self, levels: Mapping[str, str]) -> tuple[Value, ...]:
        """The numbers for a cell of these levels, none where the paper has none; axes that the paper never names are ignored.

        Several where several rows state this one setting, and where the paper prints another number for it elsewhere.
        """
        found = [cell for cell in self.cells if cell.answers(levels)]
        values = [c.value for c in found if c.value] + [rival for c in found for rival in c.rivals]
        return tuple({value.place: value for value in values}.values())


@dataclass(frozen=True)
class Publication:
    """One paper: its name here, its title, how to cite it, what its axes are, and its tables."""

    name: str
    title: str
    source: str
    axes: Mapping[str, str]
    tables: tuple[Table, ...]

    def table(self, id: str) -> Table:
        """A table by id, such as `mixmask/table1`; InvalidInput where there is none."""
        known = {table.id: table for table in self.tables}
        if id not in known:
            raise InvalidInput(f"{id!r} is no published table of {self.title}. {nearest(id, list(known))}")
        return known[id]


@cache
def load_published(name: str) -> Publication:
    """A shipped publication, `mixmask` or `siameseim`; InvalidInput where there is none of that name."""
    known = {path.stem: path for path in sorted((shipped.root() / "published").glob("*.yaml"))}
    if name not in known:
        raise InvalidInput(f"there are no published numbers named {name!r}. {nearest(name, list(known))}")
    return read_publication(known[name])


def read_publication(path: Path) -> Publication:
    """A file of published numbers; SweepFileError with every problem and its line."""
    file = read(path)
    doubts: dict[Place, list[ContradictionPart]] = {}
    for contradiction in file.contradictions:
        for place in _places(file, contradiction):
            doubts.setdefault(place, []).append(contradiction)
    tables = [_table(f"{file.publication}/{name}", table, doubts) for name, table in file.tables.items()]
    return Publication(file.publication, file.title, file.source, file.axes, tuple(_with_rivals(tables, file)))


def _places(file: PublishedFile, contradiction: ContradictionPart) -> list[Place]:
    return [Place(f"{file.publication}/{c.table}", c.row, c.column) for c in contradiction.cells]


def _table(id: str, part: TablePart, doubts: Mapping[Place, Sequence[ContradictionPart]]) -> Table:
    cells = []
    for row, column, number in part.cells():
        place = Place(id, row, column)
        value = None if number is None else _value(part, place, number, [c.note for c in doubts.get(place, ())])
        cells.append(Cell(place, part.levels(row, column), value))
    return Table(id, part.number, part.caption, part.n, tuple(part.rows), tuple(part.columns), tuple(cells))


def _value(part: TablePart, place: Place, number: float, doubts: Sequence[str]) -> Value:
    row, column = part.rows[place.row], part.columns[place.column]
    facts = part.protocol.facts() | column.facts() | row.facts()
    notes = [note for note in (column.note, row.note, *doubts) if note]
    return Value(number, row.unit or part.unit, bool(doubts), " ".join(notes) or None, place, _protocol(facts, row.without))


def _protocol(facts: Labels, without: Sequence[str]) -> Protocol:
    stated = {name: facts[name][0] for name in STATED if name in facts and name != "epochs"}
    epochs = int(facts["epochs"][0]) if "epochs" in facts else None
    return Protocol(**stated, epochs=epochs, settings={n: allowed for n, allowed in facts.items() if n not in (*STATED, *without)})


def _with_rivals(tables: Sequence[Table], file: PublishedFile) -> list[Table]:
    """Each cell of a contradiction over one setting gets one of each number that differs from its own."""
    values = {value.place: value for table in tables for value in table.values()}
    rivals: dict[Place, dict[float, Value]] = {}
    for contradiction in (c for c in file.contradictions if c.same_setting):
        members = [values[place] for place in _places(file, contradiction)]
        for value in members:
            for other in (m for m in members if m.value != value.value):
                rivals.setdefault(value.place, {}).setdefault(other.value, other)
    return [replace(t, cells=tuple(replace(c, rivals=tuple(rivals.get(c.place, {}).values())) for c in t.cells)) for t in tables]
