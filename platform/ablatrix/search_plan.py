"""What a sweep with a `search` block plans before anything was suggested, and what is wrong with it; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ablatrix import grid
from ablatrix.cells import Cell, Cells
from ablatrix.document import Place
from ablatrix.errors import FileProblem
from ablatrix.grid import Axis, Level
from ablatrix.layers import Change
from ablatrix.schema import Yardstick
from ablatrix.space import Dimension, corners, dimensions
from ablatrix.spec import Spec
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.fields import nearest

SUGGESTION = "suggestion"  # the one axis of a search's table
SECONDS = "seconds"  # an objective that every trial has: its work, of all attempts
MANY = ("random", "quasirandom", "tpe", "nsgaii")  # algorithms that take two objectives
_FOREIGN = {
    "axes": "A search finds its levels in `search.space`.",
    "exclude": "Restrict `search.space` instead.",
    "table": "Its rows are the suggestions.",
    "claims": "Run the best suggestions as a sweep with `axes`, and claim there.",
}


def outline(
    spec: Spec, profile: str | None, overrides: Sequence[Change], seeds: Sequence[int]
) -> tuple[list[Cell], list[Dimension], list[FileProblem]]:
    """The included cells, the dimensions of the space, and everything that is wrong with the file as a search."""
    search, line = spec.file.search, spec.document.line
    assert search is not None
    problems = [
        FileProblem(line((key,)), f"{key} cannot stand beside search. {hint}") for key, hint in _FOREIGN.items() if _given(spec, key)
    ]
    if len(seeds) > 1:
        problems.append(
            FileProblem(line(("seeds",)), "a search tries each suggestion with one seed. Run the best again with more, as a sweep.")
        )
    space, found = dimensions(spec)
    problems += found
    resolver = cells(spec, profile, overrides)
    included, found = resolver.build()
    problems += [*found, *_reference_problems(spec, space)]
    if problems:  # the corners of a space that is wrong would say it again
        return included, space, problems
    resolver.problems.clear()
    tried = [suggested(resolver, 0, chosen) for chosen in corners(space)]
    problems += set(resolver.problems)
    problems += _objective_problems(spec, [cell.recipe for cell in (*included, *tried) if cell.recipe])
    problems += _scheduler_problems(spec, [cell.recipe for cell in tried if cell.recipe])
    return included, space, problems


def cells(spec: Spec, profile: str | None, overrides: Sequence[Change]) -> Cells:
    """What resolves the recipes of suggestions."""
    return Cells(spec, profile, [Axis(SUGGESTION, ())], overrides)


def suggested(resolver: Cells, number: int, chosen: Mapping[str, Level]) -> Cell:
    """The cell of a suggestion, called after its levels: `lr 0.012, grid 4`."""
    return resolver.suggested(SUGGESTION, chosen, number, ", ".join(f"{name} {level.label}" for name, level in chosen.items()))


def example(spec: Spec, profile: str | None, overrides: Sequence[Change]) -> Recipe | None:
    """The recipe of a suggestion that the space may make, as a measure of what one costs."""
    resolver = cells(spec, profile, overrides)
    tried = (suggested(resolver, 0, chosen).recipe for chosen in corners(dimensions(spec)[0]))
    return next((recipe for recipe in tried if recipe), None)


def objectives(spec: Spec) -> list[Yardstick]:
    """What a search optimises: its `objectives`, or the sweep's metric."""
    assert spec.file.search is not None
    return spec.file.search.objectives or [spec.file.metric.of({})]


def judged_on_test_images(spec: Spec, profile: str | None, overrides: Sequence[Change]) -> bool:
    """Whether some suggestion would be preferred for its accuracy on the test images, which then say too much of the best one."""
    if not any(wanted.name.endswith(".top1") for wanted in objectives(spec)):
        return False
    resolver = cells(spec, profile, overrides)
    tried = [suggested(resolver, 0, chosen) for chosen in corners(dimensions(spec)[0])]
    return any(cell.recipe and not cell.recipe.data.held_out for cell in tried)


def _given(spec: Spec, key: str) -> bool:
    return bool(getattr(spec.file, key)) or (key in spec.document.values and key == "axes")


def _reference_problems(spec: Spec, space: list[Dimension]) -> Iterator[FileProblem]:
    known = {dimension.name: dimension for dimension in space}
    line = spec.document.line
    for i, when in enumerate(spec.file.when):
        for name, wanted in when.if_.items():
            place: Place = ("when", i, "if", name)
            if name not in known:
                yield FileProblem(line(place), f"{name!r} is no dimension of the space. {nearest(name, list(known))}")
            elif (axis := known[name].levels) and (message := grid.level_problem(name, wanted, axis.labels)):
                yield FileProblem(line(place), message)
    for i, include in enumerate(spec.file.include):
        if set(include.as_) != {SUGGESTION} or include.cross:
            yield FileProblem(line(("include", i)), f"in a search a cell is included by its name alone: `as: {{{SUGGESTION}: baseline}}`.")


def _objective_problems(spec: Spec, recipes: Sequence[Recipe]) -> Iterator[FileProblem]:
    """Every trial must have the objectives, and the scheduler something to look at while it trains."""
    search, line = spec.file.search, spec.document.line
    assert search is not None
    if search.algorithm == "nsgaii" and not search.objectives:
        yield FileProblem(line(("search", "algorithm")), "nsgaii weighs two objectives. Add `objectives`, or use tpe.")
    if search.objectives and search.algorithm not in MANY:
        known = ", ".join(MANY)
        yield FileProblem(
            line(("search", "objectives")), f"{search.algorithm} takes one objective. Use one of {known}, or the metric alone."
        )
    for i, wanted in enumerate(objectives(spec)):
        place: Place = ("search", "objectives", i) if search.objectives else ("metric", "name")
        measured = set.intersection(*({*recipe.evaluate.metrics(), "train.loss", SECONDS} for recipe in recipes)) if recipes else set()
        if recipes and wanted.name not in measured:
            yield FileProblem(line(place), f"not every suggestion measures {wanted.name!r}. {nearest(wanted.name, sorted(measured))}")


def _scheduler_problems(spec: Spec, recipes: Sequence[Recipe]) -> Iterator[FileProblem]:
    """A scheduler needs reports to compare by, and epochs to spare."""
    assert spec.file.search is not None
    scheduler, name, line = spec.file.search.scheduler, objectives(spec)[0].name, spec.document.line(("search", "scheduler"))
    if scheduler is None:
        return
    if spec.file.search.objectives:
        yield FileProblem(line, "a scheduler compares by one objective, but there are two. Keep one of the two.")
    if not all(_is_reported(name, recipe) for recipe in recipes):
        yield FileProblem(line, f"{name} is not reported while trials train. Set evaluate.every, or use knn.top1 or train.loss.")
    shortest = min((recipe.schedule.epochs for recipe in recipes), default=scheduler.grace_epochs + 1)
    if shortest <= scheduler.grace_epochs:
        grace = scheduler.grace_epochs
        yield FileProblem(line, f"grace_epochs is {grace}, but trials train {shortest} epochs, so none could be stopped early. Use fewer.")


def _is_reported(name: str, recipe: Recipe) -> bool:
    return name == "train.loss" or (name == "knn.top1" and recipe.evaluate.every > 0)
