"""What samples of the host say of each step: rates and counters between samples, laid over the steps between them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rate_in_steps(steps: pd.DataFrame, samples: pd.DataFrame, column: str) -> Floats:
    """Mean of a rate over each step.

    A sample's rate holds over the time since the sample before it. A step shorter than that gets the rate round it: samples
    taken once a second cannot tell its steps apart.

    Parameters
    ----------
    steps
        rank, start_us and duration_us.
    samples
        rank, time_us and the column: a rate or a share over the time since the row before; rows without it do not count.
    column
        Its name.

    Returns
    -------
    numpy.ndarray
        One value per step, NaN where no sample lies on both sides of its middle. A column's first value counts from the
        first sample of its rank.

    Examples
    --------
    >>> steps = pd.DataFrame({"rank": 0, "start_us": [0.0, 5.0, 8.0], "duration_us": [5.0, 5.0, 9.0]})
    >>> samples = pd.DataFrame({"rank": 0, "time_us": [0.0, 10.0, 20.0], "rate": [np.nan, 1.0, 3.0]})
    >>> rate_in_steps(steps, samples, "rate").round(3).tolist()
    [1.0, 1.0, 2.556]
    """
    return _in_steps(steps, samples, column, is_rate=True)


def growth_in_steps(steps: pd.DataFrame, samples: pd.DataFrame, column: str) -> Floats:
    """How much a counter grew in each step, evenly spread over the time between two samples; NaN where it is not known.

    Examples
    --------
    >>> steps = pd.DataFrame({"rank": 0, "start_us": [0.0, 5.0], "duration_us": [5.0, 10.0]})
    >>> samples = pd.DataFrame({"rank": 0, "time_us": [0.0, 10.0, 20.0], "counter": [100.0, 100.0, 140.0]})
    >>> growth_in_steps(steps, samples, "counter").tolist()
    [0.0, 20.0]
    """
    return _in_steps(steps, samples, column, is_rate=False)


def _in_steps(steps: pd.DataFrame, samples: pd.DataFrame, column: str, *, is_rate: bool) -> Floats:
    found = np.full(len(steps), np.nan)
    ranks = steps["rank"].to_numpy()
    start, length = steps["start_us"].to_numpy(dtype="float64"), steps["duration_us"].to_numpy(dtype="float64")
    for rank in np.unique(ranks):
        own = samples[samples["rank"].eq(rank)].sort_values("time_us")
        if own.empty:
            continue
        known = own[own[column].notna()]
        times, values = known["time_us"].to_numpy(dtype="float64"), known[column].to_numpy(dtype="float64")
        if is_rate:
            began = float(own["time_us"].iloc[0])
            times, values = np.append(began, times), np.append(0.0, values)
            values = np.append(0.0, np.cumsum(values[1:] * np.diff(times)))
        if len(times) < 2:  # noqa: PLR2004 - an interval has two ends
            continue
        mine = ranks == rank
        low, high = np.maximum(start[mine], times[0]), np.minimum(start[mine] + length[mine], times[-1])
        seen = high - low
        grown = np.interp(high, times, values) - np.interp(low, times, values)
        # of a step that reaches past the samples, what they tell of at least half of it stands for the whole
        ratio = np.divide(grown, seen, out=np.full(len(seen), np.nan), where=(seen > 0) & (seen >= length[mine] / 2))
        found[mine] = ratio if is_rate else ratio * length[mine]
    return found
