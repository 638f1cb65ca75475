"""The papers' numbers: each with its protocol and its place, found by the levels of a sweep's cell.

The files are `sweeps/published/*.yaml`. Levels and facts are compared as labels, as a sweep writes its own levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ablatrix import document, shipped
from ablatrix.document import Document
from ablatrix.document import Place as Keys
from ablatrix.errors import FileProblem, InvalidInput, SweepFileError
from ablatrix.grid import label
from ablatrix.schema import Levels, Part, Slug, Text, Word
from ablatrix_models.recipe.fields import nearest

MISSING = "–"
Labels = dict[str, tuple[str, ...]]
_STATED = ("dataset", "framework", "backbone", "epochs", "evaluation", "metric")


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
        stated = {name: getattr(self, name) for name in _STATED}
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
    """One paper: its name here, its title, how to cite it, and its tables."""

    name: str
    title: str
    source: str
    tables: tuple[Table, ...]

    def table(self, id: str) -> Table:
        """A table by id, such as `mixmask/table1`; InvalidInput where there is none."""
        known = {table.id: table for table in self.tables}
        if id not in known:
            raise InvalidInput(f"{id!r} is no published table of {self.title}. {nearest(id, list(known))}")
        return known[id]


def load_published(name: str) -> Publication:
    """A shipped publication, `mixmask` or `siameseim`; InvalidInput where there is none of that name."""
    known = {path.stem: path for path in sorted((shipped.root() / "published").glob("*.yaml"))}
    if name not in known:
        raise InvalidInput(f"there are no published numbers named {name!r}. {nearest(name, list(known))}")
    return read_publication(known[name])


def read_publication(path: Path) -> Publication:
    """A file of published numbers; SweepFileError with every problem and its line."""
    read = document.read(path)
    if read.problems:
        raise SweepFileError(path, read.problems)
    try:
        file = _File.model_validate(read.values)
    except ValidationError as error:
        raise SweepFileError(path, _shape_problems(error, read)) from None
    problems = [FileProblem(read.line(keys), message) for keys, message in _content_problems(file)]
    if problems:
        raise SweepFileError(path, problems)
    return _publication(file)


class _Protocol(Part):
    dataset: Text | None = None
    framework: Text | None = None
    backbone: Text | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    evaluation: Text | None = None
    metric: Text | None = None
    settings: Levels = {}

    def facts(self) -> Labels:
        stated = {name: getattr(self, name) for name in _STATED}
        return _labels({name: value for name, value in stated.items() if value is not None} | self.settings)


class _Column(Part):
    levels: Levels = {}
    protocol: _Protocol = _Protocol()
    note: Text | None = None

    def facts(self) -> Labels:
        return self.protocol.facts() | _labels(self.levels)


class _Row(_Column):
    without: list[Word] = []
    unit: Text | None = None
    values: list[Annotated[float, Field(allow_inf_nan=False)] | Literal["–"]]


class _Table(Part):
    number: Text
    caption: Text
    n: Annotated[int, Field(ge=1)] | None = None
    unit: Text = "%"
    protocol: _Protocol = _Protocol()
    columns: Annotated[dict[Text, _Column], Field(min_length=1)]
    rows: Annotated[dict[Text, _Row], Field(min_length=1)]

    def cells(self, id: str) -> Iterator[tuple[Place, Labels, float | Literal["–"]]]:
        """Place, levels and number of every cell, row by row."""
        for row_name, row in self.rows.items():
            for (column_name, column), value in zip(self.columns.items(), row.values, strict=True):
                yield Place(id, row_name, column_name), _labels(column.levels) | _labels(row.levels), value


class _Where(Part):
    table: Text
    row: Text
    column: Text


class _Contradiction(Part):
    same_setting: bool
    note: Text
    cells: Annotated[list[_Where], Field(min_length=2)]


class _File(Part):
    schema_: Literal[1] = Field(alias="schema")
    publication: Slug
    title: Text
    source: Text
    axes: dict[Word, Text]
    tables: Annotated[dict[Slug, _Table], Field(min_length=1)]
    contradictions: list[_Contradiction] = []

    def places(self, contradiction: _Contradiction) -> list[Place]:
        return [Place(f"{self.publication}/{c.table}", c.row, c.column) for c in contradiction.cells]


def _labels(levels: Levels) -> Labels:
    """Levels as labels, a list as any of its own."""
    return {name: tuple(label(v) for v in (value if isinstance(value, list) else [value])) for name, value in levels.items()}


def _publication(file: _File) -> Publication:
    """Values first, since the rivals of a cell may stand in a later table."""
    doubts: dict[Place, list[_Contradiction]] = {}
    for contradiction in file.contradictions:
        for place in file.places(contradiction):
            doubts.setdefault(place, []).append(contradiction)
    tables = [_table(f"{file.publication}/{name}", table, doubts) for name, table in file.tables.items()]
    values = {value.place: value for table in tables for value in table.values()}
    rivals = {place: [values[p] for c in held if c.same_setting for p in file.places(c)] for place, held in doubts.items()}
    cells = {table.id: tuple(replace(c, rivals=_others(c, rivals.get(c.place, []))) for c in table.cells) for table in tables}
    return Publication(file.publication, file.title, file.source, tuple(replace(t, cells=cells[t.id]) for t in tables))


def _others(cell: Cell, values: Sequence[Value]) -> tuple[Value, ...]:
    """One of each number that differs from the cell's own."""
    other = {v.value: v for v in reversed(values) if cell.value and v.value != cell.value.value}
    return tuple(reversed(other.values()))


