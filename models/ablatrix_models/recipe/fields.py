"""Build frozen dataclasses from plain mappings, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Config = TypeVar("Config")


@dataclass(frozen=True)
class Problem:
    """One broken rule: `key` is the dotted place in the recipe, `message` says value, rule and next step."""

    key: str
    message: str

    def below(self, prefix: str) -> Problem:
        """The same problem seen from one level further out."""
        return Problem(f"{prefix}.{self.key}" if self.key else prefix, self.message)


class RecipeError(ValueError):
    """A recipe that cannot be run; carries every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{p.key}: {p.message}" for p in self.problems))


def value(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, identity: bool = True, added: bool = False
) -> Any:
    """Declare a field: its default, its meaning with unit, its closed range, and whether it changes a trial's result.

    added: the field came after trials were stored without it. At its default, which is what those did, it stays out of the identity.
    """
    metadata = {"help": help, "low": low, "high": high, "identity": identity, "added": added}
    if dataclasses.is_dataclass(default) or callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)  # type: ignore[arg-type]
    return dataclasses.field(default=default, metadata=metadata)


def nearest(word: str, known: Sequence[str]) -> str:
    """A clause naming the known word closest to `word`, or all of them when none is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(sorted(known))}."


# What a section was converted to before, by the identity of its raw value, which is kept too so that the identity stays its own.
Known = dict[tuple[str, int], tuple[object, Any, list[Problem]]]


def build(cls: type[Config], mapping: object, known: Known | None = None) -> tuple[Config | None, list[Problem]]:
    """Build `cls` from `mapping`; (None, problems) when anything is wrong.

    A scalar given for a section stands for that section's `kind` or `name`, so `mixing: none` equals
    `mixing: {kind: none}`. Rules across fields come from the class's own `problems()`. `known` spares the conversion of
    sections that many mappings share, as the cells of a sweep do.
    """
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    if isinstance(mapping, str | int | float | bool) and (tag := next((t for t in ("kind", "name") if t in fields), None)):
        mapping = {tag: mapping}
    if not isinstance(mapping, Mapping):
        return None, [Problem("", f"is {_show(mapping)}, but a mapping is needed.")]
    hints = _hints(cls)
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, raw in mapping.items():
        if key not in fields:
            problems.append(Problem(str(key), f"is not a known key. {nearest(str(key), list(fields))}"))
            continue
        whole = _completed(raw, _own_defaults(cls).get(key))
        if known is not None and isinstance(raw, Mapping):
            if (key, id(raw)) not in known:
                known[key, id(raw)] = (raw, *convert(hints[key], whole))
            _, converted, found = known[key, id(raw)]
        else:
            converted, found = convert(hints[key], whole)
        found = found or _range_problems(fields[key], converted)
        problems += [p.below(key) for p in found]
        values[key] = converted
    if problems:
        return None, problems
    built = cls(**values)
    own = getattr(built, "problems", None)
    found = list(own()) if own else []
    return (None, found) if found else (built, [])


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _own_defaults(cls: type) -> dict[str, dict[str, Any]]:
    """The sections that `cls` fills in otherwise than their own class would, such as MAE's mask: field -> the values of its default."""
    factories = {f.name: f.default_factory for f in dataclasses.fields(cls) if f.default_factory is not dataclasses.MISSING}
    defaults = {name: factory() for name, factory in factories.items()}
    return {name: dict(vars(default)) for name, default in defaults.items() if default != type(default)()}


def _completed(raw: object, default: Mapping[str, Any] | None) -> object:
    """`raw` with what it leaves out of a section put in from `default`; as it is where there is none, or where it is no section."""
    if default is None or not isinstance(raw, Mapping | str):
        return raw
    return {**default, **(raw if isinstance(raw, Mapping) else {"kind": raw})}


def tagged(union: Any, name: object) -> Any:
    """The member of a union of configs that `name` chooses, or None."""
    return next((cls for cls in _members(union) if name in cls.tag().split("|")), None)


