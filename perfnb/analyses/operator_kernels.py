"""Device time by the operator that launched it, and how long a launch takes to reach the device."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.durations import Floats, Integers, grouped
from perfnb.analyses.kernel_sequences import sequence_numbers, spelled
from perfnb.analyses.launch_statistics import MOST_NEGATIVE_SHARE
from perfnb.errors import PerfnbError
from perfnb.launches import NOT_LAUNCHED, launch_positions, operator_positions
from perfnb.run import Run

OPERATOR_COLUMNS: Final = (
    "calls",
    "kernels",
    "kernel_us",
    "mean_us",
    "share",
    "median_launch_us",
    "median_delay_us",
    "longest_delay_us",
)
By = Literal["operator", "kernel", "sequence"]
_KEYS: Final = {"operator": ["operator"], "kernel": ["operator", "kernel"], "sequence": ["operator", "sequence"]}


def operator_kernels(run: Run, by: By = "operator") -> pd.DataFrame:
    r"""Kernels, copies and memsets of each operator, with the time to their launch and from there to their start.

    An op counts for the innermost operator around its launch call, on the same thread.

    Parameters
    ----------
    run
        A run with host and device ops.
    by
        "operator": one row per operator. "kernel": one row per operator and name of what it launched. "sequence": one row per
        operator and sequence of all that one call of it launched, in the order of the launches (names joined by " -> ").

    Returns
    -------
    pandas.DataFrame
        One row per (rank, operator), (rank, operator, kernel) or (rank, operator, sequence), most device time first within a
        rank: operator (its name; NA for ops whose launch was not recorded or lies in no operator), kernel or sequence (NA
        where the operator is), calls (of the operator that launched this; NA without operator), kernels (device ops), kernel_us
        (sum of their durations), mean_us (per op), share (kernel_us of all device time of the rank), median_launch_us (over the
        calls: start of the operator to start of the first of these launches; NaN without operator), median_delay_us and
        longest_delay_us (start of the launch call to start of the op; of a graph replay, which launches many ops, only to the
        first; NaN without launch, and where over 1 % of a rank's delays are negative: the clocks disagree).

    Raises
    ------
    PerfnbError
        If `by` is none of the three.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...        0    1       1      operator aten::mm         0        9           -
    ...        0    1       1      runtime  cudaLaunchKernel 5        2           17''',
    ... )
    >>> ops = table_from_text("device_ops", "rank kind name start_us duration_us correlation\n0 compute gemm 9 6 17")
    >>> found = operator_kernels(Run(host_ops=host, device_ops=ops))
    >>> found[["operator", "calls", "kernels", "kernel_us", "median_launch_us", "median_delay_us"]]
       operator  calls  kernels  kernel_us  median_launch_us  median_delay_us
    0  aten::mm      1        1        6.0               5.0              4.0
    """
    if by not in _KEYS:
        message = f"by={by!r} is not known: use 'operator', 'kernel' or 'sequence'"
        raise PerfnbError(message)
    host, ops = run.host_ops, run.device_ops
    operator, call = operator_positions(run), launch_positions(run)
    rank, duration = ops["rank"].to_numpy(), ops["duration_us"].to_numpy()
    keys = pd.DataFrame({"rank": rank, "operator": _names(host["name"], operator)})
    if by == "kernel":
        keys = keys.assign(kernel=ops["name"].array)
    if by == "sequence":
        keys = keys.assign(sequence=_sequences(run, operator, call))
    number, found = grouped(keys, ["rank", *_KEYS[by]])
    count = np.bincount(number, minlength=len(found))
    total = np.bincount(number, duration, minlength=len(found)).astype(np.float64)  # of nothing, bincount counts in integers
    whole = pd.Series(total).groupby(found["rank"]).transform("sum").to_numpy()
    launched = _first_launches(run, number, operator, call)
    groups = pd.RangeIndex(len(found))
    delays = pd.Series(_delays(run, call)).groupby(number).agg(["median", "max"]).reindex(groups)
    inside = found["operator"].notna()
    table = found.assign(
        operator=found["operator"].astype("string"),
        calls=launched.groupby(level=0).size().reindex(groups).astype("Int64").where(inside),
        kernels=count,
        kernel_us=total,
        mean_us=total / count,
        share=np.divide(total, whole, out=np.full(len(total), np.nan), where=whole > 0),
        median_launch_us=launched.groupby(level=0).median().reindex(groups),
        median_delay_us=delays["median"],
        longest_delay_us=delays["max"],
    )
    if by == "kernel":
        table = table.assign(kernel=found["kernel"].astype("string"))
    if by == "sequence":
        table = table.assign(sequence=_spelled(run, operator, call, found["sequence"]))
    ordered = table.sort_values(["rank", "kernel_us"], ascending=[True, False], kind="stable", ignore_index=True)
    return ordered[["rank", *_KEYS[by], *OPERATOR_COLUMNS]]


def largest_operators(operators: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The operators with the most device time over all ranks, and the others as one row: what a chart can hold.

    Parameters
    ----------
    operators
        `operator_kernels(run)`, or rows of it, as those of one rank.
    count
        How many operators to keep apart.

    Returns
    -------
    pandas.DataFrame
        One row per operator, most device time first: operator ("no operator" for what none launched), operators (names in the
        row), kernels, kernel_us and share (of the sum over all rows). The last row, "the rest", holds what is left.

    Examples
    --------
    >>> table = {"rank": 0, "operator": ["a", "b", pd.NA], "kernels": 1, "kernel_us": [5.0, 2.0, 3.0]}
    >>> largest_operators(pd.DataFrame(table), 2)[["operator", "share"]].to_numpy().tolist()
    [['a', 0.5], ['no operator', 0.3], ['the rest', 0.2]]
    """
    named = operators.assign(operator=operators["operator"].astype("string").fillna("no operator"), operators=1)
    found = named.groupby("operator", sort=False).agg(
        operators=("operators", "max"), kernels=("kernels", "sum"), kernel_us=("kernel_us", "sum")
    )
    found = found.reset_index().sort_values("kernel_us", ascending=False, kind="stable", ignore_index=True)
    rest = found.iloc[count:]
    if len(rest):
        last = pd.DataFrame([{"operator": "the rest", **rest[["operators", "kernels", "kernel_us"]].sum()}])
        found = pd.concat([found.iloc[:count], last.astype(found.dtypes.to_dict())], ignore_index=True)
    return found.assign(share=found["kernel_us"] / (float(found["kernel_us"].sum()) or float("nan")))


def _first_launches(run: Run, number: Integers, operator: Integers, call: Integers) -> pd.Series:
    """Of each operator call in each group: from its start to its first launch there, in microseconds; the index is the group."""
    start = run.host_ops["start_us"].to_numpy()
    known = np.flatnonzero(operator != NOT_LAUNCHED)
    number, operator, launch = number[known], operator[known], start[call[known]]
    order = np.lexsort((launch, operator, number))
    number, operator, launch = number[order], operator[order], launch[order]
    heads = np.flatnonzero((np.diff(number, prepend=-1) != 0) | (np.diff(operator, prepend=NOT_LAUNCHED) != 0))
    return pd.Series(launch[heads] - start[operator[heads]], index=number[heads])


def _delays(run: Run, call: Integers) -> Floats:
    """Start of the launch call to start of each op that is the first of its call; NaN for others, and of ranks to distrust."""
    start = run.device_ops["start_us"].to_numpy()
    order = np.lexsort((start, call))
    heads = order[np.diff(call[order], prepend=NOT_LAUNCHED) != 0]
    delay = np.full(len(call), np.nan)
    delay[heads] = start[heads] - run.host_ops["start_us"].to_numpy()[call[heads]]
    rank = run.device_ops["rank"].to_numpy()
    negative = pd.Series(delay[heads] < 0).groupby(rank[heads]).mean()
    distrusted = negative.index[negative > MOST_NEGATIVE_SHARE].to_numpy()
    return np.where(np.isin(rank, distrusted), np.nan, delay)


def _runs(run: Run, operator: Integers, call: Integers) -> tuple[Integers, Integers, Integers]:
    """Device ops that operators launched, in the order of operators and launches; first place and length of each operator's."""
    order = np.lexsort((run.device_ops["start_us"].to_numpy(), _at(run.host_ops["start_us"], call), operator))
    order = order[operator[order] != NOT_LAUNCHED]
    first = np.flatnonzero(np.diff(operator[order], prepend=NOT_LAUNCHED) != 0)
    return order, first, np.diff(first, append=len(order))


def _sequences(run: Run, operator: Integers, call: Integers) -> Integers:
    """For each device op, where the first sequence equal to its own begins in `_runs`; `NOT_LAUNCHED` outside operators."""
    order, first, length = _runs(run, operator, call)
    code = run.device_ops["name"].cat.codes.to_numpy().astype(np.int64)[order]
    earliest = np.unique(sequence_numbers(code, first, length), return_index=True, return_inverse=True)[1:]
    found = np.full(len(operator), NOT_LAUNCHED, dtype=np.int64)
    found[order] = np.repeat(first[earliest[0]][earliest[1]], length)
    return found


def _spelled(run: Run, operator: Integers, call: Integers, sequence: pd.Series) -> pd.Series:
    """Names of each sequence that `_sequences` numbered."""
    order, first, length = _runs(run, operator, call)
    wanted = sequence.to_numpy()
    place = np.searchsorted(first, wanted[wanted != NOT_LAUNCHED])
    texts = spelled(run.device_ops["name"].iloc[order], first[place], length[place])
    found = pd.Series(pd.NA, index=sequence.index, dtype="string")
    return found.mask(sequence != NOT_LAUNCHED, pd.Series(texts, index=sequence.index[wanted != NOT_LAUNCHED], dtype="string"))


def _names(names: pd.Series, position: Integers) -> pd.Categorical:
    """Name at each position; NA where there is none."""
    return cast("pd.Categorical", names.array.take(position, allow_fill=True))


def _at(values: pd.Series, position: Integers) -> NDArray[np.float64]:
    return np.append(values.to_numpy(dtype=np.float64), np.nan)[position]
