"""Apply a change to a config and take it back: new values; a file is replaced as one and keeps a backup."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from perfnb.config.as_config import as_config
from perfnb.config.diff import config_diff
from perfnb.config.history import remember, way_back
from perfnb.config.home import Home
from perfnb.config.mapping import has_knob, value_of
from perfnb.config.object_home import ObjectHome
from perfnb.config.tree import ABSENT, same
from perfnb.errors import ConfigError, NoPlaceError, StaleChange
from perfnb.fix import Suggestion
from perfnb.prediction import Change
from perfnb.safe_text import clean

__all__ = ["Changes", "Preview", "apply", "config_diff", "preview", "undo"]

Changes = Suggestion | Change | Sequence[Change]
Config = TypeVar("Config")

_LONGEST: Final = 80


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Preview:
    """What a change would do to a config, before it does.

    Attributes
    ----------
    config
        What was given.
    before, after
        Its home as it is, and as it would be; the same where nothing can be changed in it.
    changes
        What the diff shows.
    snippets
        Code to paste for what the config has no place for.
    reason
        Why there is code to paste; empty where there is none.
    diff
        Unified diff of the config's own text: the file, or its values as JSON.
    """

    config: Any
    before: Home
    after: Home
    changes: tuple[Change, ...]
    snippets: tuple[str, ...] = ()
    reason: str = ""

    @property
    def diff(self) -> str:
        """Unified diff; empty where nothing changes."""
        return config_diff(self.before, self.after)

    def write(self) -> Any:
        """Put the change into effect as it was shown: a file is written, other configs give a new one.

        Returns
        -------
        object
            The new config, of the make of the old one; for a file its home, whose `backup` says where the old bytes lie.

        Raises
        ------
        StaleChange
            If the file was edited since this was made.
        NoPlaceError
            If a part of the change has no place in the config: nothing is changed then.
        """
        if self.reason:
            raise NoPlaceError(self.reason, self.snippets)
        return _as_given(self.config, _committed(self.before, self.after, self.changes))

    def __str__(self) -> str:
        """The diff without characters that act on a terminal, then what has no place with its code."""
        lines = [clean(line.removesuffix("\r")) for line in self.diff.split("\n")]
        parts = ["\n".join(lines) if self.diff else "no change\n"] if self.changes or not self.reason else []
        return "\n".join([*parts, *([self.reason, *self.snippets] if self.reason else [])])

    def __repr__(self) -> str:
        """As the text: what a notebook shows at the end of a cell."""
        return str(self)


def preview(what: Changes, config: Any) -> Preview:
    """What a change would do to a config: its diff, and code to paste for what the config has no place for.

    Parameters
    ----------
    what
        A suggestion, a change, or several changes.
    config
        Any home of a config, as in `perfnb.as_config`.

    Returns
    -------
    Preview
        Shows as the diff; `.write()` puts it into effect.

    Raises
    ------
    StaleChange
        If the config no longer holds the value that a change starts from.
    ConfigError
        If the config cannot be read, or does not take the values.

    Examples
    --------
    >>> print(preview(Change("num_workers", 0, 4), {"num_workers": 0}), end="")
    --- config before
    +++ config after
    @@ -1,3 +1,3 @@
     {
    -  "num_workers": 0
    +  "num_workers": 4
     }
    """
    home = as_config(config)
    changes = _changes(what)
    _check(home, [change for change in changes if home.holds(change.knob)])
    placed: list[Change] = []
    errors: list[NoPlaceError] = []
    for change in changes:
        try:
            home.edits(change.knob, change.after)
        except NoPlaceError as error:
            errors.append(error)
        else:
            placed.append(change)
    after = home.with_knobs({change.knob: change.after for change in placed}) if placed else home
    snippets = tuple(text for error in errors for text in error.snippets)
    return Preview(config, home, after, tuple(placed), snippets, "\n".join(error.message for error in errors))


@overload
def apply(what: Changes, config: str | os.PathLike[str]) -> Home: ...


@overload
def apply(what: Changes, config: Config) -> Config: ...


def apply(what: Changes, config: Any) -> Any:
    """New config with the changes of a suggestion; a file is written, see `perfnb.preview` for what it would hold.

    Parameters
    ----------
    what
        A suggestion, a change, or several changes.
    config
        Any home of a config that holds every knob, as in `perfnb.as_config`: a mapping, an object, a file's path.

    Returns
    -------
    object
        A new config of the make of the given one, which is not touched. For a file its home: the file is replaced as one, and
        what it held lies in a backup beside it.

    Raises
    ------
    StaleChange
        If the config no longer holds the value that a change starts from; nothing is applied then.
    NoPlaceError
        If the config has no place for a knob; says what to paste instead. Nothing is applied then.
    ConfigError
        If the config cannot be read or written, or does not take the values.

    Examples
    --------
    >>> apply(Change("num_workers", 0, 4), {"num_workers": 0})
    {'num_workers': 4}
    """
    home = as_config(config)
    changes = _changes(what)
    _check(home, [change for change in changes if home.holds(change.knob)])
    after = home.with_knobs({change.knob: change.after for change in changes})
    return _as_given(config, _committed(home, after, changes))


@overload
def undo(what: Changes, config: str | os.PathLike[str]) -> Home: ...


@overload
def undo(what: Changes, config: Config) -> Config: ...


def undo(what: Changes, config: Any) -> Any:
    """New config without the changes that `apply` made: as it was before, to the byte where it is a file.

    Parameters
    ----------
    what
        What was applied: a suggestion, a change, or several changes.
    config
        The config that `apply` gave, or the path of the file that it wrote.

    Returns
    -------
    object
        A new config of the make of the given one, which is not touched. For a file its home: the backup is put back.

    Raises
    ------
    StaleChange
        If the config no longer holds the values that were applied, or a file was edited since.

    Examples
    --------
    >>> undo(Change("num_workers", 0, 4), {"num_workers": 4})
    {'num_workers': 0}
    """
    home = as_config(config)
    changes = _changes(what)
    inverse = tuple(change.inverse for change in changes)
    _check(home, inverse)
    if all(same(change.before, change.after) for change in changes):
        return _as_given(config, home)
    before = home.reverted()
    if before is not None:
        _check(before, changes)
        return _as_given(config, before.commit_revert(home))
    exact = _as_it_was(home, changes)
    if exact is not None:
        return _as_given(config, exact)
    return _as_given(config, home.with_knobs({change.knob: change.after for change in inverse}))


def _check(home: Home, changes: Sequence[Change]) -> None:
    for change in changes:
        now = value_of(home, change.knob) if has_knob(home, change.knob) else ABSENT
        if not same(now, change.before):
            there = "not there" if now is ABSENT else clean(repr(now), _LONGEST)
            message = (
                f"{clean(change.knob, _LONGEST)} is {there}, but the change starts from {clean(repr(change.before), _LONGEST)}: "
                "the config was edited since; make the suggestion again from this config"
            )
            raise StaleChange(message)


def _committed(before: Home, after: Home, changes: Sequence[Change]) -> Home:
    """The new home in effect; what it replaced is remembered where the home does not keep it itself."""
    done = after.commit(before)
    if isinstance(done, ObjectHome):
        remember(before.value, done.value, {change.knob: change.after for change in changes})
    return done


def _as_it_was(home: Home, changes: Sequence[Change]) -> Home | None:
    """The home with what the changes replaced; None where that is not remembered, or would not be what the changes say."""
    edits = way_back(home.value, {change.knob: change.after for change in changes})
    if not edits:
        return None
    try:
        exact = home.with_edits(edits)
        _check(exact, changes)
    except (ConfigError, StaleChange):
        return None
    return exact


def _as_given(given: Any, home: Home) -> Any:
    """A home for a home or a path; the config itself for a config."""
    return home if isinstance(given, (Home, str, os.PathLike)) else home.value


def _changes(what: Changes) -> tuple[Change, ...]:
    if isinstance(what, Change):
        return (what,)
    return tuple(what.changes if isinstance(what, Suggestion) else what)
