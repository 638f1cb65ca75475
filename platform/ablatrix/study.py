"""An Optuna study kept in a file of the sweep, asked and told by trial number. The only importer of optuna.

The journal holds what Optuna needs to go on (the states of CMA-ES and NSGA-II too). Each question gets a sampler of its own,
seeded by the study's seed and the trial's number: a resumed study never repeats its first draws, and what a random or
quasi-random study suggests is a function of seed and number alone.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablatrix.errors import DamagedRecord
from ablatrix.records import drop_torn_line
from ablatrix.schema import Search

if TYPE_CHECKING:
    import optuna

REMEDY = "Move the directory away to begin the search anew; finished trials are kept."
Ending = Literal["complete", "fail", "pruned"]


class Study:
    """Suggestions by number, from 0. `directions` are `max` or `min`, one for each objective."""

    def __init__(self, path: Path, search: Search, directions: Sequence[str], count: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_torn_line(path)
        # One driver at a time has the sweep's lease; a lock that a killed one left behind would hold the next up for ever.
        for left in path.parent.glob(f"{path.name}.lock*"):
            left.unlink(missing_ok=True)
        self._search, self._count = search, count
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))),
                study_name="search",
                directions=[{"max": "maximize", "min": "minimize"}[direction] for direction in directions],  # type: ignore[list-item]
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedRecord(path, error, REMEDY) from error

    def ask(self) -> optuna.Trial:
        """The next trial, to be asked for one value after another."""
        number = len(self._study.get_trials(deepcopy=False))
        with warnings.catch_warnings():
            # Optuna calls half of its samplers experimental, and warns where it draws a value independently.
            warnings.simplefilter("ignore")
            self._study.sampler = _sampler(self._search, number, self._count)
            return self._study.ask()

    def tell(self, number: int, ending: Ending, values: Sequence[float] = (), curve: Mapping[int, float] | None = None) -> None:
        """How a trial ended; `curve` has the first objective by epoch. What is no finite number makes a failure."""
        from optuna.trial import TrialState

        trial = self._trial(number)
        if trial.state.is_finished():
            return
        for epoch, value in sorted((curve or {}).items()) if len(self._study.directions) == 1 else ():
            if math.isfinite(value):
                self._study._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        states = {"complete": TrialState.COMPLETE, "fail": TrialState.FAIL, "pruned": TrialState.PRUNED}
        sound = ending == "complete" and all(map(math.isfinite, values)) and len(values) == len(self._study.directions)
        state = states[ending] if sound or ending != "complete" else TrialState.FAIL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.tell(number, list(values) if sound else None, state=state)

    def states(self) -> dict[int, str]:
        """RUNNING, COMPLETE, PRUNED or FAIL by number."""
        return {trial.number: trial.state.name for trial in self._study.get_trials(deepcopy=False)}

    def parameters(self, number: int) -> dict[str, Any]:
        """What was suggested, by name."""
        return dict(self._trial(number).params)

    def values(self, number: int) -> list[float] | None:
        """What was told; of a pruned trial its last value."""
        found = self._trial(number).values
        return list(found) if found else None

    def _trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def seed_of(search: Search, number: int) -> int:
    """A seed for one question, of the search's seed and the trial's number."""
    return int.from_bytes(hashlib.sha256(f"{search.seed}:{number}".encode()).digest()[:4], "big")


def _sampler(search: Search, number: int, count: int) -> optuna.samplers.BaseSampler:
    from optuna import samplers

    seed = seed_of(search, number)
    independent = samplers.RandomSampler(seed=seed)
    population = search.population or max(4, min(50, count // 5))
    match search.algorithm:
        case "random":
            return independent
        case "quasirandom":
            # One scrambled sequence for the whole study, whose position is kept in the journal.
            return samplers.QMCSampler(
                scramble=True,
                seed=search.seed,
                independent_sampler=independent,
                warn_independent_sampling=False,
                warn_asynchronous_seeding=False,
            )
        case "tpe":
            return samplers.TPESampler(n_startup_trials=search.startup, seed=seed, multivariate=True, group=True, constant_liar=True)
        case "gp":
            return samplers.GPSampler(
                seed=seed, n_startup_trials=search.startup, independent_sampler=independent, warn_independent_sampling=False
            )
        case "cmaes":
            return samplers.CmaEsSampler(
                n_startup_trials=search.startup, seed=seed, independent_sampler=independent, popsize=search.population,
                warn_independent_sampling=False, consider_pruned_trials=search.scheduler is not None,
            )  # fmt: skip
        case "nsgaii":
            return samplers.NSGAIISampler(population_size=population, seed=seed)
