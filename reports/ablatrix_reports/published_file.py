"""A file of published numbers: its shape, and what is wrong with it. What the numbers mean is decided in `published`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from ablatrix import document
from ablatrix.document import Document
from ablatrix.document import Place as Keys
from ablatrix.errors import FileProblem, SweepFileError
from ablatrix.grid import label
from ablatrix.schema import Levels, Part, Slug, Text, Word
from ablatrix_models.recipe.fields import nearest

STATED = ("dataset", "framework", "backbone", "epochs", "evaluation", "metric")
Labels = dict[str, tuple[str, ...]]
Found = Iterator[tuple[Keys, str]]


def labels(levels: Levels) -> Labels:
    """Levels as labels by axis; a list stands for any of its levels."""
    return {name: tuple(label(v) for v in (value if isinstance(value, list) else [value])) for name, value in levels.items()}


class ProtocolPart(Part):
    """How numbers came about: what every paper states, and further axes that were held fixed."""

    dataset: Text | None = None
    framework: Text | None = None
    backbone: Text | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    evaluation: Text | None = None
    metric: Text | None = None
    settings: Levels = Field(default={})

    def facts(self) -> Labels:
        """Everything that is stated, as labels by name."""
        stated = {name: getattr(self, name) for name in STATED}
        return labels({name: value for name, value in stated.items() if value is not None} | self.settings)


class ColumnPart(Part):
    """What a column varies, and what differs from the table's protocol in it."""

    levels: Levels = Field(default={})
    protocol: ProtocolPart = ProtocolPart()
    note: Text | None = None

    def facts(self) -> Labels:
        """What holds in this column, or row."""
        return self.protocol.facts() | labels(self.levels)


class RowPart(ColumnPart):
    """A row: one number for each column, `–` where the paper prints none; `without` names settings that do not apply to it."""

    without: list[Word] = Field(default=[])
    unit: Text | None = None
    values: list[Annotated[float, Field(allow_inf_nan=False)] | Literal["–"]]


class TablePart(Part):
    """One table; `n` is the number of runs behind each number, where the paper says."""

    number: Text
    caption: Text
    n: Annotated[int, Field(ge=1)] | None = None
    unit: Text = "%"
    protocol: ProtocolPart = ProtocolPart()
    columns: Annotated[dict[Text, ColumnPart], Field(min_length=1)]
    rows: Annotated[dict[Text, RowPart], Field(min_length=1)]

    def cells(self) -> Iterator[tuple[str, str, float | None]]:
        """Row, column and number of every cell, row by row."""
        for row, part in self.rows.items():
            for column, value in zip(self.columns, part.values, strict=True):
                yield row, column, None if isinstance(value, str) else value

    def levels(self, row: str, column: str) -> Labels:
        """What a cell varies."""
        return labels(self.columns[column].levels | self.rows[row].levels)


class WherePart(Part):
    """A cell, by names of this file."""

    table: Text
    row: Text
    column: Text


class ContradictionPart(Part):
    """Cells that the paper contradicts: several numbers for one setting, or else one number for several settings."""

    same_setting: bool
    note: Text
    cells: Annotated[list[WherePart], Field(min_length=2)]


class PublishedFile(Part):
    """The numbers of one paper; `axes` says what each axis is."""

    schema_: Literal[1] = Field(alias="schema")
    publication: Slug
    title: Text
    source: Text
    axes: dict[Word, Text]
    tables: Annotated[dict[Slug, TablePart], Field(min_length=1)]
    contradictions: list[ContradictionPart] = Field(default=[])


def read(path: Path) -> PublishedFile:
    """A file whose shape and content are right; SweepFileError with every problem and its line."""
    raw = document.read(path)
    if raw.problems:
        raise SweepFileError(path, raw.problems)
    try:
        file = PublishedFile.model_validate(raw.values)
    except ValidationError as error:
        raise SweepFileError(path, _shape_problems(error, raw)) from None
    problems = [FileProblem(raw.line(keys), message) for keys, message in _content_problems(file)]
    if problems:
        raise SweepFileError(path, problems)
    return file


def _shape_problems(error: ValidationError, raw: Document) -> list[FileProblem]:
    """Pydantic's findings in our words, one for each place."""
    found: dict[Keys, FileProblem] = {}
    for detail in error.errors():
        keys: Keys = ()
        for part in detail["loc"]:
            # The names of alternatives stand in pydantic's location, but not in the file.
            keys = (*keys, part) if (*keys, part) in raw.lines else keys
        last, missing = detail["loc"][-1], detail["type"] == "missing"
        if detail["type"] == "extra_forbidden":
            message = f"{last!r} is not a known key of {_where(keys[:-1])}. {nearest(str(last), _KEYS)}"
        elif missing:
            message = f"the key {last!r} of {_where(keys)} is missing."
        else:
            message = f"{_where(keys)} is {detail['input']!r}, which is refused: {detail['msg'][0].lower()}{detail['msg'][1:]}."
        found.setdefault((*keys, last) if missing else keys, FileProblem(raw.line(keys), message))
    return list(found.values())


