"""Each cell beside the paper: its published number, and whether ours agrees, differs, or cannot be compared, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablatrix.grid import RECIPE
from ablatrix_reports import published
from ablatrix_reports.facts import PROTOCOL, Facts, facts_of, keys_of, shortcuts
from ablatrix_reports.judgement import Published, Verdict
from ablatrix_reports.plan import Plan
from ablatrix_reports.published import Publication, Table, Value
from ablatrix_reports.published_file import Labels
from ablatrix_reports.report import Cell
from ablatrix_reports.statistics import exactly, half_width, summarise

ROUNDING = 0.05  # papers print one decimal


@dataclass(frozen=True)
class _Candidate:
    """A number of the paper, what its row and column vary, and what else it states."""

    cell: published.Cell
    value: Value
    levels: Labels
    stated: Labels


@dataclass(frozen=True)
class _Match:
    """A number of the paper for one cell, and where the protocols differ."""

    table: Table
    value: Value
    rivals: tuple[Value, ...]
    differences: tuple[str, ...]


def compare(cells: Sequence[Cell], plan: Plan, recipes: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """The same cells with `published` and `verdict` filled in.

    Of several published tables of the plan the first that has a number for a cell counts. recipes: by cell id. Raises InvalidInput
    where there is no such table.
    """
    found: dict[str, _Match] = {}
    for id in plan.layout.published:
        publication = published.load_published(id.partition("/")[0])
        for cell_id, match in _matches(cells, publication, publication.table(id), plan, recipes).items():
            found.setdefault(cell_id, match)
    judged = [_judged(cell, found[cell.id], recipes[cell.id]) if cell.id in found else cell for cell in cells]
    return _with_delta(judged)


def verdict(values: Sequence[float], paper: Sequence[float], runs: int | None, differences: Sequence[str]) -> Verdict:
    """Ours against the paper's number or numbers, any of which will do.

    `runs` are those behind the paper's number; unknown counts as one, which makes the interval wider. The 95 % prediction interval
    of the difference takes our spread for the paper's too (`s * t * sqrt(1/n + 1/runs)`), and grants the paper its rounding.
    """
    n = len(values)
    found = summarise(exactly(values, max(map(abs, values))))
    mean = found.mean or 0.0
    nearest = min(paper, key=lambda number: abs(mean - number))
    difference = mean - nearest
    if differences:
        return Verdict("not comparable", tuple(differences), difference)
    if not found.std:
        return Verdict("undecided", ("one seed has no spread to judge by" if n == 1 else "all seeds are equal",), difference)
    half = half_width(found.std * math.sqrt(1 + n / (runs or 1)), n) + ROUNDING
    kind = "agrees" if abs(difference) <= half else "higher" if difference > 0 else "lower"
    return Verdict(kind, (), difference, difference - half, difference + half)


def _matches(
    cells: Sequence[Cell], publication: Publication, table: Table, plan: Plan, recipes: Mapping[str, Mapping[str, Any]]
) -> dict[str, _Match]:
    keys = keys_of(publication.axes)
    facts = {c.id: facts_of(recipes[c.id], c.metric, keys) for c in cells if c.id in recipes and not _untrained(recipes[c.id])}
    # A level of the sweep says what the recipe has no key for, such as the row of a table.
    known = {c.id: {a: (level,) for a, level in c.levels.items() if a in publication.axes} | facts[c.id] for c in cells if c.id in facts}
    candidates = [_candidate(cell, cell.value) for cell in table.cells if cell.value]
    own_axes = set(table.axes)
    everything = {name for name in _differing(known) if name in own_axes or name not in PROTOCOL}
    axes = _varied(plan, publication, keys)
    varied = everything if axes is None else {name for name in axes if name in own_axes or name not in PROTOCOL}
    off_grid = {cell.id for cell in plan.cells if cell.included}
    found = {id: _match(table, candidates, own, everything if id in off_grid else varied) for id, own in known.items()}
    return {cell_id: match for cell_id, match in found.items() if match}


def _candidate(cell: published.Cell, value: Value) -> _Candidate:
    stated = {name: allowed for name, allowed in value.protocol.facts().items() if name not in cell.levels}
    return _Candidate(cell, value, cell.levels, stated)


def _varied(plan: Plan, publication: Publication, keys: Mapping[str, str]) -> set[str] | None:
    """What a number must share with a cell, rather than differ in: what the axes vary. None where their levels are whole recipes."""
    moved = [key for axis in plan.axes for key in axis.keys]
    if RECIPE in moved:
        return None
    by_key = {name for name, key in keys.items() if any(key == k or key.startswith(f"{k}.") for k in moved)}
    return by_key | {axis.name for axis in plan.axes if axis.name in publication.axes}


def _differing(known: Mapping[str, Facts]) -> set[str]:
    names = {name for facts in known.values() for name in facts}
    return {name for name in names if len({facts.get(name) for facts in known.values()}) > 1}


def _match(table: Table, candidates: Sequence[_Candidate], facts: Facts, varied: set[str]) -> _Match | None:
    """The number with the fewest differences, and of equally near ones that whose row and column vary most of what the sweep varies.

    So a sweep over masks gets the row `blocked`, and not that of a grid for which the paper leaves the mask open.
    """
    found: list[tuple[int, int, _Candidate, Labels]] = []
    for candidate in candidates:
        if not all(_agree(facts.get(name, ()), allowed) for name, allowed in candidate.levels.items()):
            continue
        off = {name: allowed for name, allowed in candidate.stated.items() if name in facts and not _agree(facts[name], allowed)}
        if not varied & off.keys():
            found.append((len(off), -len(varied & candidate.levels.keys()), candidate, off))
    if not found:
        return None
    _, _, best, off = min(found, key=lambda each: each[:2])
    return _Match(table, best.value, best.cell.rivals, tuple(_difference(name, facts[name], allowed) for name, allowed in off.items()))


def _agree(ours: Sequence[str], allowed: Sequence[str]) -> bool:
    return any(fact in allowed for fact in ours)


def _difference(name: str, ours: Sequence[str], allowed: Sequence[str]) -> str:
    return f"{name} {ours[-1]} ≠ {' or '.join(allowed)}"


def _untrained(recipe: Mapping[str, Any]) -> bool:
    """An untrained network is no row of any paper, whatever else its recipe says."""
    return recipe.get("schedule", {}).get("epochs") == 0


def _judged(cell: Cell, match: _Match, recipe: Mapping[str, Any]) -> Cell:
    rivals = tuple(rival.value for rival in match.rivals)
    value = match.value
    places = tuple(dict.fromkeys(str(v.place) for v in (value, *match.rivals)))
    shown = Published(value.value, value.unit, match.table.n, value.weak, rivals, places, value.note)
    if not cell.values:
        return replace(cell, published=shown)
    differences = match.differences + shortcuts(recipe, cell.metric)
    return replace(cell, published=shown, verdict=verdict(list(cell.values.values()), (value.value, *rivals), match.table.n, differences))


def _with_delta(cells: Sequence[Cell]) -> list[Cell]:
    """The paper's own difference to the baseline, where it has a number for both."""
    paper = {cell.id: cell.published.value for cell in cells if cell.published}
    return [
        replace(cell, published=replace(cell.published, delta=round(cell.published.value - paper[cell.baseline], 6)))
        if cell.published and cell.baseline in paper
        else cell
        for cell in cells
    ]
