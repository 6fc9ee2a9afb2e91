"""Schemas of the tables of a run, and the conversion of any frame to its schema."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pandas as pd
from pandas.api.types import pandas_dtype

from perfnb.errors import TableError

# One row per: see the comment at each table. Times are microseconds since the run's first event.
_FLOAT, _INT, _NULLABLE, _TEXT, _BOOL = "float64", "int64", "Int64", "category", "bool"

SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        # one row per rank and step
        "steps": {
            "rank": _INT,
            "step": _INT,
            "start_us": _FLOAT,
            "duration_us": _FLOAT,
            "is_edge": _BOOL,
            "steps_inferred": _BOOL,
        },
        # (rank, step, phase); phases: data, transfer, forward, backward, communication, optimizer, other
        "phases": {
            "rank": _INT,
            "step": _INT,
            "phase": _TEXT,
            "wall_us": _FLOAT,
            "cpu_us": _FLOAT,
            "runqueue_us": _FLOAT,
            "blocked_us": _FLOAT,
        },
        # host event; category: operator, annotation, runtime, synchronization, overhead, python, ...
        "host_ops": {
            "rank": _INT,
            "process": _TEXT,
            "thread": _TEXT,
            "category": _TEXT,
            "name": _TEXT,
            "start_us": _FLOAT,
            "duration_us": _FLOAT,
            "correlation": _NULLABLE,
            "stream": _NULLABLE,
            "sequence": _NULLABLE,
            "input_shapes": _TEXT,  # JSON as the profiler writes it: [[8,16],[]]
            "input_types": _TEXT,
            "waits_on_stream": _NULLABLE,  # of a synchronization: the stream, and the call that recorded the event
            "waits_on_correlation": _NULLABLE,
        },
        # kernel, copy or memset; kind: compute, communication, copy, memset
        "device_ops": {
            "rank": _INT,
            "device": _NULLABLE,
            "stream": _NULLABLE,
            "kind": _TEXT,
            "name": _TEXT,
            "start_us": _FLOAT,
            "duration_us": _FLOAT,
            "correlation": _NULLABLE,
            "bytes": _NULLABLE,
            "kind_source": _TEXT,
            "grid": _TEXT,  # JSON: [128,1,1]
            "block": _TEXT,
            "occupancy_share": _FLOAT,
        },
        # (rank, call); clock: device (a kernel) or host (a range of a host library such as gloo)
        "collectives": {
            "rank": _INT,
            "group": _TEXT,
            "sequence": _NULLABLE,
            "collective": _TEXT,
            "dtype": _TEXT,
            "elements_in": _NULLABLE,
            "elements_out": _NULLABLE,
            "group_size": _NULLABLE,
            "members": _TEXT,  # ranks of the group, "0,1,2,3"; NA where the trace does not list them all
            "bytes": _NULLABLE,
            "device": _NULLABLE,
            "stream": _NULLABLE,
            "launch_us": _FLOAT,  # start of the launch call; NaN where none was recorded, and on the host's clock
            "start_us": _FLOAT,
            "duration_us": _FLOAT,
            "clock": _TEXT,
        },
        # allocation (bytes > 0) or free (bytes < 0) of the host's or a device's memory, in the order they happened
        "allocations": {
            "rank": _INT,
            "device": _NULLABLE,  # NA on the host
            "time_us": _FLOAT,
            "address": _NULLABLE,
            "bytes": _INT,
            "allocated_bytes": _NULLABLE,  # totals of that memory after this row
            "reserved_bytes": _NULLABLE,
        },
    }
)

_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType({"is_edge": False, "steps_inferred": False})


def empty(table: str) -> pd.DataFrame:
    """Table of the given name without rows, every column of its schema with its type.

    Examples
    --------
    >>> empty("steps").columns.to_list()
    ['rank', 'step', 'start_us', 'duration_us', 'is_edge', 'steps_inferred']
    """
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
        elif dtype in (_NULLABLE, _TEXT) or (dtype == _FLOAT and name not in ("start_us", "duration_us")):
            columns[name] = pd.Series(pd.NA if dtype != _FLOAT else float("nan"), index=frame.index, dtype=dtype)
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
        if dtype == _TEXT:
            return values.astype("string").astype("category") if values.dtype != "category" else values
        return values.astype(pandas_dtype(dtype))
    except (TypeError, ValueError) as error:
        message = f"column {name!r} of table {table} cannot be read as {dtype}: {error}"
        raise TableError(message) from error
