"""The recipe's root and what of it changes a trial's result."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ablatrix_models.recipe.augment import Augment
from ablatrix_models.recipe.backbone import Backbone, ResNet
from ablatrix_models.recipe.course import SECTIONS, Leg, change_problems
from ablatrix_models.recipe.data import DATASETS, Data
from ablatrix_models.recipe.evaluate import Evaluate, protocol_problems
from ablatrix_models.recipe.fields import Problem, RecipeError, build, tagged, value
from ablatrix_models.recipe.mask import Mask
from ablatrix_models.recipe.method import MASKED, Method, MoCo, batch_problems, encoder_problems, image_problems, one_view
from ablatrix_models.recipe.mixing import Mixing
from ablatrix_models.recipe.optimize import Compute, Optimizer, Schedule

# Raised whenever the training code changes what a recipe computes: old trials then no longer answer for new ones.
RESULT_VERSION = 1

# Sections whose `name` chooses a class: name -> the class, or None where there is no such name.
TAGGED = {"method": partial(tagged, Method), "backbone": partial(tagged, Backbone)}


@dataclass(frozen=True)
class Recipe:
    """One training run. Two equal recipes with equal seed and data give the same result."""

    method: Method = value(MoCo, "the self-supervised framework")
    backbone: Backbone = value(ResNet, "the encoder")
    data: Data = value(Data, "the images")
    augment: Augment = value(Augment, "view a, and view b where it has none of its own")
    augment_b: Augment | None = value(None, "view b, where it differs from view a")
    mask: Mask = value(Mask, "the mask of MixMask and of the erase baseline")
    mixing: Mixing = value(Mixing, "mixtures added to the clean loss")
    optimizer: Optimizer = value(Optimizer, "the optimiser")
    schedule: Schedule = value(Schedule, "epochs, batches, learning rate over time")
    compute: Compute = value(Compute, "arithmetic")
    evaluate: Evaluate = value(Evaluate, "the protocols")
    course: tuple[Leg, ...] = value((), "earlier legs of this training, with other settings; a search with pbt writes them", added=True)

    @staticmethod
    def read(mapping: Mapping[str, Any]) -> Recipe:
        """Build a recipe from nested mappings; raises RecipeError with every problem found."""
        recipe, problems = build(Recipe, mapping)
        if recipe is None:
            raise RecipeError(problems)
        return recipe

    def problems(self) -> Iterator[Problem]:
        """Rules across components."""
        yield from encoder_problems(self.method, self.backbone, self.data.image_size)
        if self.schedule.epochs:
            yield from batch_problems(self.method, self.schedule.part_size)
            yield from image_problems(self.method, self.augment, self.augment_b or self.augment, self.mixing.kind)
        if self.mixing.masks and self.mask.grid > self.data.image_size:
            yield Problem(
                "mask.grid",
                f"is {self.mask.grid}, but images are {self.data.image_size} pixels wide, so a cell would be smaller than a pixel. "
                f"Use {self.data.image_size} or less.",
            )
        limit = None if self.data.train_images is None else self.data.trained_on(self.data.train_images)
        if limit is not None and self.schedule.epochs and self.schedule.batch_size > limit:
            yield Problem(
                "schedule.batch_size", f"is {self.schedule.batch_size}, more than the {limit} training images. Use {limit} or less."
            )
        yield from protocol_problems(self.evaluate, transformer=not isinstance(self.backbone, ResNet))
        classes = DATASETS[self.data.name][1]
        labels = self.evaluate.knn.labels_per_class
        if self.evaluate.knn.kind != "off" and labels and classes and self.evaluate.knn.k > labels * classes:
            yield Problem(
                "evaluate.knn.k", f"is {self.evaluate.knn.k}, more than the {labels * classes} labelled images. Use fewer neighbours."
            )

        if self.course:
            yield from self._course_problems()

    def _course_problems(self) -> Iterator[Problem]:
        """Rules of a course: its legs follow one another, each could be trained alone, and goes on from the one before it."""
        for number, (leg, recipe) in enumerate(zip(self.course, self.legs(), strict=False)):
            earlier = self.course[number - 1].until if number else 0
            if not earlier < leg.until < self.schedule.end:
                yield Problem(
                    f"course.{number}.until",
                    f"is {leg.until}, but this leg begins after epoch {earlier} and another follows until epoch {self.schedule.end}.",
                )
            following = self.course[number + 1] if number + 1 < len(self.course) else self
            after = {name: getattr(following, name) for name in SECTIONS}
            yield from (problem.below(f"course.{number}") for problem in change_problems(leg.settings, after))
            yield from (problem.below(f"course.{number}") for problem in recipe.problems())

    def legs(self) -> tuple[Recipe, ...]:
        """The runs that this one consists of, in their order, each with its own last epoch in `schedule.until`; most have one."""
        until = [*(leg.until for leg in self.course), self.schedule.until]
        settings: list[dict[str, Any]] = [*(leg.settings for leg in self.course), {}]
        return tuple(
            dataclasses.replace(self, **changed, schedule=dataclasses.replace(self.schedule, until=end), course=())
            for changed, end in zip(settings, until, strict=True)
        )

    def parent(self) -> Recipe | None:
        """The run that this one goes on from: all legs but the last. None where it begins with untrained weights."""
        if not self.course:
            return None
        *earlier, last = self.course
        schedule = dataclasses.replace(self.schedule, until=last.until)
        return dataclasses.replace(self, **last.settings, schedule=schedule, course=tuple(earlier))

    def continued(self, parent: Recipe) -> Recipe:
        """This recipe, going on from where `parent` ends. Raises RecipeError where it cannot."""
        leg = Leg(parent.schedule.end, **{name: getattr(parent, name) for name in SECTIONS})
        recipe = dataclasses.replace(self, course=(*parent.course, leg))
        # What stands outside of a leg cannot change on the way, so the parent must be what the course says.
        same = recipe.parent() == parent
        problems = [*([] if same else [Problem("", "differs from its parent in more than a course may change.")]), *recipe.problems()]
        if problems:
            raise RecipeError(problems)
        return recipe

    @property
    def own_epochs(self) -> int:
        """The epochs of its last leg: what is left to train where the parent's weights are at hand."""
        return self.schedule.end - (self.course[-1].until if self.course else 0)

    def as_mapping(self) -> dict[str, Any]:
        """Nested plain values, as JSON and YAML write them."""
        return _plain(self)

    def identity(self) -> dict[str, Any]:
        """What changes the result: without places, pace of checkpoints, and parts that this run never reaches."""
        kept = _plain(dataclasses.replace(self, evaluate=self.evaluate.reached()), identity_only=True)
        kept["result_version"] = RESULT_VERSION
        if isinstance(self.method, MASKED):
            kept["method"] = self.method.reached(kept["method"])
        if self.data.held_out:
            del kept["data"]["test_images"]
        if one_view(self.method):
            del kept["augment_b"]
        kept["mixing"] = {name: kept["mixing"][name] for name in ("kind", *self.mixing.read())}
        if not self.mixing.masks:
            del kept["mask"]
        elif self.mask.kind != "blocked":
            del kept["mask"]["min_block"]
        if not self.schedule.epochs:
            for part in ("augment", "augment_b", "mask", "mixing", "optimizer"):
                kept.pop(part, None)
            kept["schedule"] = {"epochs": 0}
        if self.schedule.end == self.schedule.epochs:  # however it is written
            kept["schedule"].pop("until", None)
        if self.course:
            kept["course"] = [_leg_identity(leg, recipe) for leg, recipe in zip(self.course, self.legs(), strict=False)]
        return kept


