"""What is said about a table: its cells beside the paper's, its trend, its claims. Data alone; `report.json` holds them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VerdictKind = Literal["agrees", "higher", "lower", "not comparable", "undecided"]
ClaimState = Literal["holds", "fails", "undecided", "not asked"]


@dataclass(frozen=True)
class Published:
    """The paper's number for a cell. `rivals` are its other numbers for the same setting, and `weak` says that it contradicts itself.

    `n` is the number of runs behind it, None where the paper does not say. `delta` is the paper's own difference to the baseline.
    """

    value: float
    unit: str
    n: int | None
    weak: bool
    rivals: tuple[float, ...]
    places: tuple[str, ...]
    note: str | None
    delta: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A cell against the paper. `because` names the differences of protocol, or what is missing.

    `difference` is ours less the paper's, with the 95 % prediction interval of that difference where the two can be compared.
    """

    kind: VerdictKind
    because: tuple[str, ...] = ()
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Trend:
    """Kendall's tau-b between our means and the paper's numbers in one column, over `cells` cells.

    `low` and `high`: its 95 % percentile interval by bootstrap over the `n` seeds that all these cells share; None with one seed.
    """

    column: str
    tau: float
    low: float | None
    high: float | None
    n: int
    cells: int


@dataclass(frozen=True)
class CaseVerdict:
    """A claim at certain levels of the axes that it leaves open. `margin` is by how much it holds, negative by how much it does not.

    `means` maps the cells that it names to their means.
    """

    levels: dict[str, str]
    state: ClaimState
    margin: float | None
    low: float | None
    high: float | None
    means: dict[str, float | None]


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim over all its cases, with the interval of the smallest margin.

    It `holds` where the 95 % interval of its margin lies above 0, `fails` where it lies below, and else is `undecided`. `n` is the
    smallest number of common seeds behind it, and `seeds_needed` how many would probably (80 %) settle it if means and spreads stay as
    they are. `scope` is the claim's `for` in words, None where it speaks of all.
    """

    text: str
    check: str
    scope: str | None
    state: ClaimState
    reason: str | None
    margin: float | None
    low: float | None
    high: float | None
    n: int
    seeds_needed: int | None
    cases: tuple[CaseVerdict, ...]
