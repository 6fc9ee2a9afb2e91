"""Statistics of a training's curve: block means, losses as logarithms, trends, outliers, and when to look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfnb.analyses.trend import theil_sen, trend

MOST_BLOCKS: Final = 200
"""Blocks into which a curve is averaged at most, about."""

FEWEST_FOR_TREND: Final = 8
"""Values that a Mann-Kendall test needs here: its score is nearly normal from 8 to 10 on (Kendall 1975)."""

LOOKS: Final = 20
"""Times that a test over the run is looked at; each look spends a share of the false alarms."""

ALARM_Z: Final = 3.3
"""A standard normal exceeds it in 0.05 % of looks: 20 of them come to an alpha of 0.01 (Bonferroni)."""

_SMALLEST_LOSS: Final = 1e-8
_BELOW_ZERO: Final = 1.01
_HIGHEST_AUTOCORRELATION: Final = 0.95
_FIRST_UNPLANNED_LOOK: Final = 200
_UNPLANNED_GROWTH: Final = 1.5
_NORMAL_MAD: Final = 1.4826  # median absolute deviation to standard deviation, of a normal distribution

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MannKendall:
    """Whether a series rises or falls, more than chance would have it.

    Attributes
    ----------
    z
        Score in standard deviations, corrected for ties and for neighbours that are alike; positive where the series rises.
    p_value
        Chance of so large a z at one look without any trend, one-sided towards a rise.
    autocorrelation
        Of neighbours in the series without its trend, clipped to [0, 0.95].
    """

    z: float
    p_value: float
    autocorrelation: float


def block_means(values: ArrayLike, *, at_most: int = MOST_BLOCKS) -> Floats:
    """Means of blocks of max(1, n // at_most) neighbours; an incomplete last block is dropped, a block with a NaN is NaN.

    Examples
    --------
    >>> block_means([1.0, 3.0, 5.0, 7.0, 100.0], at_most=2).tolist()
    [2.0, 6.0]
    """
    series = np.asarray(values, dtype=np.float64)
    size = block_size(len(series), at_most=at_most)
    whole = len(series) // size * size
    means: Floats = series[:whole].reshape(-1, size).mean(axis=1)
    return means


def block_size(count: int, *, at_most: int = MOST_BLOCKS) -> int:
    """Values in each block of a curve of so many."""
    return max(1, count // at_most)


def log_loss(values: ArrayLike) -> Floats:
    """Logarithm of losses, of the window given and never beyond it; losses that fall below zero are shifted up first.

    ln(max(b - 1.01 min(min b, 0), 1e-8)): factors of a loss become differences, whatever its scale.

    Examples
    --------
    >>> log_loss([1.0, math.e]).round(6).tolist(), log_loss([-1.0, 0.0]).round(4).tolist()
    ([0.0, 1.0], [-4.6052, 0.01])
    """
    series = np.asarray(values, dtype=np.float64)
    finite = series[np.isfinite(series)]
    lowest = min(float(finite.min()), 0.0) if len(finite) else 0.0
    logarithms: Floats = np.log(np.maximum(series - _BELOW_ZERO * lowest, _SMALLEST_LOSS))
    return logarithms


def robust_sigma(differences: ArrayLike) -> float:
    """Standard deviation that a few outliers do not move: 1.4826 times the median distance from the median.

    Examples
    --------
    >>> robust_sigma([1.0, 2.0, 3.0, 4.0, 900.0])
    1.4826
    """
    values = np.asarray(differences, dtype=np.float64)
    return _NORMAL_MAD * float(np.median(np.abs(values - np.median(values))))


def mann_kendall(values: ArrayLike) -> MannKendall | None:
    """Mann-Kendall test, its variance times (1 + r)/(1 - r); None of under 8 values, a constant, or one that is not finite.

    r is the correlation of neighbours in the series without its Theil-Sen line (Yue and Wang, Water Resour. Manage. 18, 2004,
    with an autoregressive series of order one).

    Examples
    --------
    >>> mann_kendall(range(10)).z.__round__(2), mann_kendall([1.0] * 10)
    (3.94, None)
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < FEWEST_FOR_TREND or not np.isfinite(series).all() or float(np.ptp(series)) == 0.0:
        return None
    found = trend(series)
    alike = min(max(neighbour_correlation(without_trend(series, found.slope)), 0.0), _HIGHEST_AUTOCORRELATION)
    z = found.plain_z * math.sqrt((1.0 - alike) / (1.0 + alike))
    return MannKendall(z=z, p_value=upper_tail(z), autocorrelation=alike)


def without_trend(series: Floats, slope: float | None = None) -> Floats:
    """A series less its Theil-Sen line; about zero."""
    slope = theil_sen(series) if slope is None else slope
    rest: Floats = series - slope * np.arange(len(series))
    return rest - float(np.median(rest))


def neighbour_correlation(series: Floats) -> float:
    """Correlation of each value with the next one, about the mean of all; 0 of a constant.

    Examples
    --------
    >>> neighbour_correlation(np.array([1.0, -1.0, 1.0, -1.0]))
    -0.75
    """
    rest = series - series.mean()
    squares = float((rest**2).sum())
    return float((rest[1:] * rest[:-1]).sum()) / squares if squares > 1e-24 * max(1.0, float((series**2).sum())) else 0.0


def theil_sen_range(values: ArrayLike, confidence: float = 0.9) -> tuple[float, float, float]:
    """Median slope of all pairs with its interval, widened where neighbours are alike.

    Sen (J. Am. Stat. Assoc. 63, 1968): the slopes of rank (N -+ z sd of Kendall's score)/2; both half-widths are multiplied by
    sqrt((1 + r)/(1 - r)).

    Returns
    -------
    slope, low, high
        Per position in the series.

    Examples
    --------
    >>> theil_sen_range([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    (1.0, 1.0, 1.0)
    """
    series = np.asarray(values, dtype=np.float64)
    count = len(series)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((series[second] - series[first]) / (second - first))
    slope = float(np.median(slopes))
    wide = NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    below = max(round((len(slopes) - wide) / 2.0), 0)
    above = min(round((len(slopes) + wide) / 2.0), len(slopes) - 1)
    alike = min(max(neighbour_correlation(without_trend(series, slope)), 0.0), _HIGHEST_AUTOCORRELATION)
    factor = math.sqrt((1.0 + alike) / (1.0 - alike))
    return slope, slope - factor * (slope - float(slopes[below])), slope + factor * (float(slopes[above]) - slope)


def wilson_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share from its counts (Wilson, J. Am. Stat. Assoc. 22, 1927).

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(60, 100)]
    [0.502, 0.691]
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1.0 + z * z / count)
    half = z / (1.0 + z * z / count) * math.sqrt(share * (1.0 - share) / count + z * z / (4.0 * count * count))
    return middle - half, middle + half


