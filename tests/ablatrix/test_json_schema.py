from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ablatrix import document, shipped
from ablatrix.cli import main
from ablatrix.json_schema import json_schema
from tiny_sweep import SWEEP, write_sweep


def complaints(values: dict[str, Any]) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(values)]


def test_the_schema_is_a_valid_one_and_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schema"])
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)

    assert ended.value.code == 0
    assert printed == json_schema()


@pytest.mark.parametrize("name", shipped.sweeps())
def test_every_shipped_sweep_is_valid_against_it(name: str) -> None:
    assert complaints(document.read(shipped.sweeps()[name]).values) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("seeds: 2", "seed: 2", "$"),
        ("seeds: 2", "seeds: two", "$.seeds"),
        ("sweep: tiny", "sweep: Tiny Sweep", "$.sweep"),
        ("{name: knn.top1}", "{name: knn.top1, goal: most}", "$.metric.goal"),
        ("[2, 4]", "[]", "$.axes.grid.levels"),
    ],
)
def test_it_refuses_what_check_refuses(tmp_path: Path, old: str, new: str, where: str) -> None:
    assert where in complaints(document.read(write_sweep(tmp_path, SWEEP.replace(old, new))).values)


def test_an_editor_is_told_every_recipe_key_with_its_meaning() -> None:
    keys = json_schema()["$defs"]["RecipeKeys"]["properties"]

    assert keys["mask.grid"] == {"description": "cells per side"}
    assert {"mixing", "mixing.kind", "method.queue", "method.predictor_hidden", "evaluate.knn.k", "schedule.epochs"} <= set(keys)
