"""Files from strangers: nothing they say is executed, and nothing is written outside the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ablatrix import cli
from ablatrix.attempt import Attempt
from ablatrix.errors import InvalidInput
from ablatrix.records import TrialRecipe
from ablatrix.store import Store
from tiny_sweep import SWEEP, tiny_recipe, write_sweep

CLIMBING = ["../escaped", "../../escaped", "/tmp/escaped", "a/../../escaped", "..", ".", "", "a\\n/../escaped", "~/escaped", "escaped\\0"]


def everything_in(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def run(place: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--store", str(place / "store")])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("line", ["sweep: {}", 'profiles: {{"{}": {{seeds: 1}}}}'], ids=["sweep", "profile"])
def test_a_name_that_climbs_out_of_the_store_is_refused_before_anything_is_written(tmp_path, capsys, name, line):
    text = SWEEP.replace("sweep: tiny\n", "") + line.format(f'"{name}"' if line.startswith("sweep") else name) + "\n"
    path = write_sweep(tmp_path, text if line.startswith("sweep") else "sweep: tiny\n" + text)
    before = everything_in(tmp_path)
    code = run(tmp_path, "run", str(path))

    assert code == 2
    assert "sweep.yaml:" in capsys.readouterr().err
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("name", [name for name in CLIMBING if "\\" not in name and not name.startswith("~")])
def test_a_store_gives_no_directory_outside_itself(tmp_path, name):
    for find in (Store(tmp_path).sweep, Store(tmp_path).trial):
        with pytest.raises(InvalidInput, match=r"would leave the store|is no trial id"):
            find(name)


class Bomb:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_holds_code_is_not_executed_and_training_starts_again(tmp_path, capsys):
    mark = tmp_path / "executed"
    trial = Store(tmp_path).trial("0123456789abcdef")
    trial.create(TrialRecipe(trial.id, 0, "digits", tiny_recipe().as_mapping()))
    trial.checkpoint.mkdir()
    torch.save({"step": 3, "reports": [], "method": Bomb(mark)}, trial.checkpoint / "state.pt")
    loaded = Attempt(trial, tmp_path / "stop", 1, 1).load_checkpoint()

    assert loaded is None
    assert not mark.exists()
    assert "starting again from epoch 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.system", "!include /etc/hostname", "&a [*a]"],
    ids=["apply", "name", "include", "cycle"],
)
def test_a_recipe_that_asks_for_code_or_files_is_refused_with_its_line(tmp_path, capsys, value):
    mark = tmp_path / "executed"
    path = write_sweep(tmp_path, SWEEP + f"profiles: {{smoke: {{set: {{mask.grid: {value.format(mark)}}}}}}}\n")
    code = run(tmp_path, "run", str(path))

    assert code == 2
    assert "sweep.yaml:9:" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "$(touch executed)", "{{ 7 * 7 }}", "__import__('os').getcwd()"])
def test_text_in_a_sweep_file_is_text(tmp_path, text):
    from ablatrix import plan, spec

    path = write_sweep(tmp_path, SWEEP.replace("A tiny sweep", text))

    assert plan.make(spec.load(path), None, lambda data: "print").as_mapping()["title"] == text
