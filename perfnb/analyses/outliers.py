"""Steps far longer than the others, without those that come at regular places: every k-th step, at an epoch's edge."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MEDIANS_FROM: Final = 1.5
DEVIATIONS_FROM: Final = 8.0  # median absolute deviations: no normal noise of 1,000 steps gets there (5.4 standard deviations)

_LEAST_REGULAR: Final = 3  # times that make a period
_REGULAR_SHARE: Final = 0.8  # of the places of a period that are outliers, and of the outliers that lie there

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def far_above(values: Floats) -> Flags:
    """Values above the median by more than 8 median absolute deviations, and above 1.5 times the median.

    Examples
    --------
    >>> far_above(np.array([9.0, 10.0, 10.0, 11.0, 15.0, 19.0])).tolist()
    [False, False, False, False, False, True]
    """
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return (values > median + DEVIATIONS_FROM * deviation) & (values > MEDIANS_FROM * median)


def irregular(steps: Ints, is_far: Flags, places: tuple[Flags, ...] = ()) -> Flags:
    """Outliers that do not come at regular places.

    Parameters
    ----------
    steps
        Numbers of the steps, rising.
    is_far
        Which of them are outliers.
    places
        Places at which something happens anyway, such as the first steps of epochs: where most of them are outliers, those
        are regular.

    Returns
    -------
    numpy.ndarray
        Outliers left. A period is taken where at least 80 % of its places in the run are outliers, three at least, and hold
        80 % of all outliers.

    Examples
    --------
    >>> steps = np.arange(40)
    >>> irregular(steps, np.isin(steps, [5, 15, 25, 35])).any(), irregular(steps, np.isin(steps, [5, 11, 25, 38])).sum()
    (np.False_, np.int64(4))
    """
    left = is_far.copy()
    for place in places:
        if place.any() and is_far[place].mean() >= _REGULAR_SHARE:
            left &= ~place
    at = steps[left]
    for first in range(min(len(at), _LEAST_REGULAR)):  # one of the first three is of the period, where nearly all are
        for later in at[first + 1 : first + 1 + _LEAST_REGULAR]:
            on_period = (steps - at[first]) % max(int(later - at[first]), 1) == 0
            hits = int((left & on_period).sum())
            if (
                hits >= max(_LEAST_REGULAR, _REGULAR_SHARE * len(at), _REGULAR_SHARE * int(on_period.sum()))
                and later > at[first] + 1
            ):
                left &= ~on_period
                return left
    return left
