"""A config that is a mapping, nested or not: read a knob, or make a new config with other values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from perfnb.errors import ConfigError

_PATH = tuple[str, ...]


def has_knob(config: Mapping[str, Any], knob: str) -> bool:
    """Whether the config holds a knob, at its top or in one nested mapping.

    Examples
    --------
    >>> has_knob({"data": {"num_workers": 0}}, "num_workers")
    True
    """
    return bool(list(_paths(config, knob)))


def value_of(config: Mapping[str, Any], knob: str) -> Any:
    """Value of a knob.

    Raises
    ------
    ConfigError
        If the config lacks it, or holds it at several places.

    Examples
    --------
    >>> value_of({"data": {"num_workers": 2}}, "num_workers")
    2
    """
    value: Any = config
    for key in _path(config, knob):
        value = value[key]
    return value


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """New config in which the given knobs have other values; the given one stays as it is.

    Raises
    ------
    ConfigError
        If the config lacks a knob, or holds it at several places.

    Examples
    --------
    >>> with_values({"data": {"num_workers": 0}, "seed": 1}, {"num_workers": 4})
    {'data': {'num_workers': 4}, 'seed': 1}
    """
    changed: dict[str, Any] = dict(config)
    for knob, value in values.items():
        changed = _replaced(changed, _path(config, knob), value)
    return changed


def as_text(config: Mapping[str, Any]) -> str:
    r"""The config as JSON text, one value per line: what a diff of two configs compares.

    Examples
    --------
    >>> as_text({"num_workers": 0})
    '{\n  "num_workers": 0\n}\n'
    """
    return json.dumps(config, indent=2, default=str, ensure_ascii=False) + "\n"


def _path(config: Mapping[str, Any], knob: str) -> _PATH:
    found = list(_paths(config, knob))
    if not found:
        message = f"the config has no {knob}: it has {', '.join(map(str, config)) or 'nothing'}"
        raise ConfigError(message)
    shortest = min(map(len, found))
    first = [path for path in found if len(path) == shortest]
    if len(first) > 1:
        message = f"the config has {knob} at {' and '.join('.'.join(path) for path in first)}: pass the one that counts"
        raise ConfigError(message)
    return first[0]


def _paths(config: Mapping[str, Any], knob: str) -> Iterator[_PATH]:
    if knob in config:
        yield (knob,)
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((str(key), *rest) for rest in _paths(value, knob))


def _replaced(config: Mapping[str, Any], path: _PATH, value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**config, first: _replaced(config[first], tuple(rest), value) if rest else value}
