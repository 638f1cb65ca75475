"""Pictures that trials left of what their networks were shown: views, masks, mixtures, one sheet for each setting."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from ablatrix.store import Store
from ablatrix_reports.report import Report
from ablatrix_reports.wording import cell_name

MAX_SHEETS = 12
MAX_BYTES = 400_000  # of one sheet; the page stays light
_PNG = b"\x89PNG\r\n\x1a\n"


WORDS = {  # by the name of the file; a trial's other pictures, its curves, stand in the report as figures of all trials
    "samples": "Eight training images, one a column: both views, then what the recipe makes of the first: Un-Mix's mixture, the masks "
    "(white: the image's own pixels), the masked mixture with the mirrored column.",
    "patches": "Six training images, one a column: what stays visible, and where in view a the predicted patches lie.",
}


@dataclass(frozen=True)
class Sample:
    """A sheet: the cells that it stands for, what it shows, and the picture as a data URI."""

    cells: str
    words: str
    uri: str


def read_samples(store: Store, report: Report) -> tuple[Sample, ...]:
    """The sheets of every cell's first trial that has some, equal ones once; what is no small PNG is left out."""
    sheets: dict[tuple[str, bytes], list[str]] = {}
    for cell in report.cells:
        for sheet in next((found for trial in cell.trials if (found := _read(store, trial))), []):
            if sheet in sheets or len(sheets) < MAX_SHEETS:
                sheets.setdefault(sheet, []).append(cell_name(cell))
    return tuple(
        Sample("; ".join(names), WORDS[name], f"data:image/png;base64,{base64.b64encode(data).decode()}")
        for (name, data), names in sheets.items()
    )


def _read(store: Store, trial: str) -> list[tuple[str, bytes]]:
    """(name, content) of the pictures of a trial."""
    try:
        files = [path for path in store.trial(trial).picture_files() if path.stem in WORDS and path.stat().st_size <= MAX_BYTES]
        found = [(path.stem, path.read_bytes()) for path in files]
    except (OSError, ValueError):
        return []
    return [(name, data) for name, data in found if data.startswith(_PNG)]
