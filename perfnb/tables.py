"""The tables of a run: an empty one of each, and the conversion of any frame to its schema."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import pandas as pd
from pandas.api.types import pandas_dtype

from perfnb.errors import TableError
from perfnb.schemas import FLOAT, MAYBE, NULLABLE, SCHEMAS, TEXT

__all__ = ["SCHEMAS", "conform", "empty", "table_from_text"]

_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {"is_edge": False, "steps_inferred": False, "is_profiled": False, "peaks_are_per_step": False}
)
_NEEDED_TIMES: Final = ("start_us", "duration_us")


def empty(table: str) -> pd.DataFrame:
    """Table of the given name without rows, every column of its schema with its type.

    Examples
    --------
    >>> empty("steps").columns.to_list()
    ['rank', 'step', 'start_us', 'duration_us', 'is_edge', 'steps_inferred', 'is_profiled', 'epoch', 'micro_batches']
    """
    return _empty(table).copy(deep=False)


@cache
def _empty(table: str) -> pd.DataFrame:
    """Made once: a run without most of its tables is made often, and each takes milliseconds."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in SCHEMAS[table].items()})


def conform(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Frame with exactly the columns and types of a table's schema, in its order.

    Columns that hold measurements and are absent become NA; columns that say what a row is must be there.

    Parameters
    ----------
    table
        Name of a table in `SCHEMAS`.
    frame
        One row per thing that the table describes.

    Returns
    -------
    pandas.DataFrame
        A new frame with a fresh index.

    Raises
    ------
    TableError
        If `table` is unknown, a column that identifies rows is missing or a value cannot be converted.

    Examples
    --------
    >>> conform("steps", pd.DataFrame({"rank": [0], "step": [7], "start_us": [0], "duration_us": [50]})).dtypes["start_us"]
    dtype('float64')
    """
    if table not in SCHEMAS:
        message = f"no table named {table!r}: there are {', '.join(SCHEMAS)}"
        raise TableError(message)
    schema = SCHEMAS[table]
    if list(frame.columns) == list(schema) and all(
        str(dtype) == wanted for dtype, wanted in zip(frame.dtypes, schema.values(), strict=True)
    ):
        return frame.reset_index(drop=True)
    columns: dict[str, pd.Series] = {}
    for name, dtype in schema.items():
        if name in frame.columns:
            columns[name] = _converted(table, name, frame[name], dtype)
        elif name in _DEFAULTS:
            columns[name] = pd.Series([_DEFAULTS[name]] * len(frame), index=frame.index, dtype=dtype)
        elif dtype in (NULLABLE, TEXT, MAYBE) or (dtype == FLOAT and name not in _NEEDED_TIMES):
            columns[name] = pd.Series(pd.NA if dtype != FLOAT else float("nan"), index=frame.index, dtype=dtype)
        else:
            message = f"table {table} lacks the column {name!r}: it has {', '.join(map(str, frame.columns)) or 'none'}"
            raise TableError(message)
    return pd.DataFrame(columns).reset_index(drop=True)


def table_from_text(table: str, text: str) -> pd.DataFrame:
    r"""Table written as text: a header line, then one line per row, columns parted by spaces, `-` for missing.

    For examples and tests. A name with spaces is written with underscores for spaces only if quoted in double quotes.

    Examples
    --------
    >>> table_from_text("steps", "rank step start_us duration_us\n0 1 0 100").loc[0, "duration_us"]
    np.float64(100.0)
    """
    frame = pd.read_csv(io.StringIO(text), sep=r"\s+", na_values=["-"], keep_default_na=False, quotechar='"')
    unknown = [name for name in frame.columns if name not in SCHEMAS[table]]
    if unknown:
        message = f"table {table} has no column {', '.join(unknown)}: it has {', '.join(SCHEMAS[table])}"
        raise TableError(message)
    return conform(table, frame)


def _converted(table: str, name: str, values: pd.Series, dtype: str) -> pd.Series:
    if str(values.dtype) == dtype:
        return values
    try:
        if dtype == TEXT:
            return values.astype("string").astype("category") if values.dtype != "category" else values
        return values.astype(pandas_dtype(dtype))
    except (TypeError, ValueError) as error:
        message = f"column {name!r} of table {table} cannot be read as {dtype}: {error}"
        raise TableError(message) from error
