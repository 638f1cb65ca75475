"""Verdicts, trends and claims in words, the same in every view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ablatrix_reports.judgement import CaseVerdict, ClaimVerdict, Trend
from ablatrix_reports.report import Cell, Report
from ablatrix_reports.statistics import smallest_p
from ablatrix_reports.wording import NO_BREAK, OTHER_PROTOCOL, WEAK, cell_name, decimals, number

Outcome = Literal["reproduced", "not reproduced", "undecided", "incomplete", "nothing claimed"]
MARKS = {"holds": "✓", "fails": "✗", "undecided": "?", "not asked": "–"}


def outcome(report: Report) -> Outcome:
    """Of the claims alone: `reproduced` where all that are asked hold, in a whole table."""
    states = [claim.state for claim in report.claims if claim.state != "not asked"]
    if "fails" in states:
        return "not reproduced"
    if missing(report):
        return "incomplete"
    if not states:
        return "nothing claimed"
    return "reproduced" if set(states) == {"holds"} else "undecided"


def conclusion(report: Report) -> str:
    """`reproduced (of 3 claims: 3 hold)`, and of what alone it speaks where the protocol is not the paper's."""
    found, said = outcome(report), summary(report)
    judged = found in ("reproduced", "not reproduced")
    cheaper = report.profile is not None or any(cell.verdict and cell.verdict.kind == "not comparable" for cell in report.cells)
    scope = " in orders and differences, under another protocol than the paper's" if judged and cheaper else ""
    return f"{found}{scope}" + (f" ({said})" if said else "")


def missing(report: Report) -> list[Cell]:
    """The cells that lack a planned value."""
    return [cell for cell in report.cells if cell.excluded is None and not cell.complete]


def verdict_words(cell: Cell, digits: int) -> str:
    """The verdict with what decides it: `agrees (+0.2 [−0.8, +1.2])`, or `not comparable: epochs 20 ≠ 1000`."""
    if cell.verdict is None:
        return ""
    found = cell.verdict
    if found.because:
        return f"{found.kind}: {'; '.join(found.because)}"
    return f"{found.kind} ({_bounded(found.difference, found.low, found.high, digits)})"


def protocol_notes(report: Report) -> list[str]:
    """Why numbers of the paper cannot be compared, or not yet; equal reasons once, with their cells."""
    grouped: dict[str, list[str]] = {}
    for cell in report.cells:
        if cell.verdict and cell.verdict.because:
            grouped.setdefault(f"{cell.verdict.kind}, because {'; '.join(cell.verdict.because)}", []).append(cell_name(cell))
    return _grouped(report, grouped)


def paper_notes(report: Report) -> list[str]:
    """Doubts about the paper's numbers, and what was read into it."""
    grouped: dict[str, list[str]] = {}
    for cell in report.cells:
        if cell.published and cell.published.note:
            grouped.setdefault(f"the paper: {cell.published.note}", []).append(cell_name(cell))
    return _grouped(report, grouped)


def paper_caption(report: Report) -> list[str]:
    """How to read the published numbers."""
    cells = [cell for cell in report.cells if cell.published]
    if not cells:
        return []
    sentences = [f"Paper: the published number ({', '.join(report.published)})."]
    verdicts = {cell.verdict.kind for cell in cells if cell.verdict}
    if verdicts & {"agrees", "higher", "lower"}:
        sentences.append(
            f"Agrees: within the 95 % prediction interval of a mean of the paper's runs, at our spread: {_widths(cells)} here."
        )
    if "not comparable" in verdicts:
        sentences.append(f"{OTHER_PROTOCOL} another protocol than the paper's: only orders and differences can be compared, not values.")
    if any(cell.published and cell.published.weak for cell in cells):
        sentences.append(f"{WEAK} the paper contradicts this number elsewhere.")
    return sentences


def statistics_caption(report: Report) -> list[str]:
    """What the number of seeds allows."""
    n = max((cell.n for cell in report.cells), default=0)
    if n < 2 or not any(cell.to_best or cell.delta for cell in report.cells):
        return []
    least = f"{smallest_p(n):.3g}"
    if smallest_p(n) > 0.05:
        return [f"With {n} seeds no rank test can reach p < 0.05 (its smallest p is {least}); the intervals take differences for normal."]
    return [f"The smallest p of a rank test with {n} seeds is {least}; the intervals take differences for normal."]


