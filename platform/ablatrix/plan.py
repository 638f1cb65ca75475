"""From a sweep file to cells and trials; pure but for reading recipes and the data's fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablatrix import claim_problems, grid, search_plan, shipped
from ablatrix.cells import Cell, Cells
from ablatrix.document import Place
from ablatrix.errors import FileProblem, InvalidInput, SweepFileError
from ablatrix.grid import Axis, label, matches
from ablatrix.identity import digest, replicate_id
from ablatrix.layers import Change
from ablatrix.records import SCHEMA, TrialRecipe
from ablatrix.schema import Profile, Resources
from ablatrix.spec import PAPER, Spec
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.data import Data
from ablatrix_models.recipe.evaluate import NOT_BUILT
from ablatrix_models.recipe.fields import nearest

MARK_DIGITS = 8  # of the digest in a sweep's name


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
class Plan:
    """A sweep under one profile: its cells, and the trials that they want."""

    spec: Spec
    profile: str | None
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    resources: Resources
    trials: tuple[Trial, ...] = ()
    overrides: tuple[Change, ...] = ()  # of the command line
    suggestions: int = 0  # that a search is to make; those made so far are among the cells

    @property
    def name(self) -> str:
        """The sweep's name in the store."""
        return sweep_name(self.spec.file.sweep, self.profile, self.overrides)

    def as_mapping(self) -> dict[str, Any]:
        """`plan.json`, all but what the caller knows: commit and command."""
        file = self.spec.file
        by_cell: dict[str, list[Trial]] = {}
        for trial in self.trials:
            by_cell.setdefault(trial.cell, []).append(trial)
        return {
            "schema": SCHEMA, "sweep": file.sweep, "profile": self.profile, "set": {c.key: c.value for c in self.overrides},
            "title": file.title, "question": file.question,
            "file": self.spec.path.name, "metric": file.metric.of({}).model_dump(), "seeds": list(self.seeds),
            "axes": [{"name": a.name, "keys": list(a.keys), "levels": list(a.labels)} for a in self.axes],
            "table": table_of(self), "resources": self.resources.model_dump(),
            "claims": [{"text": c.text, "check": c.check, "for": c.for_} for c in file.claims],
            "cells": [_cell_mapping(self, c, by_cell.get(c.id, [])) for c in self.cells],
        }  # fmt: skip


def sweep_name(sweep: str, profile: str | None, overrides: Iterable[Change]) -> str:
    """A sweep's name in the store: with its profile and a digest of `--set`, so that no report overwrites another's.

    `table1`, `table1@smoke`, `table1@smoke+3f9a01c2`.
    """
    changed = {change.key: label(change.value) for change in overrides}
    return sweep + (f"@{profile}" if profile else "") + (f"+{digest(changed)[:MARK_DIGITS]}" if changed else "")


