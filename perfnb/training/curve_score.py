"""Score of a curve's first tenth: eight features and a logistic fit that ranks curves by whether their rate is too low."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from perfnb.analyses.trend import theil_sen
from perfnb.training.statistics import Floats, log_loss, mann_kendall

FEATURES: Final = (
    "total",
    "slope_of_second_half",
    "mann_kendall_z",
    "log_early_ratio",
    "largest_rise",
    "sign_flip_share",
    "power_slope",
    "non_finite",
)
"""Features of a curve, in order: see `features`."""

BLOCKS: Final = 60
"""Blocks into which the first tenth is averaged: what the DeepOBS recordings hold of it."""

FEWEST: Final = 20
_CLIP: Final = 20.0
_FIRST_LOSSES: Final = 100


def features(blocks: ArrayLike, first: ArrayLike) -> Floats:
    """Features of the first tenth of a run, on x = log loss of block means.

    total: mean of the last tenth of x less the logarithm of the start; slope of the second half (Theil-Sen) times its length; z
    of Mann-Kendall over all; logarithm of the highest of the first 100 losses over the start; largest rise above the lowest so
    far; share of differences in the second half that change their sign; Theil-Sen slope against the logarithm of the block's
    number past the first fifth; whether a loss was not finite. The start is the mean of the first three losses.

    Parameters
    ----------
    blocks
        Block means; what follows the first that is not finite is left out.
    first
        Losses from the first step on, one by one; at most 100 are used.

    Returns
    -------
    numpy.ndarray
        One value per name of `FEATURES`, clipped to -20 to 20.
    """
    given = np.asarray(blocks, dtype=np.float64)
    early = np.asarray(first, dtype=np.float64)[:_FIRST_LOSSES]
    odd = ~np.isfinite(given)
    broken = bool(odd.any() or not np.isfinite(early).all())
    kept = given[: int(np.argmax(odd))] if odd.any() else given
    early = early[np.isfinite(early)]
    if len(kept) < FEWEST // 2 or len(early) < 3:  # noqa: PLR2004 - the start is the mean of three
        return np.array([0.0] * 7 + [float(broken)])
    start = float(early[:3].mean())
    joined = log_loss(np.concatenate([[start, float(early.max())], kept]))
    x = joined[2:]
    tenth, half = max(1, len(x) // 10), len(x) // 2
    second = x[half:]
    turns = np.sign(np.diff(second))
    found = mann_kendall(x)
    past = np.arange(len(x) // 5, len(x))
    made = (
        float(x[-tenth:].mean()) - joined[0],
        theil_sen(second) * len(second),
        found.z if found else 0.0,
        joined[1] - joined[0],
        float((x - np.minimum.accumulate(x)).max()),
        float((turns[1:] * turns[:-1] < 0).mean()) if len(turns) > 1 else 0.0,
        theil_sen(x[past], np.log(past + 1.0)),
        float(broken),
    )
    return np.clip(np.array(made, dtype=np.float64), -_CLIP, _CLIP)


def score(values: Floats, weights: Mapping[str, Any]) -> float:
    """Score of 0 to 1 that ranks curves; it is no probability.

    Parameters
    ----------
    values
        From `features`.
    weights
        mean, scale and weight per feature, and intercept.

    Examples
    --------
    >>> weights = {"mean": [0.0] * 8, "scale": [1.0] * 8, "weight": [0.0] * 8, "intercept": 0.0}
    >>> score(np.zeros(8), weights)
    0.5
    """
    scaled = (values - np.array(weights["mean"])) / np.array(weights["scale"])
    total = float(scaled @ np.array(weights["weight"])) + float(weights["intercept"])
    return 1.0 / (1.0 + math.exp(-min(max(total, -50.0), 50.0)))