def smoothed(values: ArrayLike) -> Floats:
    """Running mean of three; the two ends as they are.

    Examples
    --------
    >>> smoothed([3.0, 0.0, 3.0, 6.0]).tolist()
    [3.0, 2.0, 3.0, 6.0]
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 3:  # noqa: PLR2004 - nothing has two neighbours
        return series
    return np.concatenate([series[:1], (series[:-2] + series[1:-1] + series[2:]) / 3.0, series[-1:]])


def looks(steps: ArrayLike, planned_steps: int | None) -> NDArray[np.intp]:
    """Points of a curve that had been recorded at each look: at k/20 of the planned steps, else at 200 x 1.5^k steps.

    Parameters
    ----------
    steps
        Number of the step of each point, rising.
    planned_steps
        Length of the whole run; None where it is not known.

    Returns
    -------
    numpy.ndarray
        Counts of points, rising; looks that see nothing new are left out.

    Examples
    --------
    >>> looks(range(100), 400).tolist(), looks(range(301), None).tolist()
    ([20, 40, 60, 80, 100], [200, 300])
    """
    numbers = np.asarray(steps, dtype=np.float64)
    if not len(numbers):
        return np.empty(0, dtype=np.intp)
    done = numbers - numbers[0] + 1.0
    if planned_steps is None:
        times = np.arange(max(1, int(math.log(max(done[-1] / _FIRST_UNPLANNED_LOOK, 1.0), _UNPLANNED_GROWTH)) + 1))
        ends = np.floor(_FIRST_UNPLANNED_LOOK * _UNPLANNED_GROWTH ** times.astype(np.float64))
    else:
        ends = np.arange(1, LOOKS + 1) * planned_steps / LOOKS
    reached = ends[ends <= done[-1]]
    counts = np.unique(np.searchsorted(done, reached, side="right"))
    return counts[counts > 0].astype(np.intp)


def upper_tail(z: float) -> float:
    """Chance that a standard normal variable exceeds z.

    Examples
    --------
    >>> round(upper_tail(1.96), 3)
    0.025
    """
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def over_looks(p_value: float, count: int = LOOKS) -> float:
    """Chance of so small a p-value at any of some looks (Bonferroni): never less than that of one.

    Examples
    --------
    >>> over_looks(0.0004), over_looks(0.2)
    (0.008, 1.0)
    """
    return min(1.0, p_value * count)
