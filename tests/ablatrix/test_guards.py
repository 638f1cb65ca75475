from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_sweep import write_sweep

ROOT = Path(__file__).parents[2]
PACKAGES = {"platform": "ablatrix", "models": "ablatrix_models", "reports": "ablatrix_reports"}
# Who may import what is heavy or foreign; a package stands for all of its modules.
ALLOWED = {
    "ray": {"ablatrix.runner", "ablatrix.cluster", "ablatrix.local_ray"},
    "mlflow": {"ablatrix.tracking"},
    "optuna": {"ablatrix.study"},
    "ruamel": {"ablatrix.document"},
    "yaml": set(),
}


def sources() -> list[tuple[str, Path]]:
    """Every module of ours, by its dotted name."""
    found = []
    for root, package in PACKAGES.items():
        for path in sorted((ROOT / root / package).rglob("*.py")):
            parts = path.relative_to(ROOT / root).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imported(path: Path) -> set[str]:
    """The top-level names of all that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("root", PACKAGES)
def test_a_source_root_is_no_package_and_holds_one(root: str) -> None:
    place = ROOT / root

    assert list(place.glob("*.py")) == []
    assert [p.name for p in place.iterdir() if p.is_dir() and p.name != "__pycache__"] == [PACKAGES[root]]


def test_platform_is_the_standard_librarys_in_the_root_of_the_repository() -> None:
    code = "import platform; print(platform.__file__, platform.python_version())"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert str(ROOT / "platform") not in found
    assert found.strip().endswith(sys.version.split()[0])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_foreign_is_imported_where_it_belongs_alone(name: str) -> None:
    users = {module for module, path in sources() if name in imported(path)}

    assert {user for user in users if not any(user == a or user.startswith(f"{a}.") for a in ALLOWED[name])} == set()


def test_models_know_neither_the_platform_nor_its_libraries() -> None:
    foreign = {"ablatrix", "ablatrix_reports", "ray", "mlflow", "optuna", "pydantic", "ruamel", "typer", "rich"}

    assert {m: hit for m, path in sources() if m.startswith("ablatrix_models") and (hit := imported(path) & foreign)} == {}


def test_recipes_are_free_of_torch() -> None:
    users = {m for m, path in sources() if m.startswith("ablatrix_models.recipe") and "torch" in imported(path)}

    assert users == set()


def test_no_module_asks_for_a_version_when_it_is_imported() -> None:
    """Reading package metadata costs time, and fails where the code is run from a checkout."""
    asking = []
    for module, path in sources():
        tree = ast.parse(path.read_text())
        inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and "importlib.metadata" in ast.unparse(n.func)]
        asking += [module for call in calls if id(call) not in inside]

    assert asking == []


@pytest.mark.parametrize("verb", ["--help", "check", "list", "status", "plan"])
def test_a_verb_that_only_reads_loads_nothing_heavy(tmp_path: Path, verb: str) -> None:
    arguments = {"check": [str(write_sweep(tmp_path))], "plan": [str(write_sweep(tmp_path))]}.get(verb, [])
    store = ["--store", str(tmp_path / "runs")] if verb in ("list", "status", "plan") else []
    code = (
        "import sys\nfrom ablatrix.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, verb, *arguments, *store], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1].split() == ["LOADED"], ended.stderr


def test_the_layers_are_as_the_design_draws_them() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    if not command.exists():
        pytest.skip("import-linter is not installed: pip install 'ablatrix[dev]'")
    ended = subprocess.run([str(command), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
