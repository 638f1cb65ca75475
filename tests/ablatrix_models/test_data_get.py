"""Getting a dataset, and the report on what is there."""

from __future__ import annotations

import json
from urllib.error import URLError

import pytest

from ablatrix_models.data import get as module
from ablatrix_models.data.get import check, get
from ablatrix_models.data.places import DataError
from ablatrix_models.recipe.data import DATASETS, Data
from data_samples import encoded, pixels, real_dataset, write_cifar100, write_folder, write_idx, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATRIX_CACHE", str(tmp_path / "cache"))


def downloading(monkeypatch, action):
    monkeypatch.setattr(module, "_downloads", lambda: {"cifar100": action})


def test_a_download_becomes_the_dataset_s_directory_without_its_archive(tmp_path, monkeypatch):
    def download(place):
        write_cifar100(place / "cifar-100-python")
        (place / "cifar-100-python.tar.gz").write_bytes(b"archive")

    downloading(monkeypatch, download)

    place = get("cifar100", tmp_path)

    assert place == tmp_path / "cifar100"
    assert [path.name for path in place.iterdir()] == ["cifar-100-python"]


def test_a_complete_dataset_is_not_downloaded_again(tmp_path, monkeypatch):
    write_cifar100(tmp_path / "cifar100")
    downloading(monkeypatch, lambda place: pytest.fail("downloaded"))

    assert get("cifar100", tmp_path) == tmp_path / "cifar100"


def test_what_a_system_package_installed_is_not_downloaded_again(tmp_path, monkeypatch):
    packaged = tmp_path / "packaged"
    write_idx(packaged)
    monkeypatch.setattr("ablatrix_models.data.places.DEBIAN_FASHION_MNIST", packaged)
    monkeypatch.setenv("ABLATRIX_DATA", str(tmp_path / "data"))

    assert get("fashion-mnist", tmp_path / "data") == packaged


def test_torchvision_without_a_network_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", offline)

    with pytest.raises(DataError, match=r"'cifar100' could not be downloaded into .*no route to host.*Check network and disk"):
        get("cifar100", tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [URLError("refused"), RuntimeError("File not found or corrupted."), TimeoutError(), EOFError()])
def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, error):
    def download(place):
        (place / "half.tar.gz").write_bytes(b"half")
        raise error

    downloading(monkeypatch, download)

    with pytest.raises(DataError, match="could not be downloaded"):
        get("cifar100", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_full_directory_without_the_dataset_is_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "cifar100").mkdir()
    (tmp_path / "cifar100" / "thesis.tex").write_text("precious")
    downloading(monkeypatch, lambda place: pytest.fail("downloaded"))

    with pytest.raises(DataError, match="holds no layout in which 'cifar100' is read"):
        get("cifar100", tmp_path)


@pytest.mark.parametrize("name", ["tiny-imagenet", "imagenet-1k", "folder", "parquet"])
def test_what_cannot_be_downloaded_says_how_to_obtain_it(tmp_path, name):
    with pytest.raises(DataError, match=rf"'{name}' .*Then `ablatrix data check {name}`"):
        get(name, tmp_path)


def test_every_known_dataset_can_be_got_or_explained():
    assert set(module._downloads()) | set(module.BY_HAND) == set(DATASETS)


def test_digits_are_there_already(tmp_path):
    assert (get("digits", tmp_path) / "digits.csv.gz").is_file()


def test_an_unknown_name_gets_the_nearest_known_one(tmp_path):
    with pytest.raises(DataError, match=r"'cifar-100' is no known dataset\. Did you mean 'cifar100'\?"):
        get("cifar-100", tmp_path)


def test_torchvision_s_bar_stays_off_stderr_where_it_is_not_wanted(tmp_path, monkeypatch, capfd):
    def download(place):
        module.sys.stderr.write("100%")
        write_cifar100(place)

    downloading(monkeypatch, download)
    get("cifar100", tmp_path / "quiet", progress=False)
    assert capfd.readouterr().err == ""
    get("cifar100", tmp_path / "loud", progress=True)

    assert capfd.readouterr().err == "100%"


def test_check_counts_classes_repeats_and_what_the_splits_share(tmp_path):
    rows: list[tuple[bytes | None, int]] = [(encoded(pixels(n)), n % 2) for n in (0, 1, 2, 2)]
    root = write_parquet(tmp_path / "pets", train=[*rows, (encoded(pixels(3)), 1)], test=[(encoded(pixels(1)), 1), (encoded(pixels(9)), 0)])

    report = check(Data("parquet", str(root), train_images=1))

    assert (report.train.images, report.train.per_class, report.train.repeats) == (5, (3, 2), 1)
    assert (report.test.images, report.test.per_class, report.test.repeats) == (2, (1, 1), 0)
    assert report.shared == 1
    assert (report.side, report.layout, report.classes) == (6, "parquet", ("cat", "dog"))
    assert report.sound


def test_check_lists_every_corrupt_file_and_goes_on(tmp_path):
    root = write_folder(tmp_path / "pets")
    for name in ("train/cat/1.png", "test/dog/0.png"):
        (root / name).write_bytes(b"junk")

    report = check(Data("folder", str(root)))

    assert [line.split(" (")[0] for line in report.corrupt] == [str(root / "train/cat/1.png"), str(root / "test/dog/0.png")]
    assert report.train.per_class == (3, 4)
    assert not report.sound


def test_check_reports_in_plain_json():
    report = check(Data("digits"))

    plain = json.loads(json.dumps(report.as_mapping()))

    assert plain["train"]["images"] + plain["test"]["images"] == 1797
    assert plain["fingerprint"] == report.fingerprint
    assert plain["side"] == 8


@pytest.mark.slow
def test_check_of_the_real_cifar_100_finds_its_known_duplicates():
    report = check(Data("cifar100", str(real_dataset("cifar100"))))

    assert (report.train.images, report.test.images) == (50_000, 10_000)
    assert report.train.repeats == 14
    assert report.shared == 10
    assert report.sound
