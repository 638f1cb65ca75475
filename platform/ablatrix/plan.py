"""From a sweep file to cells and trials; pure but for reading recipes and the data's fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablatrix import claim_problems, grid, shipped
from ablatrix.document import Place
from ablatrix.errors import FileProblem, InvalidInput, SweepFileError
from ablatrix.grid import Axis, Level, label, matches
from ablatrix.identity import trial_id
from ablatrix.layers import Change, changes, resolve
from ablatrix.records import SCHEMA, TrialRecipe
from ablatrix.schema import Include, Profile, Resources
from ablatrix.spec import PAPER, Spec
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.fields import nearest


@dataclass(frozen=True)
class Trial:
    """cell x seed."""

    id: str
    cell: str
    seed: int
    data: str
    recipe: Recipe

    def record(self) -> TrialRecipe:
        """What the store keeps of it."""
        return TrialRecipe(self.id, self.seed, self.data, self.recipe.as_mapping())


@dataclass(frozen=True)
class Cell:
    """One combination of levels, on the grid or included beside it."""

    levels: dict[str, str]
    recipe: Recipe | None
    label: str | None = None
    note: str | None = None
    included: bool = False
    excluded: str | None = None

    @property
    def id(self) -> str:
        """Readable and unique within the sweep."""
        return ",".join(f"{name}={level}" for name, level in self.levels.items())


@dataclass(frozen=True)
class Plan:
    """A sweep under one profile: its cells, and the trials that they want."""

    spec: Spec
    profile: str | None
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    resources: Resources
    trials: tuple[Trial, ...] = ()

    @property
    def name(self) -> str:
        """The sweep's name in the store: with its profile, so that no profile's report overwrites another's."""
        return f"{self.spec.file.sweep}@{self.profile}" if self.profile else self.spec.file.sweep

    def as_mapping(self) -> dict[str, Any]:
        """`plan.json`, all but what the caller knows: commit and command."""
        file = self.spec.file
        by_cell: dict[str, list[Trial]] = {}
        for trial in self.trials:
            by_cell.setdefault(trial.cell, []).append(trial)
        return {
            "schema": SCHEMA, "sweep": file.sweep, "profile": self.profile, "title": file.title, "question": file.question,
            "file": self.spec.path.name, "metric": file.metric.model_dump(), "seeds": list(self.seeds),
            "axes": [{"name": a.name, "keys": list(a.keys), "levels": list(a.labels)} for a in self.axes],
            "table": table_of(self), "resources": self.resources.model_dump(),
            "claims": [{"text": c.text, "check": c.check, "for": c.for_} for c in file.claims],
            "cells": [_cell_mapping(self, c, by_cell.get(c.id, [])) for c in self.cells],
        }  # fmt: skip


def _cell_mapping(plan: Plan, cell: Cell, trials: list[Trial]) -> dict[str, Any]:
    return {
        "id": cell.id, "levels": cell.levels, "label": cell.label, "included": cell.included, "note": cell.note,
        "excluded": cell.excluded, "metric": plan.spec.file.metric.model_dump(),
        "trials": [{"trial": t.id, "seed": t.seed} for t in sorted(trials, key=lambda t: t.seed)],
    }  # fmt: skip


def table_of(plan: Plan) -> dict[str, Any]:
    """The table's rows, columns and baseline, with the defaults filled in."""
    table, names = plan.spec.file.table, [axis.name for axis in plan.axes]
    if table is None:
        return {"rows": names[:1], "columns": names[1:], "baseline": None, "published": []}
    rows, columns = ([w] if isinstance(w, str) else list(w or []) for w in (table.rows, table.columns))
    baseline = {name: label(level) for name, level in table.baseline.items()} if table.baseline else None
    published = [table.published] if isinstance(table.published, str) else list(table.published or [])
    return {"rows": rows, "columns": columns, "baseline": baseline, "published": published}


def check(spec: Spec, overrides: Iterable[Change] = ()) -> list[FileProblem]:
    """Every problem of the file under every one of its profiles. Needs no data, no Ray, no MLflow."""
    listed = list(overrides)
    found = {p for profile in (None, *spec.file.profiles) for p in _outline(spec, profile, listed)[1]}
    return sorted(found | set(spec.problems))


def make(spec: Spec, profile: str | None, fingerprint: Callable[[Data], str], overrides: Iterable[Change] = ()) -> Plan:
    """The plan under a profile; SweepFileError with every problem. `fingerprint` is asked once for each dataset."""
    if profile == PAPER and PAPER not in spec.file.profiles:
        profile = None
    if profile is not None and profile not in spec.file.profiles:
        raise InvalidInput(f"{spec.path} has no profile {profile!r}. {nearest(profile, [PAPER, *spec.file.profiles])}")
    plan, problems = _outline(spec, profile, list(overrides))
    problems += spec.problems
    if problems:
        raise SweepFileError(spec.path, problems)
    return Plan(spec, plan.profile, plan.axes, plan.cells, plan.seeds, plan.resources, tuple(_trials(plan, fingerprint)))


