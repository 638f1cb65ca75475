"""A YAML file as plain values that remember their lines. The only importer of a YAML library.

YAML 1.2 is read, so `NO` and `on` are text and `1e-4` is a number. Duplicate keys, tags, merge keys, directives and
numbers that another YAML version reads otherwise (`010`, `1_000`) are refused with their line, all of them at once; so are
anchors that stand twice, and what would overwhelm a reader: endless nesting, aliases of aliases.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from ablatrix.errors import FileProblem, InvalidInput, SweepFileError

MAX_BYTES = 4_000_000
MAX_DEPTH = 40  # of nested keys and lists; a recipe needs 5
MAX_VALUES = 200_000  # of a file with its aliases written out
MAX_INTEGER = 2**63
Place = tuple[str | int, ...]
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}


@dataclass(frozen=True)
class Document:
    """The values of one file; `lines` maps a path of keys and indices to the line that it starts on (from 1).

    `problems` are those that leave the rest of the file readable, so that a check can report it whole.
    """

    path: Path
    text: str
    values: dict[str, Any]
    lines: dict[Place, int] = field(repr=False)
    problems: tuple[FileProblem, ...] = ()

    def line(self, place: Place) -> int:
        """The line of `place`, or of the nearest enclosing part that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(path: Path) -> Document:
    """Read a file whose top level is a mapping; SweepFileError where it is none, InvalidInput where there is no file."""
    text = _text(path)
    reader = _reader()
    plain, directives = _without_directives(text)
    try:
        root = reader.compose(plain)
    except (YAMLError, ValueError, RecursionError) as error:
        raise SweepFileError(path, [_syntax_problem(error)]) from None
    if root is None:
        raise SweepFileError(path, [FileProblem(1, "the file is empty. A sweep file starts with `schema: 1`.")])
    if not isinstance(root, MappingNode):
        raise SweepFileError(
            path, [FileProblem(root.start_mark.line + 1, "the file holds no mapping. A sweep file starts with `schema: 1`.")]
        )
    walk = _Walk(reader)
    values = walk.value(root, ())
    if not isinstance(values, dict):  # refused as a whole
        raise SweepFileError(path, [*directives, *walk.problems])
    return Document(path, text, values, walk.lines, (*directives, *walk.problems))


def _reader() -> YAML:
    reader = YAML(typ="safe", pure=True)
    reader.composer.warn_double_anchors = False  # they are refused, with their line
    return reader


def _without_directives(text: str) -> tuple[str, list[FileProblem]]:
    """The text with its `%` lines blanked, so that none changes how the rest is read, and a problem for each of them."""
    lines, problems = text.splitlines(keepends=True), []
    for i, line in enumerate(lines):
        if line.startswith("%"):
            problems.append(FileProblem(i + 1, "directives such as `%YAML` are refused: this is read as YAML 1.2. Take it out."))
            lines[i] = "\n"
        elif line.strip() and not line.startswith("#"):
            break
    return "".join(lines), problems


def read_value(text: str) -> Any:
    """One value as YAML reads it, for the command line; text that is no YAML, or refused in a file, stays text."""
    reader = _reader()
    try:
        root = reader.compose(text)
    except (YAMLError, ValueError, RecursionError):
        return text
    walk = _Walk(reader)
    value = walk.value(root, ()) if root is not None else None
    return text if walk.problems else value


def _text(path: Path) -> str:
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, but a sweep file is needed. `ablatrix list` shows the shipped ones.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist. `ablatrix list` shows the shipped sweeps.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path} has {len(data):,} bytes, more than the {MAX_BYTES:,} that a sweep file may have.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SweepFileError(path, [FileProblem(line, f"byte 0x{data[error.start]:02x} is no UTF-8 text. Is this a YAML file?")]) from None


