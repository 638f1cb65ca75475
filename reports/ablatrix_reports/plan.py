"""A sweep's plan as the report reads it: the columns of `plan.json` that a table needs, checked once."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablatrix.claim import Claim, parse
from ablatrix.errors import InvalidInput
from ablatrix.store import SweepDirectory

SCHEMA = 1
UNSET = "–"  # what a plan writes for an axis that a cell of `include` does not take part in
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Metric:
    """What a cell reports. `take` is `last` for the final value, `best` for the best of all reports of a trial."""

    name: str
    goal: Literal["max", "min"]
    take: Literal["last", "best"]

    @property
    def sign(self) -> int:
        """+1 where more is better, else -1."""
        return -1 if self.goal == "min" else 1


@dataclass(frozen=True)
class PlannedTrial:
    """One replicate of a cell."""

    trial: str
    seed: int


@dataclass(frozen=True)
class PlannedCell:
    """One combination of levels, by axis name; an axis that the cell leaves open is not in `levels`."""

    id: str
    levels: dict[str, str]
    label: str | None
    note: str | None
    excluded: str | None
    metric: Metric
    trials: tuple[PlannedTrial, ...]
    included: bool = False


@dataclass(frozen=True)
class Axis:
    """A named key (or several that move together) with its levels, in the order of the file."""

    name: str
    keys: tuple[str, ...]
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Which axes make rows and which make columns; `published` names the tables of published values."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    baseline: dict[str, str] | None
    published: tuple[str, ...]


@dataclass(frozen=True)
class PlannedClaim:
    """A claim of the sweep file; `only` is its `for`."""

    text: str
    check: str
    only: dict[str, Any]
    read: Claim


@dataclass(frozen=True)
class Plan:
    """One sweep, as submitted; cells stand in table order."""

    sweep: str
    profile: str | None
    title: str
    question: str | None
    file: str | None
    commit: str | None
    dirty: bool | None
    command: str | None
    metric: Metric
    axes: tuple[Axis, ...]
    layout: Layout
    seeds: tuple[int, ...]
    cells: tuple[PlannedCell, ...]
    claims: tuple[PlannedClaim, ...] = ()


def read_plan(sweep: SweepDirectory) -> Plan:
    """The plan of the last `run`; raises InvalidInput where there is none, or none that can be read."""
    try:
        raw = sweep.plan()
    except (OSError, ValueError) as error:
        raise _unusable(sweep.name, f"cannot be read ({error})") from error
    if raw.get("schema") != SCHEMA:
        raise _unusable(sweep.name, f"has schema {raw.get('schema')!r}, but this version reads schema {SCHEMA}")
    try:
        return _plan(raw)
    except KeyError as error:
        raise _unusable(sweep.name, f"has no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _unusable(sweep.name, f"has an unexpected shape ({error})") from error


def clean(text: Any) -> str:
    """`text` without control characters and lone surrogates, which no terminal, page or file should meet; newlines stay."""
    known = str(text).replace("\r\n", "\n").replace("\t", " ")
    return "".join(REPLACEMENT if _unsafe(c) else c for c in known)


def one_line(text: Any) -> str:
    """`clean` text with every run of white space as one space."""
    return " ".join(clean(text).split())


def _unsafe(character: str) -> bool:
    # Bidirectional overrides (U+202A.., U+2066..) would let a label reorder the text beside it.
    if character == "\n":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"


def _unusable(sweep: str, what: str) -> InvalidInput:
    return InvalidInput(f"the plan.json of sweep {sweep!r} {what}. Run `ablatrix run` again: finished trials are kept.")


def _plan(raw: Mapping[str, Any]) -> Plan:
    metric = _metric(raw["metric"])
    axes = tuple(_axis(a) for a in raw["axes"])
    cells = tuple(_cell(c, metric) for c in raw["cells"])
    if len({c.id for c in cells}) < len(cells):
        raise ValueError("two cells share an id")
    return Plan(
        sweep=one_line(raw["sweep"]),
        profile=_text(raw.get("profile")),
        title=one_line(raw.get("title") or raw["sweep"]),
        question=_text(raw.get("question")),
        file=_text(raw.get("file")),
        commit=_text(raw.get("commit")),
        dirty=raw.get("dirty"),
        command=_text(raw.get("command")),
        metric=metric,
        axes=axes,
        layout=_layout(raw["table"], axes),
        seeds=tuple(int(s) for s in raw["seeds"]),
        cells=cells,
        claims=tuple(_claim(c) for c in raw.get("claims", ())),
    )


def _claim(raw: Mapping[str, Any]) -> PlannedClaim:
    return PlannedClaim(one_line(raw["text"]), one_line(raw["check"]), dict(raw.get("for") or {}), parse(str(raw["check"])))


def _axis(raw: Mapping[str, Any]) -> Axis:
    return Axis(one_line(raw["name"]), tuple(one_line(k) for k in raw["keys"]), tuple(one_line(v) for v in raw["levels"]))


def _layout(raw: Mapping[str, Any], axes: tuple[Axis, ...]) -> Layout:
    """An axis that the file places nowhere becomes a row axis, so that no two cells share a place."""
    rows, columns = tuple(map(one_line, raw["rows"])), tuple(map(one_line, raw["columns"]))
    unplaced = tuple(a.name for a in axes if a.name not in rows + columns)
    published = raw.get("published") or ()
    named = tuple(map(one_line, [published] if isinstance(published, str) else published))
    return Layout(rows + unplaced, columns, _levels(raw["baseline"]) if raw.get("baseline") else None, named)


def _cell(raw: Mapping[str, Any], default: Metric) -> PlannedCell:
    return PlannedCell(
        id=one_line(raw["id"]),
        levels=_levels(raw["levels"]),
        label=_text(raw.get("label")),
        note=_text(raw.get("note")),
        excluded=_text(raw.get("excluded")),
        metric=_metric(raw["metric"]) if raw.get("metric") else default,
        trials=tuple(PlannedTrial(str(t["trial"]), int(t["seed"])) for t in raw["trials"]),
        included=bool(raw.get("included")),
    )


def _metric(raw: Mapping[str, Any]) -> Metric:
    goal, take = raw["goal"], raw["take"]
    if goal not in ("max", "min") or take not in ("last", "best"):
        raise ValueError(f"metric goal {goal!r} and take {take!r} are not max or min and last or best")
    return Metric(one_line(raw["name"]), goal, take)


def _levels(raw: Mapping[str, Any]) -> dict[str, str]:
    return {one_line(k): one_line(v) for k, v in raw.items() if v != UNSET}


def _text(value: Any) -> str | None:
    return None if value is None else one_line(value)
