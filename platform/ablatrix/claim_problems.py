"""What is wrong with the claims of a sweep file: text that cannot be read, and cells that the table does not have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from ablatrix import claim
from ablatrix.claim import Case, Claim, ClaimError
from ablatrix.document import Document
from ablatrix.errors import FileProblem
from ablatrix.schema import Claim as ClaimPart

Cells = Sequence[tuple[Mapping[str, str], str | None]]


def readable(given: Sequence[ClaimPart]) -> Iterator[tuple[int, Claim]]:
    """The claims that can be read, with their place in the file."""
    for i, part in enumerate(given):
        with contextlib.suppress(ClaimError):
            yield i, claim.parse(part.check)


def find(given: Sequence[ClaimPart], document: Document, axes: Mapping[str, Sequence[str]], cells: Cells) -> Iterator[FileProblem]:
    """Every problem; names of axes and levels are checked in `plan`, with all others.

    axes: levels by axis. cells: levels of each cell, and why it is excluded, None where it is not.
    """
    for i, part in enumerate(given):
        line = document.line(("claims", i, "check"))
        try:
            read = claim.parse(part.check)
        except ClaimError as error:
            yield FileProblem(line, f"the claim {part.check!r} cannot be read, at {error}")
            continue
        known = {pair for levels, _ in cells for pair in levels.items()}
        asked = [pair for ref in read.cells for pair in ref.levels]
        asked += [(axis, level) for axis, wanted in part.for_.items() for level in claim.plain_levels(wanted)]
        if known.issuperset(asked):
            cases = claim.cases(read, part.for_, axes, [levels for levels, _ in cells])
            yield from (FileProblem(line, message) for message in _problems(cases, cells))


def _problems(cases: Sequence[Case], cells: Cells) -> Iterator[str]:
    if not cases:
        yield "the claim speaks of no cell of the table. Its levels and those of `for` never meet."
    if len(cases) > claim.MAX_CASES:
        yield f"the claim speaks of {len(cases):,} cases, but at most {claim.MAX_CASES:,} can be judged. Narrow it with `for`."
        return
    for case in cases:
        where = f" at {', '.join(f'{axis}={level}' for axis, level in case.levels.items())}" if case.levels else ""
        for ref, place in case.cells.items():
            if place is None:
                yield f"the claim names {ref}, which is no cell of the table{where}. Name every axis in it, or narrow the claim with `for`."
            elif reason := cells[place][1]:
                yield f"the claim names {ref}, which is excluded{where} ({reason}). Narrow the claim with `for`."
