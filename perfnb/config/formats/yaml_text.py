"""YAML: ruamel.yaml finds where a value stands and it is replaced there, so comments, order and quotes stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.formats.text_format import Splice, grouped, misplaced, newline_of, spliced
from perfnb.config.formats.yaml_scalar import value_of_scalar, written
from perfnb.config.tree import DEEPEST, Path
from perfnb.errors import ConfigError, NoLibraryError
from perfnb.safe_text import clean

_AFTER_VALUE: Final = re.compile(r"[ \t]*(?:[ \t]#[^\n]*?)?(?=\r?\n|\Z)")
_LONGEST: Final = 300
_MOST_VALUES: Final = 200_000


class YamlText:
    """The YAML format."""

    name: Final = "YAML"

    def parsed(self, text: str) -> dict[Any, Any]:
        """What the text holds."""
        return dict(_plain(_root(text)))

    def edited(self, text: str, edits: Mapping[Path, Any]) -> str:
        """The text with other values."""
        root = _root(text)
        splices: list[Splice] = []
        added: dict[Path, list[tuple[Any, Any]]] = {}
        for path, value in grouped(edits, lambda path: _find(root, path) is not None):
            found = _find(root, path)
            if found is None:
                added.setdefault(path[:-1], []).append((path[-1], value))
            else:
                splices += _replaced(text, *found, value, path)
        for path, pairs in added.items():
            splices.append(_inserted(text, root if not path else _found_node(root, path), pairs, path))
        return spliced(text, splices)


def _root(text: str) -> Any:
    try:
        from ruamel.yaml import YAML  # noqa: PLC0415 - only who has a YAML file needs it
        from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - as above
    except ImportError as error:
        message = "YAML"
        raise NoLibraryError(message, "ruamel.yaml", "configs") from error
    try:
        root: Any = YAML(typ="safe", pure=True).compose(text)  # the grammar only: no object is made, no tag is looked up
    except (YAMLError, RecursionError, ValueError) as error:
        message = f"is not YAML: {clean(error, _LONGEST)}"
        raise ConfigError(message) from error
    if root is None or root.id != "mapping":
        held = "nothing" if root is None else f"a {root.id}"
        message = f"holds {held}: a config is a mapping of knobs and their values"
        raise ConfigError(message)
    _weigh(root, {}, 0)
    return root


def _weigh(node: Any, known: dict[int, int], depth: int) -> int:
    """Values below a node with its aliases written out, which a few lines can make more than any memory holds."""
    if depth > DEEPEST:
        message = f"is nested more than {DEEPEST} levels deep, or refers to itself"
        raise ConfigError(message)
    if id(node) not in known:
        inner = (
            [] if node.id == "scalar" else [each for pair in node.value for each in (pair if node.id == "mapping" else (pair,))]
        )
        known[id(node)] = 1 + sum(_weigh(each, known, depth + 1) for each in inner)
    if known[id(node)] > _MOST_VALUES:
        message = f"holds more than {_MOST_VALUES:,} values when its aliases are written out"
        raise ConfigError(message)
    return known[id(node)]


def _plain(node: Any) -> Any:
    if node.id == "scalar":
        return value_of_scalar(node.value, node.style, str(node.tag or ""))
    if node.id == "sequence":
        return [_plain(inner) for inner in node.value]
    merged: dict[Any, Any] = {}
    own: dict[Any, Any] = {}
    for key, value in node.value:
        if _is_merge(key):
            inner = _plain(value)
            for each in reversed(inner) if isinstance(inner, list) else [inner]:
                merged |= each if isinstance(each, dict) else {}
        elif key.id == "scalar":
            own[_plain(key)] = _plain(value)
    return {name: own.get(name, merged.get(name)) for name in dict.fromkeys([*merged, *own])}


def _is_merge(key: Any) -> bool:
    return key.id == "scalar" and key.value == "<<" and key.style is None


def _find(root: Any, path: Path) -> tuple[Any, Any] | None:
    """Name and value as they stand in the mapping itself, not in one that is merged into it."""
    found: tuple[Any, Any] | None = None
    node = root
    for name in path:
        if node.id != "mapping":
            return None
        pairs = [(key, value) for key, value in node.value if key.id == "scalar" and not _is_merge(key) and _plain(key) == name]
        if len(pairs) > 1:
            raise misplaced(path, f"{name} stands there more than once")
        if not pairs:
            return None
        found = pairs[0]
        key, node = found
        if node.start_mark.index < key.end_mark.index and name != path[-1]:
            raise misplaced(path, "it stands in a block that is used at several places (an alias)")
    return found


def _found_node(root: Any, path: Path) -> Any:
    found = _find(root, path)
    if found is None or found[1].id != "mapping" or found[1].start_mark.index < found[0].end_mark.index:
        raise misplaced(path, "it is no mapping of its own")
    return found[1]


def _replaced(text: str, key: Any, node: Any, value: Any, path: Path) -> list[Splice]:
    start, end = node.start_mark.index, node.end_mark.index
    if start < key.end_mark.index:
        raise misplaced(path, "it is an alias (*name) of a value that stands elsewhere")
    if node.anchor is not None:
        raise misplaced(path, "it has an anchor (&name): the value is used at several places")
    if node.id == "scalar" and (node.style in ("|", ">") or text[start : start + 1] == "!"):
        raise misplaced(path, "it is a block of text, or has a tag")
    if node.id == "scalar":
        if start == end:  # nothing stands there: null
            colon = text.index(":", key.end_mark.index)
            return [Splice(colon + 1, colon + 1, f" {written(value, path)}")]
        return [Splice(start, end, written(value, path, node.style, text[start:end]))]
    if node.id == "sequence" and isinstance(value, (list, tuple)) and len(value) == len(node.value):
        return [splice for old, new in zip(node.value, value, strict=True) for splice in _replaced(text, key, old, new, path)]
    if not node.flow_style:
        raise misplaced(path, "it stands on several lines")
    return [Splice(start, end, written(value, path))]


def _inserted(text: str, node: Any, pairs: list[tuple[Any, Any]], path: Path) -> Splice:
    """New names after the last one where the end of its value is known, else before the first one."""
    lines = [f"{written(name, path)}: {written(value, path)}" for name, value in pairs]
    if node.flow_style or not node.value:
        if text[node.start_mark.index : node.start_mark.index + 1] != "{":
            raise misplaced(path, "the file holds no mapping")
        place = node.start_mark.index + 1
        return Splice(place, place, ", ".join(lines) + (", " if node.value else ""))
    first, last = node.value[0][0], _last_piece(node)
    indent = " " * first.start_mark.column
    rest = None if last is None else _AFTER_VALUE.match(text, last.end_mark.index)
    if rest is not None:
        return Splice(rest.end(), rest.end(), "".join(f"{newline_of(text)}{indent}{line}" for line in lines))
    place = first.start_mark.index
    return Splice(place, place, "".join(f"{line}{newline_of(text)}{indent}" for line in lines))


def _last_piece(node: Any) -> Any:
    """The value that ends a block, whose own end is known; None where it stands elsewhere or ends with a block of text."""
    while node.id != "scalar" and not node.flow_style and node.value:
        inner = node.value[-1][1] if node.id == "mapping" else node.value[-1]
        if inner.start_mark.index < node.start_mark.index:
            return None
        node = inner
    ends = node.id != "scalar" or node.style not in ("|", ">")
    return node if ends and node.end_mark.index > node.start_mark.index else None
