"""A search as a source of trials: a study that suggests, ordinary trials in the store, and a record of every suggestion.

`sweeps/<sweep>/search/` holds `study.jsonl`, Optuna's journal, and `suggestions.jsonl`, one line for each suggestion and for each end of
one, readable without Optuna. Running again goes on: suggestions that were never told are run first, from their checkpoints.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablatrix import population
from ablatrix.cells import Cell, Cells
from ablatrix.dispatch import RETRIED
from ablatrix.errors import AblatrixError, DamagedRecord, FileProblem, InvalidInput, TrialsMissing
from ablatrix.grid import Axis, Level
from ablatrix.identity import digest, trial_id
from ablatrix.plan import Plan, Trial
from ablatrix.population import Heir, Member
from ablatrix.records import SCHEMA, drop_torn_line, encode, read_json, write_atomically
from ablatrix.schema import Scheduler, Yardstick
from ablatrix.schema import Search as Settings
from ablatrix.search_plan import SECONDS, cells, objectives, population_based, suggested
from ablatrix.space import SUGGESTION, Dimension, corners, dimensions, suggest
from ablatrix.store import Store, SweepDirectory, TrialDirectory
from ablatrix.study import REMEDY, Ending, Study
from ablatrix_models.recipe import RecipeError
from ablatrix_models.recipe.data import Data

MAX_UNUSABLE = 100  # suggestions in a row that make no recipe, after which the space is at fault


class Search:
    """Gives the trials of a search one after another, and learns from how they end. Implements `dispatch.Source`.

    `publish` is given the plan whenever a suggestion joins it, so that board, report and tracking see it.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        sweep: SweepDirectory,
        fingerprint: Callable[[Data], str],
        publish: Callable[[Plan], None],
    ) -> None:
        settings = plan.spec.file.search
        assert settings is not None
        self.settings: Settings = settings
        self.plan, self.store, self.sweep = plan, store, sweep
        self._fingerprint, self._publish = fingerprint, publish
        self._resolver = cells(plan.spec, plan.profile, plan.overrides)
        self._space: list[Dimension] = dimensions(plan.spec)[0]
        self._goals: list[Yardstick] = objectives(plan.spec)
        drop_torn_line(self.place / "suggestions.jsonl")
        self._study = Study(self.place / "study.jsonl", settings, [goal.goal for goal in self._goals], plan.suggestions)
        self._first = [trial.id for trial in plan.trials if store.trial(trial.id).result() is None]  # of included cells
        self.gave_up: AblatrixError | None = None
        self._numbers: dict[str, list[int]] = {}  # a trial's suggestions: small spaces suggest one twice
        self._open: set[str] = set()
        self._population = population_based(plan.spec)
        self._size = plan.suggestions // population.legs(self.epochs, self._population) if self._population else 0
        self._members: list[Member] = []  # legs of a population, in the order in which they were suggested
        self._generation, self._heirs = 0, list[Heir]()  # of a population: the newest one that is to go on, and from whom
        self.made = 0
        self._again: list[str] = []
        self._take_up()

    @property
    def place(self) -> Path:
        """The directory of the study and the suggestions."""
        return self.sweep.path / "search"

    @property
    def exhausted(self) -> bool:
        """Whether every trial was given."""
        return self.gave_up is not None or (not self._first and not self._again and self.made >= self.plan.suggestions)

    @property
    def epochs(self) -> int:
        """Of the shortest trial that the space can suggest."""
        tried = [suggested(self._resolver, 0, chosen).recipe for chosen in corners(self._space)]
        return min((recipe.schedule.epochs for recipe in tried if recipe), default=1)

    def next(self) -> str | None:
        """The next trial's id, its recipe in the store; None once `exhausted`, for which `gave_up` may have a reason.

        Of a population also while a generation is not over.
        """
        unusable = 0
        trial = next((waiting.pop(0) for waiting in (self._first, self._again) if waiting), None)
        while trial is None and self.made < self.plan.suggestions and self._is_ready():
            made = self.made
            trial = self._suggest()
            unusable = unusable + 1 if self.made == made else 0
            if unusable >= MAX_UNUSABLE:
                record = self.place / "suggestions.jsonl"
                self.gave_up = InvalidInput(f"{MAX_UNUSABLE} suggestions in a row make no recipe; {record} says why. Narrow search.space.")
                return None
        if trial is not None:
            self._open.add(trial)
        return trial

    def told(self, trial: str, outcome: str) -> None:
        """How a trial ended. A stopped one stays open, and is given again by the next run."""
        self._open.discard(trial)
        if outcome == "stopped":
            return
        ending: Ending = {"finished": "complete", "pruned": "pruned"}.get(outcome, "fail")  # type: ignore[assignment]
        values, curve = self._results(trial)
        for number in self._numbers.get(trial, []):
            self._tell(number, trial, ending, values, curve)

    def _is_ready(self) -> bool:
        """Whether the next suggestion can be made: a generation of a population waits for all of the one before."""
        generation = self.made // self._size if self._population else 0
        if self._population is None or generation == 0 or generation == self._generation:
            return self.gave_up is None
        before = self._members[(generation - 1) * self._size : generation * self._size]
        states = self._study.states()
        if any(states[member.number] == "RUNNING" for member in before):
            return False
        begun = self.made % self._size > 0
        scores = [self._score(member, begun) for member in before]
        self._heirs = population.heirs(before, scores, self._population, self._chance("generation", generation))
        self._generation = generation
        if not self._heirs:
            self.gave_up = TrialsMissing(
                f"all {self._size} members of the population failed, so none is left to go on from. `ablatrix retry` frees them."
            )
        return self.gave_up is None

    def _score(self, member: Member, begun: bool) -> float:
        """How good a member is, the larger the better; NaN where it failed.

        What the study was told counts. A failed one that was freed and ended well since then counts too, unless heirs have begun.
        """
        told = self._study.values(member.number)
        value = told[0] if told else math.nan
        if told is None and not begun:
            value = self._results(member.trial)[0][0]
        return -value if self._goals[0].goal == "min" else value

    def _chance(self, *purpose: str | int) -> random.Random:
        """Random numbers for one purpose, a function of the search's seed."""
        return random.Random(":".join(map(str, (self.settings.seed, *purpose))))

    def _take_up(self) -> None:
        """Go on where an earlier run ended: the suggestions of the record, and of them those that are still open."""
        self._refuse_another_search()
        for trial in self.plan.trials:
            self.store.trial(trial.id).create(trial.record())
        states = self._study.states()
        known = {line["number"]: line for line in self.suggestions() if line["event"] == "suggested"}
        for number, state in states.items():
            line = known.get(number)
            found = _recorded(line, self._resolver, self._space, self._members, self._population) if line else None
            if found:
                trial = self._join(number, *found)
                if trial not in self._again and (state == "RUNNING" or self._is_freed(trial)):
                    self._again.append(trial)
            elif state == "RUNNING":  # suggested and never written down, or never told to be unusable
                self._study.tell(number, "fail")
        self._resolver.problems.clear()
        self._publish(self.plan)

    def _is_freed(self, trial: str) -> bool:
        """Whether `ablatrix retry` has freed a trial that failed. The study stays with what it was told; the table gets the result."""
        directory = self.store.trial(trial)
        try:
            status = directory.status()
            return status is not None and status.state == "stopped" and status.cause == RETRIED and directory.result() is None
        except AblatrixError:
            return False

    def _refuse_another_search(self) -> None:
        """What was learnt in another space, or of other recipes, would mislead the study."""
        file, asked = self.place / "search.json", self.settings
        tried = [suggested(self._resolver, 0, chosen).recipe for chosen in corners(self._space)]
        space = asked.model_dump(mode="json", include={"space", "objectives"})
        parts = {"space": space, "goals": [goal.model_dump() for goal in self._goals], "seed": self.plan.seeds[0]}
        if self._population:
            parts["population"] = {"members": self._size, "seed": asked.seed, **self._population.model_dump()}
        now = digest({**parts, "recipes": [recipe.identity() for recipe in tried if recipe]})
        before = read_json(file)
        if before is None:
            write_atomically(file, encode({"schema": SCHEMA, "search": now}))
        elif before.get("search") != now:
            raise InvalidInput(
                f"the search {self.sweep.name!r} was begun with another space, objective or recipe. Give the sweep another name, put the "
                f"file back, or move {self.place} away; finished trials are kept either way."
            )

    def _suggest(self) -> str | None:
        """Ask the study once: a trial that was not given yet; None where the suggestion makes no recipe, or one known by now."""
        asked = self._study.ask()
        heir = self._heirs[self.made % self._size] if self._heirs else None
        cell, chosen = self._of_heir(asked.number, heir) if heir else self._at(asked.number, suggest(self._space, asked), None)
        if cell.recipe is None:
            problems, self._resolver.problems[:] = [problem.message for problem in self._resolver.problems], []
            self._record(asked.number, chosen, None, None)
            self._tell(asked.number, None, "fail", [], {}, "; ".join(problems))
            return None
        trial = self._id(cell)
        known = self._numbers.get(trial, [])[:1]
        self._record(asked.number, chosen, trial, heir.parent if heir else None)
        self._join(asked.number, cell, chosen)
        self._publish(self.plan)
        for first in known:  # a small space suggests again what is running, or what has ended: the study then hears the same again
            state = self._study.states()[first]
            if state != "RUNNING":
                self._tell(asked.number, trial, state.lower(), *self._results(trial))  # type: ignore[arg-type]
            return None
        return trial

    def _of_heir(self, number: int, heir: Heir) -> tuple[Cell, dict[str, Level]]:
        """The next leg of a population; where what an heir explores makes no recipe, it goes on with its parent's levels."""
        assert self._population is not None
        levels = dict(heir.parent.levels)
        if heir.explores:
            near = population.explore(self._space, levels, self._population, self._chance("member", self.made))
            cell, _ = explored = self._at(number, near, heir.parent)
            if cell.recipe is not None:
                return explored
            self._resolver.problems.clear()
        return self._at(number, levels, heir.parent)

    def _at(self, number: int, chosen: dict[str, Level], parent: Member | None) -> tuple[Cell, dict[str, Level]]:
        return _cell(self._resolver, number, chosen, parent, self._population), chosen

    def _id(self, cell: Cell) -> str:
        assert cell.recipe is not None
        return trial_id(cell.recipe, self.plan.seeds[0], self._fingerprint(cell.recipe.data))

    def _join(self, number: int, cell: Cell, chosen: Mapping[str, Level]) -> str:
        """Make a suggestion a cell and a trial of the plan; the trial's id."""
        self.plan = _joined(self.plan, number, cell, chosen, self._fingerprint)
        trial = self.plan.trials[-1]
        self.store.trial(trial.id).create(trial.record())
        self._numbers.setdefault(trial.id, []).append(number)
        self._members.append(Member(number, chosen, trial.recipe, trial.id))
        self.made += 1
        return trial.id

    def _results(self, trial: str) -> tuple[list[float], dict[int, float]]:
        """The objectives of a trial, NaN where it has none, and the first of them by epoch."""
        directory = self.store.trial(trial)
        try:
            result = directory.result()
            metrics = {**result.metrics, SECONDS: result.seconds} if result else {}
            curves = [_curve(directory, goal) for goal in self._goals]
        except AblatrixError:  # a damaged record is a failure of that trial alone
            return [math.nan] * len(self._goals), {}
        return [_value(goal, metrics, curve) for goal, curve in zip(self._goals, curves, strict=True)], curves[0]

    def _tell(
        self, number: int, trial: str | None, ending: Ending, values: list[float], curve: Mapping[int, float], message: str | None = None
    ) -> None:
        self._study.tell(number, ending, values, curve)
        told = self._study.states()[number].lower()
        self._write(
            {"event": "told", "number": number, "trial": trial, "state": told, "values": self._study.values(number), "message": message}
        )

    def _record(self, number: int, chosen: Mapping[str, Level], trial: str | None, parent: Member | None) -> None:
        keys = {change.key: change.value for level in chosen.values() for change in level.changes}
        recipes = {name: level.recipe for name, level in chosen.items() if level.recipe}
        levels = {name: level.label for name, level in chosen.items()}
        line = {"event": "suggested", "number": number, "trial": trial, "levels": levels, "set": keys, "recipes": recipes}
        going_on = {"parent": parent.number} if parent else {}
        self._write({**line, **going_on, "algorithm": self.settings.algorithm, "seed": self.settings.seed})

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(json.loads(encode({**line, "time": round(time.time(), 3)})), ensure_ascii=False, allow_nan=False)
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / "suggestions.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    def suggestions(self) -> Iterator[dict[str, Any]]:
        """The record so far: lines of events `suggested` and `told`."""
        return read_suggestions(self.sweep)


