"""What a format of config files has to do: read a text, and put other values into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from perfnb.config.tree import ABSENT, Path
from perfnb.errors import ConfigError
from perfnb.safe_text import clean


class TextFormat(Protocol):
    """A format of config files."""

    @property
    def name(self) -> str:
        """What it is called."""

    def parsed(self, text: str) -> dict[Any, Any]:
        """What the text holds; `ConfigError` where it is not of this format, or holds no names."""

    def edited(self, text: str, edits: Mapping[Path, Any]) -> str:
        """The text with other values, all else as it was; `ConfigError` where it cannot be done so."""


@dataclass(frozen=True, slots=True)
class Splice:
    """A piece of a text that is replaced."""

    start: int
    end: int
    text: str


def spliced(text: str, splices: list[Splice]) -> str:
    """The text with pieces replaced; of several at one place the first one comes first.

    Examples
    --------
    >>> spliced("a: 1, b: 2", [Splice(9, 10, "3"), Splice(3, 4, "0")])
    'a: 0, b: 3'
    """
    pieces: list[str] = []
    done = 0
    for splice in sorted(splices, key=lambda each: each.start):
        pieces += (text[done : splice.start], splice.text)
        done = splice.end
    return "".join((*pieces, text[done:]))


def newline_of(text: str) -> str:
    """How the lines of a text end: as the first one does."""
    end = text.find("\n")
    return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"


def grouped(edits: Mapping[Path, Any], holds: Any) -> list[tuple[Path, Any]]:
    """Edits of names that are there, and of those that are not the outermost missing name with all that goes under it.

    Parameters
    ----------
    edits
        Path to value.
    holds
        Says of a path whether the text holds it.

    Examples
    --------
    >>> grouped({("a", "b"): 1, ("a", "c"): 2}, lambda path: False)
    [(('a',), {'b': 1, 'c': 2})]
    """
    made: dict[Path, Any] = {}
    for path, value in edits.items():
        if value is ABSENT:
            message = f"{clean('.'.join(map(str, path)))} would have to go: remove the line by hand"
            raise ConfigError(message)
        missing = next((length for length in range(1, len(path) + 1) if not holds(path[:length])), len(path))
        for name in reversed(path[missing:]):
            value = {name: value}  # noqa: PLW2901 - what stands below the outermost missing name
        before = made.get(path[:missing])
        made[path[:missing]] = _merged(before, value) if isinstance(before, dict) else value
    return list(made.items())


def _merged(one: dict[Any, Any], other: dict[Any, Any]) -> dict[Any, Any]:
    both = dict(one)
    for name, value in other.items():
        both[name] = _merged(both[name], value) if isinstance(both.get(name), dict) and isinstance(value, dict) else value
    return both


def misplaced(path: Path, why: str) -> ConfigError:
    """The error for a value that cannot be put into a text without changing more than it."""
    return ConfigError(f"{clean('.'.join(map(str, path)), 80)} cannot be changed here: {why}; change it by hand")
