"""How often a CPU quota of the job's control group was used up."""

from __future__ import annotations

from typing import Final

import pandas as pd

FEWEST_THROTTLED: Final = 0.05
"""Share of the quota's periods from which on it holds a job back; a prior."""


def throttled_share(samples: pd.DataFrame) -> dict[int, float]:
    """Share of the quota's periods in which each rank's group used it up, from its first sample to its last.

    Parameters
    ----------
    samples
        `host_samples` of a run.

    Returns
    -------
    dict of int to float
        Rank to share; without the ranks whose group counts no periods.

    Examples
    --------
    >>> throttled_share(pd.DataFrame({"rank": 0, "time_us": [0, 9], "nr_periods": [5, 15], "nr_throttled": [1, 4]}))
    {0: 0.3}
    """
    found = {}
    for rank, own in samples[samples["nr_periods"].notna()].groupby("rank"):
        ordered = own.sort_values("time_us")
        periods, held = (float(ordered[name].iloc[-1] - ordered[name].iloc[0]) for name in ("nr_periods", "nr_throttled"))
        found[int(str(rank))] = held / periods if periods > 0 else 0.0
    return found
