"""Medians and means with their 95 % intervals by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_DRAWS: Final = 4000
_PERCENTILES: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the 95 % interval round it."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def median_interval(values: Sequence[float] | npt.NDArray[Any]) -> Interval:
    """Median of independent values, resampled with replacement (percentile bootstrap, a fixed seed).

    Examples
    --------
    >>> median_interval([2.0, 2.0, 2.0])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    return _interval(values, np.median)


def _interval(values: Sequence[float] | npt.NDArray[Any], statistic: Callable[..., Any]) -> Interval:
    sample = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(sample), (_DRAWS, len(sample)))
    low, high = np.percentile(statistic(sample[drawn], axis=1), _PERCENTILES)
    return Interval(float(statistic(sample)), float(low), float(high))
