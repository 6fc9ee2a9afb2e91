"""Cells of a log that hold several values, such as a list per GPU, unfolded to a column for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.text import clean, count

MOST_COLUMNS: Final = 20_000
"""Most columns of a log; more are values written as names."""

_DEEPEST: Final = 4  # {"gpus": [{"memory": {"used": 1}}]}
_SHOWN: Final = 80
_SINGLE: Final = (int, float, str, bytes, bool, type(None))


def flat(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """The frame with a column of its own for each value of a list, dict, array, tensor or Series in a cell: `gpu_utilization.0`.

    Raises
    ------
    LogFormatError
        If there are too many columns.
    """
    if len(frame.columns) > MOST_COLUMNS:
        message = f"{label} has {count(len(frame.columns), 'column')}, over {MOST_COLUMNS:,}: values must not be part of names"
        raise LogFormatError(message)
    for _ in range(_DEEPEST):
        nested = {name for name in frame.columns if frame[name].dtype == object and _has_nested(frame[name])}
        if not nested:
            break
        frame = pd.concat([_unfolded(frame[name]) if name in nested else frame[[name]] for name in frame.columns], axis=1)
        if len(frame.columns) > MOST_COLUMNS:
            message = f"{label}: lists and dicts in cells unfold to more than {MOST_COLUMNS:,} columns: keep them out of the log"
            raise LogFormatError(message)
    return frame


def _has_nested(values: pd.Series) -> bool:
    return any(not isinstance(value, _SINGLE) and _is_nested(value) for value in values)


def _is_nested(value: Any) -> bool:
    """Whether a value holds several; a tensor of one element, of any shape, is a number."""
    if isinstance(value, (Mapping, list, tuple)):
        return True
    dimensions = getattr(value, "ndim", 0)
    if not isinstance(dimensions, int) or dimensions < 1 or not callable(getattr(value, "tolist", None)):
        return False
    elements = getattr(value, "numel", None)
    return not callable(elements) or elements() != 1


def _unfolded(values: pd.Series) -> pd.DataFrame:
    rows = [_items(str(values.name), value) for value in values]
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > MOST_COLUMNS:
        message = f"{clean(values.name, _SHOWN)} unfolds to more than {MOST_COLUMNS:,} columns: keep it out of the log"
        raise LogFormatError(message)
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object, index=values.index) for name in names})


def _items(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, _SINGLE) or not _is_nested(value):
        return {name: value}
    if isinstance(value, Mapping):
        return {f"{name}.{key}": item for key, item in value.items()}
    items = value if isinstance(value, (list, tuple)) else value.tolist()
    return {f"{name}.{number}": item for number, item in enumerate(items)}