def _cell_mapping(plan: Plan, cell: Cell, trials: list[Trial]) -> dict[str, Any]:
    return {
        "id": cell.id, "levels": cell.levels, "label": cell.label, "included": cell.included, "note": cell.note,
        "excluded": cell.excluded, "metric": plan.spec.file.metric.of(cell.levels).model_dump(),
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


def known_profile(spec: Spec, profile: str | None) -> str | None:
    """The profile, None for the file as it stands, which `paper` names where the file has no profile of that name; else InvalidInput."""
    if profile is None or profile in spec.file.profiles:
        return profile
    if profile == PAPER:
        return None
    raise InvalidInput(f"{spec.path} has no profile {profile!r}. {nearest(profile, [PAPER, *spec.file.profiles])}")


def make(spec: Spec, profile: str | None, fingerprint: Callable[[Data], str], overrides: Iterable[Change] = ()) -> Plan:
    """The plan under a profile; SweepFileError with every problem. `fingerprint` is asked once for each dataset."""
    profile, overrides = known_profile(spec, profile), list(overrides)
    plan, problems = _outline(spec, profile, overrides)
    problems += spec.problems
    if problems:
        raise SweepFileError(spec.path, problems)
    return replace(plan, overrides=tuple(overrides), trials=tuple(_trials(plan, fingerprint)))


def _trials(plan: Plan, fingerprint: Callable[[Data], str]) -> Iterator[Trial]:
    """Seeds outermost, so that a whole table of n = 1 exists early."""
    prints: dict[tuple[str, str | None], str] = {}
    identities: dict[str, Any] = {}
    for seed in plan.seeds:
        for cell in plan.cells:
            if cell.recipe is None or cell.excluded:
                continue
            data = cell.recipe.data
            if (data.name, data.path) not in prints:
                prints[data.name, data.path] = fingerprint(data)
            known = prints[data.name, data.path]
            if cell.id not in identities:
                identities[cell.id] = cell.recipe.identity()
            yield Trial(replicate_id(identities[cell.id], seed, known), cell.id, seed, known, cell.recipe)


def _outline(spec: Spec, profile: str | None, overrides: list[Change]) -> tuple[Plan, list[FileProblem]]:
    """Axes and cells with their recipes, and everything that is wrong with them."""
    chosen = spec.file.profiles[profile] if profile else Profile()
    axes, problems = grid.axes(spec, profile)
    seeds = chosen.seeds or spec.file.seeds
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))
    plan = Plan(spec, profile, tuple(axes), (), seeds, chosen.resources or spec.file.resources)
    if spec.file.search:
        cells, _, found = search_plan.outline(spec, profile, overrides, seeds)
        count = chosen.trials or spec.file.search.trials
        count = count if found else search_plan.suggestions(spec, profile, overrides, count)
        return replace(plan, axes=(Axis(search_plan.SUGGESTION, ()),), cells=tuple(cells), suggestions=count), problems + found
    if not spec.document.values.get("axes"):
        return plan, [*problems, FileProblem(spec.document.line(("axes",)), "the key 'axes' is missing, or empty. Name at least one axis.")]
    if chosen.trials:
        line = spec.document.line(("profiles", profile or "", "trials"))
        problems.append(FileProblem(line, "trials belongs to a search, and this sweep has none. Change the seeds or the axes."))
    problems += _reference_problems(plan)
    size = 1
    for axis in axes:
        size *= len(axis.levels)
    if size > grid.MAX_CELLS:
        return plan, [
            *problems,
            FileProblem(spec.document.line(("axes",)), f"the axes span {size:,} cells; at most {grid.MAX_CELLS:,} are planned."),
        ]
    cells, found = Cells(spec, profile, axes, overrides).build()
    plan = replace(plan, cells=tuple(cells))
    return plan, problems + found + list(_table_problems(plan)) + _claim_problems(plan)


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
            levels = known[name] | whole[name] | {level for axis, level in included if axis == name}
            if not free and (message := grid.level_problem(name, wanted, levels, compared=place[-1] in ("if", "for"))):
                problems.append(FileProblem(line, message))
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
    document, table = plan.spec.document, table_of(plan)
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
    known = shipped.published_tables() if table["published"] else ()
    for name in table["published"]:
        if name not in known:
            yield FileProblem(document.line(("table", "published")), f"{name!r} is no published table. {nearest(name, known)}")
    yield from _metric_problems(plan)


def _metric_problems(plan: Plan) -> Iterator[FileProblem]:
    """Every cell must measure the number that it shows."""
    document, metric = plan.spec.document, plan.spec.file.metric
    levels = {axis.name: {cell.levels[axis.name] for cell in plan.cells} for axis in plan.axes}
    for axis, named in metric.by.items():
        if axis not in levels:
            yield FileProblem(document.line(("metric", "by", axis)), f"{axis!r} is no axis of this sweep. {nearest(axis, list(levels))}")
        elif not plan.profile:  # a profile may drop levels
            for level in set(named) - levels[axis]:
                line = document.line(("metric", "by", axis, level))
                yield FileProblem(line, f"axis {axis!r} has no level {level}. {nearest(level, sorted(levels[axis]))}")
    cells = [(cell, metric.of(cell.levels).name, {*cell.recipe.evaluate.metrics(), "train.loss"}) for cell in plan.cells if cell.recipe]
    somewhere = {name for _, name, measured in cells if name in measured}
    for name in dict.fromkeys(name for _, name, measured in cells if name not in measured):
        cell, measured = next((cell, measured) for cell, wanted, measured in cells if wanted == name and name not in measured)
        axis = next((axis for axis, named in metric.by.items() if cell.levels.get(axis) in named), None)
        line = document.line(("metric", "by", axis, cell.levels[axis]) if axis else ("metric", "name"))
        where = f" of the cell {cell.id}" if name in somewhere else ""
        known = nearest(name, sorted(measured - {"train.loss"}))
        if missing := NOT_BUILT.get(name.partition(".")[0]):
            yield FileProblem(line, f"{name} needs {missing}, an evaluation that Ablatrix does not have yet.")
        else:
            yield FileProblem(line, f"no protocol of the recipe{where} measures {name!r}. {known}")