def read_suggestions(sweep: SweepDirectory) -> Iterator[dict[str, Any]]:
    """The record of a search, also while it runs: a last line that is not whole yet is left out."""
    file = sweep.path / "search" / "suggestions.jsonl"
    try:
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else ():
            if line.endswith("\n"):
                found = json.loads(line)
                if found["event"] == "suggested" and not (isinstance(found["levels"], dict) and isinstance(found["number"], int)):
                    raise ValueError(f"a suggestion has the number {found['number']!r} and the levels {found['levels']!r}")
                yield found
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedRecord(file, error, REMEDY) from error


def with_recorded(plan: Plan, sweep: SweepDirectory, fingerprint: Callable[[Data], str]) -> Plan:
    """A search's plan with the suggestions that its runs have made so far; changes nothing, and needs no study."""
    resolver, space = cells(plan.spec, plan.profile, plan.overrides), dimensions(plan.spec)[0]
    members: list[Member] = []
    for line in read_suggestions(sweep):
        if line["event"] == "suggested" and (found := _recorded(line, resolver, space, members, population_based(plan.spec))):
            plan = _joined(plan, line["number"], *found, fingerprint)
            members.append(Member(line["number"], found[1], plan.trials[-1].recipe, plan.trials[-1].id))
    return plan


def _recorded(
    line: Mapping[str, Any], resolver: Cells, space: list[Dimension], members: Sequence[Member], scheduler: Scheduler | None
) -> tuple[Cell, dict[str, Level]] | None:
    """The cell and the levels of a recorded suggestion; None where it made no recipe, or the space has its levels no more."""
    chosen = _chosen(space, line["levels"]) if line["trial"] else None
    parent = next((member for member in members if member.number == line.get("parent")), None)
    if not chosen or (parent is None) != ("parent" not in line):
        return None
    cell = _cell(resolver, line["number"], chosen, parent, scheduler)
    return (cell, chosen) if cell.recipe else None


