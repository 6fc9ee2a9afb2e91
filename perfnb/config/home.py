"""A home of a config: its knobs by canonical name, and the same home with other values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.dialects.known import dialect_of, rules_of, view
from perfnb.config.dialects.plain import PLAIN
from perfnb.config.mapping import as_text, has_knob, path_of, value_of
from perfnb.config.snippets import snippet
from perfnb.config.tree import ABSENT, Path, at, children, same
from perfnb.errors import ConfigError, NoPlaceError
from perfnb.safe_text import clean

_LONGEST = 80


class Home(Mapping[str, Any]):
    """Where a config lives, seen as a mapping of canonical knobs to values; nested where the config is.

    A home is a value: it never changes. What reads a config takes a home as it takes a mapping.

    Parameters
    ----------
    value
        The config itself: a mapping, an object, a file's path.
    dialect
        The library whose names it has; recognised from the names by default.
    names
        Knob to the path of the name that holds it, for knobs that are found under neither their own nor a library's name.
    """

    def __init__(self, value: Any, dialect: Dialect | None = None, names: Mapping[str, Path] | None = None) -> None:
        self.value = value
        self._given = dialect
        self._names = dict(names or {})

    @property
    def tree(self) -> Any:
        """The config in its own names."""
        return self.value

    @property
    def kind(self) -> str:
        """What kind of home it is, in words."""
        return type(self.value).__name__

    @property
    def text(self) -> str:
        """The config as text, one value per line: what a diff shows."""
        return as_text(self.tree)

    @property
    def label(self) -> str:
        """What a diff calls it."""
        return "config"

    @cached_property
    def dialect(self) -> Dialect:
        """The dialect at its top."""
        return self._given or dialect_of(self.tree)

    @cached_property
    def _view(self) -> dict[Any, Any]:
        found = view(self.tree, self.dialect)
        for knob, path in self._names.items():
            value = at(self.tree, path)
            if value is ABSENT:
                message = (
                    f"names says that {clean(knob)} is at {clean('.'.join(map(str, path)))}, but {self.words} has nothing there"
                )
                raise ConfigError(message)
            found[knob] = value
        return found

    @property
    def words(self) -> str:
        """The home in words, for messages."""
        title = f"{self.dialect.name} {self.dialect.title}".strip()
        return f"the {self.kind}" if self.dialect is PLAIN else f"the {self.kind} ({title})"

    def with_edits(self, edits: Mapping[Path, Any]) -> Self:
        """The same home with other values under its own names; nothing is written to disk."""
        raise NotImplementedError

    def commit(self, before: Self) -> Self:
        """Put the home into effect in place of another: a file is written, an object is new already."""
        del before
        return self

    def reverted(self) -> Self | None:
        """What the home was before the last change, where it keeps that itself; `commit_revert` puts it into effect."""
        return None

    def commit_revert(self, before: Self) -> Self:
        """Put what `reverted` gave into effect."""
        return self.commit(before)

    def place(self, knob: str) -> tuple[Path, Dialect]:
        """Path of the node that holds a knob, and the dialect of that node.

        Raises
        ------
        ConfigError
            If the home lacks it, or holds it at several places.
        """
        prefix = path_of(self._view, knob)[:-1]
        return prefix, self.dialect if not prefix else dialect_of(at(self.tree, prefix))

    def edits(self, knob: str, value: Any) -> dict[Path, Any]:
        """What to put under the home's own names so that a knob has a value.

        Raises
        ------
        NoPlaceError
            If the home has no place for it, with the code to paste instead.
        """
        if knob in self._names:
            return {self._names[knob]: value}
        if not has_knob(self._view, knob):
            raise self.no_place(knob, value)
        prefix, dialect = self.place(knob)
        node = at(self.tree, prefix)
        rule = next((each for each in rules_of(children(node) or {}, dialect) if each.knob == knob), None)
        if rule is None:
            return {(*prefix, knob): value}
        try:
            written = rule.write(value, node)
        except ConfigError as error:
            raise self.no_place(knob, value, f": {error}") from error
        return {(*prefix, *path): native for path, native in written.items()}

    def with_knobs(self, values: Mapping[str, Any]) -> Self:
        """The same home in which knobs have other values; nothing is written to disk.

        Raises
        ------
        NoPlaceError
            If there is no place for a knob or its value: none of them is changed then.
        ConfigError
            If it does not take the values, or does not take them together.
        """
        missing = [self.no_place(knob, value) for knob, value in values.items() if not self.holds(knob)]
        if missing:
            snippets = tuple(text for error in missing for text in error.snippets)
            raise NoPlaceError("\n".join(error.message for error in missing), snippets)
        new = self
        for knob, value in values.items():
            new = new.with_edits(new.edits(knob, value))
        for knob, value in values.items():
            now = value_of(new, knob) if has_knob(new, knob) else ABSENT
            if not same(now, value):
                wanted = f"{clean(knob)} = {clean(repr(value), _LONGEST)}"
                message = f"{self.words} cannot hold {wanted} together with the rest; nothing was changed"
                raise ConfigError(message)
        return new

    def holds(self, knob: str) -> bool:
        """Whether the home has a place for a knob."""
        return has_knob(self._view, knob)

    def no_place(self, knob: str, value: Any, why: str = "") -> NoPlaceError:
        """The error for a knob, or a value of it, that the home has no place for, with the code to paste instead."""
        code = snippet(knob, value)
        if code is None:
            held = clean(", ".join(map(str, self._view)), 200) or "nothing"
            return NoPlaceError(f"{self.words} has no {clean(knob, _LONGEST)}: it has {held}")
        message = f"{self.words} has no place for {knob} = {clean(repr(value), _LONGEST)}{why}; paste into your code:"
        return NoPlaceError(message, (code,))

    def __getitem__(self, name: str) -> Any:
        """Value of a knob, or the mapping of a part."""
        return self._view[name]

    def __iter__(self) -> Iterator[str]:
        """Knobs and parts."""
        return iter(self._view)

    def __len__(self) -> int:
        """Number of knobs and parts."""
        return len(self._view)

    def __repr__(self) -> str:
        """The home in words, with its knobs."""
        return f"<{self.words.removeprefix('the ')}: {clean(', '.join(map(str, self._view)), 200) or 'nothing'}>"
