"""Which files of a dataset matter, and in which layout they lie. Opens no image; free of torch and numpy."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablatrix_models.data.places import DataError, locate
from ablatrix_models.data.tree import ANNOTATIONS, class_images
from ablatrix_models.recipe.data import Data

Split = Literal["train", "test"]
Kind = Literal["digits", "idx", "cifar", "parquet", "folder"]

# Directories below a dataset's own in which its archives unpack their files.
INNER = {
    "cifar10": ("cifar-10-batches-py", "plain_text"),
    "cifar100": ("cifar-100-python", "cifar100"),
    "fashion-mnist": ("FashionMNIST/raw", "fashion_mnist"),
    "tiny-imagenet": ("tiny-imagenet-200",),
    "imagenette": ("imagenette2", "imagenette2-320", "imagenette2-160"),
    "imagenet-1k": ("ILSVRC/Data/CLS-LOC",),
}
CIFAR = {
    "cifar10": ([f"data_batch_{n}" for n in range(1, 6)], ["test_batch"], ["batches.meta"]),
    "cifar100": (["train"], ["test"], ["meta"]),
}
IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# The ImageNets publish no labels for `test`, so there the validation images are the test split.
LABELLED_IN_VALIDATION = ("tiny-imagenet", "imagenette", "imagenet-1k")
VALIDATION = ("val", "validation", "valid")
SHARD = re.compile(r"(?P<split>[a-z]+)(-(?P<shard>\d{5})-of-(?P<shards>\d{5})(-[0-9a-f]+)?)?\.parquet")


@dataclass(frozen=True)
class Source:
    """A dataset found on disk: its layout, and the files (for `folder`: the directory) of each split."""

    kind: Kind
    place: Path
    parts: Mapping[Split, tuple[Path, ...]]
    common: tuple[Path, ...] = ()

    def members(self) -> list[tuple[str, Path]]:
        """Every file that matters, as (name independent of the place, path)."""
        if self.kind != "folder":
            paths = dict.fromkeys([*self.parts["train"], *self.parts["test"], *self.common])
            return [(path.name.removesuffix(".gz"), path) for path in paths]
        return [member for split in self.parts for member in _folder_members(split, self.parts[split][0])]


def find(config: Data) -> Source:
    """The files of `config`'s dataset; raises DataError where they are absent, incomplete or of no known layout."""
    place = locate(config)
    if place is None:
        return _digits()
    if not place.is_dir():
        raise DataError(_absent(config, place))
    for inner in ("", "data", *INNER.get(config.name, ())):
        for recognise in _recognisers(config.name):
            source = recognise(config.name, place / inner) if (place / inner).is_dir() else None
            if source is not None:
                return source
    raise DataError(f"{place} holds no layout in which {config.name!r} is read: {_layouts(config.name)}. {_ways(config)}")


def _recognisers(name: str) -> list[Callable[[str, Path], Source | None]]:
    if name == "parquet":
        return [_parquet]
    if name == "folder":
        return [_folder]
    own = {"cifar10": _cifar, "cifar100": _cifar, "fashion-mnist": _idx}
    return [own[name], _parquet, _folder] if name in own else [_parquet, _folder]


def _digits() -> Source:
    # Found without importing scikit-learn, which takes a second that planning a sweep should not pay.
    spec = importlib.util.find_spec("sklearn")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        table = Path(location) / "datasets" / "data" / "digits.csv.gz"
        if table.is_file():
            return Source("digits", table.parent, {"train": (table,), "test": (table,)})
    raise DataError("digits come with scikit-learn, which was not found. Install it: `pip install scikit-learn`.")


def _cifar(name: str, directory: Path) -> Source | None:
    train, test, meta = (tuple(directory / file for file in files) for files in CIFAR[name])
    missing = [path.name for path in (*train, *test, *meta) if not path.is_file()]
    if len(missing) == len(train) + len(test) + len(meta):
        return None
    if missing:
        raise DataError(f"{directory} lacks {', '.join(missing)}. Unpack the archive again: `ablatrix data get {name}`.")
    return Source("cifar", directory, {"train": train, "test": test}, meta)


