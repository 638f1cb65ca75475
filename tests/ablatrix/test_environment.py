"""What a trial writes down of the code, the packages and the machine that it runs on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy
import torch

from ablatrix import environment
from ablatrix.store import TrialDirectory


def checkout(place: Path) -> str:
    """A repository of one commit, with a module's file in it; returns the commit."""
    (place / "module.py").write_text("one\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", place, *command], check=True)
    return subprocess.run(["git", "-C", place, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_source_is_its_commit_and_whether_the_tree_was_changed_since(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    outside = environment.source_version()
    commit = checkout(tmp_path)
    clean = environment.source_version()
    (tmp_path / "new.py").write_text("")

    assert (outside, clean, environment.source_version()) == ((None, None), (commit, False), (commit, True))


def test_without_git_there_is_no_commit_and_no_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert environment.source_version() == (None, None)


def test_versions_are_those_of_the_packages_that_can_change_a_result():
    found = environment.versions()

    assert (found["torch"], found["numpy"]) == (torch.__version__, numpy.__version__)
    assert {"python", "ablatrix", "torchvision", "pillow"} <= found.keys()


def test_an_environment_reads_back_as_it_was_written(tmp_path):
    found = environment.environment(attempt=2, gpus=False)
    TrialDirectory(tmp_path).write_environment(found)

    assert TrialDirectory(tmp_path).environment() == found
    assert found.attempt == 2
    assert found.gpus == []
    assert found.cpu
    assert TrialDirectory(tmp_path / "none").environment() is None


def test_a_repository_that_does_not_hold_our_code_says_nothing_of_it(tmp_path, monkeypatch):
    """As a virtual environment within a user's own project does."""
    checkout(tmp_path)
    installed = tmp_path / ".venv" / "environment.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(environment, "__file__", str(installed))

    assert environment.source_version() == (None, None)