def comparisons(report: Report) -> list[tuple[str, str, str]]:
    """(cell, to what, numbers) of every comparison that has a p-value: to the best of its column, and to the baseline."""
    digits = decimals(report)
    found = []
    for cell in report.cells:
        for name, difference in (("the best", cell.to_best), ("the baseline", cell.delta)):
            if difference is None or difference.p is None or difference.holm is None:
                continue
            words = f"{_bounded(difference.mean, difference.low, difference.high, digits[cell.metric.name])}, p = {difference.p:.2g}, "
            words += f"Holm {difference.holm:.2g}" + (_needed(difference.seeds_needed) if difference.tied else "")
            found.append((cell.id, name, words))
    return found


def trend_sentence(report: Report, trend: Trend) -> str:
    """`CIFAR-100: Kendall's τ = 0.67 [0.33, 1.00] with the paper's order of 4 cells, 3 seeds`."""
    label = next((", ".join(column.labels) for column in report.columns if column.key == trend.column), trend.column)
    where = f"{label}: " if len(report.columns) > 1 else ""
    bounds = "" if trend.low is None or trend.high is None else f" [{number(trend.low, 2)},{NO_BREAK}{number(trend.high, 2)}]"
    seeds = "one seed, so no interval" if trend.n == 1 else f"bootstrap over {trend.n} seeds" + (", too narrow with so few" * (trend.n < 5))
    return f"{where}Kendall's τ = {number(trend.tau, 2)}{bounds} with the paper's order of {trend.cells} cells ({seeds})."


def claim_numbers(claim: ClaimVerdict, digits: int) -> str:
    """`margin +1.2 [+0.3, +2.1], n = 3`, then the reason where it is not decided."""
    parts = []
    if claim.margin is not None:
        parts.append(f"margin {_bounded(claim.margin, claim.low, claim.high, digits)}, n = {claim.n}")
    parts += [claim.reason] if claim.reason else []
    return "; ".join(parts)


def case_words(case: CaseVerdict, digits: int) -> str:
    """One case of a claim: where, the means that it compares, and its margin."""
    where = ", ".join(f"{axis} = {level}" for axis, level in case.levels.items())
    means = ", ".join(f"{ref} {'–' if mean is None else number(mean, digits)}" for ref, mean in case.means.items())
    margin = "" if case.margin is None else f"; margin {_bounded(case.margin, case.low, case.high, digits)}"
    return f"{where + ': ' if where else ''}{means}{margin}"


def summary(report: Report) -> str:
    """`of 3 claims: 2 hold, 1 undecided`; empty without claims."""
    states: Sequence[str] = [claim.state for claim in report.claims]
    if not states:
        return ""
    words = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("undecided",) * 2, "not asked": ("not asked here",) * 2}
    counts = [(states.count(state), forms) for state, forms in words.items() if state in states]
    said = ", ".join(f"{count} {forms[count > 1]}" for count, forms in counts)
    return f"of {len(states)} {'claim' if len(states) == 1 else 'claims'}: {said}"


def claim_text(claim: ClaimVerdict) -> str:
    """The sentence, and of what it speaks."""
    return f"{claim.text} (for {claim.scope})" if claim.scope else claim.text


def _grouped(report: Report, grouped: Mapping[str, Sequence[str]]) -> list[str]:
    every = sum(cell.published is not None for cell in report.cells)
    return [f"{'All cells' if len(names) == every else '; '.join(names)}: {text}" for text, names in grouped.items()]


def _widths(cells: Sequence[Cell]) -> str:
    """How far the paper's number may lie off and still agree: `± 0.9`, or `± 0.9 to ± 14`, so that a wide interval proves nothing."""
    bounds = [(cell.verdict.low, cell.verdict.high) for cell in cells if cell.verdict]
    halves = sorted((high - low) / 2 for low, high in bounds if low is not None and high is not None)
    return " to ".join(dict.fromkeys(f"± {half:.2g}" for half in (halves[0], halves[-1])))


def _needed(seeds: int | None) -> str:
    return f", about {seeds} seeds would tell them apart" if seeds else ", more than 1000 seeds would be needed"


def _bounded(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    if value is None:
        return ""
    mean = number(value, digits, signed=True)
    if low is None and high is None:
        return mean
    ends = ["−∞" if low is None else number(low, digits, signed=True), "∞" if high is None else number(high, digits, signed=True)]
    return f"{mean} [{ends[0]},{NO_BREAK}{ends[1]}]"
