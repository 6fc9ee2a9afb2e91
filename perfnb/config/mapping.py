"""A config that is a mapping, nested or not: read a knob, or make a new config with other values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from perfnb.config.tree import DEEPEST, Path, children, own, rebuilt
from perfnb.errors import ConfigError
from perfnb.safe_text import clean

_SECRET: Final = ("token", "password", "secret", "api_key")
_LONGEST: Final = 200


def has_knob(config: Mapping[str, Any], knob: str) -> bool:
    """Whether the config holds a knob, at its top or in one nested mapping.

    Examples
    --------
    >>> has_knob({"data": {"num_workers": 0}}, "num_workers")
    True
    """
    return next(_paths(config, knob), None) is not None


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
    for key in path_of(config, knob):
        value = value[key]
    return own(value)


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
        changed = rebuilt(changed, {path_of(config, knob): value})
    return changed


def as_text(config: Any) -> str:
    r"""The config as JSON text, one value per line: what a diff of two configs compares.

    Values of names that end in token, password, secret or api_key are left out.

    Examples
    --------
    >>> as_text({"num_workers": 0})
    '{\n  "num_workers": 0\n}\n'
    """
    return json.dumps(_plain(config), indent=2, ensure_ascii=False) + "\n"


def path_of(config: Mapping[str, Any], knob: str) -> Path:
    """Where a knob stands: the place nearest to the top.

    Raises
    ------
    ConfigError
        If the config lacks it, or holds it at several places that are equally near to the top.
    """
    found = list(_paths(config, knob))
    if not found:
        message = f"the config has no {clean(knob)}: it has {clean(', '.join(map(str, config)), _LONGEST) or 'nothing'}"
        raise ConfigError(message)
    shortest = min(map(len, found))
    first = [path for path in found if len(path) == shortest]
    if len(first) > 1:
        places = " and ".join(clean(".".join(map(str, path))) for path in first)
        message = f"the config has {clean(knob)} at {places}: pass the one that counts"
        raise ConfigError(message)
    return first[0]


def _paths(config: Mapping[str, Any], knob: str, depth: int = 0) -> Iterator[Path]:
    if knob in config:
        yield (knob,)
    if depth >= DEEPEST:
        return
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((key, *rest) for rest in _paths(value, knob, depth + 1))


def _plain(value: Any, depth: int = 0) -> Any:
    """What JSON has for a value: mappings and lists of texts and numbers, and a short text for anything else."""
    names = children(value)
    if depth > DEEPEST:
        return "..."
    if names is not None:
        return {str(name): "<hidden>" if _secret(name, inner) else _plain(inner, depth + 1) for name, inner in names.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    value = own(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    try:
        return clean(value, _LONGEST)
    except Exception:  # noqa: BLE001 - the text of an object is its own code
        return f"<{type(value).__name__}>"


def _secret(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, str) and name.lower().endswith(_SECRET)
