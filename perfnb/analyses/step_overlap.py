"""Events cut at the edges of steps: how much of each lies in which step of its rank."""

from __future__ import annotations

import numpy as np
import pandas as pd


def per_step(events: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    r"""Events once per step that they reach into, with the time that lies in it.

    Parameters
    ----------
    events
        Rows with rank, start_us and duration_us; further columns are kept.
    steps
        Table `steps` of a run.

    Returns
    -------
    pandas.DataFrame
        The rows of `events` with step and inside_us, one per (event, step); an event outside all steps has none.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 7 0 100\n0 8 100 100")
    >>> events = pd.DataFrame({"rank": [0], "start_us": [90.0], "duration_us": [40.0]})
    >>> per_step(events, steps)[["step", "inside_us"]].to_numpy().tolist()
    [[7.0, 10.0], [8.0, 30.0]]
    """
    kept = []
    for rank, own in steps.groupby("rank"):
        mine = events[events["rank"].eq(rank)]
        edges = own.sort_values("start_us")
        low = edges["start_us"].to_numpy(dtype=np.float64)
        high = low + edges["duration_us"].to_numpy(dtype=np.float64)
        start = mine["start_us"].to_numpy(dtype=np.float64)
        end = start + mine["duration_us"].to_numpy(dtype=np.float64)
        first = np.searchsorted(high, start, side="right")
        reached = np.maximum(np.searchsorted(low, end, side="left") - first, 0)
        row = np.repeat(np.arange(len(mine)), reached)
        place = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(reached) - reached, reached)
        inside = np.minimum(end[row], high[place]) - np.maximum(start[row], low[place])
        cut = mine.iloc[row]
        kept.append(cut.assign(step=edges["step"].to_numpy()[place], inside_us=np.maximum(inside, 0.0)))
    return pd.concat(kept) if kept else events.iloc[:0].assign(step=0, inside_us=0.0)
