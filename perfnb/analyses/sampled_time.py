"""Mean of a sampled value over windows of time, such as steps that are shorter than the time between two samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from perfnb.intervals import Floats


def mean_between(times_us: ArrayLike, values: ArrayLike, low_us: ArrayLike, high_us: ArrayLike) -> Floats:
    """Mean of a value over each window, from samples that each hold since the one before.

    The value is summed up over time and read off at both ends of each window, so that a window between two samples has the
    value of the later one, and one over several has their mean by the time that each takes.

    Parameters
    ----------
    times_us, values
        Samples in order of time. Before the first nothing is known, nor in what a NaN tells of.
    low_us, high_us
        Start and end of each window.

    Returns
    -------
    numpy.ndarray
        One value per window: the mean over the part of it of which samples tell; NaN where none does.

    Examples
    --------
    >>> mean_between([0, 100, 200], [float("nan"), 1.0, 0.5], [10, 150, 300], [20, 250, 400])
    array([1. , 0.5, nan])
    """
    time = np.asarray(times_us, dtype=np.float64)
    value = np.asarray(values, dtype=np.float64)
    low, high = np.asarray(low_us, dtype=np.float64), np.asarray(high_us, dtype=np.float64)
    if len(time) < 2:  # noqa: PLR2004 - a sample tells of the time since another
        return np.full(low.shape, np.nan)
    length = np.diff(time)
    is_told = ~np.isnan(value[1:])
    told = _until(time, np.where(is_told, length, 0.0))
    summed = _until(time, np.where(is_told, np.nan_to_num(value[1:]) * length, 0.0))
    known = np.interp(high, time, told) - np.interp(low, time, told)
    total = np.interp(high, time, summed) - np.interp(low, time, summed)
    means: Floats = np.divide(total, known, out=np.full(low.shape, np.nan), where=known > 0)
    return means


def _until(time: Floats, parts: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(parts)])[: len(time)]
