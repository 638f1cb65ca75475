from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablatrix import plan, spec
from ablatrix.cli import main
from ablatrix.errors import AblatrixError, SweepFileError
from tiny_sweep import RECIPE, SWEEP, write_sweep

EXAMPLES = int(os.environ.get("ABLATRIX_EXAMPLES", "200"))


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of `ablatrix check`."""
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_a_good_file_is_said_to_be_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path)

    assert check(capsys, str(path)) == (0, f"{path}: good. Axes: grid. Profiles: none.\n", "")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("seeds: 2", "seed: 2", 7, "'seed' is not a known key. Did you mean 'seeds'?"),
        ("seeds: 2", "seeds: two", 7, "seeds has the value 'two'"),
        ("[2, 4]", "[2, 1000]", 6, "mask.grid is 1000, but at most 512 is allowed"),
        ("[2, 4]", "[2, 16]", 6, "images are 8 pixels wide"),
        ("seeds: 2", "seeds: 2\ntitle: again", 8, "the key 'title' stands here again; it was first on line 3"),
        ("[2, 4]", "[2, 4", 6, "no valid YAML"),
        ("seeds: 2", "seeds: &n 2\nset: {<<: {a: 1}}", 8, "merge keys"),
        ("seeds: 2", "seeds: !!python/name:os.system", 7, "is refused"),
        ("metric", "\tmetric", 8, "no valid YAML"),
    ],
)
def test_a_broken_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, line: int, said: str
) -> None:
    path = write_sweep(tmp_path, SWEEP.replace(old, new, 1))
    code, out, err = check(capsys, str(path))

    assert (code, out) == (2, "")
    assert any(told.startswith(f"{path}:{line}: ") and said in told for told in err.splitlines()), err
    assert "Traceback" not in err


def test_every_problem_is_told_at_once_in_the_order_of_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SWEEP.replace("[2, 4]", "[2, 1]") + "set: {mask.gird: 2}\nextra: 1\ntitle: again\n"
    path = write_sweep(tmp_path, text)
    code, _, err = check(capsys, str(path))

    assert code == 2
    assert [int(told.removeprefix(f"{path}:").split(":")[0]) for told in err.splitlines()] == [6, 9, 10, 11]


@pytest.mark.parametrize("content", [b"", b"\n# nothing\n", b"\x89PNG\r\n\x1a\n\0\0", b"\0" * 100, bytes(range(256)), b"\xff\xfes\0"])
def test_what_is_no_sweep_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    code, out, err = check(capsys, str(path))

    assert (code, out) == (2, "")
    assert err.startswith(f"{path}:")
    assert len(err.splitlines()) == 1


def test_a_missing_file_and_a_directory_are_refused_with_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, directory = check(capsys, str(tmp_path / "none.yaml")), check(capsys, str(tmp_path))

    assert (missing[0], directory[0]) == (2, 2)
    assert "does not exist. `ablatrix list`" in missing[2]
    assert "is a directory" in directory[2]


@pytest.mark.parametrize("name", ["no-such-sweep", "a" * 5000, "~nobody-of-that-name/a.yaml", "a\0b", "", "-x"])
def test_a_name_that_is_nothing_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = check(capsys, name)

    assert (code, out) == (2, "")
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("mask.gird=2", "mask.gird is not a known key"),
        ("mask.grid", "is no KEY=VALUE"),
        ("=2", "is no KEY=VALUE"),
        ("optimizer.lr=fast", "optimizer.lr is the text 'fast'"),
        ("optimizer.lr=1" + "0" * 400, "optimizer.lr"),
        ("mask.grid=2", "axis 'grid' sets it in every cell"),
        (".".join("a" * 600) + "=1", "is not a known key"),
        ("optimizer.lr=" + "[" * 5000, "optimizer.lr is the text"),
        ("method=[1]", "method.name is the list"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_set_option_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], pair: str, said: str) -> None:
    code, _, err = check(capsys, str(write_sweep(tmp_path)), "--set", pair)

    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_problems_are_machine_readable_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(tmp_path, SWEEP + "set: {mask.gird: 2}\n")
    code, out, _ = check(capsys, str(path), "--json")

    assert code == 2
    assert [problem["line"] for problem in json.loads(out)["problems"]] == [9]


RICH = (
    SWEEP.replace("seeds: 2", "  row: {levels: {a: {recipe: tiny.yaml}, b: {recipe: tiny.yaml, optimizer.lr: 0.2}}}\nseeds: 2").replace(
        "{name: knn.top1}", "{name: knn.top1, by: {row: {b: {name: train.loss, goal: min}}}}"
    )
    + """\
set: {optimizer.lr: 0.1, mixing: {switch: true}}
when:
  - {if: {grid: 2}, set: {mask.kind: discrete}, note: "why"}
  - {if: {grid: ["> 2", "!= none"], row: a}, recipe: tiny.yaml}
exclude: [{if: {grid: 4}, reason: "not now"}]
include:
  - {as: {grid: none}, label: "MoCo", set: {mixing: none}}
  - as: {grid: untrained}
    set: {schedule.epochs: 0}
