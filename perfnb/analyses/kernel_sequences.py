"""Kernels that follow one another again and again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.errors import PerfnbError
from perfnb.run import Run

SEQUENCE_COLUMNS = ("rank", "device", "length", "sequence", "occurrences", "total_us", "mean_us", "span_us")
_PRIME = np.uint64(1_099_511_628_211)  # FNV-1a, 64 bit: www.isthe.com/chongo/tech/comp/fnv


def kernel_sequences(run: Run, length: int = 5, *, fewest: int = 2, contains: str | None = None) -> pd.DataFrame:
    """Sequences of successive kernels of one stream by how often they occur.

    Candidates for fusion and for graph capture: many short kernels that always follow one another.

    Parameters
    ----------
    run
        A run with device ops.
    length
        Number of kernels of a sequence.
    fewest
        How often a sequence occurs at least.
    contains
        Only sequences in which a kernel's name holds this text.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, sequence), most device time first within a device: length, sequence (names in order, joined
        by " -> "), occurrences (overlapping ones included), total_us (durations of its kernels over all occurrences), mean_us
        (per occurrence) and span_us (median time from its first start to its last end). A kernel counts in every occurrence
        that it is part of, so totals do not add up. Copies and memsets do not count.

    Raises
    ------
    PerfnbError
        If `length` or `fewest` is below 1.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us
    ...        0    0      7      compute gemm 0        6
    ...        0    0      7      compute relu 7        2
    ...        0    0      7      compute gemm 10       6
    ...        0    0      7      compute relu 17       2''',
    ... )
    >>> kernel_sequences(Run(device_ops=ops), 2)[["sequence", "occurrences", "total_us", "span_us"]]
           sequence  occurrences  total_us  span_us
    0  gemm -> relu            2      16.0      9.0
    """
    if length < 1 or fewest < 1:
        message = f"length={length} and fewest={fewest} must be at least 1"
        raise PerfnbError(message)
    ops = run.device_ops[run.device_ops["kind"].isin(["compute", "communication"])]
    if ops.empty:
        return pd.DataFrame(columns=list(SEQUENCE_COLUMNS))
    ops = ops.assign(device=ops["device"].fillna(-1).astype("int64")).sort_values("start_us", kind="stable")
    found = [_of_stream(own, length) for _, own in ops.groupby(["rank", "device", "stream"], dropna=False)]
    windows = pd.concat([each for each in found if len(each)], ignore_index=True) if any(map(len, found)) else pd.DataFrame()
    if windows.empty:
        return pd.DataFrame(columns=list(SEQUENCE_COLUMNS))
    grouped = windows.groupby(["rank", "device", "key"])
    table = grouped.agg(
        occurrences=("us", "size"),
        total_us=("us", "sum"),
        mean_us=("us", "mean"),
        span_us=("span", "median"),
        first=("first", "first"),
    ).reset_index()
    table = table[table["occurrences"] >= fewest]
    names = ops["name"].astype("object").to_numpy()
    places = pd.Series(np.arange(len(ops)), index=ops.index)
    table = table.assign(length=length, sequence=_spelled(table["first"], ops, names, places, length))
    if contains is not None:
        table = table[table["sequence"].str.contains(contains, regex=False)]
    ordered = table.sort_values(["rank", "device", "total_us"], ascending=[True, True, False], kind="stable", ignore_index=True)
    return ordered[list(SEQUENCE_COLUMNS)]


def _of_stream(own: pd.DataFrame, length: int) -> pd.DataFrame:
    """Every run of `length` successive kernels of one stream, with a key that equal sequences share."""
    count = len(own) - length + 1
    if count < 1:
        return pd.DataFrame()
    code = own["name"].astype("category").cat.codes.to_numpy().astype(np.uint64) + np.uint64(1)
    key = np.zeros(count, dtype=np.uint64)
    for place in range(length):
        key = key * _PRIME + code[place : place + count]  # wraps around
    durations = np.concatenate([[0.0], np.cumsum(own["duration_us"].to_numpy())])
    start = own["start_us"].to_numpy()
    end = start + own["duration_us"].to_numpy()
    return pd.DataFrame(
        {
            "rank": own["rank"].to_numpy()[:count],
            "device": own["device"].to_numpy()[:count],
            "key": key,
            "us": durations[length:] - durations[:-length],
            "span": end[length - 1 :] - start[:count],
            "first": own.index.to_numpy()[:count],
        }
    )


def _spelled(first: pd.Series, ops: pd.DataFrame, names: np.ndarray, places: pd.Series, length: int) -> list[str]:  # type: ignore[type-arg]
    """Names of the kernels from each first one on, in its stream."""
    stream = ops["stream"].fillna(-1).to_numpy(dtype="int64")
    lane = pd.factorize(pd.MultiIndex.from_arrays([ops["rank"], ops["device"], stream]))[0]
    by_lane = np.argsort(lane, kind="stable")
    place_in_lane = np.empty(len(ops), dtype=np.int64)
    place_in_lane[by_lane] = np.arange(len(ops))
    begin = place_in_lane[places.loc[first].to_numpy()]
    return [" -> ".join(names[by_lane[place : place + length]]) for place in begin.tolist()]
