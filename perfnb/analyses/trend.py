"""Trends of a series of steps: how fast it rises, whether that is more than chance, how wide it scatters round its line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_PAIRS: Final = 4_000
"""Pairs of which Theil-Sen's slope is the median: all of them up to 89 values, then a sample with a fixed seed."""

FEWEST: Final = 4
"""Values that a trend needs: Hamed and Rao's correction divides by n(n-1)(n-2), and three values have no scatter to speak of."""

_SIGNIFICANT: Final = 1.96  # standard errors of a correlation at lag k, 1/sqrt(n): 95 % (Hamed and Rao, J. Hydrology 204, 1998)
_RANGE: Final = (0.05, 0.95)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """Trend of a series.

    Attributes
    ----------
    slope
        Theil-Sen: median rise per unit of position.
    z
        Mann-Kendall, corrected for ties and for autocorrelation: above 4 is no chance even where neighbours are alike.
    plain_z
        The same, corrected for ties alone.
    rise
        Slope times the length of the series (the number of values where positions are not given).
    spread
        95th less 5th percentile of the series without its trend.
    """

    slope: float
    z: float
    plain_z: float
    rise: float
    spread: float


def trend(values: ArrayLike, at: ArrayLike | None = None, *, granule: float = 0.0) -> Trend:
    """Trend of a series in order of time.

    Parameters
    ----------
    values
        The series, finite numbers, at least `FEWEST`.
    at
        Positions that rise from value to value, such as the numbers of the steps; 0, 1, 2, ... by default.
    granule
        Smallest difference that counts: the series without its trend is rounded to it before its autocorrelation is taken.

    Raises
    ------
    ValueError
        If the series is too short or holds what is no finite number.

    Examples
    --------
    >>> found = trend([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> found.slope, found.rise, found.spread
    (1.0, 5.0, 0.0)
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < FEWEST or not np.isfinite(series).all():
        message = f"a trend needs at least {FEWEST} finite values, here are {int(np.isfinite(series).sum())} of {len(series)}"
        raise ValueError(message)
    positions = np.arange(len(series), dtype=np.float64) if at is None else np.asarray(at, dtype=np.float64)
    slope = theil_sen(series, positions)
    rest = series - slope * positions
    plain = _mann_kendall(series)
    low, high = np.quantile(rest, _RANGE)
    length = float(positions[-1] - positions[0]) * len(series) / (len(series) - 1)
    return Trend(
        slope=slope,
        z=plain / math.sqrt(_variance_factor(_rounded(rest, granule))),
        plain_z=plain,
        rise=slope * length,
        spread=float(high - low),
    )


def theil_sen(values: ArrayLike, at: ArrayLike | None = None, *, seed: int = 0) -> float:
    """Median slope over pairs of values: up to 29 % of them may be outliers.

    Examples
    --------
    >>> theil_sen([0.0, 2.0, 4.0, 900.0, 8.0])
    2.0
    """
    series = np.asarray(values, dtype=np.float64)
    positions = np.arange(len(series), dtype=np.float64) if at is None else np.asarray(at, dtype=np.float64)
    count = len(series)
    if count * (count - 1) // 2 <= LARGEST_PAIRS:
        first, second = np.triu_indices(count, 1)
    else:
        random = np.random.default_rng(seed)
        first = random.integers(0, count, LARGEST_PAIRS)
        second = (first + random.integers(1, count, LARGEST_PAIRS)) % count  # never the same one
    return float(np.median((series[second] - series[first]) / (positions[second] - positions[first])))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation of two series, ties at their average rank; NaN where one of them does not vary.

    Examples
    --------
    >>> spearman([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 20.0, 90.0]).__round__(4)
    0.9487
    """
    one, other = (average_ranks(each) for each in (first, second))
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else math.nan


def average_ranks(values: ArrayLike) -> Floats:
    """Rank of each value from 1 on; equal values share the mean of their ranks.

    Examples
    --------
    >>> average_ranks([5.0, 1.0, 5.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = last - (counts - 1) / 2.0
    return mean[place]


def _mann_kendall(series: Floats) -> float:
    """Z of Mann-Kendall with the correction for ties; 0 where all values are the same."""
    count = len(series)
    _, place, ties = np.unique(series, return_inverse=True, return_counts=True)
    score = _rising_less_falling(place)
    variance = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1.0) * (2.0 * ties + 5.0)).sum())) / 18.0
    return (score - math.copysign(1.0, score)) / math.sqrt(variance) if score and variance > 0 else 0.0


def _rising_less_falling(ranks: NDArray[np.intp]) -> int:
    """Pairs whose later value is larger less those whose later value is smaller.

    Counted as in a merge sort: at each of log2(n) levels for every value of a right block the smaller and the larger ones in
    the left block beside it.
    """
    count, stride = len(ranks), int(ranks.max()) + 1
    position = np.arange(count)
    score, size = 0, 1
    while size < count:
        pair, is_right = position // (2 * size), (position // size) % 2 == 1
        keys = pair * stride + ranks
        left = np.sort(keys[~is_right])
        right, own = keys[is_right], pair[is_right]
        below = np.searchsorted(left, right, side="left") - np.searchsorted(left, own * stride, side="left")
        above = np.searchsorted(left, (own + 1) * stride, side="left") - np.searchsorted(left, right, side="right")
        score += int(below.sum()) - int(above.sum())
        size *= 2
    return score


def _variance_factor(rest: Floats) -> float:
    """How much larger the variance of Mann-Kendall's score is because neighbours are alike (Hamed and Rao 1998), at least 1.

    Lags count up to the first whose correlation is not significant; lags past the memory of the series would only add noise.
    """
    count = len(rest)
    ranks = average_ranks(rest)
    ranks = ranks - ranks.mean()
    power = np.abs(np.fft.rfft(ranks, 2 * count)) ** 2
    products = np.fft.irfft(power, 2 * count)[:count]
    if products[0] <= 0:
        return 1.0
    correlation = products[1:] / products[0]
    alike = correlation >= _SIGNIFICANT / math.sqrt(count)
    lags = int(np.argmin(alike)) if not alike.all() else len(alike)
    lag = np.arange(1, lags + 1, dtype=np.float64)
    weights = (count - lag) * (count - lag - 1) * (count - lag - 2)
    added = 2.0 / (count * (count - 1) * (count - 2)) * float((weights * correlation[:lags]).sum())
    return max(1.0, 1.0 + added)


def _rounded(values: Floats, granule: float) -> Floats:
    return np.round(values / granule) * granule if granule > 0 else values
