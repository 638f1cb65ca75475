"""Chaos: a sweep of twelve small trials is disturbed at random moments, run again, and held against an undisturbed one.

    python tests/chaos/storm.py --rounds 100            # or `make chaos`; seeded, so a round can be had again by its number

After each round `run` must end with exit 0, no finished trial may have run twice, no line of metrics be lost or doubled, and every
number equal the undisturbed run's, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ablatrix.store import TrialDirectory
from chaos.disturbances import KINDS
from chaos.weather import EPOCHS, PATIENCE_S, TRIALS, Weather


def outcome(trial: TrialDirectory) -> tuple[Any, list[Any]]:
    """Final metrics, and the reports without what the clock says."""
    result = trial.result()
    reports = [(r.epoch, r.step, {k: v for k, v in r.values.items() if k != "train.images_per_s"}) for r in trial.reports()]
    return (result.metrics if result else None, reports)


def verdict(weather: Weather, code: int, undisturbed: dict[str, Any]) -> list[str]:
    """Everything that is wrong after the last run."""
    wrong = [] if code == 0 else [f"the last run ended with exit {code}"]
    found = {trial.id: trial for trial in weather.store.trials() if trial.id in undisturbed}
    wrong += [f"{trial} is missing" for trial in undisturbed.keys() - found.keys()]
    for name, trial in found.items():
        metrics, reports = outcome(trial)
        expected_metrics, expected_reports = undisturbed[name]
        if metrics != expected_metrics:
            wrong.append(f"{name}: final metrics {metrics}, undisturbed {expected_metrics}")
        if [r[:2] for r in reports] != [r[:2] for r in expected_reports]:
            wrong.append(f"{name}: lines {[r[:2] for r in reports]}, undisturbed {[r[:2] for r in expected_reports]}")
        elif reports != expected_reports:
            wrong.append(f"{name}: the reported numbers differ")
        if (written := trial.metrics_file.read_bytes().count(b"\n")) != len(reports):
            wrong.append(f"{name}: {written} lines in the file, of which {len(reports)} count")
        wrong += twice(trial)
    wrong += [f"{name}: finished, and finished again" for name in changed(weather)]
    if "Traceback" in (told := (weather.place / "driver.log").read_text(errors="replace")):
        wrong.append(f"a traceback was shown: {told[told.index('Traceback') :][:2000]}")
    return wrong


def twice(trial: TrialDirectory) -> list[str]:
    """Whether an attempt was begun after the one that finished."""
    result, log = trial.result(), trial.log.read_text(errors="replace")
    begun = [int(line.split()[2]) for line in log.splitlines() if line.startswith("--- attempt ")]
    late = [number for number in begun if result and number > result.attempt]
    return [f"{trial.id}: attempt {number} after it was finished by attempt {result.attempt}" for number in late if result]


def changed(weather: Weather) -> Iterator[str]:
    for name, before in weather.finished.items():
        if (weather.store.trial(name).path / "result.json").read_bytes() != before:
            yield name


def build_database(place: Path) -> Path:
    """An MLflow database in which nothing is."""
    if place.exists():
        return place
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{place}"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    return place


def undisturbed_run(place: Path, pristine: Path | None = None) -> dict[str, Any]:
    """What every round is held against."""
    calm = Weather(0, place, pristine)
    code = calm.end(calm.start())
    found = {trial.id: outcome(trial) for trial in calm.store.trials()}
    assert code == 0, (place / "driver.log").read_text()
    assert len(found) == TRIALS
    assert all(len(reports) == EPOCHS + 1 for _, reports in found.values())
    return found


@contextmanager
def one_round(
    seed: int, kind: str, place: Path, undisturbed: dict[str, Any], pristine: Path | None = None
) -> Iterator[tuple[Weather, list[str]]]:
    """Disturb, run again, judge; yields what was done and what is wrong, then cleans up."""
    weather = Weather(seed, place, pristine)
    try:
        try:
            KINDS[kind](weather)
            weather.remember_finished()
            code = weather.end(weather.start())
            wrong = verdict(weather, code, undisturbed)
        except Exception:
            wrong = [traceback.format_exc()]
        yield weather, wrong
    finally:
        if os.path.ismount(weather.store.root):
            subprocess.run(["umount", "-l", str(weather.store.root)], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calm", type=Path, help="directory of an earlier undisturbed run, or of one to keep")
    parser.add_argument("--first", type=int, default=0, help="the first round's seed")
    parser.add_argument("--kinds", default="local,local,node,local,mlflow,local,own,disk,local", help="in turn, by seed")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no round after that many")
    arguments = parser.parse_args()
    began, root = time.monotonic(), Path(tempfile.mkdtemp(prefix="storm-"))
    os.environ["RAY_TMPDIR"] = str(root)
    try:
        bad = rounds(arguments, root, began + 60 * arguments.minutes)
    finally:
        shutil.rmtree(root / "ray", ignore_errors=True)
    if not bad:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(bool(bad))


def rounds(arguments: argparse.Namespace, root: Path, end: float) -> int:
    """One after the other; how many went wrong. Their directories are kept."""
    kinds, calm = arguments.kinds.split(","), arguments.calm or root / "calm"
    calm.mkdir(parents=True, exist_ok=True)
    pristine = build_database(calm / "pristine.db")
    undisturbed = undisturbed_run(calm, pristine)
    bad, number, done, tally = 0, 0, Counter[str](), Counter[str]()
    for seed in range(arguments.first, arguments.first + arguments.rounds):
        if time.monotonic() > end:
            break
        kind, began, number = kinds[seed % len(kinds)], time.monotonic(), number + 1
        with one_round(seed, kind, root / f"round-{seed}", undisturbed, pristine) as (weather, wrong):
            done.update(weather.done)
            tally[kind] += 1
            bad += bool(wrong)
            what = "; ".join(weather.done) or "too late to disturb"
            print(f"round {seed} ({kind}, {time.monotonic() - began:.0f} s): {what}", flush=True)
            for text in wrong:
                print(f"    WRONG {text}", flush=True)
        if not wrong:
            shutil.rmtree(weather.place, ignore_errors=True)
        shutil.rmtree(root / "ray", ignore_errors=True)
    print(f"{number} rounds ({', '.join(f'{n} {kind}' for kind, n in sorted(tally.items()))}), {bad} bad.", flush=True)
    print("Disturbances: " + ", ".join(f"{n}x {what}" for what, n in done.most_common()), flush=True)
    return bad


if __name__ == "__main__":
    main()