def convert(hint: Any, raw: object) -> tuple[Any, list[Problem]]:
    """Convert one raw YAML/JSON value to `hint`, strictly: no text for numbers, no 0/1 for booleans."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, raw)
    if origin is Literal:
        choices = typing.get_args(hint)
        # The type counts: 1.0 for 1 would write another JSON, and so another trial id.
        if any(raw == choice and type(raw) is type(choice) for choice in choices):
            return raw, []
        return None, [Problem("", f"is {_show(raw)}, which is none of {', '.join(map(str, choices))}. {_guess(raw, choices)}".rstrip())]
    if origin is tuple:
        return _convert_tuple(hint, raw)
    if hasattr(hint, "tag"):
        return _convert_tagged([hint], raw)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), raw)
    return _convert_scalar(hint, raw)


def _convert_union(hint: Any, raw: object) -> tuple[Any, list[Problem]]:
    options = typing.get_args(hint)
    if raw is None and type(None) in options:
        return None, []
    options = [o for o in options if o is not type(None)]
    if all(hasattr(o, "tag") for o in options):
        return _convert_tagged(options, raw)
    failures: list[Problem] = []
    for option in options:
        converted, problems = convert(option, raw)
        if not problems:
            return converted, []
        failures = failures or problems
    if len(options) > 1:
        return None, [Problem("", f"is {_show(raw)}, but {' or '.join(_type_name(o) for o in options)} is needed.")]
    return None, failures


def _convert_tagged(options: Sequence[Any], raw: object) -> tuple[Any, list[Problem]]:
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, Mapping):
        return None, [Problem("", f"is {_show(raw)}, but a mapping with `name` is needed.")]
    names = [name for option in options for name in option.tag().split("|")]
    chosen = given.get("name", names[0])
    cls = next((o for o in options if chosen in o.tag().split("|")), None)
    if cls is None:
        return None, [Problem("name", f"is {_show(chosen)}. {nearest(str(chosen), names)}")]
    return build(cls, given)


def _members(union: Any) -> Sequence[Any]:
    return typing.get_args(union) or (union,)


def _convert_tuple(hint: Any, raw: object) -> tuple[Any, list[Problem]]:
    args = typing.get_args(hint)
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        return None, [Problem("", f"is {_show(raw)}, but a list is needed.")]
    hints = [args[0]] * len(raw) if len(args) == 2 and args[1] is Ellipsis else list(args)
    if len(hints) != len(raw):
        return None, [Problem("", f"has {len(raw)} values, but {len(hints)} are needed.")]
    pairs = [convert(h, r) for h, r in zip(hints, raw, strict=True)]
    problems = [p.below(str(i)) for i, (_, found) in enumerate(pairs) for p in found]
    return tuple(v for v, _ in pairs), problems


def _convert_scalar(hint: Any, raw: object) -> tuple[Any, list[Problem]]:
    if hint is bool and isinstance(raw, bool):
        return raw, []
    if hint is int and isinstance(raw, int) and not isinstance(raw, bool):
        return int(raw), []
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) <= sys.float_info.max:
        return float(raw), []
    if hint is str and isinstance(raw, str):
        return str(raw), []
    advice = ""
    if hint in (int, float) and isinstance(raw, str):
        advice = " Write a plain number, without quotes (1.0e-3, not '1e-3')."
    return None, [Problem("", f"is {_show(raw)}, but {_type_name(hint)} is needed.{advice}")]


def _range_problems(field: dataclasses.Field[Any], converted: Any) -> list[Problem]:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    numbers = converted if isinstance(converted, tuple) else (converted,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if low is not None and number < low:
            return [Problem("", f"is {number}, but at least {low:g} is needed.")]
        if high is not None and number > high:
            return [Problem("", f"is {number}, but at most {high:g} is allowed.")]
    return []


def _show(raw: object) -> str:
    if raw is None:
        return "empty"
    shown = repr(raw) if isinstance(raw, str | int | float) else ""
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return {bool: "the boolean", str: "the text", int: "the number", float: "the number"}.get(
        type(raw), "the list" if isinstance(raw, Sequence) else "the mapping"
    ) + (f" {shown}" if shown else "")


def _guess(raw: object, choices: Sequence[Any]) -> str:
    close = difflib.get_close_matches(str(raw), [str(c) for c in choices], n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(hint) is tuple:
        return "a list"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return names.get(hint, "a mapping")
