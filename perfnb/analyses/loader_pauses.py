"""Single long waits for data: at the start of epochs, and for samples that are far slower than the others."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

FEWEST_STARTS: Final = 3
"""Starts of epochs from which on they are a pattern (a prior)."""

COPYING_PARTS: Final = ("forward.cpu", "backward.cpu", "optimizer.cpu")
"""Ledger parts in which a process writes to memory that forked workers share."""

FIRST_STEPS_SHARE: Final = 0.50
"""Share of all waiting that lies in the first steps of epochs, from which on the start is the trouble (a prior)."""

FEWEST_OUTLIERS: Final = 3
SLOWER_THAN_MEDIAN: Final = 8.0
SLOWEST_ORDINARY_US: Final = 20_000.0
LARGEST_OUTLIER_SHARE: Final = 0.25
OUTLIERS_SHARE_OF_WAIT: Final = 0.50
"""What makes fetches outliers: these four were fitted on 40 recorded CPU runs with rare items of 250 ms (detectors.md, 3)."""

LARGEST_READ_BYTES_PER_S: Final = 1e6
"""Reads from storage from which on slow fetches are reads: recorded runs without faults of the disk read less."""


def epoch_starts(steps: pd.DataFrame) -> pd.DataFrame:
    """Steps in which an epoch other than that of the step before begins: rank, step; empty where epochs were not recorded.

    Examples
    --------
    >>> steps = pd.DataFrame({"rank": 0, "step": [1, 2, 3, 4], "start_us": [0.0, 1.0, 2.0, 3.0], "epoch": [0, 0, 1, 1]})
    >>> epoch_starts(steps)["step"].to_list()
    [3]
    """
    ordered = steps[steps["epoch"].notna()].sort_values(["rank", "start_us"])
    before = ordered.groupby("rank")["epoch"].shift()
    is_start = before.notna() & ordered["epoch"].ne(before)
    return ordered.loc[is_start.fillna(value=False).astype(bool), ["rank", "step"]]


def restart_excess(stall: pd.DataFrame, steps: pd.DataFrame) -> pd.Series:
    """What first steps of epochs wait longer than the median step of their rank, row by row of `stall`.

    It is 0 where that is no pattern. A pattern are at least three starts that hold more than half of all waiting.

    Parameters
    ----------
    stall
        rank, step and stall_us of the used steps.
    steps
        All steps, with their epochs.
    """
    starts = pd.MultiIndex.from_frame(epoch_starts(steps))
    is_first = pd.Series(pd.MultiIndex.from_frame(stall[["rank", "step"]]).isin(starts), index=stall.index)
    waited = stall["stall_us"]
    median = waited.groupby(stall["rank"]).transform("median")
    by_rank = stall["rank"]
    number = is_first.groupby(by_rank).transform("sum")
    held = waited.where(is_first, 0.0).groupby(by_rank).transform("sum")
    is_pattern = (number >= FEWEST_STARTS) & (held > FIRST_STEPS_SHARE * waited.groupby(by_rank).transform("sum"))
    return (waited - median).clip(lower=0.0).where(is_first & is_pattern, 0.0)


def copying_excess(ledger: pd.DataFrame, restarts: pd.DataFrame) -> pd.Series:
    """What the first step of an epoch computes longer than the median step after workers were forked: memory is copied.

    A page that a fork left to both processes is copied when either writes to it (fork(2): copy-on-write), so the training
    thread's first pass through weights, gradients and optimizer after each start of workers is slow.

    Parameters
    ----------
    ledger
        Parts of the used steps.
    restarts
        rank, step, and lost_us of what `restart_excess` found: steps where that is 0 count nothing.
    """
    own = ledger[ledger["part"].isin(COPYING_PARTS)].groupby(["rank", "step"])["time_us"].sum()
    rows = restarts[["rank", "step"]].assign(
        own_us=own.reindex(pd.MultiIndex.from_frame(restarts[["rank", "step"]]), fill_value=0.0).to_numpy()
    )
    median = rows["own_us"].groupby(rows["rank"]).transform("median")
    return (rows["own_us"] - median).clip(lower=0.0).where(restarts["lost_us"] > 0, 0.0)


def outlier_excess(rows: pd.DataFrame, steps: pd.DataFrame, read_bytes_per_s: pd.Series) -> pd.Series:
    """What few fetches wait longer than the median one of their rank, row by row of `rows`; 0 where there is no such pattern.

    Outliers are blocked longer than eight times the median and 20 ms. They are a pattern where there are at least three, at
    most a quarter of all fetches, with more than half of all blocked time, and the rank reads less than 1 MB/s from storage.
    First steps of epochs are left out: there loading starts anew.

    Parameters
    ----------
    rows
        rank, step and blocked_us of the used steps.
    steps
        All steps, with their epochs.
    read_bytes_per_s
        Mean rate of each rank's reads from storage, by rank.
    """
    starts = pd.MultiIndex.from_frame(epoch_starts(steps))
    is_first = pd.MultiIndex.from_frame(rows[["rank", "step"]]).isin(starts)
    blocked = rows["blocked_us"].where(~is_first)
    by_rank = rows["rank"]
    median = blocked.groupby(by_rank).transform("median")
    is_outlier = blocked > np.maximum(SLOWER_THAN_MEDIAN * median, SLOWEST_ORDINARY_US)
    number = is_outlier.groupby(by_rank).transform("sum")
    held = blocked.where(is_outlier, 0.0).groupby(by_rank).transform("sum")
    is_pattern = (
        (number >= FEWEST_OUTLIERS)
        & (number <= LARGEST_OUTLIER_SHARE * blocked.groupby(by_rank).transform("count"))
        & (held > OUTLIERS_SHARE_OF_WAIT * blocked.groupby(by_rank).transform("sum"))
        & by_rank.map(read_bytes_per_s).lt(LARGEST_READ_BYTES_PER_S)
    )
    return (blocked - median).where(is_outlier & is_pattern, 0.0)