def _trials(plan: Plan, fingerprint: Callable[[Data], str]) -> Iterator[Trial]:
    """Seeds outermost, so that a whole table of n = 1 exists early."""
    prints: dict[tuple[str, str | None], str] = {}
    for seed in plan.seeds:
        for cell in plan.cells:
            if cell.recipe is None or cell.excluded:
                continue
            data = cell.recipe.data
            if (data.name, data.path) not in prints:
                prints[data.name, data.path] = fingerprint(data)
            known = prints[data.name, data.path]
            yield Trial(trial_id(cell.recipe, seed, known), cell.id, seed, known, cell.recipe)


def _outline(spec: Spec, profile: str | None, overrides: list[Change]) -> tuple[Plan, list[FileProblem]]:
    """Axes and cells with their recipes, and everything that is wrong with them."""
    chosen = spec.file.profiles[profile] if profile else Profile()
    axes, problems = grid.axes(spec, profile)
    seeds = chosen.seeds or spec.file.seeds
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))
    plan = Plan(spec, profile, tuple(axes), (), seeds, chosen.resources or spec.file.resources)
    problems += _reference_problems(plan)
    size = 1
    for axis in axes:
        size *= len(axis.levels)
    if size > grid.MAX_CELLS:
        return plan, [
            *problems,
            FileProblem(spec.document.line(("axes",)), f"the axes span {size:,} cells; at most {grid.MAX_CELLS:,} are planned."),
        ]
    cells, found = _Cells(plan, chosen, overrides).build()
    plan = Plan(spec, profile, plan.axes, tuple(cells), plan.seeds, plan.resources)
    return plan, problems + found + list(_table_problems(plan)) + _claim_problems(plan)


class _Cells:
    """Resolves each cell's recipe: recipe < set < when < profile < command line < levels < include."""

    def __init__(self, plan: Plan, profile: Profile, overrides: list[Change]) -> None:
        self.plan, self.spec, self.overrides = plan, plan.spec, overrides
        document = plan.spec.document
        self.base = tuple(changes(plan.spec.file.set, document, ("set",)))
        self.profile = tuple(changes(profile.set, document, ("profiles", plan.profile or "", "set")))
        self.whens = [(w, tuple(changes(w.set, document, ("when", i, "set")))) for i, w in enumerate(plan.spec.file.when)]
        self.problems: list[FileProblem] = list(self._clashes())

    def build(self) -> tuple[list[Cell], list[FileProblem]]:
        line = self.spec.document.line
        listed = [(cell, line(("include", i))) for i, include in enumerate(self.spec.file.include) for cell in self._included(i, include)]
        listed += [(self._cell(levels), 0) for levels in grid.combinations(list(self.plan.axes))]
        seen: dict[str, int] = {}
        for cell, at in listed:
            # Twice on the grid is a level that stands twice, which its axis tells.
            if blamed := max(at, seen.get(cell.id, 0)) if cell.id in seen else 0:
                self.problems.append(FileProblem(blamed, f"the cell {cell.id} stands twice in the table."))
            seen.setdefault(cell.id, at)
        return [cell for cell, _ in listed], self.problems

    def _cell(self, levels: Mapping[str, Level]) -> Cell:
        labels = {name: level.label for name, level in levels.items()}
        excluded = next((e.reason for e in self.spec.file.exclude if matches(e.if_, labels)), None)
        if excluded:
            return Cell(labels, None, excluded=excluded)
        own = tuple(change for level in levels.values() for change in level.changes)
        recipe, note = self._recipe(labels, own, None, ("recipe",))
        return Cell(labels, recipe, note=note)

    def _included(self, index: int, include: Include) -> Iterator[Cell]:
        crossed = [axis for axis in self.plan.axes if axis.name in include.cross]
        fixed = {name: label(level) for name, level in include.as_.items()}
        own = tuple(changes(include.set, self.spec.document, ("include", index, "set")))
        for levels in grid.combinations(crossed):
            labels = {a.name: levels[a.name].label if a.name in levels else fixed.get(a.name, "–") for a in self.plan.axes}
            layer = tuple(change for level in levels.values() for change in level.changes) + own
            recipe, note = self._recipe(labels, layer, include.recipe, ("include", index, "recipe"))
            yield Cell(labels, recipe, include.label, include.note or note, included=True)

    def _recipe(self, labels: dict[str, str], own: tuple[Change, ...], named: str | None, place: Place) -> tuple[Recipe | None, str | None]:
        active = [(when, layer) for when, layer in self.whens if matches(when.if_, labels)]
        name = named or next((w.recipe for w, _ in reversed(active) if w.recipe), None) or self.spec.file.recipe
        line = self.spec.document.line(place if named else ("recipe",))
        try:
            recipe = self.spec.recipe(name, self.plan.profile)
        except InvalidInput as error:
            self.problems.append(FileProblem(line, str(error)))
            return None, None
        layers = [self.base, *(layer for _, layer in active), self.profile, tuple(self.overrides), own]
        built, problems = resolve(recipe, layers, line)
        self.problems += problems
        return built, next((w.note for w, _ in reversed(active) if w.note), None)

    def _clashes(self) -> Iterator[FileProblem]:
        """A key of an axis set elsewhere would never hold."""
        owned: dict[str, str] = {}
        for axis in self.plan.axes:
            for key in axis.keys:
                if all(any(change.key == key for change in level.changes) for level in axis.levels) and key in owned:
                    line = self.spec.document.line(("axes", axis.name))
                    yield FileProblem(line, f"{key} is set by axis {owned[key]!r} and by axis {axis.name!r} in every cell. Keep one.")
                owned.setdefault(key, axis.name)
        for change in (*self.profile, *self.overrides):
            if change.key in owned:
                yield FileProblem(
                    change.line,
                    f"{change.key} is set here, but axis {owned[change.key]!r} sets it in every cell. Change the axis's levels.",
                )


