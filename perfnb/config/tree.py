"""What a config holds by name, whatever it is made of, and a new one of the same make with other values."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final

from perfnb.errors import ConfigError
from perfnb.safe_text import clean

Path = tuple[Any, ...]
"""Names from the top of a config down to a value."""

DEEPEST: Final = 60
"""Levels of nesting: a config that is deeper holds itself, or was made to break what reads it."""

_LONGEST_REASON: Final = 300


class Missing(Enum):
    """That a config does not hold a name."""

    ABSENT = "absent"


ABSENT: Final = Missing.ABSENT


def children(node: Any) -> Mapping[Any, Any] | None:
    """What a node of a config holds by name; None for a value that holds nothing by name.

    Values of OmegaConf that are interpolated (`${...}`) or missing (`???`) are left out: looking one up may run code.

    Examples
    --------
    >>> children(argparse.Namespace(num_workers=0)), children(3)
    ({'num_workers': 0}, None)
    """
    if is_omegaconf(node):
        return _plain_omegaconf(node)
    if isinstance(node, Mapping):
        return node
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node) if hasattr(node, field.name)}
    if isinstance(node, (argparse.Namespace, SimpleNamespace)):
        return vars(node)
    return None


def at(node: Any, path: Path) -> Any:
    """Value at a path; `ABSENT` where there is none.

    Examples
    --------
    >>> at({"data": {"num_workers": 2}}, ("data", "num_workers"))
    2
    """
    for name in path:
        names = children(node)
        if names is None or name not in names:
            return ABSENT
        node = names[name]
    return own(node)


def own(value: Any) -> Any:
    """A number of numpy as Python's own, also in a list or tuple; any other value as it is.

    Configs that were worked out hold them, and they are no int to whoever looks for one. numpy is not imported for it.

    Examples
    --------
    >>> import numpy as np
    >>> own(np.int64(4)), own((np.float64(0.5), "cosine"))
    (4, (0.5, 'cosine'))
    """
    if type(value) in (list, tuple):
        made = [_own(each) for each in value]
        return value if all(one is other for one, other in zip(made, value, strict=True)) else type(value)(made)
    return _own(value)


def rebuilt(node: Any, edits: Mapping[Path, Any]) -> Any:
    """A new node of the same make with other values; the given one stays as it is.

    Parameters
    ----------
    node
        A mapping, dataclass, Namespace or OmegaConf config; those within it may be of another make.
    edits
        Path to value; `ABSENT` takes a name away.

    Raises
    ------
    ConfigError
        If the node does not take a value: its own checks refuse it, or it has no such name.

    Examples
    --------
    >>> rebuilt({"data": {"num_workers": 0}, "seed": 1}, {("data", "num_workers"): 4})
    {'data': {'num_workers': 4}, 'seed': 1}
    """
    if is_omegaconf(node):
        return _rebuilt_omegaconf(node, edits)
    inner: dict[Any, dict[Path, Any]] = {}
    for (first, *rest), value in edits.items():
        inner.setdefault(first, {})[tuple(rest)] = value
    names = children(node) or {}
    values = {first: below[()] if () in below else rebuilt(names.get(first, {}), below) for first, below in inner.items()}
    if isinstance(node, Mapping):
        return _rebuilt_mapping(node, values)
    if dataclasses.is_dataclass(node):
        return _rebuilt_dataclass(node, values)
    new = copy.copy(node)
    for name, value in values.items():
        vars(new).pop(name, None) if value is ABSENT else vars(new).__setitem__(name, value)
    return new


def can_grow(node: Any) -> bool:
    """Whether a node takes names that it does not hold yet, and they mean something to what reads it."""
    if is_omegaconf(node):
        return not (sys.modules["omegaconf"].OmegaConf.is_struct(node) or _object_type(node) not in (None, dict, Any))
    return isinstance(node, Mapping)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one type, in depth: 0, 0.0 and False differ, a list and a tuple do not.

    A number of numpy is what it is to Python.

    Examples
    --------
    >>> same([1, 2], (1, 2)), same(0, False), same(float("nan"), float("nan"))
    (True, False, True)
    """
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    one, other = _own(one), _own(other)
    if type(one) is not type(other):
        return False
    try:
        return one is other or bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))
    except Exception:  # noqa: BLE001 - values of a config may be arrays, or compare by the user's own code
        return False


def refused(what: object, error: BaseException) -> ConfigError:
    """The error for a value that a config's own checks refuse, in their words."""
    return ConfigError(f"{what} refuses it: {clean(error, _LONGEST_REASON) or type(error).__name__}; nothing was changed")


def is_omegaconf(node: Any) -> bool:
    """Whether a node is an OmegaConf config, without importing OmegaConf."""
    kind = getattr(sys.modules.get("omegaconf"), "DictConfig", None)
    return kind is not None and isinstance(node, kind)


def _own(value: Any) -> Any:
    if type(value).__module__ != "numpy" or getattr(value, "shape", None) != ():
        return value
    plain = value.item()  # also of an array without axes
    return plain if type(plain) in (bool, int, float, str) else value


def _rebuilt_mapping(node: Mapping[Any, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    new = copy.copy(node) if isinstance(node, dict) else dict(node)
    for name, value in values.items():
        if value is ABSENT:
            new.pop(name, None)
        else:
            new[name] = value
    return new


def _rebuilt_dataclass(node: Any, values: Mapping[Any, Any]) -> Any:
    kind = type(node).__name__
    names = [field.name for field in dataclasses.fields(node) if field.init]
    unknown = [name for name in values if name not in names]
    if unknown or ABSENT in values.values():
        message = f"{kind} takes no {' and no '.join(clean(name) for name in unknown or values)}: it takes {_listed(names)}"
        raise ConfigError(message)
    try:
        return dataclasses.replace(node, **values)
    except Exception as error:  # what a dataclass checks when it is made is the user's own code
        raise refused(kind, error) from error


def _rebuilt_omegaconf(node: Any, edits: Mapping[Path, Any]) -> Any:
    omegaconf = sys.modules["omegaconf"]
    new = copy.deepcopy(node)
    try:
        for path, value in edits.items():
            inner = new
            for name in path[:-1]:
                if name not in inner:
                    inner[name] = {}
                inner = inner[name]
            with omegaconf.flag_override(inner, ["readonly", "struct"], [False, False]):
                if value is ABSENT:
                    del inner[path[-1]]
                else:
                    inner[path[-1]] = value
    except omegaconf.errors.OmegaConfBaseException as error:
        what = "the OmegaConf config"
        raise refused(what, error) from error
    return new


def _plain_omegaconf(node: Any) -> dict[Any, Any]:
    omegaconf = sys.modules["omegaconf"]
    held = omegaconf.OmegaConf
    names = [name for name in node if not (held.is_missing(node, name) or held.is_interpolation(node, name))]
    inner = {name: node[name] for name in names}
    return {
        name: held.to_container(value, resolve=False) if isinstance(value, omegaconf.ListConfig) else value
        for name, value in inner.items()
    }


def _object_type(node: Any) -> Any:
    return sys.modules["omegaconf"].OmegaConf.get_type(node)


def _listed(names: Iterable[Any]) -> str:
    return clean(", ".join(map(str, names)), _LONGEST_REASON) or "nothing"
