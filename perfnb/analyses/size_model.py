"""How the time of a collective grows with its size: a fixed time per call and a bandwidth, fitted to the calls of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

FEWEST_SIZES: Final = 3
"""Sizes that a line with a constant is fitted to: two always lie on one (detectors.md, section 4)."""

SMALLEST_SPAN: Final = 2.0
"""Largest over smallest size: where they lie closer, a constant is extrapolated by more than their whole range (a prior)."""

LARGEST_ERROR: Final = 0.5
"""Median distance of a size's time from the line, as a share of it, up to which the line says something (a prior)."""


@dataclass(frozen=True, slots=True)
class SizeModel:
    """Time of a call: alpha_us + bytes / bytes_per_us, in bytes as bus bandwidth counts them.

    Attributes
    ----------
    alpha_us
        Time of a call of no size.
    bytes_per_us
        Bus bandwidth without it; infinite where time does not grow with size.
    error_share
        Median distance of a size's time from the line, as a share of it.
    sizes
        Number of sizes that it rests on.
    """

    alpha_us: float
    bytes_per_us: float
    error_share: float
    sizes: int

    @property
    def small_bytes(self) -> float:
        """Size below which the fixed time is more than half of a call."""
        return self.alpha_us * self.bytes_per_us if self.alpha_us > 0 else 0.0

    def fixed_share(self, bus_bytes: Floats) -> Floats:
        """Share of a call of each size that is its fixed time."""
        return self.alpha_us / (self.alpha_us + bus_bytes / self.bytes_per_us)


def size_model(bus_bytes: Floats, time_us: Floats) -> SizeModel | str:
    """Model of the calls of one kind, or why there is none.

    Least squares of the relative error over the median time of each size: times of a collective spread in proportion. Neither
    constant nor slope is below zero.

    Parameters
    ----------
    bus_bytes
        Size of each call times the factor of its bus bandwidth.
    time_us
        Its transfer: the shortest time over the ranks.

    Examples
    --------
    >>> found = size_model(np.array([100.0, 200.0, 400.0]), np.array([20.0, 30.0, 50.0]))
    >>> round(found.alpha_us), round(found.bytes_per_us), round(found.small_bytes)
    (10, 10, 100)
    >>> size_model(np.array([100.0, 200.0]), np.array([20.0, 30.0]))
    'calls of 2 sizes, 3 are needed to tell the fixed time of a call from its bandwidth'
    """
    known = (bus_bytes > 0) & (time_us > 0)
    medians = pd.Series(time_us[known]).groupby(bus_bytes[known]).median()
    size, time = medians.index.to_numpy(dtype=np.float64), medians.to_numpy(dtype=np.float64)
    if len(size) < FEWEST_SIZES:
        some = "1 size" if len(size) == 1 else f"{len(size) or 'no'} sizes"
        return f"calls of {some}, {FEWEST_SIZES} are needed to tell the fixed time of a call from its bandwidth"
    if size[-1] < SMALLEST_SPAN * size[0]:
        return f"sizes of calls differ by {size[-1] / size[0] - 1:.0%} only: a fixed time cannot be told from the bandwidth"
    alpha, slope = _fitted(size, time)
    error = float(np.median(np.abs(alpha + slope * size - time) / time))
    if error > LARGEST_ERROR:
        return f"times of calls do not follow their size (they are {error:.0%} off a line): a quieter run is needed"
    return SizeModel(alpha, 1.0 / slope if slope > 0 else float("inf"), error, len(size))


def _fitted(size: Floats, time: Floats) -> tuple[float, float]:
    """Constant and slope of the line with the least squared relative error, neither below zero."""
    parts = np.stack([1.0 / time, size / time], axis=1)
    (alpha, slope), *_ = np.linalg.lstsq(parts, np.ones(len(size)), rcond=None)
    if alpha < 0:
        alpha, slope = 0.0, float(parts[:, 1].sum() / (parts[:, 1] ** 2).sum())
    elif slope < 0:
        alpha, slope = float(parts[:, 0].sum() / (parts[:, 0] ** 2).sum()), 0.0
    return float(alpha), float(slope)
