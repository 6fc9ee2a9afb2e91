"""Recommendations put into a config: as many as go together, as one change; the others with the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from perfnb.apply import apply, preview
from perfnb.config.as_config import as_config
from perfnb.config.home import Home
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError, PerfnbError
from perfnb.fix import Suggestion
from perfnb.prediction import Change
from perfnb.safe_text import clean

_LIST: Final = "optimization_recommendations"
_LONGEST: Final = 200


class RecommendationError(PerfnbError):
    """What was passed as recommendations is none: says what it is and what to pass."""


class Applied(NamedTuple):
    """What became of recommendations.

    Attributes
    ----------
    config
        The new config, of the make of the given one, which is not touched; of a file its home, whose bytes are written.
    applied
        One entry per recommendation that is in it: strategy, config_change.
    refused
        One entry per recommendation that is not: strategy, reason, and `paste` with code for what the config has no place for.
    """

    config: Any
    applied: list[dict[str, Any]]
    refused: list[dict[str, Any]]


def applied(recommendations: Any, config: Any) -> Applied:
    """The config with as many recommendations as go together, applied in their order as one change.

    Parameters
    ----------
    recommendations
        Entries of a report's `optimization_recommendations`, the report itself, suggestions, or changes.
    config
        Any home of a config.

    Returns
    -------
    Applied
        The new config, what was applied, and what was refused with its reason.

    Raises
    ------
    RecommendationError
        If something is no recommendation.
    PerfnbError
        If the config cannot be read or written; nothing is applied then.
    """
    home: Home = as_config(config)
    start = home
    taken: list[Change] = []
    done: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    changed_by: dict[str, str] = {}
    for number, given in enumerate(_entries(recommendations), 1):
        strategy, changes, reason = _read(given, number, start)
        reason = reason or _again(changes, changed_by)
        after, reason, paste = _tried(changes, home, reason)
        if reason:
            refused.append({"strategy": strategy, "reason": reason, "paste": paste})
            continue
        home = after
        taken += changes
        changed_by |= {change.knob: strategy for change in changes}
        done.append(
            {
                "strategy": strategy,
                "config_change": [{"knob": each.knob, "before": each.before, "after": each.after} for each in changes],
            }
        )
    return Applied(apply(taken, config) if taken else _untouched(config, start), done, refused)


def _again(changes: tuple[Change, ...], changed_by: Mapping[str, str]) -> str:
    """Why a knob may not be changed again; empty where none is."""
    knobs = [change.knob for change in changes]
    twice = next((knob for knob in knobs if knobs.count(knob) > 1), None)
    if twice is not None:
        return f"it names {clean(twice, _LONGEST)} {knobs.count(twice)} times: leave the change that counts, and apply it again"
    again = next((knob for knob in knobs if knob in changed_by), None)
    if again is not None:
        return f"{clean(again, _LONGEST)} was changed by {changed_by[again]} already: apply one, measure, and ask again"
    return ""


def _tried(changes: tuple[Change, ...], home: Home, reason: str) -> tuple[Home, str, list[str]]:
    """The home with the changes, or why it does not take them, and what to paste instead."""
    if reason:
        return home, reason, []
    try:
        seen = preview(changes, home)
    except PerfnbError as error:
        return home, str(error), []
    return seen.after, seen.reason, list(seen.snippets)


def _untouched(config: Any, home: Home) -> Any:
    """The config as it is, in the form in which `apply` would give it."""
    return apply((), config) if home.value is not None else config


def _entries(recommendations: Any) -> list[Any]:
    if isinstance(recommendations, Mapping):
        if _LIST in recommendations:
            return _entries(recommendations[_LIST])
        return [recommendations]
    if isinstance(recommendations, (Suggestion, Change)):
        return [recommendations]
    if isinstance(recommendations, Iterable) and not isinstance(recommendations, str):
        return list(recommendations)
    message = f"recommendations is a {type(recommendations).__name__}: pass report['{_LIST}'], suggestions, or changes"
    raise RecommendationError(message)


def _read(given: Any, number: int, home: Home) -> tuple[str, tuple[Change, ...], str]:
    """Name, changes, and why it is not to be applied; empty where it may be."""
    if isinstance(given, Change):
        return str(given), (given,), ""
    if isinstance(given, Suggestion):
        return given.fix, given.changes, "" if given.changes else "it changes nothing of a config"
    if not isinstance(given, Mapping):
        message = f"recommendation {number} is a {type(given).__name__}: pass entries of report['{_LIST}']"
        raise RecommendationError(message)
    strategy = clean(given.get("strategy", f"recommendation {number}"), _LONGEST)
    if "parameter_name" in given:
        name = clean(given["parameter_name"], _LONGEST)
        reason = (
            f"the curve alone gives reason to try another {name} and does not tell what that brings: probe it first, or change "
            f"it yourself with perfnb.apply(perfnb.Change({name!r}, before, after), config)"
        )
        return strategy, (), reason
    listed = given.get("config_change")
    if not isinstance(listed, (list, tuple)) or not all(
        isinstance(each, Mapping) and {"knob", "before", "after"} <= each.keys() for each in listed
    ):
        message = (
            f"recommendation {number} ({strategy}) has no config_change that is a list of knob, before and after: "
            f"pass entries of report['{_LIST}']"
        )
        raise RecommendationError(message)
    try:
        changes = tuple(_change(each, home) for each in listed)
    except ConfigError as error:  # the config has the knob at several places: only this entry is about it
        return strategy, (), str(error)
    return strategy, changes, "" if changes else "it changes nothing of a config"


def _change(entry: Mapping[str, Any], home: Home) -> Change:
    """The change of an entry; JSON has no tuples, so a list becomes one where the config holds one."""
    knob, before, after = str(entry["knob"]), entry["before"], entry["after"]
    now = value_of(home, knob) if has_knob(home, knob) else None
    if isinstance(now, tuple):
        before, after = (tuple(value) if isinstance(value, list) else value for value in (before, after))
    return Change(knob, before, after)
