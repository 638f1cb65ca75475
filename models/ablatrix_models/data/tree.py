"""Walk a split that is a tree of image files: one directory per class, or Tiny-ImageNet's annotated validation set."""

from __future__ import annotations

import os
from pathlib import Path

from ablatrix_models.data.places import DataError

ANNOTATIONS = "val_annotations.txt"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def class_images(directory: Path) -> list[tuple[str, Path]]:
    """(class, file) of every image below `directory`, by class and then by name, whatever the file system's order.

    Raises DataError where there is no class directory, or an annotated file is absent.
    """
    if (directory / ANNOTATIONS).is_file():
        return _annotated(directory)
    classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{directory} has no class directories. Sort its images into one directory per class.")
    return [(name, path) for name in classes for path in _images_below(directory / name)]


def _images_below(directory: Path) -> list[Path]:
    found = [
        os.path.join(parent, file)  # noqa: PTH118 - a million Path objects cost seconds
        for parent, _, files in os.walk(directory, followlinks=True)
        for file in files
        if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES  # noqa: PTH122 - likewise
    ]
    return [Path(path) for path in sorted(found)]


def _annotated(directory: Path) -> list[tuple[str, Path]]:
    table = directory / ANNOTATIONS
    pairs = []
    for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        file, tab, rest = line.partition("\t")
        path = directory / "images" / file
        if not tab or not path.is_file():
            raise DataError(f"{table}:{number} names {file!r}, but there is no image {path}. Unpack the archive again.")
        pairs.append((rest.split("\t")[0].strip(), path))
    return sorted(pairs)
