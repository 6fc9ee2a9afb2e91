"""Which host call launched which device op, which step that call belongs to, and which operator made it."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.nesting import ROOT, innermost, parents, whole_nanoseconds
from perfnb.run import Run

NOT_LAUNCHED: Final = -1
"""Position of the launch call of a device op that has none."""

_DENSEST: Final = 4  # slots per launch call that a table by correlation may take; sparser numbers are merged

_SIDES: Final[tuple[Literal["left"], Literal["right"]]] = ("left", "right")

Integers = NDArray[np.int64]


def launches(run: Run) -> pd.DataFrame:
    """Launch call of each device op.

    A runtime call and the ops that it launched share a correlation within their rank; one call may launch many ops (a graph).

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.DataFrame
        One row per row of `run.device_ops`, same index: call (row label in `run.host_ops`), call_start_us, call_end_us,
        process, thread and step (the host step that the call starts in); NA where no call was recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...                                       0    1       1      runtime  cudaLaunchKernel 5        2           17''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank kind    name start_us duration_us correlation
    ...                                       0    compute gemm 9        6           17
    ...                                       0    compute relu 15       2           99''',
    ... )
    >>> launches(Run(host_ops=calls, device_ops=ops))[["call", "call_start_us", "call_end_us"]]
       call  call_start_us  call_end_us
    0     0            5.0          7.0
    1  <NA>            NaN          NaN
    """
    host = run.host_ops
    position = launch_positions(run)
    start = _taken(host["start_us"], position)
    return pd.DataFrame(
        {
            "call": _labels(host.index, position),
            "call_start_us": start,
            "call_end_us": start + _taken(host["duration_us"], position),
            "process": host["process"].array.take(position, allow_fill=True),
            "thread": host["thread"].array.take(position, allow_fill=True),
            "step": step_at(run.steps, run.device_ops["rank"].to_numpy(), start),
        },
        index=run.device_ops.index,
    )


def launching_operators(run: Run) -> pd.Series:
    """Operator that launched each device op: the innermost one around its launch call, on the same process and thread.

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.Series
        One value per row of `run.device_ops`, same index: row label in `run.host_ops`; NA where no call was recorded or no
        operator encloses it.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...                                       0    1       1      operator aten::linear     0        9           -
    ...                                       0    1       1      operator aten::addmm      1        8           -
    ...                                       0    1       1      runtime  cudaLaunchKernel 5        2           17''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank kind    name start_us duration_us correlation
    ...                                       0    compute gemm 9        6           17''',
    ... )
    >>> int(launching_operators(Run(host_ops=host, device_ops=ops)).loc[0])
    1
    """
    return pd.Series(_labels(run.host_ops.index, operator_positions(run)), index=run.device_ops.index, name="operator")


def launch_positions(run: Run) -> Integers:
    """Position in `run.host_ops` of the launch call of each device op; `NOT_LAUNCHED` where none was recorded.

    Of several calls with one correlation the first counts.
    """
    host, ops = run.host_ops, run.device_ops
    calls = np.flatnonzero((host["category"].eq("runtime") & host["correlation"].notna()).to_numpy(dtype=bool))
    found = np.full(len(ops), NOT_LAUNCHED, dtype=np.int64)
    wanted = np.flatnonzero(ops["correlation"].notna().to_numpy())
    if not len(calls) or not len(wanted):
        return found
    ids = host["correlation"].to_numpy(dtype=np.int64, na_value=0)[calls]
    sought = ops["correlation"].to_numpy(dtype=np.int64, na_value=0)[wanted]
    ranks, sought_ranks = host["rank"].to_numpy()[calls], ops["rank"].to_numpy()[wanted]
    low, lowest_rank = int(ids.min()), int(ranks.min())
    span = int(ids.max()) - low + 1
    if span * (int(ranks.max()) - lowest_rank + 1) < _DENSEST * len(calls):
        slots = np.full(span * (int(ranks.max()) - lowest_rank + 1), NOT_LAUNCHED, dtype=np.int64)
        slots[((ranks - lowest_rank) * span + ids - low)[::-1]] = calls[::-1]  # the first of equal ones is written last
        known = (sought >= low) & (sought < low + span) & (sought_ranks >= lowest_rank) & (sought_ranks <= ranks.max())
        found[wanted[known]] = slots[(sought_ranks[known] - lowest_rank) * span + sought[known] - low]
        return found
    table = pd.DataFrame({"rank": ranks, "correlation": ids, "call": calls}).drop_duplicates(["rank", "correlation"])
    pairs = pd.DataFrame({"rank": sought_ranks, "correlation": sought})
    merged = pairs.merge(table, how="left", on=["rank", "correlation"])["call"]
    found[wanted] = merged.fillna(NOT_LAUNCHED).to_numpy(dtype=np.int64)
    return found


def operator_positions(run: Run, categories: tuple[str, ...] = ("operator",)) -> Integers:
    """Position in `run.host_ops` of the innermost row around the launch of each device op; `NOT_LAUNCHED` where there is none.

    Parameters
    ----------
    run
        A run with device ops.
    categories
        Categories of host ops that count.
    """
    host, position = run.host_ops, launch_positions(run)
    counts = host["category"].isin(categories).to_numpy(dtype=bool)
    wanted = counts.copy()
    wanted[position[position != NOT_LAUNCHED]] = True
    chosen = np.flatnonzero(wanted)
    found = innermost(enclosing(host.iloc[chosen]), counts[chosen])
    around = np.full(len(host) + 1, NOT_LAUNCHED, dtype=np.int64)  # the last slot stands for no launch
    around[chosen[found != ROOT]] = chosen[found[found != ROOT]]
    return around[position]


def enclosing(host: pd.DataFrame) -> Integers:
    """Position of the innermost row around each row of the same rank, process and thread; `perfnb.nesting.ROOT` if none.

    Times are compared in whole nanoseconds: as float64 the ends of two rows that end together differ in the last digit.

    Parameters
    ----------
    host
        Rows of `run.host_ops`.
    """
    process, thread = (host[name].astype("category").cat for name in ("process", "thread"))
    rank = pd.factorize(host["rank"])[0].astype(np.int64)
    widths = len(process.categories) + 1, len(thread.categories) + 1
    lane = (rank * widths[0] + process.codes.to_numpy() + 1) * widths[1] + thread.codes.to_numpy() + 1
    return parents(*whole_nanoseconds(host), lane)


def step_at(steps: pd.DataFrame, rank: Integers, time_us: NDArray[np.float64]) -> pd.Series:
    """Step of each rank's moment: the host step of that rank that it lies in; NA outside steps and where the time is NaN.

    Parameters
    ----------
    steps
        Table `steps` of a run.
    rank, time_us
        Of each moment.
    """
    number = np.zeros(len(rank), dtype=np.int64)
    inside = np.zeros(len(rank), dtype=bool)
    by_rank = np.argsort(rank, kind="stable")
    sorted_ranks = rank[by_rank]
    for own_rank, own in steps.groupby("rank"):
        low, high = (int(np.searchsorted(sorted_ranks, cast("int", own_rank), side=side)) for side in _SIDES)
        rows = by_rank[low:high]
        edges = own.sort_values("start_us")
        start = edges["start_us"].to_numpy()
        last = np.searchsorted(start, time_us[rows], side="right") - 1
        ends = start + edges["duration_us"].to_numpy()
        within = (last >= 0) & (time_us[rows] < ends[np.maximum(last, 0)])
        inside[rows[within]] = True
        number[rows[within]] = edges["step"].to_numpy()[last[within]]
    return pd.Series(pd.arrays.IntegerArray(number, ~inside), name="step")


def _taken(values: pd.Series, position: Integers) -> NDArray[np.float64]:
    """Value at each position; NaN where there is none."""
    if not len(values):
        return np.full(len(position), np.nan)
    return np.where(position == NOT_LAUNCHED, np.nan, values.to_numpy(dtype=np.float64)[position])


def _labels(index: pd.Index, position: Integers) -> pd.arrays.IntegerArray:
    """Row label at each position; NA where there is none."""
    absent = position == NOT_LAUNCHED
    labels = index.to_numpy(dtype=np.int64)[np.where(absent, 0, position)] if len(index) else np.zeros(len(position), np.int64)
    return pd.arrays.IntegerArray(labels, absent)
