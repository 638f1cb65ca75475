"""The grammar of claims: what a table must support, as comparisons of cells. Read here, judged in `ablatrix_reports.claims`.

    claim      = comparison { "and" comparison }
    comparison = sum ( "<" | "<=" | ">" | ">=" ) sum { ( "<" | "<=" | ">" | ">=" ) sum }
    sum        = [ "-" ] term { ( "+" | "-" ) term }
    term       = number | cell | ( "max" | "min" | "mean" | "abs" ) "(" sum { "," sum } ")" | "(" sum ")"
    cell       = "cell" "(" axis "=" level { "," axis "=" level } ")"

So `cell(grid=16) < max(cell(grid=4), cell(grid=8)) - 0.5`: grid 16 is at least half a point below the better of the two.
A level that holds a comma, a quote or a parenthesis stands in quotes. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ablatrix.document import read_value
from ablatrix.grid import ABSENT, comparison, label, matches

FUNCTIONS = ("max", "min", "mean", "abs")
MAX_DEPTH = 20  # of nested parentheses
MAX_CASES = 1000  # that a claim may speak of
MAX_DIFFERENCES = 500  # that a claim amounts to once its max and min are written out
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LEVEL = re.compile(r"\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^\s,()\"'\[\]=][^,()\"'=]*")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_COMPARISON = re.compile(r"<=|>=|<|>")


class ClaimError(ValueError):
    """A claim that cannot be read; `position` counts characters from 1."""

    def __init__(self, position: int, message: str) -> None:
        self.position = position
        super().__init__(f"character {position}: {message}")


@dataclass(frozen=True)
class Number:
    """A constant, in the metric's unit."""

    value: float


@dataclass(frozen=True)
class CellRef:
    """A cell's mean, found by the levels that it names."""

    levels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "cell(" + ", ".join(f"{axis}={level}" for axis, level in self.levels) + ")"


@dataclass(frozen=True)
class Sum:
    """Terms with their signs, +1 or -1."""

    terms: tuple[tuple[int, Term], ...]


@dataclass(frozen=True)
class Call:
    """max, min or mean of its arguments; abs of its one."""

    name: str
    arguments: tuple[Term, ...]


Term = Number | CellRef | Sum | Call


@dataclass(frozen=True)
class Comparison:
    """`larger` is above `smaller`; a claim with `<` is read with its sides exchanged."""

    larger: Term
    smaller: Term


@dataclass(frozen=True)
class Claim:
    """Comparisons that must all hold."""

    comparisons: tuple[Comparison, ...]

    @property
    def cells(self) -> tuple[CellRef, ...]:
        """Every cell that is named, once, in the order of the text."""
        found = (ref for c in self.comparisons for side in (c.larger, c.smaller) for ref in _refs(side))
        return tuple(dict.fromkeys(found))


def parse(text: str) -> Claim:
    """Read a claim; ClaimError with the position of the first thing that is wrong."""
    return _Parser(text).claim()


