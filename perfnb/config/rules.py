"""How one library writes a canonical knob: the names that it stands under, and its value there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError

Names = Any
"""A node of a config, which holds values by name."""

Read = Callable[[Names], Any]
"""The canonical value that a node holds; `ABSENT` where it holds none, or one that no canonical value stands for."""

Write = Callable[[Any, Names], Mapping[Path, Any]]
"""Path to the library's own value for a canonical value; `ConfigError` where the library has no such value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a knob stands in one kind of config.

    Attributes
    ----------
    knob
        Canonical name.
    paths
        What it reads and writes.
    read, write
        The library's values to the canonical one, and back.
    """

    knob: str
    paths: tuple[Path, ...]
    read: Read
    write: Write


def plain(knob: str, *path: str, otherwise: Any = ABSENT, takes: type | tuple[type, ...] | None = None) -> Rule:
    """A knob that the library writes with the same values under a name of its own.

    Parameters
    ----------
    knob
        Canonical name.
    *path
        The library's own.
    otherwise
        The library's value where the name is absent; without one an absent name holds nothing.
    takes
        Types of the values that are the knob's; others, such as "auto", are no value of it.
    """
    place = path or (knob,)

    def read(node: Names) -> Any:
        value = at(node, place)
        if value is ABSENT:
            return otherwise
        return value if takes is None or _is(value, takes) else ABSENT

    def write(value: Any, _node: Names) -> Mapping[Path, Any]:
        if takes is not None and not _is(value, takes):
            message = f"{'.'.join(place)} takes no {value!r}"
            raise ConfigError(message)
        return {place: value}

    return Rule(knob, (place,), read, write)


def chosen(
    knob: str,
    path: Path,
    words: Mapping[Any, Any],
    *,
    also: Mapping[Any, Any] | None = None,
    otherwise: Any = ABSENT,
    spelled: Callable[[Any], Any] = lambda value: value,
) -> Rule:
    """A knob whose values the library calls by words of its own.

    Parameters
    ----------
    knob
        Canonical name.
    path
        The library's own.
    words
        Canonical value to the library's.
    also
        Further values of the library to the canonical ones: what is read but never written.
    otherwise
        Canonical value where the name is absent.
    spelled
        Makes one spelling of the library's several, before it is looked up.
    """
    meaning = {_key(spelled(word)): value for value, word in words.items()}
    meaning |= {_key(spelled(word)): value for word, value in (also or {}).items()}
    by_value = {_key(value): word for value, word in words.items()}

    def read(node: Names) -> Any:
        value = at(node, path)
        if value is ABSENT:
            return otherwise
        return meaning.get(_key(spelled(word_of(value))), ABSENT)

    def write(value: Any, _node: Names) -> Mapping[Path, Any]:
        if _key(value) not in by_value:
            message = f"{'.'.join(map(str, path))} has no word for {value!r}: it has {', '.join(map(repr, words))}"
            raise ConfigError(message)
        return {path: by_value[_key(value)]}

    return Rule(knob, (path,), read, write)


def flags(knob: str, paths: Mapping[str, Path], neither: str, *, fixed: bool) -> Rule:
    """A knob that the library holds as one switch per value, all off for one of the values.

    Parameters
    ----------
    knob
        Canonical name.
    paths
        Canonical value to the library's switch.
    neither
        Canonical value where all switches are off.
    fixed
        Whether a switch that is absent does not exist; otherwise it is off, and can be added.
    """

    def read(node: Names) -> Any:
        held = {value: at(node, path) for value, path in paths.items()}
        if fixed and all(on is ABSENT for on in held.values()):
            return ABSENT
        if any(on is not ABSENT and not isinstance(on, bool) for on in held.values()):
            return ABSENT
        on = [value for value, switch in held.items() if switch is True]
        return on[0] if len(on) == 1 else ABSENT if on else neither

    def write(value: Any, node: Names) -> Mapping[Path, Any]:
        if value != neither and (value not in paths or (fixed and at(node, paths[value]) is ABSENT)):
            there = [name for name, path in paths.items() if not fixed or at(node, path) is not ABSENT]
            message = f"there is no switch for {value!r}: there are {', '.join(map(repr, [neither, *there]))}"
            raise ConfigError(message)
        return {path: name == value for name, path in paths.items() if name == value or at(node, path) is not ABSENT}

    return Rule(knob, tuple(paths.values()), read, write)


def word_of(value: Any) -> Any:
    """The text of a value that is a member of an enumeration of texts; other values as they are."""
    inner = getattr(value, "value", value)
    return inner if isinstance(inner, (str, int, float, bool)) else value


def _key(value: Any) -> Any:
    """What finds a word: True is not 1, and what cannot be looked up is found nowhere."""
    return (type(value).__name__, value) if isinstance(value, (str, int, float, bool, type(None))) else (ABSENT, None)


def _is(value: Any, takes: type | tuple[type, ...]) -> bool:
    kinds = takes if isinstance(takes, tuple) else (takes,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
