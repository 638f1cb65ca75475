"""A search as a source of trials: a study that suggests, ordinary trials in the store, and a record of every suggestion.

`sweeps/<sweep>/search/` holds `study.jsonl`, Optuna's journal, and `suggestions.jsonl`, one line for each suggestion and for each end of
one, readable without Optuna. Running again goes on: suggestions that were never told are run first, from their checkpoints.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablatrix.cells import Cell
from ablatrix.dispatch import RETRIED
from ablatrix.errors import AblatrixError, DamagedRecord, InvalidInput
from ablatrix.grid import Axis, Level
from ablatrix.identity import digest, trial_id
from ablatrix.plan import Plan, Trial
from ablatrix.records import SCHEMA, drop_torn_line, encode, read_json, write_atomically
from ablatrix.schema import Search as Settings
from ablatrix.schema import Yardstick
from ablatrix.search_plan import SECONDS, SUGGESTION, cells, objectives, suggested
from ablatrix.space import Dimension, corners, dimensions, suggest
from ablatrix.store import Store, SweepDirectory, TrialDirectory
from ablatrix.study import REMEDY, Ending, Study
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
        self.gave_up: str | None = None
        self._numbers: dict[str, list[int]] = {}  # a trial's suggestions: small spaces suggest one twice
        self._open: set[str] = set()
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
        """The next trial's id, its recipe in the store; None once `exhausted`, for which `gave_up` may have a reason."""
        unusable = 0
        trial = next((waiting.pop(0) for waiting in (self._first, self._again) if waiting), None)
        while trial is None and self.made < self.plan.suggestions:
            made = self.made
            trial = self._suggest()
            unusable = unusable + 1 if self.made == made else 0
            if unusable >= MAX_UNUSABLE:
                record = self.place / "suggestions.jsonl"
                self.gave_up = f"{MAX_UNUSABLE} suggestions in a row make no recipe; {record} says why. Narrow search.space."
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

    def _take_up(self) -> None:
        """Go on where an earlier run ended: the suggestions of the record, and of them those that are still open."""
        self._refuse_another_search()
        for trial in self.plan.trials:
            self.store.trial(trial.id).create(trial.record())
        states = self._study.states()
        known = {line["number"]: line for line in self.suggestions() if line["event"] == "suggested"}
        for number, state in states.items():
            line = known.get(number)
            chosen = _chosen(self._space, line["levels"]) if line else None
            cell = suggested(self._resolver, number, chosen) if chosen else None
            if chosen and cell and cell.recipe:
                trial = self._join(number, cell, chosen)
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
        chosen = suggest(self._space, asked)
        cell = suggested(self._resolver, asked.number, chosen)
        if cell.recipe is None:
            problems, self._resolver.problems[:] = [problem.message for problem in self._resolver.problems], []
            self._record(asked.number, chosen, None)
            self._tell(asked.number, None, "fail", [], {}, "; ".join(problems))
            return None
        trial = self._id(cell)
        known = self._numbers.get(trial, [])[:1]
        self._record(asked.number, chosen, trial)
        self._join(asked.number, cell, chosen)
        self._publish(self.plan)
        for first in known:  # a small space suggests again what is running, or what has ended: the study then hears the same again
            state = self._study.states()[first]
            if state != "RUNNING":
                self._tell(asked.number, trial, state.lower(), *self._results(trial))  # type: ignore[arg-type]
            return None
        return trial

    def _id(self, cell: Cell) -> str:
        assert cell.recipe is not None
        return trial_id(cell.recipe, self.plan.seeds[0], self._fingerprint(cell.recipe.data))

    def _join(self, number: int, cell: Cell, chosen: Mapping[str, Level]) -> str:
        """Make a suggestion a cell and a trial of the plan; the trial's id."""
        self.plan = _joined(self.plan, number, cell, chosen, self._fingerprint)
        trial = self.plan.trials[-1]
        self.store.trial(trial.id).create(trial.record())
        self._numbers.setdefault(trial.id, []).append(number)
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

    def _record(self, number: int, chosen: Mapping[str, Level], trial: str | None) -> None:
        keys = {change.key: change.value for level in chosen.values() for change in level.changes}
        recipes = {name: level.recipe for name, level in chosen.items() if level.recipe}
        levels = {name: level.label for name, level in chosen.items()}
        line = {"event": "suggested", "number": number, "trial": trial, "levels": levels, "set": keys, "recipes": recipes}
        self._write({**line, "algorithm": self.settings.algorithm, "seed": self.settings.seed})

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
    for line in read_suggestions(sweep):
        chosen = _chosen(space, line["levels"]) if line["event"] == "suggested" and line["trial"] else None
        cell = suggested(resolver, line["number"], chosen) if chosen else None
        if chosen and cell and cell.recipe:
            plan = _joined(plan, line["number"], cell, chosen, fingerprint)
    return plan


def _joined(plan: Plan, number: int, cell: Cell, chosen: Mapping[str, Level], fingerprint: Callable[[Data], str]) -> Plan:
    assert cell.recipe is not None
    data, seed = fingerprint(cell.recipe.data), plan.seeds[0]
    trial = Trial(trial_id(cell.recipe, seed, data), cell.id, seed, data, cell.recipe)
    level = Level(str(number), tuple(change for level in chosen.values() for change in level.changes))
    axis = Axis(SUGGESTION, (*plan.axes[0].levels, level))
    return replace(plan, axes=(axis,), cells=(*plan.cells, cell), trials=(*plan.trials, trial))


def _chosen(space: list[Dimension], labels: Mapping[str, str]) -> dict[str, Level] | None:
    """The levels of a recorded suggestion; None where the space has them no more."""
    known = {dimension.name: dimension for dimension in space}
    chosen: dict[str, Level] = {}
    for name, label in labels.items():
        level = known[name].named(label) if name in known else None
        if level is None:
            return None
        chosen[name] = level
    return chosen


def _curve(directory: TrialDirectory, goal: Yardstick) -> dict[int, float]:
    return {report.epoch: report.values[goal.name] for report in directory.reports() if goal.name in report.values}


def _value(goal: Yardstick, metrics: Mapping[str, float], curve: Mapping[int, float]) -> float:
    """As the report reads it: the final value, or with `take: best` the best that was ever reported."""
    final = metrics.get(goal.name, curve[max(curve)] if curve and goal.name.startswith("train.") else math.nan)
    if goal.take == "last":
        return final
    sound = [value for value in (*curve.values(), final) if math.isfinite(value)]
    return (max if goal.goal == "max" else min)(sound, default=math.nan)
