"""The space of a search: dimensions in the file's order, each an interval or a choice of levels; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ablatrix import grid
from ablatrix.document import Place
from ablatrix.errors import FileProblem
from ablatrix.grid import Axis, Level, label, matches, number
from ablatrix.layers import Change
from ablatrix.schema import Choice, Interval
from ablatrix.spec import Spec

SUGGESTION = "suggestion"  # the one axis of a search's table
DIGITS = 6  # of a suggested number; more would only fill tables


class Suggests(Protocol):
    """The part of an Optuna trial that a space asks."""

    def suggest_float(self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False) -> float:
        """A number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: list[str], /) -> Any:
        """One of the choices."""
        ...


@dataclass(frozen=True)
class Dimension:
    """One name of the space: an interval of a key, or the levels of an axis; only where `condition` is met."""

    name: str
    condition: Mapping[str, Any]
    interval: Interval | None
    levels: Axis | None
    line: int

    def suggest(self, source: Suggests) -> Level:
        """The level that `source` suggests."""
        if self.levels:
            chosen = source.suggest_categorical(self.name, list(self.levels.labels))
            return next(level for level in self.levels.levels if level.label == chosen)
        return self.at(self._number(source))

    def _number(self, source: Suggests) -> float | int:
        span = self.interval
        assert span is not None
        if is_whole(span):
            return source.suggest_int(self.name, int(span.low), int(span.high), step=int(span.step or 1), log=span.log)
        return source.suggest_float(self.name, float(span.low), float(span.high), step=span.step, log=span.log)

    def at(self, value: float | int) -> Level:
        """The level of one number of the interval."""
        span = self.interval
        assert span is not None
        if not is_whole(span):
            value = min(max(float(f"{value:.{DIGITS}g}"), span.low), span.high)
        return Level(label(value), (Change(span.key, value, self.line),), line=self.line)

    def named(self, text: str) -> Level | None:
        """The level of a label as it was recorded; None where the dimension has it no more."""
        if self.levels:
            return next((level for level in self.levels.levels if level.label == text), None)
        span = self.interval
        assert span is not None
        value = number(text)
        if not span.low <= value <= span.high:  # false for what is no number, too
            return None
        return self.at(int(value) if is_whole(span) else value)

    @property
    def corners(self) -> list[Level]:
        """Levels that a check tries: all of a choice, the ends of an interval."""
        return list(self.levels.levels) if self.levels else [self.at(value) for value in self._ends]

    @property
    def _ends(self) -> list[float | int]:
        assert self.interval is not None
        return [self.interval.low, self.interval.high]


def is_whole(span: Interval) -> bool:
    """Whether an interval is of whole numbers: both its ends are written so, and its step."""
    return all(isinstance(number, int) for number in (span.low, span.high, span.step or 1))


def dimensions(spec: Spec) -> tuple[list[Dimension], list[FileProblem]]:
    """The dimensions of a search, and what is wrong with them."""
    assert spec.file.search is not None
    found: list[Dimension] = []
    problems: list[FileProblem] = []
    for name, given in spec.file.search.space.items():
        place: Place = ("search", "space", name)
        line = spec.document.line(place)
        if isinstance(given, Interval):
            problems += [FileProblem(spec.document.line((*place, key)), message) for key, message in _interval_problems(name, given)]
            found.append(Dimension(name, given.if_, given, None, line))
        else:
            axis, wrong = grid.axis_of(spec, name, given.key, given.levels, (*place, "levels"))
            problems += wrong
            found.append(Dimension(name, given.if_, None, axis, line))
        problems += _condition_problems(spec, given, found)
    return found, problems


def _interval_problems(name: str, span: Interval) -> Iterator[tuple[str, str]]:
    if span.low >= span.high:
        yield "low", f"{name} runs from {span.low:g} to {span.high:g}. Write the smaller bound as `low`."
    if span.log and span.low <= 0:
        yield "low", f"{name} is even in the logarithm, but begins at {span.low:g}. Use a `low` above 0."
    if span.log and span.step:
        yield "step", f"{name} has both `log` and `step`. Keep one."
    if span.step and span.step > span.high - span.low:
        yield "step", f"{name} has a step of {span.step:g}, larger than its interval."


def _condition_problems(spec: Spec, given: Interval | Choice, found: list[Dimension]) -> Iterator[FileProblem]:
    *earlier, own = found
    known = {d.name: d for d in earlier}
    for name, wanted in given.if_.items():
        line = spec.document.line(("search", "space", own.name, "if", name))
        if name not in known:
            yield FileProblem(line, f"{own.name!r} depends on {name!r}, which is no dimension above it. Write what it depends on first.")
        elif (axis := known[name].levels) and (message := grid.level_problem(name, wanted, set(axis.labels))):
            yield FileProblem(line, message)


def suggest(space: list[Dimension], source: Suggests) -> dict[str, Level]:
    """One level of each dimension whose condition the earlier ones meet."""
    chosen: dict[str, Level] = {}
    for dimension in space:
        if matches(dimension.condition, {name: level.label for name, level in chosen.items()}):
            chosen[dimension.name] = dimension.suggest(source)
    return chosen


def corners(space: list[Dimension]) -> Iterator[dict[str, Level]]:
    """Suggestions that a check tries: every corner of each dimension, reached through those that it depends on."""
    for dimension in space:
        for level in dimension.corners:
            yield _through(space, {dimension.name: level})


def _through(space: list[Dimension], wanted: dict[str, Level]) -> dict[str, Level]:
    """A suggestion with the wanted levels: conditions above them are met where any corner can."""
    needed = dict(wanted)
    for dimension in reversed(space):
        if dimension.name in needed:
            for name, condition in dimension.condition.items():
                above = next((d for d in space if d.name == name), None)
                fitting = [level for level in above.corners if matches({name: condition}, {name: level.label})] if above else []
                if fitting:
                    needed.setdefault(name, fitting[0])
    chosen: dict[str, Level] = {}
    for dimension in space:
        labels = {name: level.label for name, level in chosen.items()}
        if matches(dimension.condition, labels):
            chosen[dimension.name] = needed.get(dimension.name, dimension.corners[0])
    return chosen
