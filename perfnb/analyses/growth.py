"""Growth of a series of steps all along: its beginning, how far it rises, and whether the host became busier meanwhile."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.contention_free import contention_free, run_queue_time
from perfnb.analyses.sampled_steps import rate_in_steps
from perfnb.analyses.trend import spearman, trend

FEWEST_STEPS: Final = 300
"""Recorded: in 3 of 10 controls CPU per step grew 15 to 39 % within 150 steps, as neighbours came."""

_LEAST_RISE: Final = 0.20  # of the beginning; a prior, above which those controls lay only in fewer steps
_LEAST_Z: Final = 4.0  # Mann-Kendall, corrected for neighbours that are alike; as the leak test has it
_LARGEST_PRESSURE: Final = 0.5  # rank correlation with how busy the host is; a prior
_LEAST_BUSIER: Final = 0.1  # from the first quarter to the last: a mean over 10 s creeps along in any quiet run; a prior
_BUSY: Final = ("pressure_cpu_share", "cpu_share")  # tasks wait for a core; cores at work: neighbours take caches before cores
_WINDOWS: Final = 20  # means over so many stretches are held against the host's: its samples come once a second
_QUARTERS: Final = 4

Floats = NDArray[np.float64]


def growth(
    steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame | None, host_samples: pd.DataFrame | None
) -> pd.DataFrame:
    """How much each step has over the beginning, of ranks whose contention-free steps grow all along.

    That is at least 20 % over at least 300 steps, in each quarter over the one before, more than chance would have it, and not
    as the host became busier.

    Parameters
    ----------
    steps, phases, host_samples
        The run's.
    ledger
        Parts of the used steps.

    Returns
    -------
    pandas.DataFrame
        rank, step, grown_us, own_us, first_us, last_us (the trend at both ends); no rows of ranks that do not grow.
    """
    own = contention_free(steps, ledger, phases)
    waited = own.merge(run_queue_time(ledger, phases), on=["rank", "step"], how="left")["runqueue_us"].to_numpy(dtype="float64")
    known = own["own_us"].notna().to_numpy()
    found = []
    for rank in own["rank"].unique():
        is_mine = own["rank"].eq(rank).to_numpy() & known
        mine = own[is_mine]
        first, rise = _rise(mine["own_us"].to_numpy())
        if rise and not _is_of_the_host(mine, waited[is_mine], host_samples):
            grown = np.minimum(np.linspace(0.0, rise, len(mine)), mine["own_us"])
            found.append(mine.assign(grown_us=grown, first_us=first, last_us=first + rise))
    wanted = ["rank", "step", "grown_us", "own_us", "first_us", "last_us"]
    return pd.concat(found)[wanted] if found else pd.DataFrame(columns=wanted).astype({"rank": "int64", "step": "int64"})


def _rise(own: Floats) -> tuple[float, float]:
    """Trend at the beginning, and by how much it rises to the end; no rise where the steps do not grow."""
    if len(own) < FEWEST_STEPS:
        return 0.0, 0.0
    found = trend(own)
    rise = found.slope * (len(own) - 1)
    first = float(np.median(own - found.slope * np.arange(len(own))))
    quarters = [float(np.median(each)) for each in np.array_split(own, _QUARTERS)]
    grows = found.z > _LEAST_Z and all(after > before for before, after in pairwise(quarters))
    return (first, rise) if grows and first > 0 and rise >= _LEAST_RISE * first else (0.0, 0.0)


def _is_of_the_host(own: pd.DataFrame, waited: Floats, samples: pd.DataFrame | None) -> bool:
    """Whether steps became longer as the host became busier: by its samples, or by the training's own waiting for a core."""
    signals = [] if samples is None else [rate_in_steps(own, samples, name) for name in _BUSY]
    return any(_explains(each, own["own_us"].to_numpy()) for each in (*signals, waited / own["duration_us"].to_numpy()))


def _explains(busy: Floats, own: Floats) -> bool:
    known = np.flatnonzero(~np.isnan(busy))
    if len(known) < _WINDOWS:
        return False
    windows = np.array_split(known, _WINDOWS)
    means = [float(busy[each].mean()) for each in windows]
    quarter = _WINDOWS // _QUARTERS
    became_busier = np.mean(means[-quarter:]) - np.mean(means[:quarter]) >= _LEAST_BUSIER
    return bool(became_busier and spearman(means, [float(np.median(own[each])) for each in windows]) >= _LARGEST_PRESSURE)
