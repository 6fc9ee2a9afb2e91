"""Work of each rank: time of a step that it does not spend waiting for its peers, and the rank that the step waits for."""

from __future__ import annotations

from typing import Final

import pandas as pd

# Ledger parts in which a rank waits for others, or exchanges data with them.
_WITH_PEERS: Final = ("exposed_communication", "idle.dependency", "communication.")

# Ledger parts in which a step waits for its data; on the host's clock without the time that it waited for a core.
_INPUT: Final = ("idle.data", "data.cpu", "data.blocked", "data.wall")

# Blocked time is work where a rank blocks on its own affairs: a sleep, a read, a save. In forward, backward and optimizer it may
# block on its peers instead (buffers broadcast in forward, an exchange in backward that nobody saw), so there CPU time alone
# counts. That of an idle pool of threads is lost with it, on all ranks alike.
_BLOCKED_BY_ITSELF: Final = ("data.blocked", "transfer.blocked", "other.blocked")


def rank_work(ledger: pd.DataFrame) -> pd.DataFrame:
    """Work of each (rank, step), from the step ledger.

    Work is what a rank would do without peers and on a core of its own. On the device's clock that is the step without exposed
    communication and idle time on peers; on the host's CPU time, with the blocked time of data, transfer and other, but without
    run-queue time, which neighbours cause. Where a phase has only wall time, all of it counts.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step): duration_us, with_peers_us, work_us, input_us (the part of the work that waits for data) and
        is_critical: whether this rank has the most work of those recorded, so that the others wait for it. Devices of one rank
        are averaged.

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
    part = ledger["part"]
    with_peers, is_input = part.str.startswith(_WITH_PEERS), part.isin(_INPUT)
    is_blocked = part.str.endswith(".blocked") & ~part.isin(_BLOCKED_BY_ITSELF)
    is_work = ~(with_peers | is_blocked | part.str.endswith(".runqueue"))
    per_device = ledger.assign(
        with_peers_us=ledger["time_us"].where(with_peers, 0.0),
        work_us=ledger["time_us"].where(is_work, 0.0),
        input_us=ledger["time_us"].where(is_input, 0.0),
    ).groupby(["rank", "step", "device"], dropna=False, as_index=False)[["time_us", "with_peers_us", "work_us", "input_us"]]
    per_rank = (
        per_device.sum()
        .groupby(["rank", "step"], as_index=False)[["time_us", "with_peers_us", "work_us", "input_us"]]
        .mean()
        .rename(columns={"time_us": "duration_us"})
    )
    most = per_rank.groupby("step")["work_us"].transform("max")
    return per_rank.assign(is_critical=~_later_tie(per_rank, most))


def _later_tie(per_rank: pd.DataFrame, most: pd.Series) -> pd.Series:
    """Ranks that share the most work with a rank before them: one rank is critical, the first."""
    top = per_rank["work_us"].eq(most)
    return ~top | (top.groupby(per_rank["step"]).cumsum() > 1)
