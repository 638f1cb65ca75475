"""Claims judged: holds, fails or undecided, with the numbers that decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablatrix import claim
from ablatrix.claim import Case
from ablatrix.grid import label
from ablatrix_reports import margin
from ablatrix_reports.judgement import CaseVerdict, ClaimState, ClaimVerdict
from ablatrix_reports.margin import Sampled
from ablatrix_reports.plan import Plan, PlannedClaim
from ablatrix_reports.report import Cell

MAX_NAMED = 10  # cells in one sentence


def judge(plan: Plan, cells: Sequence[Cell]) -> tuple[ClaimVerdict, ...]:
    """Every claim of the plan against the cells as they stand."""
    axes = {axis.name: axis.levels for axis in plan.axes}
    levels = [cell.levels for cell in cells]
    return tuple(_judge(planned, claim.cases(planned.read, planned.only, axes, levels), cells) for planned in plan.claims)


def _judge(planned: PlannedClaim, cases: Sequence[Case], cells: Sequence[Cell]) -> ClaimVerdict:
    blank = ClaimVerdict(planned.text, planned.check, _scope(planned), "not asked", None, None, None, None, 0, None, ())
    absent = [str(ref) for case in cases for ref, place in case.cells.items() if place is None or cells[place].excluded is not None]
    if absent or not cases:
        return replace(blank, reason=f"no such cell here: {_some(list(dict.fromkeys(absent)), ', ') or 'none of those it names'}")
    named = {place for case in cases for place in case.cells.values() if place is not None}
    sampled = [_sampled(planned, case, cells) for case in cases]
    verdicts = tuple(_case(case, form, cells) for case, form in zip(cases, sampled, strict=True))
    unfinished = [cells[place] for place in sorted(named) if not cells[place].complete]
    if unfinished:
        have, want = sum(c.n for c in unfinished), sum(c.planned for c in unfinished)
        open_cases = tuple(replace(case, state="undecided") for case in verdicts)
        reason = f"cells are missing: {have} of {want} trials of {_some([c.id for c in unfinished], '; ')}"
        return replace(blank, state="undecided", reason=reason, cases=open_cases)
    if mixed := next((sorted(names) for case in cases if len(names := _metrics(case, cells)) > 1), None):
        return replace(blank, state="undecided", reason=f"its cells have different metrics: {', '.join(mixed)}", cases=verdicts)
    known = [form for form in sampled if form is not None]
    if len(known) < len(sampled):
        return replace(blank, state="undecided", reason="its cells have no seed in common", cases=verdicts)
    return _decided(replace(blank, cases=verdicts), margin.smallest(known))


def _some(names: Sequence[str], between: str) -> str:
    rest = len(names) - MAX_NAMED
    return between.join([*names[:MAX_NAMED], *([f"{rest} more"] if rest > 0 else [])])


def _scope(planned: PlannedClaim) -> str | None:
    def words(wanted: object) -> str:
        return " or ".join(label(one) for one in (wanted if isinstance(wanted, list) else [wanted]))

    return ", ".join(f"{axis} {words(wanted)}" for axis, wanted in planned.only.items()) or None


def _decided(blank: ClaimVerdict, form: Sampled) -> ClaimVerdict:
    low, high = margin.interval(form)
    state, n = _state(low, high), margin.common_seeds(form)
    needed = margin.seeds_needed(form) if state == "undecided" and n > 1 else None
    reason = None
    if state == "undecided" and n == 1:
        reason = f"one seed; read as a point it {'holds' if margin.estimate(form) > 0 else 'does not hold'}"
    elif state == "undecided" and needed is None and not (math.isfinite(low) and math.isfinite(high)):
        reason = "all seeds give the same difference, so nothing tells its spread"
    elif state == "undecided":
        reason = f"the interval contains 0; {f'about {needed} seeds' if needed else 'more than 1000 seeds'} would settle it"
    return replace(
        blank, state=state, reason=reason, margin=margin.estimate(form), low=_finite(low), high=_finite(high), n=n, seeds_needed=needed
    )


def _sampled(planned: PlannedClaim, case: Case, cells: Sequence[Cell]) -> Sampled | None:
    values: Mapping = {ref: cells[place].values for ref, place in case.cells.items() if place is not None}
    parts = [margin.sample(margin.margin_of(comparison), values) for comparison in planned.read.comparisons]
    known = [part for part in parts if part is not None]
    return margin.smallest(known) if len(known) == len(parts) else None


def _metrics(case: Case, cells: Sequence[Cell]) -> set[str]:
    return {cells[place].metric.name for place in case.cells.values() if place is not None}


def _case(case: Case, form: Sampled | None, cells: Sequence[Cell]) -> CaseVerdict:
    means = {str(ref): cells[place].mean for ref, place in case.cells.items() if place is not None}
    if form is None:
        return CaseVerdict(case.levels, "undecided", None, None, None, means)
    low, high = margin.interval(form)
    return CaseVerdict(case.levels, _state(low, high), margin.estimate(form), _finite(low), _finite(high), means)


def _state(low: float, high: float) -> ClaimState:
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
