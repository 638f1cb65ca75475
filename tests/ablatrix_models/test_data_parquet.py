"""Parquet directories of Hugging Face's layout, and the real images that lie in it."""

from __future__ import annotations

import pytest
import torch

from ablatrix_models.data.load import load
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import Data
from data_samples import chw, encoded, pixels, real_dataset, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))


def test_parquet_keeps_its_row_order_and_class_names(tmp_path):
    rows: list[tuple[bytes | None, int]] = [(encoded(pixels(n)), label) for n, label in enumerate([1, 1, 0, 1])]
    root = write_parquet(tmp_path / "pets", train=rows)

    train = load(Data("parquet", str(root), train_images=3), "train")

    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [1, 1, 0]
    assert torch.equal(train.images, torch.stack([chw(pixels(n)) for n in range(3)]))


def test_parquet_shards_follow_each_other(tmp_path):
    root = write_parquet(tmp_path / "pets", shards=3)

    train = load(Data("parquet", str(root)), "train")

    assert torch.equal(train.images, torch.stack([chw(pixels(n)) for n in (0, 3, 1, 4, 2, 5)]))


@pytest.mark.parametrize(("image", "label"), [("img", "fine_label"), ("image", "labels"), ("img", "label")])
def test_parquet_columns_may_be_spelled_differently(tmp_path, image, label):
    root = write_parquet(tmp_path / "pets", image=image, label=label)

    assert load(Data("parquet", str(root)), "train").labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_parquet_without_class_names_counts_the_labels_of_both_splits(tmp_path):
    root = write_parquet(tmp_path / "pets", test=[(encoded(pixels(1)), 3)], names=None)

    assert load(Data("parquet", str(root)), "train").classes == ("0", "1", "2", "3")


def test_parquet_class_names_may_be_keyed_by_index(tmp_path):
    root = write_parquet(tmp_path / "pets", names={"1": "dog", "0": "cat"})

    assert load(Data("parquet", str(root)), "train").classes == ("cat", "dog")


def test_a_named_dataset_may_lie_in_parquet(tmp_path, monkeypatch):
    write_parquet(tmp_path / "cifar10" / "data", train=[(encoded(pixels(0, 32, 32)), 1)])
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path))

    train = load(Data("cifar10"), "train")

    assert train.images.shape == (1, 3, 32, 32)


def test_a_missing_shard_is_named(tmp_path):
    root = write_parquet(tmp_path / "pets", shards=3)
    (root / "train-00001-of-00003.parquet").unlink()

    with pytest.raises(DataError, match=r"should hold 3 shards of the split 'train'; missing: 00001"):
        load(Data("parquet", str(root)), "test")


def test_a_cut_parquet_file_is_named(tmp_path):
    root = write_parquet(tmp_path / "pets")
    shard = root / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])

    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet cannot be read as parquet"):
        load(Data("parquet", str(root)), "train")


def test_a_parquet_label_that_is_no_class_is_named_with_its_row(tmp_path):
    root = write_parquet(tmp_path / "pets", test=[(encoded(pixels(0)), 0), (encoded(pixels(1)), -1)])

    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet row 1: the label is -1"):
        load(Data("parquet", str(root)), "train")


def test_a_parquet_file_without_images_names_its_columns(tmp_path):
    root = write_parquet(tmp_path / "pets", image="photo")

    with pytest.raises(DataError, match=r"has the columns photo, label, but one of image, img"):
        load(Data("parquet", str(root)), "train")


# real images


def test_the_real_parquet_sets_have_their_own_sizes(tmp_path):
    tiny = load(Data("tiny-imagenet", str(real_dataset("tiny-imagenet-20")), test_images=40), "test")
    nette = load(Data("imagenette", str(real_dataset("imagenette-224")), image_size=224, test_images=20), "test")

    assert tiny.images.shape == (40, 3, 64, 64)
    assert tiny.labels.bincount().tolist() == [2] * 20
    assert nette.images.shape == (20, 3, 224, 224)  # stored at 256 at most, never enlarged
    assert nette.classes[0] == "tench"


@pytest.mark.slow
def test_the_real_cifar_100_has_its_known_counts_and_statistics():
    config = Data("cifar100", str(real_dataset("cifar100")))

    train, test = load(config, "train"), load(config, "test")

    assert train.labels.bincount().tolist() == [500] * 100
    assert test.labels.bincount().tolist() == [100] * 100
    moments = train.images.double().div(255).transpose(0, 1).reshape(3, -1)
    assert moments.mean(1).tolist() == pytest.approx([0.50708, 0.48655, 0.44092], abs=5e-6)
    assert moments.std(1).tolist() == pytest.approx([0.26733, 0.25644, 0.27615], abs=5e-6)