def _table(id: str, file: _Table, doubts: Mapping[Place, Sequence[_Contradiction]]) -> Table:
    cells = []
    for place, levels, number in file.cells(id):
        held = doubts.get(place, ())
        value = None if isinstance(number, str) else _value(file, place, number, [c.note for c in held])
        cells.append(Cell(place, levels, value))
    return Table(id, file.number, file.caption, file.n, tuple(file.rows), tuple(file.columns), tuple(cells))


def _value(file: _Table, place: Place, number: float, doubts: Sequence[str]) -> Value:
    row, column = file.rows[place.row], file.columns[place.column]
    facts = file.protocol.facts() | column.facts() | row.facts()
    notes = [note for note in (column.note, row.note, *doubts) if note]
    return Value(number, row.unit or file.unit, bool(doubts), " ".join(notes) or None, place, _protocol(facts, row.without))


def _protocol(facts: Labels, without: Sequence[str]) -> Protocol:
    stated = {name: facts[name][0] for name in _STATED if name in facts and name != "epochs"}
    epochs = int(facts["epochs"][0]) if "epochs" in facts else None
    settings = {name: allowed for name, allowed in facts.items() if name not in (*_STATED, *without)}
    return Protocol(**stated, epochs=epochs, settings=settings)


def _content_problems(file: _File) -> Iterator[tuple[Keys, str]]:
    """What a right shape can still hold that is wrong."""
    for name, table in file.tables.items():
        here = ("tables", name)
        yield from _axis_problems(file, table, here)
        short = [row for row, r in table.rows.items() if len(r.values) != len(table.columns)]
        for row in short:
            count = len(table.rows[row].values)
            yield (
                (*here, "rows", row, "values"),
                f"row {row!r} has {count} values for {len(table.columns)} columns. Write – where none is printed.",
            )
        if not short:
            yield from _cell_problems(table, here)
    for i, contradiction in enumerate(file.contradictions):
        yield from _contradiction_problems(file, contradiction, ("contradictions", i))


