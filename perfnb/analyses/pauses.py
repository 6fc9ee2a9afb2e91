"""Pauses of the training thread, laid over steps and over the parts of each step that they can lie in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from perfnb.intervals import covered, union


def pauses_in_parts(pauses: pd.DataFrame, steps: pd.DataFrame, ledger: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    r"""Time of pauses in each step, less their share of its waiting for a core, by the part that it is taken from.

    Where in its step a phase lay is not recorded: the parts are filled in the order given, each up to its own time.

    Parameters
    ----------
    pauses
        rank, start_us, duration_us; those of a rank may overlap.
    steps
        The run's.
    ledger
        Parts of the used steps on the host's clock.
    parts
        Parts in which a pause can lie, the likeliest first.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step, part) that loses time: lost_us, and pause_us, the whole of the step's pauses.

    Examples
    --------
    >>> pauses = pd.DataFrame({"rank": [0], "start_us": [80.0], "duration_us": [40.0]})
    >>> steps = pd.DataFrame({"rank": [0], "step": [1], "start_us": [0.0], "duration_us": [100.0]})
    >>> ledger = pd.DataFrame({"rank": 0, "step": 1, "part": ["forward.cpu", "other.cpu"], "time_us": [95.0, 5.0]})
    >>> pauses_in_parts(pauses, steps, ledger, ["other.cpu", "forward.cpu"])[["part", "lost_us"]].to_numpy().tolist()
    [['other.cpu', 5.0], ['forward.cpu', 15.0]]
    """
    used = steps.merge(ledger[["rank", "step"]].drop_duplicates(), on=["rank", "step"])
    held = pd.concat([_held(own, pauses[pauses["rank"].eq(rank)]) for rank, own in used.groupby("rank")])
    table = ledger.pivot_table(index=["rank", "step"], columns="part", values="time_us", aggfunc="sum", fill_value=0.0)
    table = table.reindex(pd.MultiIndex.from_frame(held[["rank", "step"]]), fill_value=0.0)
    waited = table.loc[:, table.columns.str.endswith(".runqueue")].sum(axis=1).to_numpy()
    running = table.loc[:, table.columns.str.endswith(".cpu")].sum(axis=1).to_numpy()
    ready = waited + running
    left = held["pause_us"].to_numpy() * np.divide(running, ready, out=np.ones_like(ready), where=ready > 0)
    rows = []
    for part in parts:
        if part in table:
            taken = np.minimum(left, table[part].to_numpy())
            left = left - taken
            rows.append(held.assign(part=part, lost_us=taken)[taken > 0])
    return pd.concat(rows, ignore_index=True) if rows else held.iloc[:0].assign(part="", lost_us=0.0)


def _held(steps: pd.DataFrame, pauses: pd.DataFrame) -> pd.DataFrame:
    start, low = pauses["start_us"].to_numpy(dtype="float64"), steps["start_us"].to_numpy(dtype="float64")
    spans = union(start, start + pauses["duration_us"].to_numpy(dtype="float64"))
    return steps[["rank", "step"]].assign(pause_us=covered(spans, low, low + steps["duration_us"].to_numpy(dtype="float64")))
