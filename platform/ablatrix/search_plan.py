"""What a sweep with a `search` block plans before anything was suggested, and what is wrong with it; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ablatrix import grid, population
from ablatrix.cells import Cell, Cells
from ablatrix.document import Place
from ablatrix.errors import FileProblem
from ablatrix.grid import Axis, Level
from ablatrix.layers import Change
from ablatrix.schema import Scheduler, Yardstick
from ablatrix.space import SUGGESTION, Dimension, corners, dimensions
from ablatrix.spec import Spec
from ablatrix_models.recipe import Recipe
from ablatrix_models.recipe.fields import nearest

_SCHEDULED_BY = {
    "asha": {"grace_epochs", "reduction"},
    "median": {"grace_epochs"},
    population.NAME: {"interval_epochs", "quantile", "resample", "perturb"},
}
REPRODUCIBLE = ("random", "quasirandom")  # whatever the order in which trials end
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
    """The recipe of a suggestion that the space may make, as a measure of what one costs; of a population a first leg."""
    resolver = cells(spec, profile, overrides)
    tried = (suggested(resolver, 0, chosen).recipe for chosen in corners(dimensions(spec)[0]))
    recipe = next((recipe for recipe in tried if recipe), None)
    scheduler = population_based(spec)
    if recipe is None or scheduler is None or not scheduler.interval_epochs or scheduler.interval_epochs >= recipe.schedule.epochs:
        return recipe
    return replace(recipe, schedule=replace(recipe.schedule, until=scheduler.interval_epochs))


def objectives(spec: Spec) -> list[Yardstick]:
    """What a search optimises: its `objectives`, or the sweep's metric."""
    assert spec.file.search is not None
    return spec.file.search.objectives or [spec.file.metric.of({})]


def population_based(spec: Spec) -> Scheduler | None:
    """The scheduler of population based training, where the search has that one."""
    scheduler = spec.file.search.scheduler if spec.file.search else None
    return scheduler if scheduler and scheduler.name == population.NAME else None


def suggestions(spec: Spec, profile: str | None, overrides: Sequence[Change], members: int) -> int:
    """How many suggestions a search of so many trials makes: of a population one for each leg of each."""
    scheduler = population_based(spec)
    if scheduler is None or scheduler.interval_epochs is None:
        return members
    tried = example(spec, profile, overrides)
    return members * (population.legs(tried.schedule.epochs, scheduler) if tried else 1)


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
    for key in sorted(scheduler.model_fields_set - {"name"} - _SCHEDULED_BY[scheduler.name]):
        owners = " and ".join(name for name, keys in _SCHEDULED_BY.items() if key in keys)
        yield FileProblem(line, f"{key} belongs to {owners}, and the scheduler is {scheduler.name}. Leave it out.")
    if scheduler.name == population.NAME:
        yield from (FileProblem(line, message) for message in _population_problems(spec, recipes))
        return
    if not all(_is_reported(name, recipe) for recipe in recipes):
        yield FileProblem(line, f"{name} is not reported while trials train. Set evaluate.every, or use knn.top1 or train.loss.")
    shortest = min((recipe.schedule.epochs for recipe in recipes), default=scheduler.grace_epochs + 1)
    if shortest <= scheduler.grace_epochs:
        grace = scheduler.grace_epochs
        yield FileProblem(line, f"grace_epochs is {grace}, but trials train {shortest} epochs, so none could be stopped early. Use fewer.")


def _population_problems(spec: Spec, recipes: Sequence[Recipe]) -> Iterator[str]:
    """Members are trained in legs of one length, and must be able to go on from each other."""
    search = spec.file.search
    assert search is not None
    assert search.scheduler is not None
    interval, epochs = search.scheduler.interval_epochs, {recipe.schedule.epochs for recipe in recipes}
    if search.algorithm not in REPRODUCIBLE:
        known = " or ".join(REPRODUCIBLE)
        yield f"pbt finds by itself how members go on, so {search.algorithm} would have no say. Begin with {known}."
    if search.population is not None:
        yield "with pbt the population is as large as `trials` says, and `population` has no say. Leave it out."
    counts = [search.trials, *(profile.trials for profile in spec.file.profiles.values() if profile.trials)]
    if min(counts) < 2:
        yield "a population of 1 has nobody to learn from. Use 2 trials or more."
    if interval is None:
        yield "pbt needs interval_epochs: after how many epochs members are compared. Add it."
    elif len(epochs) > 1:
        yield f"members of a population train equally long, but the space has {' and '.join(map(str, sorted(epochs)))} epochs. Use one."
    elif epochs and interval >= min(epochs):
        yield f"interval_epochs is {interval}, but members train {min(epochs)} epochs, so none would ever be compared. Use fewer."
    elif message := population.change_problem(recipes, search.scheduler):
        yield f"members of a population go on from each other's weights, but {message}"


def _is_reported(name: str, recipe: Recipe) -> bool:
    return name == "train.loss" or (name == "knn.top1" and recipe.evaluate.every > 0)
