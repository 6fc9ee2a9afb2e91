"""What each launch call costs: how long the call took, how long its device work took, and how late that work began."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.launches import NOT_LAUNCHED, launch_positions, operator_positions, step_at
from perfnb.run import Run

MOST_NEGATIVE_SHARE: Final = 0.01
"""Recorded traces have no work that starts before its launch call; where more than this share does, the clocks disagree."""

LAUNCH_COLUMNS: Final = (
    "rank",
    "step",
    "call",
    "call_name",
    "operator",
    "operator_name",
    "kind",
    "device_name",
    "start_us",
    "call_us",
    "device_ops",
    "device_us",
    "delay_us",
    "delay_reason",
    "is_short",
)

_MEASURES: Final = ("call_us", "device_us", "delay_us")


def launch_statistics(run: Run) -> pd.DataFrame:
    """Duration, device work and delay of each launch call.

    Parameters
    ----------
    run
        A run with device ops and the runtime calls that launched them.

    Returns
    -------
    pandas.DataFrame
        One row per call that launched device ops, a graph replay once, in time order within its rank: rank, step (the host
        step that it starts in), call and operator (row labels in `run.host_ops` of the call and of the innermost operator
        around it), call_name, operator_name, kind and device_name (of the op that starts first), start_us, call_us (duration
        of the call), device_ops (their number), device_us (sum of their durations), delay_us (first device start minus start
        of the call), delay_reason and is_short (the device work took less time than the call that launched it). Where over
        1 % of a rank's delays are negative, its delays are NA and delay_reason says so. Empty where no launch was recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...                                       0    1       1      operator aten::mm         0        9           -
    ...                                       0    1       1      runtime  cudaLaunchKernel 2        5           17''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank kind    name start_us duration_us correlation
    ...                                       0    compute gemm 9        3           17''',
    ... )
    >>> found = launch_statistics(Run(host_ops=host, device_ops=ops))
    >>> found[["operator_name", "call_us", "device_us", "delay_us", "is_short"]].to_numpy().tolist()
    [['aten::mm', 5.0, 3.0, 7.0, True]]
    """
    host, ops = run.host_ops, run.device_ops
    position = launch_positions(run)
    start = ops["start_us"].to_numpy()
    order = np.lexsort((start, position))
    order = order[position[order] != NOT_LAUNCHED]
    first = np.flatnonzero(np.diff(position[order], prepend=NOT_LAUNCHED))
    if not len(first):
        return pd.DataFrame(columns=list(LAUNCH_COLUMNS))
    heads = order[first]
    calls = position[heads]
    rank, call_start = host["rank"].to_numpy()[calls], host["start_us"].to_numpy()[calls]
    operator = operator_positions(run)[heads]
    call_us = host["duration_us"].to_numpy()[calls]
    device_us = np.add.reduceat(ops["duration_us"].to_numpy()[order], first)
    found = pd.DataFrame(
        {
            "rank": rank,
            "step": step_at(run.steps, rank, call_start).array,
            "call": host.index.to_numpy()[calls],
            "call_name": host["name"].array[calls],
            "operator": pd.Series(host.index.to_numpy()[operator], dtype="Int64").mask(operator == NOT_LAUNCHED),
            "operator_name": host["name"].array.take(operator, allow_fill=True),
            "kind": ops["kind"].array[heads],
            "device_name": ops["name"].array[heads],
            "start_us": call_start,
            "call_us": call_us,
            "device_ops": np.diff(first, append=len(order)),
            "device_us": device_us,
            "delay_us": start[heads] - call_start,
            "is_short": device_us < call_us,
        }
    )
    negative = found["delay_us"].lt(0).groupby(found["rank"]).transform("mean")
    distrusted = negative > MOST_NEGATIVE_SHARE
    reasons = pd.Series(pd.NA, index=found.index, dtype="string")
    for share in negative[distrusted].unique():
        reasons = reasons.mask(negative.eq(share), _reason(float(share)))
    found = found.assign(delay_us=found["delay_us"].mask(distrusted), delay_reason=reasons)
    return found.sort_values(["rank", "start_us"], kind="stable", ignore_index=True)[list(LAUNCH_COLUMNS)]


def launch_summary(statistics: pd.DataFrame) -> pd.DataFrame:
    """Launch calls by operator and by what they launched, the most device time first.

    Parameters
    ----------
    statistics
        `launch_statistics(run)`, or rows of it.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, operator_name, device_name): launches, device_ops, short_launches, call_us and device_us (sums),
        and median and max of call, device work and delay in microseconds (median_call_us, ..., max_delay_us). Delays are NA
        where they are in `statistics`.
    """
    grouped = statistics.assign(short=statistics["is_short"].astype("int64")).groupby(
        ["rank", "operator_name", "device_name"], dropna=False, observed=True, sort=False
    )
    statements = {f"{how}_{measure}": (measure, how) for measure in _MEASURES for how in ("median", "max")}
    found = grouped.agg(
        launches=("call", "size"),
        device_ops=("device_ops", "sum"),
        short_launches=("short", "sum"),
        call_us=("call_us", "sum"),
        device_us=("device_us", "sum"),
        **statements,
    )
    return found.reset_index().sort_values(["rank", "device_us"], ascending=[True, False], kind="stable", ignore_index=True)


def launch_histogram(statistics: pd.DataFrame) -> pd.DataFrame:
    """How many launch calls have which duration, device time and delay, in buckets that double.

    Parameters
    ----------
    statistics
        `launch_statistics(run)`, or rows of it.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, measure, bucket) that is not empty: measure ("call", "device", "delay"), low_us and high_us (the
        bucket is [low, high); everything under 1 us is in [0, 1), delays under 0 too), launches and share (of the rank's
        launches with that measure).
    """
    frames = []
    for measure in _MEASURES:
        known = statistics[statistics[measure].notna()]
        value = known[measure].to_numpy(dtype=float)
        exponent = np.where(value >= 1, np.floor(np.log2(np.maximum(value, 1))) + 1, 0).astype(np.int64)
        counts = known.groupby(["rank", pd.Series(exponent, index=known.index, name="exponent")]).size().rename("launches")
        bucket = counts.reset_index()
        frames.append(
            pd.DataFrame(
                {
                    "rank": bucket["rank"],
                    "measure": measure.removesuffix("_us"),
                    "low_us": np.where(bucket["exponent"] > 0, np.exp2(bucket["exponent"] - 1), 0.0),
                    "high_us": np.exp2(bucket["exponent"]),
                    "launches": bucket["launches"],
                    "share": bucket["launches"] / bucket.groupby("rank")["launches"].transform("sum"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _reason(share: float) -> str:
    return f"{share:.0%} of the device work starts before its launch call: the clocks of host and device disagree"