def _where(keys: Keys) -> str:
    return ".".join(map(str, keys)) or "the file"


def _content_problems(file: PublishedFile) -> Found:
    """What a right shape can still hold that is wrong."""
    for name, table in file.tables.items():
        here = ("tables", name)
        for part, keys in _parts(table, here):
            yield from _axis_problems(file, part, keys)
        yield from _size_problems(table, here)
        yield from _level_problems(table, here)
    for i, contradiction in enumerate(file.contradictions):
        for j, where in enumerate(contradiction.cells):
            yield from _place_problems(file, where, ("contradictions", i, "cells", j))


def _parts(table: TablePart, here: Keys) -> Iterator[tuple[Levels, Keys]]:
    """Every mapping of levels in a table, and where it stands."""
    yield table.protocol.settings, (*here, "protocol", "settings")
    sides = [("columns", name, column) for name, column in table.columns.items()]
    for direction, name, side in [*sides, *(("rows", name, row) for name, row in table.rows.items())]:
        yield side.levels, (*here, direction, name, "levels")
        yield side.protocol.settings, (*here, direction, name, "protocol", "settings")
        if isinstance(side, RowPart):
            yield dict.fromkeys(side.without), (*here, direction, name, "without")


def _axis_problems(file: PublishedFile, levels: Levels, here: Keys) -> Found:
    """Levels and settings name known axes; what a protocol states once has one level."""
    known = [*file.axes, *(STATED if here[-1] == "levels" else ())]
    for axis, level in levels.items():
        if axis not in known:
            yield (*here, axis), f"{axis!r} is no axis of this publication. {nearest(axis, known)}"
        elif level == []:
            yield (*here, axis), f"{axis} has no level, so it would match none. Name one, or leave the axis out."
        elif axis == "epochs" and type(level) is not int:
            yield (*here, axis), f"epochs is {level!r}, but a protocol states one whole number."
        elif axis in STATED and isinstance(level, list):
            yield (*here, axis), f"{axis} is {level!r}, but a protocol states one level. Make a row or column of each."


def _size_problems(table: TablePart, here: Keys) -> Found:
    wanted = len(table.columns)
    for name, row in table.rows.items():
        if len(row.values) != wanted:
            words = f"row {name!r} has {len(row.values)} values for {wanted} columns. Write – where the paper prints none."
            yield (*here, "rows", name, "values"), words


def _level_problems(table: TablePart, here: Keys) -> Found:
    """An axis varies in one direction, and no two cells are found by the same levels."""
    columns = {axis for column in table.columns.values() for axis in column.levels}
    for name, row in table.rows.items():
        for axis in sorted(row.levels.keys() & columns):
            yield (
                (*here, "rows", name, "levels", axis),
                f"{axis!r} is a level of this row and of a column. A table varies it in one direction.",
            )
    for direction, sides in (("columns", table.columns), ("rows", table.rows)):
        for (first, a), (second, b) in combinations(((name, labels(side.levels)) for name, side in sides.items()), 2):
            if a.keys() == b.keys() and all(set(a[axis]) & set(b[axis]) for axis in a):
                words = ", ".join(f"{axis} = {' or '.join(allowed)}" for axis, allowed in b.items()) or "none"
                rule = f"{second!r} and {first!r} of {direction} have the same levels ({words}), so their cells are the same."
                yield (*here, direction, second), f"{rule} Keep one, or tell them apart."


def _place_problems(file: PublishedFile, where: WherePart, here: Keys) -> Found:
    table = file.tables.get(where.table)
    if table is None:
        yield (*here, "table"), f"{where.table!r} is no table of this file. {nearest(where.table, list(file.tables))}"
    elif where.row not in table.rows:
        yield (*here, "row"), f"{where.row!r} is no row of {where.table}. {nearest(where.row, list(table.rows))}"
    elif where.column not in table.columns:
        yield (*here, "column"), f"{where.column!r} is no column of {where.table}. {nearest(where.column, list(table.columns))}"
    elif table.rows[where.row].values[list(table.columns).index(where.column) :][:1] == ["–"]:
        yield here, f"{where.table} prints no number at ({where.row}, {where.column}), so nothing can contradict it."


_PARTS: tuple[type[BaseModel], ...] = (PublishedFile, TablePart, RowPart, ProtocolPart, ContradictionPart, WherePart)
_KEYS = sorted({f.alias or name for part in _PARTS for name, f in part.model_fields.items()})