def _axis_problems(file: _File, table: _Table, here: Keys) -> Iterator[tuple[Keys, str]]:
    """Levels and settings name known axes, and what a protocol states once has one level."""
    sides = [((*here, "columns", n), c) for n, c in table.columns.items()] + [((*here, "rows", n), r) for n, r in table.rows.items()]
    parts = [((*here, "protocol", "settings"), table.protocol.settings)]
    parts += [part for k, s in sides for part in (((*k, "levels"), s.levels), ((*k, "protocol", "settings"), s.protocol.settings))]
    parts += [((*k, "without"), dict.fromkeys(s.without)) for k, s in sides if isinstance(s, _Row)]
    for keys, levels in parts:
        known = [*file.axes, *(_STATED if keys[-1] == "levels" else ())]
        for axis, level in levels.items():
            if axis not in known:
                yield (*keys, axis), f"{axis!r} is no axis of this publication. {nearest(axis, known)}"
            elif axis in _STATED and (isinstance(level, list) or (axis == "epochs" and type(level) is not int)):
                rule = "one whole number" if axis == "epochs" else "one level"
                yield (*keys, axis), f"{axis} is {level!r}, but a protocol states {rule}."
    for (keys, row), (_, column) in ((r, c) for r in sides if r[0][-2] == "rows" for c in sides if c[0][-2] == "columns"):
        for axis in row.levels.keys() & column.levels.keys():
            yield (*keys, "levels", axis), f"{axis!r} is a level of row {keys[-1]!r} and of a column. A table varies it in one direction."


def _cell_problems(table: _Table, here: Keys) -> Iterator[tuple[Keys, str]]:
    """No two cells may be found by the same levels."""
    cells = [(place, levels) for place, levels, _ in table.cells("")]
    for (first, a), (second, b) in combinations(cells, 2):
        if a.keys() == b.keys() and all(set(a[axis]) & set(b[axis]) for axis in a):
            words = ", ".join(f"{axis} = {' or '.join(allowed)}" for axis, allowed in b.items()) or "no levels"
            keys = ("columns", second.column) if first.row == second.row else ("rows", second.row)
            told = f"({second.row}, {second.column}) and ({first.row}, {first.column})"
            yield (*here, *keys), f"the cells {told} have the same levels: {words}. Keep one, or tell them apart."


def _contradiction_problems(file: _File, contradiction: _Contradiction, here: Keys) -> Iterator[tuple[Keys, str]]:
    for i, where in enumerate(contradiction.cells):
        keys, table = (*here, "cells", i), file.tables.get(where.table)
        if table is None:
            yield (*keys, "table"), f"{where.table!r} is no table of this file. {nearest(where.table, list(file.tables))}"
        elif where.row not in table.rows:
            yield (*keys, "row"), f"{where.row!r} is no row of {where.table}. {nearest(where.row, list(table.rows))}"
        elif where.column not in table.columns:
            yield (*keys, "column"), f"{where.column!r} is no column of {where.table}. {nearest(where.column, list(table.columns))}"
        elif (where.row, where.column, MISSING) in {(place.row, place.column, value) for place, _, value in _square(table)}:
            yield keys, f"{where.table} prints no number at ({where.row}, {where.column}), so nothing contradicts it."


def _square(table: _Table) -> list[tuple[Place, Labels, float | Literal["–"]]]:
    """The table's cells; none where a row has too few or too many values, which is told on its own."""
    complete = all(len(row.values) == len(table.columns) for row in table.rows.values())
    return list(table.cells("")) if complete else []


def _shape_problems(error: ValidationError, read: Document) -> list[FileProblem]:
    """Pydantic's findings in our words, one for each place."""
    found: dict[Keys, FileProblem] = {}
    for detail in error.errors():
        keys: Keys = ()
        for part in detail["loc"]:
            # Names of alternatives stand in pydantic's location, but not in the file.
            keys = (*keys, part) if (*keys, part) in read.lines else keys
        last, where = detail["loc"][-1], ".".join(map(str, keys)) or "the file"
        if detail["type"] == "extra_forbidden":
            message = f"{last!r} is not a known key of {'.'.join(map(str, keys[:-1])) or 'the file'}. {nearest(str(last), _KEYS)}"
        elif detail["type"] == "missing":
            message = f"the key {last!r} of {where} is missing."
        else:
            message = f"{where} is {detail['input']!r}, which is refused: {detail['msg'][0].lower()}{detail['msg'][1:]}."
        found.setdefault(keys if detail["type"] != "missing" else (*keys, last), FileProblem(read.line(keys), message))
    return list(found.values())


_PARTS: tuple[type[BaseModel], ...] = (_File, _Table, _Row, _Protocol, _Contradiction, _Where)
_KEYS = sorted({f.alias or name for part in _PARTS for name, f in part.model_fields.items()})