def _reference_problems(plan: Plan) -> list[FileProblem]:
    """Names of axes and levels that `when`, `exclude`, `include` and `table` use."""
    file, problems = plan.spec.file, []
    known = {axis.name: set(axis.labels) for axis in plan.axes}
    included = {(name, label(level)) for include in file.include for name, level in include.as_.items()}
    uses: list[tuple[Place, Mapping[str, Any], bool]] = [(("when", i, "if"), w.if_, False) for i, w in enumerate(file.when)]
    uses += [(("exclude", i, "if"), e.if_, False) for i, e in enumerate(file.exclude)]
    uses += [(("include", i, "as"), n.as_, True) for i, n in enumerate(file.include)]
    uses += [(("table", "baseline"), file.table.baseline, False)] if file.table and file.table.baseline else []
    uses += [(("claims", i, "for"), c.for_, False) for i, c in enumerate(file.claims)]
    uses += [(("claims", i, "check"), dict(ref.levels), False) for i, c in claim_problems.readable(file.claims) for ref in c.cells]
    # A profile may drop levels that a condition names, so levels are held against the file's own axes.
    whole = {axis.name: set(axis.labels) for axis in grid.axes(plan.spec, None)[0]} if plan.profile else known
    for place, condition, free in uses:
        for name, wanted in condition.items():
            line = plan.spec.document.line((*place, name))
            if name not in known:
                problems.append(FileProblem(line, f"{name!r} is no axis of this sweep. {nearest(name, list(known))}"))
                continue
            for level in map(label, wanted if isinstance(wanted, list) else [wanted]):
                if not free and level not in known[name] | whole[name] and (name, level) not in included:
                    problems.append(FileProblem(line, f"axis {name!r} has no level {level}. {nearest(level, sorted(whole[name]))}"))
    for i, include in enumerate(file.include):
        for name in include.cross:
            if name not in known:
                problems.append(
                    FileProblem(
                        plan.spec.document.line(("include", i, "cross")), f"{name!r} is no axis of this sweep. {nearest(name, list(known))}"
                    )
                )
    return problems


def _claim_problems(plan: Plan) -> list[FileProblem]:
    """Profiles may drop cells that a claim names; it is then not asked."""
    axes = {axis.name: axis.labels for axis in plan.axes}
    excluded = [(cell.levels, cell.excluded) for cell in plan.cells]
    return [] if plan.profile else list(claim_problems.find(plan.spec.file.claims, plan.spec.document, axes, excluded))


def _table_problems(plan: Plan) -> Iterator[FileProblem]:
    """The table must place every axis, its baseline must be a cell, its metric must be measured."""
    document, file, table = plan.spec.document, plan.spec.file, table_of(plan)
    placed = table["rows"] + table["columns"]
    for name in placed:
        if name not in {axis.name for axis in plan.axes}:
            yield FileProblem(
                document.line(("table",)), f"the table names {name!r}, which is no axis. {nearest(name, [a.name for a in plan.axes])}"
            )
    for axis in plan.axes:
        if placed.count(axis.name) != 1:
            yield FileProblem(
                document.line(("table",)), f"axis {axis.name!r} stands {placed.count(axis.name)} times in rows and columns; once is needed."
            )
    baseline = table["baseline"]
    named = {label(level) for level in (baseline or {}).values()} <= {level for cell in plan.cells for level in cell.levels.values()}
    if baseline and named and not plan.profile and not any(matches(baseline, cell.levels) for cell in plan.cells):
        yield FileProblem(
            document.line(("table", "baseline")), "no cell has the baseline's levels. Add it under `include`, or name another."
        )
    measured = {name for cell in plan.cells if cell.recipe for name in cell.recipe.evaluate.metrics()}
    if measured and file.metric.name not in measured | {"train.loss"}:
        yield FileProblem(
            document.line(("metric", "name")),
            f"no protocol of the recipe measures {file.metric.name!r}. {nearest(file.metric.name, sorted(measured))}",
        )
    known = shipped.published_tables() if table["published"] else ()
    for name in table["published"]:
        if name not in known:
            yield FileProblem(document.line(("table", "published")), f"{name!r} is no published table. {nearest(name, known)}")
