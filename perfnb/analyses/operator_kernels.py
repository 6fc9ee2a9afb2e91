"""Device time by the operator, or the annotation, that launched it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.launches import NOT_LAUNCHED, enclosing, launch_positions, operator_positions
from perfnb.nesting import ROOT, innermost
from perfnb.run import Run

OPERATOR_COLUMNS = (
    "rank",
    "operator",
    "calls",
    "kernels",
    "kernel_us",
    "mean_us",
    "share",
    "median_delay_us",
    "longest_delay_us",
)
ANNOTATION_COLUMNS = (
    "rank",
    "annotation",
    "ranges",
    "kernels",
    "kernel_us",
    "share",
    "own_kernels",
    "own_kernel_us",
    "own_share",
)
_MOST_NEGATIVE_SHARE = 0.01  # of launch delays; past it the clocks of host and device disagree: see `launch_statistics`


def operator_kernels(run: Run) -> pd.DataFrame:
    r"""Kernels, copies and memsets of each operator, with the time from launch to start.

    An op counts for the innermost operator around its launch call.

    Parameters
    ----------
    run
        A run with host and device ops.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, operator), most device time first within a rank: operator (its name; NA for ops whose launch was not
        recorded or lies in no operator), calls (of it that launched something), kernels (device ops), kernel_us (sum of their
        durations), mean_us, share (of the rank's device time), median_delay_us and longest_delay_us (start of the op minus
        start of the launch call; NaN where over 1 % of a rank's delays are negative: the clocks disagree).

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
    >>> operator_kernels(Run(host_ops=host, device_ops=ops))[["operator", "calls", "kernels", "kernel_us", "median_delay_us"]]
       operator  calls  kernels  kernel_us  median_delay_us
    0  aten::mm      1        1        6.0              4.0
    """
    ops, host = run.device_ops, run.host_ops
    if ops.empty:
        return pd.DataFrame(columns=list(OPERATOR_COLUMNS))
    position, call = operator_positions(run), launch_positions(run)
    delay = _at(host["start_us"], call)
    delay = ops["start_us"].to_numpy() - delay
    rank = ops["rank"].to_numpy()
    measured = pd.DataFrame(
        {"rank": rank, "operator": _names(host, position), "call": position, "us": ops["duration_us"].to_numpy()}
    )
    negative = pd.Series(np.where(np.isnan(delay), np.nan, delay < 0)).groupby(rank).transform("mean").to_numpy()
    measured = measured.assign(delay_us=np.where(negative > _MOST_NEGATIVE_SHARE, np.nan, delay))
    grouped = measured.groupby(["rank", "operator"], observed=True, dropna=False)
    table = grouped.agg(
        calls=("call", "nunique"),
        kernels=("us", "size"),
        kernel_us=("us", "sum"),
        mean_us=("us", "mean"),
        median_delay_us=("delay_us", "median"),
        longest_delay_us=("delay_us", "max"),
    ).reset_index()
    table = table.assign(
        calls=table["calls"].where(table["operator"].notna(), 0),
        share=table["kernel_us"] / table.groupby("rank")["kernel_us"].transform("sum"),
    )
    ordered = table.sort_values(["rank", "kernel_us"], ascending=[True, False], kind="stable", ignore_index=True)
    return ordered[list(OPERATOR_COLUMNS)]


def annotation_device_time(run: Run) -> pd.DataFrame:
    """Device time launched inside each user annotation (`record_function`, steps, optimizer ranges).

    By the launches, so it needs no annotations on the device and counts what runs after the range has ended on the host.

    Parameters
    ----------
    run
        A run with host and device ops.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, annotation), most device time first within a rank: ranges (how often the annotation occurs), kernels,
        kernel_us and share (of the rank's device time) of all device ops launched inside, nested annotations included, and
        own_kernels, own_kernel_us, own_share of those for which it is the innermost annotation. The row with annotation NA holds
        what no annotation encloses. Inclusive times of nested annotations overlap; own times sum to the device time.
    """
    ops, host = run.device_ops, run.host_ops
    if ops.empty:
        return pd.DataFrame(columns=list(ANNOTATION_COLUMNS))
    pairs, own = _enclosing_annotations(run)
    us, rank = ops["duration_us"].to_numpy(), ops["rank"].to_numpy()
    inside = pd.DataFrame({"rank": rank[pairs["op"]], "annotation": _names(host, pairs["annotation"]), "us": us[pairs["op"]]})
    # an annotation inside one of its own name counts an op once
    inside = inside.assign(op=pairs["op"]).drop_duplicates(["op", "annotation"])
    innermost_of = pd.DataFrame({"rank": rank, "annotation": _names(host, own), "us": us})
    keys = ["rank", "annotation"]
    table = inside.groupby(keys, observed=True)["us"].agg(kernels="size", kernel_us="sum").reset_index()
    alone = (
        innermost_of.groupby(keys, observed=True, dropna=False)["us"].agg(own_kernels="size", own_kernel_us="sum").reset_index()
    )
    is_range = host["category"].eq("annotation").to_numpy(dtype=bool)
    ranges = host[is_range].groupby(["rank", "name"], observed=True).size().rename("ranges").reset_index()
    table = table.astype({"annotation": "object"}).merge(alone.astype({"annotation": "object"}), how="outer", on=keys)
    table = table.merge(ranges.rename(columns={"name": "annotation"}).astype({"annotation": "object"}), how="left", on=keys)
    outside = table["annotation"].isna()
    counts = table[["kernels", "kernel_us", "own_kernels", "own_kernel_us", "ranges"]].fillna(0)
    table = table.assign(**counts)
    table = table.assign(
        kernels=table["kernels"].mask(outside, table["own_kernels"]).astype("int64"),
        kernel_us=table["kernel_us"].mask(outside, table["own_kernel_us"]),
        own_kernels=table["own_kernels"].astype("int64"),
        ranges=table["ranges"].astype("int64"),
    )
    whole = table.groupby("rank")["own_kernel_us"].transform("sum")
    table = table.assign(share=table["kernel_us"] / whole, own_share=table["own_kernel_us"] / whole)
    ordered = table.sort_values(["rank", "kernel_us"], ascending=[True, False], kind="stable", ignore_index=True)
    return ordered[list(ANNOTATION_COLUMNS)]


def _enclosing_annotations(run: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:  # type: ignore[type-arg]
    """Pairs of device op and annotation around its launch (positions), and the innermost annotation of each op."""
    host, call = run.host_ops, launch_positions(run)
    is_range = host["category"].eq("annotation").to_numpy(dtype=bool)
    chosen = np.union1d(np.flatnonzero(is_range), np.unique(call[call != NOT_LAUNCHED]))
    above = innermost(enclosing(host.iloc[chosen]), is_range[chosen])
    up = np.full(len(host) + 1, NOT_LAUNCHED, dtype=np.int64)  # the last slot stands for no launch
    up[chosen[above != ROOT]] = chosen[above[above != ROOT]]
    own = up[call]
    op, level = np.arange(len(call)), own
    ops, ranges = [], []
    while (level != NOT_LAUNCHED).any():
        op, level = op[level != NOT_LAUNCHED], level[level != NOT_LAUNCHED]
        ops.append(op)
        ranges.append(level)
        level = up[level]
    nothing = np.empty(0, dtype=np.int64)
    return {"op": np.concatenate([nothing, *ops]), "annotation": np.concatenate([nothing, *ranges])}, own


def _names(host: pd.DataFrame, position: np.ndarray) -> pd.Categorical:  # type: ignore[type-arg]
    """Name of the host op at each position; NA where there is none."""
    names = host["name"].astype("category")
    codes = np.append(names.cat.codes.to_numpy(), -1)
    return pd.Categorical.from_codes(codes[position], categories=names.cat.categories)


def _at(values: pd.Series, position: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.append(values.to_numpy(dtype=np.float64), np.nan)[position]