def _idx(name: str, directory: Path) -> Source | None:
    found = {stem: _plain_or_gz(directory / stem) for stem in (*IDX["train"], *IDX["test"])}
    missing = [stem for stem, path in found.items() if path is None]
    if len(missing) == len(found):
        return None
    if missing:
        raise DataError(f"{directory} lacks {', '.join(missing)} (or .gz). Get them again: `ablatrix data get {name}`.")
    present = {stem: path for stem, path in found.items() if path is not None}
    train, test = (tuple(present[stem] for stem in IDX[split]) for split in ("train", "test"))
    return Source("idx", directory, {"train": train, "test": test})


def _plain_or_gz(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return next((p for p in (path, packed) if p.is_file()), None)


def _parquet(name: str, directory: Path) -> Source | None:
    matches = [(match, path) for path in directory.glob("*.parquet") if (match := SHARD.fullmatch(path.name))]
    if not matches:
        return None
    shards: dict[str, list[tuple[re.Match[str], Path]]] = {}
    for match, path in sorted(matches, key=lambda item: item[1].name):
        shards.setdefault(match["split"], []).append((match, path))
    for found in shards.values():
        _require_every_shard(directory, [match for match, _ in found])
    test = next((split for split in _test_names(name) if split in shards), None)
    if "train" not in shards or test is None:
        raise DataError(
            f"{directory} holds the parquet splits {', '.join(shards)}, but 'train' and one of {', '.join(_test_names(name))} are needed."
        )
    train_files, test_files = (tuple(path for _, path in shards[split]) for split in ("train", test))
    return Source("parquet", directory, {"train": train_files, "test": test_files})


def _require_every_shard(directory: Path, matches: list[re.Match[str]]) -> None:
    split = matches[0]["split"]
    totals = {match["shards"] for match in matches}
    if len(totals) > 1 or (totals == {None} and len(matches) > 1):
        raise DataError(
            f"{directory} holds two sets of shards of the split {split!r}: {matches[0][0]}, {matches[-1][0]}. Keep one of them."
        )
    if totals == {None}:
        return
    missing = sorted(set(range(int(matches[0]["shards"]))) - {int(match["shard"]) for match in matches})
    if missing or len(matches) > int(matches[0]["shards"]):
        named = ", ".join(f"{n:05d}" for n in missing[:5]) or "none, but some lie there twice"
        raise DataError(
            f"{directory} should hold {int(matches[0]['shards'])} shards of the split {split!r}; missing: {named}. Download them again."
        )


def _folder(name: str, directory: Path) -> Source | None:
    if not (directory / "train").is_dir():
        return None
    names = VALIDATION if any((directory / v / ANNOTATIONS).is_file() for v in VALIDATION) else _test_names(name)
    test = next((directory / n for n in names if (directory / n).is_dir()), None)
    if test is None:
        raise DataError(f"{directory} has train/, but none of {', '.join(f'{n}/' for n in _test_names(name))}. Add the test images there.")
    return Source("folder", directory, {"train": (directory / "train",), "test": (test,)})


def _folder_members(split: str, directory: Path) -> list[tuple[str, Path]]:
    paths = [path for _, path in class_images(directory)]
    if (directory / ANNOTATIONS).is_file():
        paths.append(directory / ANNOTATIONS)
    return [(f"{split}/{path.relative_to(directory).as_posix()}", path) for path in paths]


def _test_names(name: str) -> tuple[str, ...]:
    return (*VALIDATION, "test") if name in LABELLED_IN_VALIDATION else ("test", *VALIDATION)


def _absent(config: Data, place: Path) -> str:
    if place.exists():
        return f"{place} is a file, but data.path must name the directory that holds {_layouts(config.name)}."
    return f"{config.name!r} was not found: there is no directory {place}. {_ways(config)}"


def _ways(config: Data) -> str:
    if config.path:
        return "Set data.path to the directory that holds them."
    name = config.name
    return f"Get it with `ablatrix data get {name}`, set data.path to where it lies, or ABLATRIX_DATA to the directory that holds {name}/."


def _layouts(name: str) -> str:
    parquet = "parquet files named train-00000-of-00001.parquet"
    folder = "image folders train/<class>/ and test/<class>/ or val/<class>/"
    if name in ("parquet", "folder"):
        return parquet if name == "parquet" else folder
    own = {"cifar10": "the Python batches", "cifar100": "the Python batches", "fashion-mnist": "the four IDX files"}
    return "; ".join([own[name], parquet, folder] if name in own else [parquet, folder])
