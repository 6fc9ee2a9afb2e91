"""How much of a step's time does not depend on its batch, from steps of several batch sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

FEWEST_OF_A_SIZE: Final = 3
"""Steps that a batch size needs to count: the last batch of one epoch alone is no second size."""

LARGEST_ERROR: Final = 0.10
"""Mean deviation of steps from the line, as a share of the mean step, up to which the line is believed: a prior."""


@dataclass(frozen=True, slots=True)
class BatchFit:
    """Line through the times of steps by their batch size: time = alpha_us + beta_us x size.

    Attributes
    ----------
    alpha_us, beta_us
        Time per step whatever its batch, and per sample.
    fixed_share
        alpha_us over the median time at the size that most steps have, from 0 to 1.
    error
        Mean deviation of the steps from the line over their mean time.
    """

    alpha_us: float
    beta_us: float
    fixed_share: float
    error: float


def batch_fit(sizes: pd.Series, times_us: pd.Series) -> BatchFit | None:
    """Line through step times by batch size, by least squares; None with less than two sizes of three steps each.

    Parameters
    ----------
    sizes, times_us
        Of each step.

    Examples
    --------
    >>> fit = batch_fit(pd.Series([8.0] * 3 + [16.0] * 3), pd.Series([30.0] * 3 + [40.0] * 3))
    >>> fit.alpha_us, fit.beta_us, fit.error
    (20.0, 1.25, 0.0)
    """
    known = sizes.notna() & times_us.notna()
    counts = sizes[known].value_counts()
    often = counts.index[counts >= FEWEST_OF_A_SIZE]
    chosen = known & sizes.isin(often)
    if len(often) < 2:  # noqa: PLR2004 - a line needs two points
        return None
    x, y = sizes[chosen].to_numpy(dtype=np.float64), times_us[chosen].to_numpy(dtype=np.float64)
    design = np.column_stack([np.ones_like(x), x])
    alpha, beta = (float(round(value, 9)) for value in np.linalg.lstsq(design, y, rcond=None)[0])
    usual = float(np.median(y[x == float(counts.index[0])]))
    error = float(np.abs(y - alpha - beta * x).mean() / y.mean())
    return BatchFit(alpha, beta, min(max(alpha / usual, 0.0), 1.0), round(error, 9))