def _leg_identity(leg: Leg, recipe: Recipe) -> dict[str, Any]:
    """Of the settings of a leg, those that it reaches."""
    reached = recipe.identity()
    return {"until": leg.until, **{name: reached[name] for name in SECTIONS if name in reached}}


def _plain(part: Any, *, identity_only: bool = False) -> Any:
    if part is None or isinstance(part, str | int | float):
        return part
    if isinstance(part, tuple):
        return [_plain(v, identity_only=identity_only) for v in part]
    found = {}
    for name, always, default in _fields(type(part)):
        value = getattr(part, name)
        if not identity_only or always or (always is None and value != default):
            found[name] = _plain(value, identity_only=identity_only)
    return found


@functools.cache
def _fields(cls: Any) -> tuple[tuple[str, bool | None, Any], ...]:
    """Name, whether it belongs to the identity (None: only where it is not at its default, since it was added later), default.

    Looked up once a class: a plan of thousands of cells asks for millions of fields.
    """
    fields = dataclasses.fields(cls)
    return tuple((f.name, _matters(f), _default(f) if f.metadata.get("added") else None) for f in fields)


def _matters(field: dataclasses.Field[Any]) -> bool | None:
    return field.metadata.get("identity", True) and (None if field.metadata.get("added") else True)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