def _cell(resolver: Cells, number: int, chosen: Mapping[str, Level], parent: Member | None, scheduler: Scheduler | None) -> Cell:
    """The cell of a suggestion, of a population as the leg that goes on from `parent`; without a recipe where it makes none."""
    cell = suggested(resolver, number, chosen)
    if scheduler is None or cell.recipe is None:
        return cell
    try:
        return population.leg(cell, parent, scheduler)
    except RecipeError as error:
        resolver.problems += [FileProblem(1, f"{problem.key} {problem.message}") for problem in error.problems]
        return replace(cell, recipe=None)


def _joined(plan: Plan, number: int, cell: Cell, chosen: Mapping[str, Level], fingerprint: Callable[[Data], str]) -> Plan:
    assert cell.recipe is not None
    data, seed = fingerprint(cell.recipe.data), plan.seeds[0]
    trial = Trial(trial_id(cell.recipe, seed, data), cell.id, seed, data, cell.recipe)
    level = Level(str(number), tuple(change for level in chosen.values() for change in level.changes))
    axis = Axis(SUGGESTION, (*plan.axes[0].levels, level))
    return replace(plan, axes=(axis,), cells=(*plan.cells, cell), trials=(*plan.trials, trial))


def _chosen(space: list[Dimension], labels: Mapping[str, str]) -> dict[str, Level] | None:
    """The levels of a recorded suggestion, in the order of the space, as they were suggested; None where it has them no more."""
    chosen: dict[str, Level] = {}
    for dimension in space:
        if dimension.name in labels:
            level = dimension.named(labels[dimension.name])
            if level is None:
                return None
            chosen[dimension.name] = level
    return chosen if len(chosen) == len(labels) else None


def _curve(directory: TrialDirectory, goal: Yardstick) -> dict[int, float]:
    return {report.epoch: report.values[goal.name] for report in directory.reports() if goal.name in report.values}


def _value(goal: Yardstick, metrics: Mapping[str, float], curve: Mapping[int, float]) -> float:
    """As the report reads it: the final value, or with `take: best` the best that was ever reported."""
    final = metrics.get(goal.name, curve[max(curve)] if curve and goal.name.startswith("train.") else math.nan)
    if goal.take == "last":
        return final
    sound = [value for value in (*curve.values(), final) if math.isfinite(value)]
    return (max if goal.goal == "max" else min)(sound, default=math.nan)
