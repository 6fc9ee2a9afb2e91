"""Circular block bootstrap: which rows make up each resample of a series whose neighbours are alike."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

INTERVAL: Final = (0.1, 0.9)
"""Quantiles of every 80 % interval."""


def block_length(count: int) -> int:
    """Length of the blocks for a series: round(n ** (1/3)), after Hall, Horowitz and Jing (Biometrika 82, 1995)."""
    return max(1, round(math.cbrt(count)))


def resamples(count: int, draws: int, *, block: int | None = None, seed: int = 0) -> NDArray[np.intp]:
    """Rows of each resample; the same arguments give the same rows.

    Parameters
    ----------
    count
        Length of the series.
    draws
        Number of resamples.
    block
        Length of the blocks; `block_length(count)` by default.
    seed
        Seed of the random generator.

    Returns
    -------
    numpy.ndarray
        Shape (draws, count): row numbers in [0, count), blocks of neighbours that wrap around at the end.

    Examples
    --------
    >>> resamples(4, 2, block=2).shape
    (2, 4)
    """
    size = min(block or block_length(count), count)
    blocks = -(-count // size)
    starts = np.random.default_rng(seed).integers(0, count, size=(draws, blocks))
    rows = (starts[:, :, np.newaxis] + np.arange(size)) % count
    return rows.reshape(draws, blocks * size)[:, :count]
