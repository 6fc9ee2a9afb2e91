"""Values that hold from one moment to the next: running sums, their averages over time, and fewer points of the same shape."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

MOST_LINES: Final = 21
"""Lines that a chart can tell apart: 7 colours, 3 dashes."""

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


def running(time: ArrayLike, change: ArrayLike) -> tuple[Floats, Floats]:
    """Moments at which a sum changes, in order, and the sum from each moment on; changes of one moment count together.

    Parameters
    ----------
    time, change
        Of each change, in any order.

    Examples
    --------
    >>> running([4, 0, 4, 9], [-1, 1, 2, -2])
    (array([0., 4., 9.]), array([1., 2., 0.]))
    """
    moments, steps = np.asarray(time, dtype=np.float64), np.asarray(change, dtype=np.float64)
    order = np.argsort(moments, kind="stable")
    moments, total = moments[order], np.cumsum(steps[order])
    last = np.concatenate([moments[1:] != moments[:-1], np.ones(min(len(moments), 1), dtype=bool)])
    return moments[last], total[last]


def lasting(time: Floats, end: float) -> Floats:
    """How long each value holds: to the next moment, the last one to `end`.

    Examples
    --------
    >>> lasting(np.array([0.0, 4.0]), 9.0)
    array([4., 5.])
    """
    return np.diff(time, append=max(end, float(time[-1]))) if len(time) else np.empty(0)


def quantile_over_time(value: Floats, lasted: Floats, share: float) -> float:
    """Least value that is not exceeded for the given share of the time; NaN where no time passes.

    Examples
    --------
    >>> quantile_over_time(np.array([1.0, 5.0]), np.array([9.0, 1.0]), 0.5)
    1.0
    """
    order = np.argsort(value, kind="stable")
    reached = np.cumsum(lasted[order])
    if not len(reached) or reached[-1] <= 0:
        return float("nan")
    return float(value[order][np.searchsorted(reached, share * reached[-1])])


def thinned_rows(time: Floats, value: Floats, buckets: int) -> Rows:
    """Positions that draw the same shape in at most 4 points per bucket of time: first, least, largest and last of each.

    The largest and the least value of all are kept exactly, at their own moments.

    Parameters
    ----------
    time
        Of each point, in order.
    value
        Same length.
    buckets
        Number of equal parts of the time.

    Examples
    --------
    >>> thinned_rows(np.arange(6.0), np.array([0.0, 1, 9, 2, 3, 4]), 1)
    array([0, 2, 5])
    """
    if not len(time):
        return np.empty(0, dtype=np.intp)
    width = (time[-1] - time[0]) / buckets or 1.0
    bucket = np.minimum(((time - time[0]) / width).astype(np.int64), buckets - 1)
    ends = np.flatnonzero(np.diff(bucket, append=buckets))
    firsts = np.concatenate([[0], ends[:-1] + 1])
    by_value = np.lexsort((value, bucket))
    return np.unique(np.concatenate([firsts, by_value[firsts], by_value[ends], ends]))


def thinned(frame: pd.DataFrame, keys: list[str], value: str, most_rows: int) -> pd.DataFrame:
    """Rows of a table that draw the same lines, at most `most_rows` of them, of at most `MOST_LINES` lines.

    Parameters
    ----------
    frame
        One row per moment: time_us (in order within each line), the value, and the keys that tell lines apart.
    keys
        Columns that name a line.
    value
        Column that is drawn.
    most_rows
        Most rows to keep, shared equally by the lines.

    Returns
    -------
    pandas.DataFrame
        Rows of `frame` with a fresh index; of each line its largest and its least value are among them. Where there are more
        lines, those with the highest values stay, and `attrs["lines_left_out"]` says how many do not.
    """
    known = frame[frame[value].notna()]
    number = known.groupby(keys, dropna=False, sort=False, observed=True).ngroup()
    peaks = known[value].groupby(number).max().sort_values(ascending=False, kind="stable")
    known = known[number.isin(peaks.index[:MOST_LINES])]
    lines = known.groupby(keys, dropna=False, sort=False, observed=True)
    buckets = max(most_rows // (4 * max(lines.ngroups, 1)), 1)
    kept = [
        rows.iloc[thinned_rows(rows["time_us"].to_numpy(dtype=float), rows[value].to_numpy(dtype=float), buckets)]
        for _, rows in lines
    ]
    drawn = pd.concat(kept, ignore_index=True) if kept else known.reset_index(drop=True)
    drawn.attrs["lines_left_out"] = max(len(peaks) - MOST_LINES, 0)
    return drawn