def _syntax_problem(error: Exception) -> FileProblem:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return FileProblem(mark.line + 1 if mark else 1, f"this is no valid YAML: {error.problem or error.context}.")
    if isinstance(error, ReaderError):
        return FileProblem(
            1,
            f"character #x{ord(error.character):04x} is not allowed in YAML. Is this a YAML file?"
            if isinstance(error.character, str)
            else "the file has bytes that are not allowed in YAML.",
        )
    return FileProblem(1, f"this is no valid YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}.")


class _Walk:
    """Turns nodes into values, noting lines and problems on the way."""

    def __init__(self, reader: YAML) -> None:
        self.constructor = reader.constructor
        self.lines: dict[Place, int] = {}
        self.problems: list[FileProblem] = []
        self._anchors: dict[str, Node] = {}
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        self._count += 1
        if self._count > MAX_VALUES:
            return self._refuse_rest(node)
        self._note_anchor(node)
        if node.tag not in _PLAIN:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            if kind == "timestamp":
                return self._refuse(node, f"{node.value!r} would be a date, for which a sweep has no use. Write text in quotes.")
            return self._refuse(node, f"a value of the YAML type {kind!r} is refused. Use text, numbers, booleans, lists and mappings.")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if sum(1 + str(key).count(".") for key in place) > MAX_DEPTH:
            return self._refuse(node, f"this is nested more than {MAX_DEPTH} deep. Write it flatter.")
        if id(node) in self._open:
            return self._refuse(node, "an alias that contains itself is refused. Write the values out.")
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, place)
            assert isinstance(node, SequenceNode)
            return [self.value(child, (*place, i)) for i, child in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _note_anchor(self, node: Node) -> None:
        if not node.anchor:
            return
        if (first := self._anchors.get(node.anchor, node)) is not node:
            line, other = node.start_mark.line + 1, first.start_mark.line + 1
            text = f"the anchor &{node.anchor} stands on line {other} too, which hides what an alias means. Give one another name."
            self.problems.append(FileProblem(line, text))
        self._anchors[node.anchor] = node

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.problems.append(FileProblem(line, "a key must be plain text."))
                continue
            if key_node.tag == "tag:yaml.org,2002:merge" or key_node.value == "<<":
                self.problems.append(
                    FileProblem(line, "merge keys (`<<`) are refused, because they hide which value holds. Write the values out.")
                )
                continue
            key = key_node.value
            if key in values:
                self.problems.append(
                    FileProblem(line, f"the key {key!r} stands here again; it was first on line {self.lines[(*place, key)]}. Keep one.")
                )
                continue
            self.lines[(*place, key)] = line
            values[key] = self.value(child, (*place, key))
        return values

    def _scalar(self, node: ScalarNode) -> Any:
        shown = repr(node.value if len(node.value) <= 40 else f"{node.value[:40]}…")
        try:
            value = self.constructor.construct_object(node)
        except (YAMLError, ValueError, OverflowError, LookupError) as error:
            # A wrong `!!bool` or an empty `!!int` ends in a look-up that fails, with a message that explains nothing.
            why = "" if isinstance(error, LookupError) or not str(error) else f": {str(error).splitlines()[0]}"
            return self._refuse(node, f"{shown} cannot be read as a value{why}.")
        if isinstance(value, int) and abs(value) >= MAX_INTEGER:
            return self._refuse(node, f"the number {shown} is too large: at most 64 bits are allowed.")
        if type(value) is not bool and isinstance(value, int | float) and not _DECIMAL.fullmatch(node.value):
            return self._refuse(node, f"the number {shown} is read in several ways. Write it in plain decimal digits, or text in quotes.")
        if isinstance(value, str) and any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in value):
            return self._refuse(node, f"{shown} holds a control character. Take it out.")
        # Plain builtins, so that nothing of the YAML library travels further.
        return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), None)

    def _refuse_rest(self, node: Node) -> None:
        if self._count == MAX_VALUES + 1:
            self._refuse(node, f"the file has more than {MAX_VALUES:,} values, its aliases written out. Use fewer.")

    def _refuse(self, node: Node, message: str) -> None:
        self.problems.append(FileProblem(node.start_mark.line + 1, message))
