"""Small curves as examples of training detectors: numbers in, no text to parse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from perfnb.detector import DetectorExample
from perfnb.run import Run
from perfnb.tables import conform


def curve_example(
    title: str,
    losses: ArrayLike,
    *,
    fires: bool | None,
    config: Mapping[str, Any] | None = None,
    steps: Sequence[int] | None = None,
    ranks: int = 1,
    **columns: ArrayLike,
) -> DetectorExample:
    """Example of a curve, and whether the detector must fire on it; None where it cannot look.

    Parameters
    ----------
    title
        What the example shows.
    losses
        One per step, the same on all ranks; NaN is a loss that is not a number.
    fires
        What the detector must say.
    config
        Of the training.
    steps
        Number of each step; 0, 1, 2, ... by default.
    ranks
        How many there are.
    **columns
        Further columns of the table `training`, one value per step, or one for all.
    """

    @cache
    def make_run() -> Run:
        return curve_run(losses, config=config, steps=steps, ranks=ranks, **columns)

    return DetectorExample(title, make_run, math.nan, fires=fires)


def curve_run(
    losses: ArrayLike,
    *,
    config: Mapping[str, Any] | None = None,
    steps: Sequence[int] | None = None,
    ranks: int = 1,
    **columns: ArrayLike,
) -> Run:
    """Run that holds nothing but a curve; see `curve_example`."""
    loss = np.asarray(losses, dtype=np.float64)
    one = pd.DataFrame({"step": np.arange(len(loss)) if steps is None else steps, "loss": loss})
    one = one.assign(finite=np.isfinite(loss), **columns)  # type: ignore[arg-type]
    table = pd.concat([one.assign(rank=rank) for rank in range(ranks)], ignore_index=True)
    return Run(training=conform("training", table), config=dict(config or {}), signals=frozenset({"training"}))


def decay(count: int, *, start: float = 2.0, end: float = 0.5, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Losses of a healthy run: an exponential from start towards end, with normal noise as a share of the loss."""
    smooth = end + (start - end) * np.exp(-5.0 * np.arange(count) / count)
    made: np.ndarray = smooth * (1.0 + noise * np.random.default_rng(seed).standard_normal(count))
    return made
