"""Statistics of durations by group, on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STATISTICS: Final = ("count", "total_us", "mean_us", "median_us", "p95_us", "min_us", "max_us", "standard_deviation_us")


def grouped(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[Integers, pd.DataFrame]:
    """Number of the group of each row, from 0 on, and the keys of each group; NA is a key like any other.

    Examples
    --------
    >>> number, groups = grouped(pd.DataFrame({"name": ["b", "a", "b"]}), ["name"])
    >>> number, groups["name"].to_list()
    (array([0, 1, 0]), ['b', 'a'])
    """
    columns = frame[list(keys)].reset_index(drop=True)
    number = np.asarray(columns.groupby(list(keys), observed=True, dropna=False, sort=False).ngroup(), dtype=np.int64)
    first = np.unique(number, return_index=True)[1]
    return number, columns.iloc[first].reset_index(drop=True)


def duration_statistics(group: Integers, duration_us: Floats) -> pd.DataFrame:
    """Count, sum, mean, median, 95th percentile, extremes and standard deviation of the durations of each group.

    Percentiles lie on the line between neighbours, as numpy's; the standard deviation is that of a sample (n - 1), NaN of one
    duration.

    Parameters
    ----------
    group
        Number of the group of each duration; every number from 0 to the largest is there.
    duration_us
        The durations.

    Returns
    -------
    pandas.DataFrame
        One row per group, in order of its number, with `STATISTICS`.

    Examples
    --------
    >>> duration_statistics(np.array([0, 0, 0]), np.array([1.0, 2.0, 6.0]))[["count", "mean_us", "median_us", "p95_us"]]
       count  mean_us  median_us  p95_us
    0      3      3.0        2.0     5.6
    """
    if not len(group):
        return pd.DataFrame({name: pd.Series(dtype="int64" if name == "count" else "float64") for name in STATISTICS})
    order = np.lexsort((duration_us, group))
    values = duration_us[order]
    count = np.bincount(group)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    total = np.add.reduceat(values, first)
    mean = total / count
    squares = np.add.reduceat((values - np.repeat(mean, count)) ** 2, first)
    deviation = np.full(len(count), np.nan)
    np.divide(squares, count - 1, out=deviation, where=count > 1)
    return pd.DataFrame(
        {
            "count": count,
            "total_us": total,
            "mean_us": mean,
            "median_us": _quantile(values, first, count, 0.5),
            "p95_us": _quantile(values, first, count, 0.95),
            "min_us": values[first],
            "max_us": values[first + count - 1],
            "standard_deviation_us": np.sqrt(deviation),
        }
    )


def _quantile(values: Floats, first: Integers, count: Integers, share: float) -> Floats:
    """Quantile of each run of sorted values."""
    place = (count - 1) * share
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, count - 1)
    below, above = values[first + low], values[first + high]
    between: Floats = below + (above - below) * (place - low)
    return between
