"""Rows of a recorder -> columns: exact where they are whole, missing where a value is not what its column holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.record.json_rows import INFINITE, NEGATIVE_INFINITE, NOT_A_NUMBER
from perfnb.record.rows import COLUMNS
from perfnb.schemas import BOOL, FLOAT, INT, MAYBE, NULLABLE, SCHEMAS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LARGEST: Final = 2**63
_DEEPEST: Final = 40  # a recorder writes 20
_SPELLED: Final = {NOT_A_NUMBER: float("nan"), INFINITE: float("inf"), NEGATIVE_INFINITE: float("-inf")}


class Columns:
    """The columns of the rows of one table of one rank.

    Parameters
    ----------
    table
        A table of `perfnb.record.rows.COLUMNS`.
    header
        The recording's header, whose `columns` say what its rows hold; another version may have more.
    rows
        The rows; each at least as long as the header says.
    """

    def __init__(self, table: str, header: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> None:
        self._rows = list(rows)  # a recorder may go on adding to them
        self.names = names_of(table, header)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def values(self, name: str) -> list[Any]:
        """Values of a column as they were written; None throughout where rows have no such column."""
        if name not in self.names:
            return [None] * len(self._rows)
        place = self.names.index(name)
        return [row[place] for row in self._rows]

    def integers(self, name: str) -> tuple[Ints, Bools]:
        """Whole numbers of a column, and where there is one."""
        return integers(self.values(name))

    def floats(self, name: str) -> Floats:
        """Numbers of a column; NaN where there is none."""
        return floats(self.values(name))[0]


def names_of(table: str, header: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a table's columns, in the order of a row."""
    stated = header.get("columns")
    names = stated.get(table) if isinstance(stated, Mapping) else None
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return COLUMNS[table]


def integers(values: Sequence[Any]) -> tuple[Ints, Bools]:
    """Whole numbers, and where there is one.

    Examples
    --------
    >>> [each.tolist() for each in integers([1, None, 2**70, "x"])]
    [[1, 0, 0, 0], [True, False, False, False]]
    """
    try:
        made = np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        made = np.empty(0, dtype=np.int64)
    if made.shape == (len(values),):
        return made, np.ones(len(values), dtype=np.bool_)
    kept = [_whole(value) for value in values]
    known = np.array([value is not None for value in kept], dtype=np.bool_)
    return np.array([value or 0 for value in kept], dtype=np.int64), known


def floats(values: Sequence[Any]) -> tuple[Floats, Bools]:
    """Numbers, and where there is one: NaN too is a number that somebody gave.

    Examples
    --------
    >>> [each.tolist() for each in floats([1, None, "NaN", "-Infinity", [2]])]
    [[1.0, nan, nan, -inf, nan], [True, False, True, True, False]]
    """
    given = np.array([value is not None for value in values], dtype=np.bool_)
    try:
        made = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        made = np.empty(0)
    if made.shape == (len(values),):
        return made, given
    kept = [_number(value) for value in values]
    known = np.array([value is not None for value in kept], dtype=np.bool_)
    return np.array([np.nan if value is None else value for value in kept], dtype=np.float64), known


def restored(value: Any, depth: int = 0) -> Any:
    """A value of a config with the floats that JSON lacks; a text that reads like one of them becomes it too.

    What is nested deeper than a recorder writes it is cut off there.
    """
    if isinstance(value, str):
        return _SPELLED.get(value, value)
    if isinstance(value, (Mapping, list)) and depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {key: restored(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item, depth + 1) for item in value]
    return value


def table_of(table: str, columns: Columns) -> pd.DataFrame:
    """Columns that a table's rows and its schema share, with the types of the schema; moments are left out."""
    made: dict[str, Any] = {}
    for name, dtype in SCHEMAS[table].items():
        if name not in columns.names:
            continue
        if dtype == FLOAT:
            made[name] = columns.floats(name)
        elif dtype in (INT, NULLABLE):
            numbers, known = columns.integers(name)
            made[name] = numbers if dtype == INT else pd.arrays.IntegerArray(numbers, ~known)
        elif dtype in (BOOL, MAYBE):
            numbers, known = columns.integers(name)
            made[name] = (numbers != 0) & known if dtype == BOOL else pd.arrays.BooleanArray(numbers != 0, ~known)
        else:
            made[name] = texts(columns.values(name))
    return pd.DataFrame(made, index=pd.RangeIndex(len(columns)))


def texts(values: Sequence[Any]) -> pd.Categorical:
    """Texts as a categorical; what is no text becomes its text.

    Examples
    --------
    >>> texts(["data", None, 3]).categories.to_list()
    ['3', 'data']
    """
    codes, found = pd.factorize(
        np.array([value if isinstance(value, str) or value is None else str(value) for value in values], object)
    )
    order = np.argsort(np.array(found, dtype=object), kind="stable")
    place = np.empty(len(order) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    return pd.Categorical.from_codes(place[codes], categories=pd.Index(np.array(found, dtype=object)[order]).astype("string"))


def _whole(value: Any) -> int | None:
    try:
        number = int(value) if isinstance(value, (int, float, np.generic)) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and abs(number) < _LARGEST else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _SPELLED.get(value)
    try:
        return float(value) if isinstance(value, (int, float, np.generic)) else None
    except (ValueError, TypeError, OverflowError):
        return None
