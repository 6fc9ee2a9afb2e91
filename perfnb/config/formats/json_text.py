"""JSON, also with comments and trailing commas as DeepSpeed and editors take it: a value is replaced where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.config.formats.text_format import Splice, grouped, misplaced, newline_of, spliced
from perfnb.config.tree import DEEPEST, Path
from perfnb.errors import ConfigError

_GAP: Final = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_TEXT: Final = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_WORD: Final = re.compile(r"-?(?:Infinity|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|true|false|null|NaN")
_REST_OF_LINE: Final = re.compile(r"[ \t]*,?[ \t]*(?://[^\n]*|#[^\n]*|/\*[^\n]*?\*/[ \t]*)?(?=\r?\n)")


@dataclass(slots=True, eq=False)
class Node:
    """A value and where it stands in the text.

    Attributes
    ----------
    value
        What Python has for it.
    start, end
        Its place in the text.
    members
        Name to node of an object, with the place of each name; empty for other values.
    twice
        Names that the object holds more than once.
    """

    value: Any
    start: int
    end: int = 0
    members: dict[str, tuple[int, Node]] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)

    @property
    def plain(self) -> Any:
        """The value with all that is in it."""
        if isinstance(self.value, dict):
            return {name: node.plain for name, (_, node) in self.members.items()}
        return [node.plain for node in self.value] if isinstance(self.value, list) else self.value


class JsonText:
    """The JSON format."""

    name: Final = "JSON"

    def parsed(self, text: str) -> dict[Any, Any]:
        """What the text holds."""
        found = _root(text).plain
        return dict(found)

    def edited(self, text: str, edits: Mapping[Path, Any]) -> str:
        """The text with other values."""
        root = _root(text)
        splices: list[Splice] = []
        added: dict[Path, list[str]] = {}
        for path, value in grouped(edits, lambda path: _find(root, path) is not None):
            written = _written(value, path)
            node = _find(root, path)
            if node is not None:
                splices.append(Splice(node.start, node.end, written))
            else:
                added.setdefault(path[:-1], []).append(f"{_written(str(path[-1]), path)}: {written}")
        for path, members in added.items():
            node = _find(root, path)
            if node is None or not isinstance(node.value, dict):
                raise misplaced(path, "it is no object")
            splices += _inserted(text, node, members)
        return spliced(text, splices)


def _root(text: str) -> Node:
    root, end = _value(text, _skipped(text, 0), 0)
    end = _skipped(text, end)
    if end != len(text):
        raise _wrong(text, end, "the end")
    if not isinstance(root.value, dict):
        message = f"holds a {type(root.value).__name__}: a config is a JSON object of knobs and their values"
        raise ConfigError(message)
    return root


def _find(root: Node, path: Path) -> Node | None:
    for name in path:
        if name in root.twice:
            raise misplaced(path, f"{name} stands there more than once")
        if name not in root.members:
            return None
        root = root.members[name][1]
    return root


def _inserted(text: str, node: Node, members: list[str]) -> list[Splice]:
    """New members after the last one, on lines of their own where that one has its own."""
    if not node.members:
        return [Splice(node.start + 1, node.start + 1, ", ".join(members))]
    place, last = list(node.members.values())[-1]
    line = text.rfind("\n", 0, place) + 1
    indent = text[line:place]
    rest = _REST_OF_LINE.match(text, last.end)
    comma = text[_skipped(text, last.end)] == ","
    if indent.strip() or line <= node.start or rest is None:
        pieces = "".join(f", {member}" for member in members)
        return [Splice(last.end, last.end, pieces)]
    lines = f",{newline_of(text)}{indent}".join(members)
    new = Splice(rest.end(), rest.end(), f"{newline_of(text)}{indent}{lines}{',' if comma else ''}")
    return [new] if comma else [Splice(last.end, last.end, ","), new]


def _value(text: str, start: int, depth: int) -> tuple[Node, int]:
    if depth > DEEPEST:
        message = f"is nested more than {DEEPEST} levels deep"
        raise ConfigError(message)
    sign = text[start : start + 1]
    if sign == "{":
        return _object(text, start, depth)
    if sign == "[":
        return _list(text, start, depth)
    found = (_TEXT if sign == '"' else _WORD).match(text, start)
    if found is None:
        raise _wrong(text, start, "a value")
    try:
        value = json.loads(found[0])
    except ValueError as error:
        raise _wrong(text, start, "a value") from error
    return Node(value, start, found.end()), found.end()


def _object(text: str, start: int, depth: int) -> tuple[Node, int]:
    node = Node({}, start)
    place = _skipped(text, start + 1)
    while text[place : place + 1] != "}":
        name_node, end = _value(text, place, depth) if text[place : place + 1] == '"' else (None, place)
        if name_node is None:
            raise _wrong(text, place, 'a name in "quotes" or }')
        end = _skipped(text, end)
        if text[end : end + 1] != ":":
            raise _wrong(text, end, ":")
        inner, end = _value(text, _skipped(text, end + 1), depth + 1)
        if name_node.value in node.members:
            node.twice.add(name_node.value)
        node.members[name_node.value] = (place, inner)
        place = _after_member(text, end, "}")
    node.end = place + 1
    return node, node.end


def _list(text: str, start: int, depth: int) -> tuple[Node, int]:
    node = Node([], start)
    place = _skipped(text, start + 1)
    while text[place : place + 1] != "]":
        inner, end = _value(text, place, depth + 1)
        node.value.append(inner)
        place = _after_member(text, end, "]")
    node.end = place + 1
    return node, node.end


def _after_member(text: str, end: int, closing: str) -> int:
    end = _skipped(text, end)
    sign = text[end : end + 1]
    if sign == ",":
        return _skipped(text, end + 1)
    if sign != closing:
        raise _wrong(text, end, f", or {closing}")
    return end


def _skipped(text: str, start: int) -> int:
    found = _GAP.match(text, start)
    return start if found is None else found.end()


def _written(value: Any, path: Path) -> str:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()
    except UnicodeEncodeError:
        return json.dumps(value)  # half of a pair of surrogates: JSON can only escape it
    except (TypeError, ValueError, RecursionError) as error:
        raise misplaced(path, f"JSON has no text for {type(value).__name__} {value!r:.60}") from error
    return written


def _wrong(text: str, place: int, wanted: str) -> ConfigError:
    line = text.count("\n", 0, place) + 1
    column = place - text.rfind("\n", 0, place)
    there = repr(text[place : place + 1]) if place < len(text) else "the end of the file"
    return ConfigError(f"is not JSON: line {line}, column {column} has {there} where {wanted} should be")
