"""The decoded cache: built once, complete or absent, checked, shared, and never stale."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ablatrix_models.data import cache, decode
from ablatrix_models.data.load import load
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import Data
from data_samples import encoded, pixels, write_folder, write_idx, write_parquet


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def decodings(monkeypatch):
    """A list that grows by one with every image that is decoded."""
    seen = []
    original = decode.to_square
    monkeypatch.setattr(decode, "to_square", lambda payload, side: seen.append(side) or original(payload, side))
    return seen


BUILDER = """
import sys, time
from ablatrix_models.data import decode
from ablatrix_models.data.cache import cached
from ablatrix_models.data.layout import find
from ablatrix_models.recipe.data import Data
original, seen = decode.to_square, []
def slow(payload, side):
    seen.append(side)
    print("decoding", flush=True)
    time.sleep(float(sys.argv[2]))
    return original(payload, side)
decode.to_square = slow
config = Data("folder", sys.argv[1])
arrays = cached(config, find(config), "train")
print("torch" in sys.modules, len(arrays.labels), len(seen), flush=True)
"""


def builder(root: Path, pause_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(root), str(pause_s)], stdout=subprocess.PIPE, text=True)


def built(home: Path) -> list[Path]:
    return sorted(home.glob("*/*-*"))


def test_images_are_decoded_once(tmp_path, decodings):
    config = Data("folder", str(write_folder(tmp_path / "pets")))

    first = load(config, "train")
    again = load(config, "train")

    assert len(decodings) == 8
    assert torch.equal(first.images, again.images)
    assert again.images.untyped_storage().nbytes() >= 8 * 3 * 36


def test_writing_to_a_loaded_image_never_reaches_the_cache(tmp_path):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    load(config, "train").images.zero_()

    assert load(config, "train").images.sum() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux is where a private mapping counts against memory")
def test_a_cache_larger_than_the_memory_can_be_mapped(tmp_path):
    count = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (3 * 256 * 256)
    with (tmp_path / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 256, 256)})
        file.truncate(file.tell() + count * 3 * 256 * 256)  # a hole: takes no disk

    images = cache._mapped(tmp_path / "images.npy")

    assert images.shape == (count, 3, 256, 256)
    assert images[-1].max() == 0


def test_a_limit_decodes_only_its_prefix_and_a_larger_build_serves_it(tmp_path, decodings):
    root = str(write_folder(tmp_path / "pets"))

    few = load(Data("folder", root, train_images=2), "train")
    assert len(decodings) == 2
    load(Data("folder", root), "train")
    assert len(decodings) == 2 + 8
    four = load(Data("folder", root, train_images=4), "train")

    assert len(decodings) == 2 + 8
    assert torch.equal(four.images[:2], few.images)


def test_the_same_images_elsewhere_share_one_cache(tmp_path, decodings):
    load(Data("folder", str(write_folder(tmp_path / "here"))), "train")
    load(Data("folder", str(write_folder(tmp_path / "there"))), "train")

    assert len(decodings) == 8


def test_a_changed_source_is_decoded_anew(tmp_path):
    root = write_folder(tmp_path / "pets")
    load(Data("folder", str(root)), "train")
    (root / "train/cat/0.png").write_bytes(encoded(pixels(77)))

    train = load(Data("folder", str(root)), "train")

    assert np.array_equal(train.images[0].numpy().transpose(1, 2, 0), pixels(77))


def test_images_of_many_sizes_cover_the_store_size(tmp_path):
    root = write_folder(tmp_path / "pets")
    (root / "train/cat/0.png").write_bytes(encoded(pixels(1, 50, 90)))

    train = load(Data("folder", str(root), image_size=28), "train")

    assert train.images.shape == (8, 3, 32, 32)


def test_one_size_smaller_than_the_store_is_kept_in_both_splits(tmp_path):
    config = Data("folder", str(write_folder(tmp_path / "pets")), image_size=28)

    assert load(config, "train").images.shape[-2:] == load(config, "test").images.shape[-2:] == (6, 6)


def test_a_damaged_cache_is_found_and_built_again(tmp_path, home, decodings):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    whole = load(config, "train").images.clone()
    file = built(home)[0] / "images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, (1, 1))

    train = load(config, "train")

    assert len(decodings) == 16
    assert torch.equal(train.images, whole)
    assert len(built(home)) == 1


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json"])
def test_a_cut_file_of_the_cache_is_found(tmp_path, home, decodings, name):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    load(config, "train")
    file = built(home)[0] / name
    file.write_bytes(file.read_bytes()[:-1])

    load(config, "train")

    assert len(decodings) == 16


def test_a_copied_cache_is_checked_once_and_not_decoded(tmp_path, home, decodings, monkeypatch):
    config = Data("folder", str(write_folder(tmp_path / "pets")))
    load(config, "train")
    os.utime(built(home)[0] / "images.npy", (1, 1))
    load(config, "train")
    monkeypatch.setattr(cache, "_checksum", lambda path: pytest.fail("read again"))

    load(config, "train")

    assert len(decodings) == 8


def test_two_processes_build_one_cache(tmp_path):
    root = write_folder(tmp_path / "pets")

    builders = [builder(root, 0.05) for _ in range(2)]
    ends = sorted(process.communicate(timeout=60)[0].splitlines()[-1] for process in builders)

    assert ends == ["False 8 0", "False 8 8"]  # neither needed torch; one decoded all, the other waited


def test_a_killed_builder_leaves_nothing_broken(tmp_path, home):
    root = write_folder(tmp_path / "pets")
    with builder(root, 5) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert list(home.glob("*/.building-*"))

    train = load(Data("folder", str(root)), "train")

    assert len(train) == 8
    assert not list(home.glob("*/.building-*"))


def test_a_corrupt_file_is_named_and_nothing_is_left_behind(tmp_path, home):
    root = write_folder(tmp_path / "pets")
    (root / "train/dog/2.png").write_bytes(b"")
    (root / "train/cat/1.png").write_bytes(encoded(pixels(0, 64, 64))[:500])

    with pytest.raises(
        DataError, match=r"2 images cannot be read: .*cat/1\.png \(.*truncated.*dog/2\.png \(it is empty\)\. Get the dataset again"
    ):
        load(Data("folder", str(root)), "train")

    assert list(home.glob("*/*")) == []


def test_a_corrupt_row_is_named_with_its_file(tmp_path):
    root = write_parquet(tmp_path / "pets", train=[(encoded(pixels(0)), 0), (None, 1)])

    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet row 1 \(it is empty\)"):
        load(Data("parquet", str(root)), "train")


def test_a_hundred_broken_images_are_enough_to_give_up(tmp_path):
    root = write_parquet(tmp_path / "pets", train=[(b"junk", 0)] * 3000)

    with pytest.raises(DataError, match=r"100 images cannot be read: .*; and 95 more"):
        load(Data("parquet", str(root)), "train")


def test_a_source_that_changes_while_it_is_decoded_is_refused(tmp_path, monkeypatch, home):
    root = write_folder(tmp_path / "pets")
    original = decode.to_square

    def meddled(payload, side):
        (root / "train/cat/3.png").write_bytes(encoded(pixels(99)))
        return original(payload, side)

    monkeypatch.setattr(decode, "to_square", meddled)

    with pytest.raises(DataError, match="changed while it was being decoded"):
        load(Data("folder", str(root)), "train")

    assert built(home) == []


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "file"))

    with pytest.raises(DataError, match=r"cannot be written .*Set ABLATRIX_CACHE to a local directory"):
        load(Data("folder", str(write_folder(tmp_path / "pets"))), "train")


def test_a_disk_without_room_is_refused_before_decoding(tmp_path, monkeypatch, decodings):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: cache.shutil._ntuple_diskusage(100, 99, 1))

    with pytest.raises(DataError, match=r"has 0\.0 GB free\. Set ABLATRIX_CACHE to a larger disk"):
        load(Data("folder", str(write_folder(tmp_path / "pets"))), "train")

    assert decodings == []


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, home):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)

    with pytest.raises(DataError, match=r"No space left on device.*Set ABLATRIX_CACHE"):
        load(Data("folder", str(write_folder(tmp_path / "pets"))), "train")

    assert list(home.glob("*/*")) == []


def test_layouts_that_are_pixels_already_need_no_cache(tmp_path, home):
    load(Data("fashion-mnist", str(write_idx(tmp_path / "fashion"))), "train")
    load(Data("digits"), "train")

    assert not home.exists()


@pytest.mark.parametrize(("image_size", "store_size"), [(224, 256), (64, 74), (28, 32)])
def test_photographs_are_stored_with_the_margin_of_the_imagenet_protocol(image_size, store_size):
    assert Data("imagenet-1k", image_size=image_size).store_size == store_size


def test_named_small_sets_are_stored_at_their_own_size():
    assert Data("tiny-imagenet", image_size=32).store_size == 64