resources: {cpus: 1, gpus: 0.5}
profiles:
  smoke: {set: {schedule.epochs: 1}, seeds: [0, 3], axes: {grid: {levels: [2]}}}
table: {rows: grid, columns: row, baseline: {grid: none}}
claims:
  - {text: "b is better", check: "cell(grid=2, row=b) > cell(grid=2, row=a)"}
"""
)
AXES = SWEEP[SWEEP.index("axes:") : SWEEP.index("metric:")]
SEARCHED = (
    SWEEP.replace(
        AXES,
        """\
search:
  algorithm: random
  trials: 8
  seed: 3
  scheduler: {name: pbt, interval_epochs: 1, quantile: 0.5, perturb: 1.5}
  space:
    lr: {key: optimizer.lr, low: 1.0e-4, high: 1.0, log: true}
    mixing: {levels: {plain: {mixing: none}, mixed: {mixing: mixmask, optimizer.weight_decay: 0.1}}}
    grid: {key: mask.grid, low: 2, high: 8, step: 2, if: {mixing: mixed}}
""",
    )
    + """\
set: {data.held_out: 16}
when: [{if: {lr: "< 0.1"}, set: {mask.kind: discrete}, note: "why"}]
include: [{as: {suggestion: plain}, label: "MoCo", set: {mixing: none}}]
profiles: {smoke: {trials: 4}}
budget: {trials: 20, gpu_hours: 1}
"""
)
BASES = {"sweep": RICH, "search": SEARCHED, "scheduled": SEARCHED.replace("random", "tpe").replace(
    "{name: pbt, interval_epochs: 1, quantile: 0.5, perturb: 1.5}", "{name: asha, grace_epochs: 1}").replace(
    "set: {data", "set: {schedule.epochs: 4, evaluate.every: 1, data")}  # fmt: skip
NASTY = [
    "", "~", "-1", "0", "1e400", "1" + "0" * 40, ".nan", "true", "'2'", "[", "]", "{", "}", "[]", "{}",
    "{a: {b: [1]}}", "[[1]]", "*x", "&x",
    "<<", "!!set {a}", "!!bool x", "2024-01-01",
    "|", ">", "%YAML 1.1", "010", "1_0", "'< 4'", "'> x'", "recipe: tiny.yaml", "#", ": ", "- ", "? ",
    "\t", "\n", "\0", "\ufeff", "é", "…", "\ud7ff", "none", "as",
    "grid", "mask.grid", "..",
    "../x", "name", "method", "byol", "data.name", "folder", "knn: off", "a" * 300,
]  # fmt: skip


def mutate(text: str, how: str, chance: random.Random) -> str:
    """One random change of a file's text."""
    lines = text.splitlines(keepends=True)
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    spot = chance.randrange(len(text))
    words = lines[at].split(" ")
    if how == "drop":
        del lines[at]
    elif how == "duplicate":
        lines.insert(other, lines[at])
    elif how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "retype":
        words[chance.randrange(len(words))] = chance.choice(NASTY)
        lines[at] = " ".join(words) + ("" if lines[at].endswith("\n") and words[-1].endswith("\n") else "\n")
    elif how == "truncate":
        return text[:spot] or "\n"
    elif how == "insert":
        return text[:spot] + chance.choice(NASTY) + text[spot:]
    elif how == "cut":
        return text[:spot] + text[spot + chance.randrange(1, 12) :] or "\n"
    else:
        return text[:spot] + chr(chance.randrange(1, 0x2FF)) + text[spot + 1 :]
    return "".join(lines) or "\n"


CHANGES = st.lists(
    st.sampled_from(["drop", "duplicate", "swap", "retype", "retype", "truncate", "insert", "cut", "byte"]), min_size=1, max_size=4
)


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(how=CHANGES, seed=st.integers(0, 2**32), base=st.sampled_from(list(BASES)), of_recipe=st.booleans())
def test_no_change_of_a_file_brings_more_than_problems_with_lines(
    tmp_path: Path, how: list[str], seed: int, base: str, of_recipe: bool
) -> None:
    chance, whole = random.Random(seed), BASES[base]
    text = RECIPE if of_recipe else whole
    for one in how:
        text = mutate(text, one, chance)
    path = write_sweep(tmp_path, whole, text) if of_recipe else write_sweep(tmp_path, text)
    try:
        problems = plan.check(spec.load(path))
    except SweepFileError as error:
        problems = list(error.problems)
    except AblatrixError:
        problems = []

    assert all(1 <= problem.line <= max(1, len(whole.splitlines() if of_recipe else text.splitlines()) + 1) for problem in problems)
    assert all(problem.message for problem in problems)


@settings(
    max_examples=EXAMPLES // 3, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200))
def test_no_bytes_bring_more_than_a_refusal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)

    with pytest.raises(AblatrixError, match=r"file\.yaml:\d+: "):
        plan.make(spec.load(path), None, lambda data: pytest.fail("a plan of random bytes"))


@pytest.mark.parametrize("text", BASES.values(), ids=BASES)
def test_the_files_that_are_mutated_are_good(tmp_path: Path, text: str) -> None:
    assert plan.check(spec.load(write_sweep(tmp_path, text))) == []
