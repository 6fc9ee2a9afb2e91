"""Achieved rate of operators against what a device can do at their arithmetic intensity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from perfnb.errors import PerfnbError

_KEYS: Final = ["rank", "name", "family", "input_shapes", "dtype", "clock"]
_MICROSECONDS_PER_SECOND: Final = 1e6


def flop_summary(flops: pd.DataFrame) -> pd.DataFrame:
    """Counted operators of the same name, shapes and type together, the most time first.

    Parameters
    ----------
    flops
        `operator_flops(run)`, or rows of it.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, name, family, input_shapes, dtype, clock): calls, timed_calls (those whose time is known), flops and
        bytes (of the timed calls; NA where not known), time_us, achieved_flops_per_s, achieved_bytes_per_s, flops_per_byte and
        reason (of the first call that lacks a value).
    """
    timed = flops["time_us"].gt(0)
    rows = flops.assign(
        flops=flops["flops"].where(timed, 0),
        bytes=flops["bytes"].where(timed, 0),
        timed=timed.astype("int64"),
        first=flops["reason"],
    )
    grouped = rows.groupby(_KEYS, dropna=False, observed=True, sort=False)
    found = grouped.agg(
        calls=("timed", "size"), timed_calls=("timed", "sum"), time_us=("time_us", "sum"), reason=("first", "first")
    )
    for name in ("flops", "bytes"):
        found[name] = grouped[name].sum(min_count=1).where(grouped[name].count() == grouped[name].size())
    known = found["timed_calls"] > 0
    found = found.assign(flops=found["flops"].where(known), bytes=found["bytes"].where(known))
    seconds = found["time_us"].where(known) / _MICROSECONDS_PER_SECOND
    found = found.assign(
        time_us=found["time_us"].where(known),
        achieved_flops_per_s=found["flops"].astype("Float64").astype("float64") / seconds,
        achieved_bytes_per_s=found["bytes"].astype("Float64").astype("float64") / seconds,
        flops_per_byte=(found["flops"] / found["bytes"].where(found["bytes"] > 0)).astype("float64"),
    ).reset_index()
    columns = [*_KEYS, "calls", "timed_calls", "flops", "bytes", "time_us"]
    columns += ["achieved_flops_per_s", "achieved_bytes_per_s", "flops_per_byte", "reason"]
    return found[columns].sort_values("time_us", ascending=False, kind="stable", ignore_index=True)


def roofline(flops: pd.DataFrame, peak_flops_per_s: float | Mapping[str, float], peak_bytes_per_s: float) -> pd.DataFrame:
    """How near each kind of operator comes to the roof of its device.

    The roof at an arithmetic intensity is the lesser of the peak rate and intensity times memory bandwidth (Williams, Waterman
    and Patterson, Roofline, Communications of the ACM 52(4), 2009). perfnb knows no device's peaks: give those of the data
    sheet for the type in use, or better, measured ones.

    Parameters
    ----------
    flops
        `operator_flops(run)`, or rows of it.
    peak_flops_per_s
        Peak rate of the device: one number, or one per dtype ("bfloat16", "float32", ...).
    peak_bytes_per_s
        Peak memory bandwidth of the device.

    Returns
    -------
    pandas.DataFrame
        `flop_summary(flops)` with peak_flops_per_s (of the row's dtype), peak_bytes_per_s, attainable_flops_per_s (the roof),
        bound ("compute" or "memory") and attained_share (achieved over attainable); NA where FLOP, bytes, time or the peak of
        the dtype are not known.

    Raises
    ------
    PerfnbError
        If a peak is not positive.

    Examples
    --------
    >>> from perfnb.analyses.operator_flops import FLOP_COLUMNS
    >>> row = [0, 1, 5, "aten::mm", "matmul", "[[8,16],[16,4]]", "float32", 1024, 896, 2.0, "device", 5.12e8, 1024 / 896, None]
    >>> roofline(pd.DataFrame([row], columns=list(FLOP_COLUMNS)), 1e12, 8.96e8)[["bound", "attained_share"]].to_numpy().tolist()
    [['memory', 0.5]]
    """
    peaks = peak_flops_per_s if isinstance(peak_flops_per_s, Mapping) else {"every dtype": peak_flops_per_s}
    wrong = [f"{peak!r} FLOP/s for {name}" for name, peak in peaks.items() if not peak > 0]
    wrong += [] if peak_bytes_per_s > 0 else [f"{peak_bytes_per_s!r} bytes/s"]
    if wrong:
        message = f"a peak must be positive, not {', '.join(wrong)}: take it from the device's data sheet or measure it"
        raise PerfnbError(message)
    found = flop_summary(flops)
    if isinstance(peak_flops_per_s, Mapping):
        peak = found["dtype"].map(dict(peak_flops_per_s)).astype("float64")
    else:
        peak = pd.Series(float(peak_flops_per_s), index=found.index)
    slope = found["flops_per_byte"] * peak_bytes_per_s
    roof = pd.Series(np.minimum(slope, peak), index=found.index)
    bound = pd.Series(np.where(slope < peak, "memory", "compute"), index=found.index, dtype="string").where(roof.notna())
    return found.assign(
        peak_flops_per_s=peak,
        peak_bytes_per_s=float(peak_bytes_per_s),
        attainable_flops_per_s=roof,
        bound=bound,
        attained_share=found["achieved_flops_per_s"] / roof,
    )
