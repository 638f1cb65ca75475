"""`ablatrix data`: what is printed where, and what is refused."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from ablatrix.cli.data import data_app
from ablatrix.errors import InvalidInput
from ablatrix_models.data import get as module
from data_samples import encoded, pixels, write_cifar100, write_folder, write_parquet


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path / "data"))


def invoke(*arguments):
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def refusal(*arguments):
    result = invoke(*arguments)
    assert isinstance(result.exception, InvalidInput), result.output
    return str(result.exception), result


def test_get_prints_nothing_but_the_directory_on_stdout(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_downloads", lambda: {"cifar100": lambda place: write_cifar100(place / "cifar-100-python")})

    result = invoke("get", "cifar100", "--root", tmp_path / "elsewhere")

    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'elsewhere' / 'cifar100'}\n"


def test_get_uses_the_data_root_of_the_environment(tmp_path):
    write_cifar100(tmp_path / "data" / "cifar100")

    result = invoke("get", "cifar100")

    assert result.stdout == f"{tmp_path / 'data' / 'cifar100'}\n"


def test_get_names_the_nearest_dataset():
    message, _ = refusal("get", "cifar-100")

    assert "'cifar-100' is no known dataset. Did you mean 'cifar100'?" in message


def test_get_says_how_to_have_a_dataset_that_cannot_be_downloaded(tmp_path):
    message, _ = refusal("get", "tiny-imagenet", "--root", tmp_path)

    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in message
    assert "ablatrix data check tiny-imagenet" in message


def test_check_reports_counts_balance_and_fingerprint(tmp_path):
    write_folder(tmp_path / "animals", train=4, test=2)

    result = invoke("check", "folder", "--path", tmp_path / "animals")

    assert result.exit_code == 0
    assert "2 classes" in result.stdout
    assert "8 images, 4 of each class; 0 repeat an earlier one" in result.stdout
    assert "0 test images also stand in train" in result.stdout
    assert "fingerprint" in result.stdout


def test_check_shows_how_far_classes_are_apart(tmp_path):
    rows = [(encoded(pixels(n)), int(n == 0)) for n in range(5)]
    write_parquet(tmp_path / "animals", train=rows)

    result = invoke("check", "parquet", "--path", tmp_path / "animals")

    assert "5 images, 1 to 4 of a class" in result.stdout


def test_check_as_json_is_one_document_with_the_verdict(tmp_path):
    write_folder(tmp_path / "animals", train=4, test=2)

    result = invoke("check", "folder", "--path", tmp_path / "animals", "--json")

    report = json.loads(result.stdout)
    assert report["sound"] is True
    assert report["train"] == {"images": 8, "per_class": [4, 4], "repeats": 0}


def test_unsound_data_are_refused_by_name_after_the_report(tmp_path):
    directory = write_folder(tmp_path / "animals", train=8, test=2)
    for number in range(7):
        (directory / "train" / "cat" / f"{number}.png").write_bytes(b"no image")

    message, result = refusal("check", "folder", "--path", directory, "--json")

    report = json.loads(result.stdout)
    assert report["sound"] is False
    assert len(report["corrupt"]) == 7
    assert InvalidInput.exit_code == 2
    assert "7 images cannot be read" in message
    assert "0.png" in message
    assert "and 2 more" in message


def test_check_of_a_layout_asks_for_its_path():
    message, _ = refusal("check", "folder")

    assert message == "'folder' names a layout, not a dataset. Add --path with the directory that holds the images."


def test_check_of_an_unknown_name_suggests_the_nearest():
    message, _ = refusal("check", "imagenete")

    assert "'imagenete', which is no known dataset. Did you mean 'imagenette'?" in message


def test_check_of_absent_data_says_how_to_get_them(tmp_path):
    message, _ = refusal("check", "cifar10")

    assert f"there is no directory {tmp_path / 'data' / 'cifar10'}" in message
    assert "ablatrix data get cifar10" in message


def test_the_app_offers_exactly_get_and_check():
    assert sorted(typer.main.get_command(data_app).commands) == ["check", "get"]  # type: ignore[attr-defined]