Levels = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One reading of a claim: `levels` of the axes that its cells leave open; the index of each named cell, None where there is none."""

    levels: dict[str, str]
    cells: dict[CellRef, int | None]


def cases(claim: Claim, only: Mapping[str, object], axes: Mapping[str, Sequence[str]], cells: Sequence[Levels]) -> list[Case]:
    """The readings of a claim: one for each combination of levels of the axes that its cells leave open.

    only: the claim's `for`. axes: levels by axis. cells: the levels of every cell of the table. A reading of which no cell is in
    the table is left out.
    """
    named = {axis for ref in claim.cells for axis, _ in ref.levels}
    opened = {axis: _wanted(only.get(axis), levels) for axis, levels in axes.items() if axis not in named}
    found, finder = [], _Finder(cells)
    for combination in itertools.product(*opened.values()):
        levels = dict(zip(opened, combination, strict=True))
        places = {ref: finder.find(levels | dict(ref.levels)) for ref in claim.cells}
        if any(place is not None for place in places.values()):
            found.append(Case(levels, places))
    return found


def _wanted(wanted: object, levels: Sequence[str]) -> list[str]:
    """The levels of an axis that `for` speaks of: those of the axis that meet it, and those beside it that it names."""
    if wanted is None:
        return list(levels)
    met = [level for level in levels if matches({"": wanted}, {"": level})]
    return met + [level for level in plain_levels(wanted) if level not in levels]


def plain_levels(wanted: object) -> list[str]:
    """The levels that a condition names outright, as tables write them; comparisons such as "< 4" name none."""
    return [label(w) for w in (wanted if isinstance(wanted, list) else [wanted]) if comparison(w) is None]


class _Finder:
    """Finds the cell of exactly the wanted levels, else the only one that leaves some axes open (`–`) and agrees on the others."""

    def __init__(self, cells: Sequence[Levels]) -> None:
        stated = [{axis: level for axis, level in levels.items() if level != ABSENT} for levels in cells]
        axes = max(map(len, stated), default=0)
        self.exact = {frozenset(levels.items()): i for i, levels in enumerate(stated)}
        self.open_ended = [(i, levels) for i, levels in enumerate(stated) if len(levels) < axes]

    def find(self, wanted: Levels) -> int | None:
        exact = self.exact.get(frozenset(wanted.items()))
        found = [i for i, levels in self.open_ended if matches(levels, wanted)] if exact is None else [exact]
        return found[0] if len(found) == 1 else None


def _refs(term: Term) -> Iterator[CellRef]:
    if isinstance(term, CellRef):
        yield term
    elif isinstance(term, Sum):
        for _, inner in term.terms:
            yield from _refs(inner)
    elif isinstance(term, Call):
        for inner in term.arguments:
            yield from _refs(inner)


def _count(term: Term) -> int:
    """How many sums of cells a term stands for once its max, min and abs are written out."""
    if isinstance(term, Sum):
        return math.prod(_count(inner) for _, inner in term.terms)
    if isinstance(term, Call):
        inner = [_count(argument) for argument in term.arguments]
        return math.prod(inner) if term.name == "mean" else sum(inner) * (2 if term.name == "abs" else 1)
    return 1


class _Parser:
    """Recursive descent over the text, one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def claim(self) -> Claim:
        comparisons = self._comparison()
        while self._word("and"):
            comparisons += self._comparison()
        self._space()
        if self.at < len(self.text):
            self._fail(f"{self._rest()[:20]!r} is not expected here. A claim is a comparison, or several joined by `and`.")
        if sum(_count(c.larger) * _count(c.smaller) for c in comparisons) > MAX_DIFFERENCES:
            self._fail(f"this compares more than {MAX_DIFFERENCES} pairs once max, min and abs are written out. Write it shorter.", 0)
        return Claim(tuple(comparisons))

    def _comparison(self) -> list[Comparison]:
        left, found = self._sum(), []
        while operator := self._match(_COMPARISON):
            start = self.at
            right = self._sum()
            larger, smaller = (left, right) if operator.startswith(">") else (right, left)
            if not [*_refs(larger), *_refs(smaller)]:
                self._fail("this compares numbers alone. One side must name a cell.", start)
            found.append(Comparison(larger, smaller))
            left = right
        if not found:
            hint = " No measurement can show that two cells are equal; write abs(a - b) < margin." if self._rest().startswith("=") else ""
            self._fail(f"a comparison (<, <=, > or >=) is needed here.{hint}")
        return found

    def _sum(self) -> Term:
        sign = -1 if self._symbol("-") else 1
        terms = [(sign, self._term())]
        while True:
            if self._symbol("+"):
                terms.append((1, self._term()))
            elif self._symbol("-"):
                terms.append((-1, self._term()))
            else:
                return terms[0][1] if terms == [(1, terms[0][1])] else Sum(tuple(terms))

    def _term(self) -> Term:
        self._space()
        start = self.at
        if number := self._match(_NUMBER):
            return Number(float(number))
        if self._symbol("("):
            return self._inside(start, self._sum)
        name = self._match(_AXIS)
        if name == "cell" and self._symbol("("):
            return self._cell()
        if name in FUNCTIONS and self._symbol("("):
            return self._inside(start, lambda: self._call(name, start))
        if name in ("cell", *FUNCTIONS):
            self._fail(f"{name!r} needs an opening parenthesis behind it.")
        what = repr(name) if name else repr(self._rest()[:10]) if self._rest() else "the end of the claim"
        self._fail(f"{what} stands where a number, cell(axis=level), {', '.join(FUNCTIONS)} or a parenthesis is needed.", start)

    def _inside(self, start: int, rule: Callable[[], Term]) -> Term:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"parentheses are nested more than {MAX_DEPTH} deep.", start)
        term = rule()
        self.depth -= 1
        self._expect(")")
        return term

    def _call(self, name: str, start: int) -> Call:
        arguments = [self._sum()]
        while self._symbol(","):
            arguments.append(self._sum())
        if name == "abs" and len(arguments) > 1:
            self._fail(f"abs takes one argument, not {len(arguments)}.", start)
        return Call(name, tuple(arguments))

    def _cell(self) -> CellRef:
        levels: dict[str, str] = {}
        while True:
            self._space()
            start, axis = self.at, self._match(_AXIS)
            if not axis:
                self._fail("cell needs axis=level, such as cell(grid=2).", start)
            if axis in levels:
                self._fail(f"the axis {axis!r} stands twice in one cell.", start)
            self._expect("=")
            self._space()
            level = self._match(_LEVEL)
            if not level:
                self._fail(f"axis {axis!r} needs a level. Put one with commas or parentheses in quotes.")
            levels[axis] = level[1:-1] if level[0] in "\"'" else label(read_value(level.strip()))
            if not self._symbol(","):
                self._expect(")")
                return CellRef(tuple(levels.items()))

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        self._space()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found.group() if found else None

    def _word(self, word: str) -> bool:
        before = self.at
        if self._match(_AXIS) == word:
            return True
        self.at = before
        return False

    def _symbol(self, symbol: str) -> bool:
        self._space()
        if self.text.startswith(symbol, self.at):
            self.at += len(symbol)
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._symbol(symbol):
            found = repr(self._rest()[:10]) if self._rest() else "the end of the claim"
            self._fail(f"{symbol!r} is needed here, but {found} follows.")

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _rest(self) -> str:
        return self.text[self.at :]

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        raise ClaimError((self.at if at is None else at) + 1, message)
