"""Changes as they are asked for, read against the config that they start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConflictingChanges
from perfnb.prediction import Change, Unknown


def wanted_changes(changes: Mapping[str, Any] | Sequence[Change], config: Mapping[str, Any]) -> tuple[Change, ...] | Unknown:
    """The changes with their values before, or which of them this config cannot start.

    Raises
    ------
    ConflictingChanges
        If two changes name one knob.

    Examples
    --------
    >>> wanted_changes({"num_workers": 4}, {"num_workers": 0})
    (Change(knob='num_workers', before=0, after=4),)
    """
    if isinstance(changes, Mapping):
        absent = [knob for knob in changes if not has_knob(config, knob)]
        if absent:
            reason = f"the config has no {', '.join(absent)}, so what it is now is not known"
            return Unknown(reason, "a config with this knob, or a Change that says its value before")
        return tuple(Change(knob, value_of(config, knob), after) for knob, after in changes.items())
    named = [change.knob for change in changes]
    twice = sorted({knob for knob in named if named.count(knob) > 1})
    if twice:
        message = f"several changes of {', '.join(twice)}: a knob has one value, pass one change for it"
        raise ConflictingChanges(message)
    for change in changes:
        if has_knob(config, change.knob) and value_of(config, change.knob) != change.before:
            now = value_of(config, change.knob)
            reason = f"{change.knob} is {now!r} in the config, but the change starts from {change.before!r}"
            return Unknown(reason, "a change that starts from this config")
    return tuple(changes)
