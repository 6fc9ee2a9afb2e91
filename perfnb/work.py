"""Work of each rank: time of a step that it does not spend waiting for its peers, and the rank that the step waits for."""

from __future__ import annotations

from typing import Final

import pandas as pd

# Ledger parts in which a rank waits for others, or exchanges data with them.
_WITH_PEERS: Final = ("exposed_communication", "idle.dependency", "communication.")


def rank_work(ledger: pd.DataFrame) -> pd.DataFrame:
    """Work of each (rank, step), from the step ledger.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step): duration_us, with_peers_us, work_us (their difference) and is_critical: whether this rank
        has the most work of those recorded, so that the others wait for it. Devices of one rank are averaged.

    Examples
    --------
    >>> ledger = pd.DataFrame(
    ...     {
    ...         "rank": [0, 0, 1, 1],
    ...         "step": 1,
    ...         "clock": "host",
    ...         "device": pd.NA,
    ...         "part": ["forward.wall", "communication.wall"] * 2,
    ...         "time_us": [60.0, 40.0, 90.0, 10.0],
    ...     }
    ... )
    >>> rank_work(ledger)[["rank", "work_us", "is_critical"]].to_numpy().tolist()
    [[0, 60.0, False], [1, 90.0, True]]
    """
    waits = ledger["part"].str.startswith(_WITH_PEERS)
    per_device = ledger.assign(with_peers_us=ledger["time_us"].where(waits, 0.0)).groupby(
        ["rank", "step", "device"], dropna=False, as_index=False
    )[["time_us", "with_peers_us"]]
    per_rank = per_device.sum().groupby(["rank", "step"], as_index=False)[["time_us", "with_peers_us"]].mean()
    per_rank = per_rank.rename(columns={"time_us": "duration_us"})
    per_rank = per_rank.assign(work_us=per_rank["duration_us"] - per_rank["with_peers_us"])
    most = per_rank.groupby("step")["work_us"].transform("max")
    return per_rank.assign(is_critical=~_later_tie(per_rank, most))


def _later_tie(per_rank: pd.DataFrame, most: pd.Series) -> pd.Series:
    """Ranks that share the most work with a rank before them: one rank is critical, the first."""
    top = per_rank["work_us"].eq(most)
    return ~top | (top.groupby(per_rank["step"]).cumsum() > 1)
