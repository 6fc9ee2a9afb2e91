"""Apply a change to a config and take it back: new values, the given config stays as it is."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.config.mapping import as_text, value_of, with_values
from perfnb.errors import StaleChange
from perfnb.fix import Suggestion
from perfnb.prediction import Change

Changes = Suggestion | Change | Sequence[Change]


def apply(what: Changes, config: Mapping[str, Any]) -> dict[str, Any]:
    """New config with the changes of a suggestion.

    Parameters
    ----------
    what
        A suggestion, a change, or several changes.
    config
        A mapping, nested or not, that holds every knob.

    Returns
    -------
    dict
        A new config; the given one is not touched.

    Raises
    ------
    StaleChange
        If the config no longer holds the value that a change starts from; nothing is applied then.
    ConfigError
        If the config lacks a knob.

    Examples
    --------
    >>> apply(Change("num_workers", 0, 4), {"num_workers": 0})
    {'num_workers': 4}
    """
    changes = _changes(what)
    for change in changes:
        now = value_of(config, change.knob)
        if now != change.before or type(now) is not type(change.before):
            message = (
                f"{change.knob} is {now!r}, but the change starts from {change.before!r}: "
                "the config was edited since; make the suggestion again from this config"
            )
            raise StaleChange(message)
    return with_values(config, {change.knob: change.after for change in changes})


def undo(what: Changes, config: Mapping[str, Any]) -> dict[str, Any]:
    """New config without the changes that `apply` made.

    Parameters
    ----------
    what
        What was applied: a suggestion, a change, or several changes.
    config
        The config that `apply` gave.

    Returns
    -------
    dict
        A new config; the given one is not touched.

    Raises
    ------
    StaleChange
        If the config no longer holds the values that were applied.

    Examples
    --------
    >>> undo(Change("num_workers", 0, 4), {"num_workers": 4})
    {'num_workers': 0}
    """
    return apply(tuple(change.inverse for change in _changes(what)), config)


def config_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Unified diff of two configs as JSON text; empty where they are equal.

    Examples
    --------
    >>> print(config_diff({"num_workers": 0}, {"num_workers": 4}), end="")
    --- config before
    +++ config after
    @@ -1,3 +1,3 @@
     {
    -  "num_workers": 0
    +  "num_workers": 4
     }
    """
    lines = difflib.unified_diff(
        as_text(before).splitlines(keepends=True), as_text(after).splitlines(keepends=True), "config before", "config after"
    )
    return "".join(lines)


def _changes(what: Changes) -> tuple[Change, ...]:
    if isinstance(what, Change):
        return (what,)
    return tuple(what.changes if isinstance(what, Suggestion) else what)
