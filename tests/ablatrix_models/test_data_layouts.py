"""Every layout gives the images that were written, as (n, 3, h, w) uint8 with the right labels and order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ablatrix_models.data.arrays import turns
from ablatrix_models.data.images import ImageSet
from ablatrix_models.data.load import load
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import Data
from data_samples import chw, encoded, pixels, python2_batch, write_cifar100, write_folder, write_idx


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))


def as_rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


# digits


def official_digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(labels)


def test_digits_are_the_last_fifth_of_each_class_and_the_rest():
    train, test = load(Data("digits"), "train"), load(Data("digits"), "test")

    assert (len(train), len(test)) == (1438, 359)
    per_class = train.labels.bincount() + test.labels.bincount()
    assert per_class.tolist() == np.bincount(official_digits()[1]).tolist()
    assert [round(0.2 * n) for n in per_class.tolist()] == test.labels.bincount().tolist()


def test_images_held_out_are_the_first_for_training_and_take_the_test_images_place():
    whole = load(Data("digits", train_images=300), "train")

    train, judged = (load(Data("digits", train_images=300, held_out=100, test_images=50), split) for split in ("train", "test"))

    assert torch.equal(torch.cat([judged.images, train.images]), whole.images)
    assert torch.equal(torch.cat([judged.labels, train.labels]), whole.labels)
    assert len(judged) == 100
    assert judged.labels.bincount().tolist() == [10] * 10
    assert not set(as_rows(judged.images)) & set(as_rows(load(Data("digits"), "test").images))


def test_holding_every_image_out_is_refused():
    with pytest.raises(DataError, match=r"data\.held_out is 1438, so none of the 1438 training images of 'digits' is left\. Use fewer"):
        load(Data("digits", held_out=1438), "train")


def test_digits_are_those_of_scikit_learn_scaled_to_bytes():
    grey = official_digits()[0].reshape(-1, 1, 8, 8)
    scaled = np.repeat(np.rint(grey * 255 / 16).astype(np.uint8), 3, axis=1)

    both = torch.cat([load(Data("digits"), split).images for split in ("train", "test")])

    assert both.dtype == torch.uint8
    assert int(both.max()) == 255
    assert as_rows(both) == as_rows(torch.from_numpy(scaled))


def test_a_prefix_of_the_digits_is_stratified_and_a_prefix_of_the_whole():
    whole = load(Data("digits"), "train")

    few = load(Data("digits", train_images=50), "train")

    assert few.labels.bincount().tolist() == [5] * 10
    assert torch.equal(few.images, whole.images[:50])


# the order of images


@given(st.lists(st.integers(0, 4), max_size=40))
def test_turns_visit_every_image_once_and_balance_every_prefix(labels):
    order = turns(np.array(labels, dtype=np.int64))

    assert sorted(order.tolist()) == list(range(len(labels)))
    for size in range(len(labels)):
        prefix, rest = [labels[i] for i in order[:size]], [labels[i] for i in order[size:]]
        for label in set(rest):  # a class that still has images is never more than one behind
            assert max(prefix.count(other) for other in range(5)) - prefix.count(label) <= 1


def test_turns_keep_each_class_in_its_own_order():
    labels = np.array([1, 1, 0, 0, 0])

    assert turns(labels).tolist() == [2, 0, 3, 1, 4]


# image folders


def test_a_folder_gives_the_written_pixels_with_classes_in_turns(tmp_path):
    root = write_folder(tmp_path / "pets")

    train = load(Data("folder", str(root)), "train")

    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1] * 4
    assert torch.equal(train.images[0], chw(pixels(0)))
    assert torch.equal(train.images[1], chw(pixels(100)))
    assert torch.equal(train.images[2], chw(pixels(1)))


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_a_folder_may_name_its_test_split_test_or_val(tmp_path, test_name):
    root = write_folder(tmp_path / "pets", test_name=test_name)

    test = load(Data("folder", str(root), test_images=2), "test")

    assert test.labels.tolist() == [0, 1]
    assert torch.equal(test.images[0], chw(pixels(500)))


def test_nested_directories_count_and_foreign_files_do_not(tmp_path):
    root = write_folder(tmp_path / "pets", train=1)
    (root / "train/cat/more").mkdir()
    (root / "train/cat/more/late.JPEG").write_bytes(encoded(pixels(7)))
    (root / "train/cat/._0.png").write_bytes(b"a macOS companion")
    (root / "train/cat/boxes.txt").write_text("0 0 6 6")

    train = load(Data("folder", str(root)), "train")

    assert train.labels.tolist() == [0, 1, 0]
    assert torch.equal(train.images[2], chw(pixels(7)))


def test_tiny_imagenet_reads_its_annotated_validation_set(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(("n01", "n02")):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / "images" / f"{wnid}_0.JPEG").write_bytes(encoded(pixels(label, 64, 64)))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x")
    for split in ("val", "test"):
        (root / split / "images").mkdir(parents=True)
    for number in range(3):
        (root / "val/images" / f"val_{number}.JPEG").write_bytes(encoded(pixels(10 + number, 64, 64)))
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\nval_2.JPEG\tn02\t0\t0\t9\t9\n")

    test = load(Data("tiny-imagenet", str(tmp_path)), "test")

    assert test.classes == ("n01", "n02")
    assert test.labels.tolist() == [0, 1, 1]
    assert torch.equal(test.images, torch.stack([chw(pixels(seed, 64, 64)) for seed in (11, 10, 12)]))


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path):
    root = write_folder(tmp_path / "pets")
    (root / "test/dog").rename(root / "test/dogs")

    with pytest.raises(DataError, match=r"the class 'dogs', which .*train lacks"):
        load(Data("folder", str(root)), "test")


def test_an_empty_class_is_refused(tmp_path):
    root = write_folder(tmp_path / "pets")
    (root / "train/eel").mkdir()

    with pytest.raises(DataError, match=r"train/eel holds no image"):
        load(Data("folder", str(root)), "train")


def test_a_folder_without_a_test_split_is_refused(tmp_path):
    root = write_folder(tmp_path / "pets")
    (root / "test").rename(root / "eval")

    with pytest.raises(DataError, match=r"has train/, but none of test/"):
        load(Data("folder", str(root)), "train")


def test_an_annotation_without_its_image_is_refused_with_its_line(tmp_path):
    root = write_folder(tmp_path / "tiny", test_name="val")
    (root / "val/val_annotations.txt").write_text("gone.JPEG\tcat\n")

    with pytest.raises(DataError, match=r"val_annotations\.txt:1 names 'gone.JPEG'"):
        load(Data("tiny-imagenet", str(root)), "test")


# IDX and CIFAR


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_or_compressed(tmp_path, packed):
    write_idx(tmp_path / "FashionMNIST" / "raw", packed=packed)

    train = load(Data("fashion-mnist", str(tmp_path)), "train")

    assert train.images.shape == (20, 3, 4, 5)
    assert train.classes[9] == "Ankle boot"
    assert train.labels.tolist() == [*range(10), *range(10)]
    grey = pixels(20, 80, 5)[:, :, 0].reshape(20, 4, 5)
    assert torch.equal(train.images[1, 2], torch.from_numpy(grey[2].copy()))


def test_a_cut_idx_file_is_named(tmp_path):
    root = write_idx(tmp_path)
    file = root / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(DataError, match=r"train-images-idx3-ubyte holds 399 values, but its header says 400"):
        load(Data("fashion-mnist", str(root)), "train")


def test_cifar_pickles_of_python_2_are_read(tmp_path):
    write_cifar100(tmp_path / "cifar-100-python")

    train = load(Data("cifar100", str(tmp_path)), "train")

    assert train.classes == ("apple", "bear", "chair")
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    written = pixels(6, 32 * 6, 32).reshape(6, 3, 32, 32)
    assert torch.equal(train.images[1], torch.from_numpy(written[2].copy()))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    root = write_cifar100(tmp_path)
    (root / "train").write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")

    with pytest.raises(DataError, match=r"it names posix\.system, which no CIFAR batch does"):
        load(Data("cifar100", str(root)), "train")

    assert not (tmp_path / "owned").exists()


def test_a_pickle_of_objects_is_refused(tmp_path):
    root = write_cifar100(tmp_path)
    (root / "train").write_bytes(python2_batch(np.zeros((1, 3072), np.uint8), [0], dtype=b"O8"))

    with pytest.raises(DataError, match=r"an array of type 'O8', not of bytes"):
        load(Data("cifar100", str(root)), "train")


def test_a_cut_cifar_batch_is_named(tmp_path):
    root = write_cifar100(tmp_path)
    (root / "test").write_bytes((root / "test").read_bytes()[:2000])

    with pytest.raises(DataError, match=r"test cannot be read as a CIFAR batch"):
        load(Data("cifar100", str(root)), "test")


def test_an_incomplete_cifar_directory_names_what_it_lacks(tmp_path):
    root = write_cifar100(tmp_path)
    (root / "meta").unlink()

    with pytest.raises(DataError, match=r"lacks meta\. Unpack the archive again: `ablatrix data get cifar100`"):
        load(Data("cifar100", str(root)), "test")


# what is asked for


def test_more_images_than_there_are_is_refused():
    with pytest.raises(DataError, match=r"data\.test_images is 400, but the test split of 'digits' holds 359\. Use 359 or less"):
        load(Data("digits", test_images=400), "test")


def test_an_absent_dataset_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path))

    with pytest.raises(
        DataError, match=re.escape(f"no directory {tmp_path / 'cifar100'}. Get it with `ablatrix data get cifar100`, set data.path")
    ):
        load(Data("cifar100"), "train")


def test_a_directory_of_no_known_layout_says_what_is_read(tmp_path):
    (tmp_path / "loose.png").write_bytes(encoded(pixels(0)))

    with pytest.raises(DataError, match=r"holds no layout in which 'folder' is read: image folders train/<class>/"):
        load(Data("folder", str(tmp_path)), "train")


def test_an_image_set_refuses_tensors_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"labels are torch\.int64 of shape \(3,\), but \(2,\) int64 is needed"):
        ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a",))


@pytest.mark.parametrize("indices", [[2, 0], torch.tensor([2, 0])])
def test_a_subset_takes_images_and_labels_together(indices):
    digits = load(Data("digits", test_images=5), "test")

    chosen = digits.subset(indices)

    assert chosen.labels.tolist() == [2, 0]
    assert torch.equal(chosen.images[0], digits.images[2])


def test_debian_s_fashion_mnist_is_found_where_its_package_puts_it(tmp_path, monkeypatch):
    debian = write_idx(tmp_path / "debian", packed=True)
    monkeypatch.setattr("ablatrix_models.data.places.DEBIAN_FASHION_MNIST", Path(debian))
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path / "elsewhere"))

    assert len(load(Data("fashion-mnist"), "test")) == 10
