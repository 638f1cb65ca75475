"""The shape of a sweep file, as pydantic models. What the values mean together is decided in `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

Scalar = str | int | float | bool | None
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,49}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Levels = dict[Word, Scalar | list[Scalar]]


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("above one GPU, it should be a whole number: Ray shares single GPUs only")
    return gpus


class Part(BaseModel):
    """A mapping that refuses unknown keys and converts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Axis(Part):
    """A named key with levels, in a list or by label; or levels that each set several keys together, or name a `recipe`, or both."""

    key: Text | None = None
    levels: Annotated[list[Any], Field(min_length=1)] | Annotated[dict[str, Any], Field(min_length=1)]


class When(Part):
    """Cells of these levels get these keys, or another recipe, also in the place of one that a level names.

    A level may be a comparison: `if: {grid: "< 8"}`, with <, <=, >, >= or !=.
    """

    if_: Levels = Field(alias="if")
    set: dict[str, Any] = {}
    recipe: Text | None = None
    note: Text | None = None


class Exclude(Part):
    """Cells of these levels are left out, for a reason that the report prints."""

    if_: Levels = Field(alias="if")
    reason: Text


class Include(Part):
    """A cell off the grid, in the place of the levels named by `as`."""

    as_: Levels = Field(alias="as")
    label: Text | None = None
    set: dict[str, Any] = {}
    recipe: Text | None = None
    cross: list[Word] = []
    note: Text | None = None


class Yardstick(Part):
    """One measured number: its name, what is better, and which of a trial's values counts."""

    name: Text
    goal: Literal["max", "min"] = "max"
    take: Literal["last", "best"] = "last"


class Metric(Yardstick):
    """The number that the table shows; `by` names another one for some levels of one axis, `by: {framework: {SimCLR: linear.top1}}`."""

    by: Annotated[dict[Word, dict[str, Text | Yardstick]], Field(max_length=1)] = {}

    def of(self, levels: Mapping[str, str]) -> Yardstick:
        """The number that a cell of these levels shows."""
        other = next((named[levels[axis]] for axis, named in self.by.items() if levels.get(axis) in named), None)
        if isinstance(other, Yardstick):
            return other
        return Yardstick(name=other or self.name, goal=self.goal, take=self.take)


class Resources(Part):
    """What one trial takes of a node: CPU threads, a share of a GPU, memory in gigabytes, custom Ray resources by name.

    `labels` restricts it to nodes with these Ray labels. With `workers` above 1 each of them takes all this, and the
    trial trains data-parallel on all.
    """

    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus: Annotated[float, Field(ge=0, le=64), AfterValidator(_whole_above_one)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    custom: dict[Slug, Annotated[float, Field(gt=0)]] = {}
    labels: dict[Text, Text] = {}
    workers: Annotated[int, Field(ge=1, le=1024)] = 1

    @model_validator(mode="after")
    def _one_gpu_each(self) -> Resources:
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError(f"{self.workers} workers need whole GPUs, not {self.gpus:g} each: NCCL refuses two that share one")
        return self


class Interval(Part):
    """Numbers that a search chooses from: from `low` to `high`, both included, whole where both are; even in the logarithm with `log`.

    `if` restricts it to suggestions whose earlier dimensions have these levels.
    """

    key: Text
    low: float | int
    high: float | int
    log: bool = False
    step: Annotated[float | int, Field(gt=0)] | None = None
    if_: Levels = Field(default={}, alias="if")


class Choice(Axis):
    """Levels, written as those of an axis, that a search chooses from."""

    if_: Levels = Field(default={}, alias="if")


class Scheduler(Part):
    """What is done with trials by how they do while they train.

    `asha` and `median` stop those early that do badly, by the metric as reported during training, and not before `grace_epochs`: `asha`
    keeps the best of each rung, which has `reduction` times as many epochs as the one before; `median` those above the median.
    `pbt`, population based training, trains all `trials` of the search in legs of `interval_epochs`. After each leg the worst `quantile`
    of them go on from the weights of one of the best `quantile`, with each dimension drawn anew by the chance `resample`, else moved by
    the factor `perturb`, up or down, or to a neighbouring level; the others go on as they are.
    """

    name: Literal["asha", "median", "pbt"]
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    reduction: Annotated[int, Field(ge=2, le=16)] = 3
    interval_epochs: Annotated[int, Field(ge=1)] | None = None
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    perturb: Annotated[float, Field(gt=1, le=10)] = 1.2


class Search(Part):
    """Levels that are to be found rather than given, in the place of `axes`; `trials` suggestions, each an ordinary trial.

    Random and quasi-random searches, and what pbt makes of them, are functions of `seed`; the others also of the order in which parallel
    trials end. With the scheduler pbt each of the `trials` is a member of a population, and one ordinary trial for each of its legs.
    """

    algorithm: Literal["random", "quasirandom", "tpe", "gp", "cmaes", "nsgaii"]
    trials: Annotated[int, Field(ge=1, le=100_000)]
    space: Annotated[dict[Word, Interval | Choice], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup: Annotated[int, Field(ge=1)] = 10
    population: Annotated[int, Field(ge=2)] | None = None
    objectives: Annotated[list[Yardstick], Field(min_length=2, max_length=2)] | None = None
    scheduler: Scheduler | None = None


class Budget(Part):
    """What a run may cost at most; more is refused before anything runs."""

    trials: Annotated[int, Field(ge=0)] | None = None
    gpu_hours: Annotated[float, Field(ge=0)] | None = None


class ProfileAxis(Part):
    """Other levels for an axis under a profile."""

    levels: Annotated[list[Any], Field(min_length=1)]


Seeds = Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class Profile(Part):
    """The same sweep at another cost. Recipes follow with their profile of that name, where they have one, or with the one of `recipes`."""

    recipes: Text | None = None
    set: dict[str, Any] = {}
    seeds: Seeds | None = None
    resources: Resources | None = None
    axes: dict[Word, ProfileAxis] = {}
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = None
    budget: Budget | None = None


class Table(Part):
    """How cells become rows and columns."""

    rows: Word | list[Word]
    columns: Word | list[Word] | None = None
    baseline: Levels | None = None
    published: Text | list[Text] | None = None


class Claim(Part):
    """A sentence that the table must support: `check` in the grammar of `ablatrix.claim`, `for` the levels that it speaks of."""

    text: Text
    check: Text
    for_: Levels = Field(default={}, alias="for")


class SweepFile(Part):
    """One sweep file."""

    schema_: Literal[1] = Field(alias="schema")
    sweep: Slug
    title: Text
    question: Text | None = None
    recipe: Text | None = None
    set: dict[str, Any] = {}
    axes: dict[Word, Axis] = {}
    search: Search | None = None
    when: list[When] = []
    exclude: list[Exclude] = []
    include: list[Include] = []
    seeds: Seeds = 1
    metric: Metric
    resources: Resources = Resources()
    budget: Budget = Budget()
    profiles: dict[Slug, Profile] = {}
    table: Table | None = None
    claims: list[Claim] = []
