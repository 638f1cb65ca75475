"""The report as data: what `report.json` holds, and all that the other views may show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ablatrix.records import encode
from ablatrix_reports.collect import Trial
from ablatrix_reports.judgement import ClaimVerdict, Published, Trend, Verdict
from ablatrix_reports.plan import Axis, Metric
from ablatrix_reports.statistics import Difference

SCHEMA = 1
CellState = Literal["finished", "running", "failed", "stopped", "waiting", "excluded"]


@dataclass(frozen=True)
class Line:
    """A row or a column of the table: a key that cells refer to, one label per axis, and the levels it stands for."""

    key: str
    labels: tuple[str, ...]
    levels: dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One cell, at (`row`, `column`), both keys of lines.

    `state` is `finished` when every planned seed has a value, else the most pressing state of the seeds without one.
    `values` maps seeds to values. `best` holds for the best mean of its column among cells with all their seeds;
    `to_best` is the paired difference to it, and `tied` says that its interval contains 0. `delta` is the paired
    difference to the baseline cell. `published` and `verdict` belong to the comparison with a paper.
    """

    id: str
    row: str
    column: str
    levels: dict[str, str]
    label: str | None
    metric: Metric
    state: CellState
    mean: float | None
    std: float | None
    n: int
    planned: int
    values: dict[int, float]
    trials: tuple[str, ...]
    best: bool = False
    tied: bool = False
    to_best: Difference | None = None
    baseline: str | None = None
    delta: Difference | None = None
    excluded: str | None = None
    note: str | None = None
    published: Published | None = None
    verdict: Verdict | None = None

    @property
    def complete(self) -> bool:
        """Whether every planned seed has a value, and there is at least one."""
        return self.n == self.planned > 0


@dataclass(frozen=True)
class Coverage:
    """How many trials of the plan are in which state, and how many cells were left out on purpose."""

    planned: int
    finished: int
    running: int
    failed: int
    stopped: int
    waiting: int
    excluded_cells: int


@dataclass(frozen=True)
class Cost:
    """Seconds of training and evaluation of all attempts: of finished trials, and of the others."""

    finished_seconds: float
    unfinished_seconds: float


@dataclass(frozen=True)
class Environment:
    """What the results were made with; more than one value where trials differ."""

    versions: dict[str, tuple[str, ...]]
    devices: tuple[str, ...]
    hosts: tuple[str, ...]
    threads: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """One sweep's table and what stands around it. `n` is the number of seeds that most cells were planned with.

    `tied` lists the keys of the columns in which no cell can be told from the best. `claims` and `trend` belong to the
    comparison with a paper.
    """

    sweep: str
    profile: str | None
    title: str
    question: str | None
    file: str | None
    commit: str | None
    dirty: bool | None
    command: str | None
    metric: Metric
    axes: tuple[Axis, ...]
    row_axes: tuple[str, ...]
    column_axes: tuple[str, ...]
    seeds: tuple[int, ...]
    n: int
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    baseline: str | None
    cells: tuple[Cell, ...]
    tied: tuple[str, ...]
    trials: tuple[Trial, ...]
    coverage: Coverage
    cost: Cost
    environment: Environment
    published: tuple[str, ...]
    claims: tuple[ClaimVerdict, ...] = ()
    trend: tuple[Trend, ...] = ()
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """The sweep's name in the store: with its profile."""
        return f"{self.sweep}@{self.profile}" if self.profile else self.sweep

    def at(self) -> dict[tuple[str, str], Cell]:
        """The cells by (row key, column key); a place without a cell was never asked for."""
        return {(cell.row, cell.column): cell for cell in self.cells}


def to_json(report: Report) -> str:
    """`report.json`: strict JSON with sorted keys, so that the same store gives the same bytes."""
    return encode(report)
