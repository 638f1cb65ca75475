"""A fingerprint names content: not where it lies, when it was written, or how it is limited."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from ablatrix_models.data import fingerprint as module
from ablatrix_models.data.fingerprint import fingerprint
from ablatrix_models.data.places import DataError, data_root, locate
from ablatrix_models.recipe.data import Data
from data_samples import encoded, pixels, write_cifar100, write_folder, write_idx, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_known", {})
    return tmp_path / "cache"


def test_a_fingerprint_is_sixteen_hex_digits():
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", fingerprint(Data("digits")))


@pytest.mark.parametrize(
    ("name", "write"), [("folder", write_folder), ("parquet", write_parquet), ("fashion-mnist", write_idx), ("cifar100", write_cifar100)]
)
def test_place_and_time_stay_out(tmp_path, name, write):
    here, there = write(tmp_path / "here"), write(tmp_path / "there")
    for file in there.rglob("*"):
        os.utime(file, (1, 1))

    assert fingerprint(Data(name, str(here))) == fingerprint(Data(name, str(there)))


def test_compression_stays_out(tmp_path):
    plain, packed = write_idx(tmp_path / "plain"), write_idx(tmp_path / "packed", packed=True)

    assert fingerprint(Data("fashion-mnist", str(plain))) == fingerprint(Data("fashion-mnist", str(packed)))


def test_limits_and_size_stay_out(tmp_path):
    root = str(write_folder(tmp_path / "pets"))

    assert fingerprint(Data("folder", root)) == fingerprint(Data("folder", root, train_images=2, image_size=64))


def test_files_that_are_not_read_stay_out(tmp_path):
    root = write_folder(tmp_path / "pets")
    before = fingerprint(Data("folder", str(root)))
    (root / "README.md").write_text("pets")
    (root / "train/cat/notes.txt").write_text("a cat")

    assert fingerprint(Data("folder", str(root))) == before


def test_one_changed_image_changes_it(tmp_path):
    root = write_folder(tmp_path / "pets")
    before = fingerprint(Data("folder", str(root)))
    (root / "test/cat/0.png").write_bytes(encoded(pixels(9)))

    assert fingerprint(Data("folder", str(root))) != before


def test_an_image_moved_to_another_class_changes_it(tmp_path):
    root = write_folder(tmp_path / "pets")
    before = fingerprint(Data("folder", str(root)))
    (root / "train/cat/0.png").rename(root / "train/dog/4.png")

    assert fingerprint(Data("folder", str(root))) != before


def test_content_is_read_once_per_cache(tmp_path, monkeypatch):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    first = fingerprint(config)
    monkeypatch.setattr(module, "_known", {})  # as a new process would start
    monkeypatch.setattr(module, "_digest", lambda members: pytest.fail("read again"))

    assert fingerprint(config) == first


def test_a_damaged_note_in_the_cache_is_ignored(tmp_path, cache, monkeypatch):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    first = fingerprint(config)
    for note in (cache / "fingerprints").iterdir():
        note.write_text("{")
    monkeypatch.setattr(module, "_known", {})

    assert fingerprint(config) == first


def test_large_sets_count_by_names_sizes_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WHOLE_BYTES", 100)
    monkeypatch.setattr(module, "PIECE_BYTES", 40)
    root = write_parquet(tmp_path / "pets")
    before = fingerprint(Data("parquet", str(root)))
    shard = root / "train-00000-of-00001.parquet"
    content = bytearray(shard.read_bytes())

    def after(position: int) -> str:
        changed = content.copy()
        changed[position] ^= 1
        shard.write_bytes(changed)
        os.utime(shard, (position + 1000, position + 1000))
        return fingerprint(Data("parquet", str(root)))

    assert after(20) != before
    assert after(len(content) - 20) != before
    assert after(len(content) // 2) == before  # the price of not reading terabytes


def test_of_many_files_evenly_spaced_ones_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WHOLE_BYTES", 100)
    monkeypatch.setattr(module, "SAMPLED_FILES", 3)
    reads = []
    original = module._ends
    monkeypatch.setattr(module, "_ends", lambda path, size: reads.append(path) or original(path, size))

    fingerprint(Data("folder", str(write_folder(tmp_path / "pets"))))

    assert len(reads) == 3


def test_an_absent_dataset_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path))

    with pytest.raises(DataError, match=r"'cifar10' was not found.*`ablatrix data get cifar10`"):
        fingerprint(Data("cifar10"))


def test_a_cut_gz_file_is_an_error(tmp_path):
    root = write_idx(tmp_path / "fashion", packed=True)
    file = root / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(DataError, match=r"cannot be read to the end .*get the dataset again"):
        fingerprint(Data("fashion-mnist", str(root)))


def test_planning_needs_neither_torch_nor_numpy():
    code = "import sys, ablatrix_models.data.fingerprint; print({'torch', 'numpy', 'pyarrow', 'PIL', 'sklearn'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_places_follow_the_recipe_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path))

    assert data_root() == tmp_path
    assert locate(Data("cifar10")) == tmp_path / "cifar10"
    assert locate(Data("cifar10", "/elsewhere")) is not None
    assert str(locate(Data("cifar10", "/elsewhere"))) == "/elsewhere"
    assert locate(Data("digits")) is None


def test_an_empty_environment_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("ABLATRIX_DATA", "")

    assert data_root().parts[-3:] == (".cache", "ablatrix", "data")


def test_a_moved_dataset_keeps_its_fingerprint(tmp_path):
    root = write_folder(tmp_path / "pets")
    before = fingerprint(Data("folder", str(root)))
    moved = shutil.move(root, tmp_path / "animals")

    assert fingerprint(Data("folder", str(moved))) == before
