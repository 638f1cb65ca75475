"""What of the store a command line means: a sweep by its name there, by a file, a shipped name or as the newest; a trial by its digits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ablatrix.cli import output
from ablatrix.cli.options import load_spec, overrides
from ablatrix.errors import InvalidInput, SweepFileError
from ablatrix.identity import DIGITS as TRIAL_DIGITS
from ablatrix.layers import Change
from ablatrix.plan import known_profile, sweep_name
from ablatrix.spec import PAPER
from ablatrix.store import Store, SweepDirectory, TrialDirectory


def stored_sweep(store: Store, given: str | None, profile: str | None, pairs: Sequence[str] = ()) -> SweepDirectory:
    """The sweep as it was run with this profile and these `--set`; InvalidInput where it never was.

    Without `--set` it is the sweep as its file says, or where it only ever ran with `--set`, the newest of those.
    """
    known, changed = {sweep.name: sweep for sweep in store.sweeps()}, overrides(pairs)
    if given is None:
        return _newest(store, [sweep for name, sweep in known.items() if _is_of(name, profile, changed)], known)
    if found := _find(known, given, profile, changed):
        return found
    try:
        loaded = load_spec(given)
    except SweepFileError:
        raise
    except InvalidInput:
        shown = ", ".join(known) or "none"
        name = sweep_name(given, _suffix(profile), changed)
        raise InvalidInput(f"the store {store.root} holds no sweep {name!r}. It holds: {shown}.") from None
    if found := _find(known, loaded.name, profile, changed):
        return found
    name = sweep_name(loaded.name, known_profile(loaded, profile), changed)
    if (store.sweep(name).path / "job.json").exists():
        log = output.call("logs", name, store=store)
        raise InvalidInput(f"the sweep {name!r} was submitted and has not begun yet. `{log}` shows what its job says.")
    options = ["--profile", profile] if profile else []
    options += [word for pair in pairs for word in ("--set", pair)]
    start = output.call("run", given, *options, store=store)
    raise InvalidInput(f"the sweep {name!r} was never run in the store {store.root}. Start it with `{start}`.")


def find_trial(store: Store, given: str) -> TrialDirectory:
    """A trial by id, or by the first digits of it when they are those of one trial only."""
    found = [trial for trial in store.trials() if trial.id.startswith(given)] if given else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInput(
            f"{given!r} are the first digits of {len(found)} trials: {', '.join(trial.id for trial in found[:5])}. Give more digits."
        )
    raise InvalidInput(f"the store {store.root} holds no trial {given!r}. `{output.call('status', '--json', store=store)}` has their ids.")


def find(store: Store, given: str, profile: str | None, pairs: Sequence[str]) -> SweepDirectory | TrialDirectory:
    """A trial where `given` looks like the id of one and no sweep of the store is called so, else a sweep."""
    digits = set(given) <= set("0123456789abcdef") and len(given) <= TRIAL_DIGITS
    if digits and given not in {sweep.name for sweep in store.sweeps()}:
        return find_trial(store, given)
    return stored_sweep(store, given, profile, pairs)


def find_sweep_directory(store: Store, given: str) -> SweepDirectory | None:
    """A sweep's directory by its very name, also of a job that has not begun yet."""
    if given and Path(given).name == given:
        with contextlib.suppress(OSError):  # a name too long is that of none
            if (sweep := store.sweep(given)).path.is_dir():
                return sweep
    return None


def command_of(sweep: SweepDirectory) -> str:
    """The command that ran or submitted a sweep last, and goes on with it."""
    return str(sweep.plan().get("command") or f"ablatrix run {sweep.name}")


def _find(known: Mapping[str, SweepDirectory], base: str, profile: str | None, changed: Sequence[Change]) -> SweepDirectory | None:
    """A sweep by its name without profile and `--set`, or by the whole name."""
    # A file may have a profile of the name `paper`; where it has none, that is the file itself.
    for part in dict.fromkeys((profile, _suffix(profile))):
        name = sweep_name(base, part, changed)
        if name in known:
            return known[name]
        variants = [sweep for other, sweep in known.items() if other.startswith(f"{name}+")]
        if variants and not changed:
            return max(variants, key=_age)
    return None


def _newest(store: Store, fitting: Sequence[SweepDirectory], known: Iterable[str]) -> SweepDirectory:
    if fitting:
        return max(fitting, key=_age)
    if shown := ", ".join(known):
        raise InvalidInput(f"the store {store.root} holds no sweep of this profile and `--set`. It holds: {shown}.")
    raise InvalidInput(f"the store {store.root} holds no sweep yet. Start one with `{output.call('run', 'SWEEP', store=store)}`.")


def _is_of(name: str, profile: str | None, changed: Sequence[Change]) -> bool:
    """Whether a sweep of the store is of this profile and `--set`, where any are asked for."""
    whole, _, mark = name.partition("+")
    own = whole.partition("@")[2]
    return (profile is None or own in (profile, _suffix(profile) or "")) and (
        not changed or mark == sweep_name("", None, changed).removeprefix("+")
    )


def _suffix(profile: str | None) -> str | None:
    return None if profile == PAPER else profile


def _age(sweep: SweepDirectory) -> float:
    return (sweep.path / "plan.json").stat().st_mtime
