"""`ablatrix data`: obtain datasets, and look at every image of one. Both end with InvalidInput where the data are not sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablatrix.cli import output
from ablatrix.cli.options import JsonOption
from ablatrix.errors import InvalidInput
from ablatrix_models.recipe import RecipeError
from ablatrix_models.recipe.data import DATASETS, Data
from ablatrix_models.recipe.fields import build

if TYPE_CHECKING:
    from ablatrix_models.data.check import CheckReport, SplitReport

SHOWN = 5  # damaged files named before the rest is only counted

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(DATASETS)}.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="Where datasets are kept, each in a directory of its name; else ABLATRIX_DATA.")
]
PathOption = Annotated[Path | None, typer.Option("--path", help="The directory of the dataset itself; else its name under ABLATRIX_DATA.")]

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Get datasets, and check them.")


@data_app.command("get")
def get(name: NameArgument, root: RootOption = None) -> None:
    """Download a dataset, or say how to obtain it; prints its directory. Does nothing where it is already complete."""
    from ablatrix_models.data.get import get as download
    from ablatrix_models.data.places import DataError, data_root

    try:
        place = download(name, root.expanduser() if root else data_root())
    except DataError as error:
        raise InvalidInput(str(error)) from None
    output.data().print(str(place))


@data_app.command("check")
def check(name: NameArgument, path: PathOption = None, as_json: JsonOption = False) -> None:
    """Decode every image: counts, balance, repeats, what train and test share, and damage."""
    from ablatrix_models.data.check import check as look
    from ablatrix_models.data.places import DataError

    try:
        report = look(_config(name, path))
    except (DataError, RecipeError) as error:
        raise InvalidInput(str(error)) from None
    if as_json:
        output.print_json(report.as_mapping() | {"sound": report.sound})
    else:
        _show(report)
    if not report.sound:
        raise InvalidInput(_damage(report))


def _config(name: str, path: Path | None) -> Data:
    config, problems = build(Data, {"name": name, "path": str(path) if path else None})
    if any(problem.key == "path" for problem in problems):
        raise InvalidInput(f"{name!r} names a layout, not a dataset. Add --path with the directory that holds the images.")
    if config is None:
        raise RecipeError([problem.below("data") for problem in problems])
    return config


def _show(report: CheckReport) -> None:
    console = output.data()
    console.print(f"{report.name}: {report.place} ({report.layout}), {len(report.classes)} classes, {report.side} pixels a side")
    for split, found in (("train", report.train), ("test", report.test)):
        console.print(f"  {split:<6}{found.images:>9,} images, {_balance(found)}; {found.repeats:,} repeat an earlier one")
    console.print(f"  shared{report.shared:>9,} test images also stand in train")
    console.print(f"  fingerprint {report.fingerprint}")


def _balance(split: SplitReport) -> str:
    fewest, most = min(split.per_class, default=0), max(split.per_class, default=0)
    return f"{fewest:,} of each class" if fewest == most else f"{fewest:,} to {most:,} of a class"


def _damage(report: CheckReport) -> str:
    count = len(report.corrupt)
    lines = [f"{report.name} in {report.place} is not sound: {count:,} images cannot be read. Replace them, or get the dataset again."]
    lines += [f"  {failure}" for failure in report.corrupt[:SHOWN]]
    left = count - SHOWN
    return "\n".join([*lines, *([f"  and {left:,} more (--json lists all)"] if left > 0 else [])])
