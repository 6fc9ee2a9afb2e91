"""Which host call launched which device op, and which step that call belongs to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.run import Run


def launches(run: Run) -> pd.DataFrame:
    """Launch call of each device op.

    A runtime call and the ops that it launched share a correlation within their rank; one call may launch many ops (a graph).

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.DataFrame
        One row per row of `run.device_ops`, same index: call_start_us, call_end_us, process, thread, call (row of
        `run.host_ops`) and step (the host step that the call starts in); NA where no call was recorded.
    """
    host = run.host_ops
    calls = host[host["category"].eq("runtime") & host["correlation"].notna()]
    calls = calls.assign(call=calls.index, call_end_us=calls["start_us"] + calls["duration_us"])
    calls = calls.rename(columns={"start_us": "call_start_us"}).drop_duplicates(["rank", "correlation"])
    wanted = ["rank", "correlation", "call", "call_start_us", "call_end_us", "process", "thread"]
    joined = run.device_ops[["rank", "correlation"]].merge(calls[wanted], how="left", on=["rank", "correlation"])
    joined.index = run.device_ops.index
    return joined.drop(columns=["rank", "correlation"]).assign(step=_step_of(run, joined))


def _step_of(run: Run, joined: pd.DataFrame) -> pd.Series:
    step = pd.Series(pd.NA, index=joined.index, dtype="Int64")
    for rank, own in run.steps.groupby("rank"):
        rows = np.flatnonzero((run.device_ops["rank"] == rank).to_numpy())
        start = joined["call_start_us"].to_numpy()[rows]
        edges = own.sort_values("start_us")
        index = np.searchsorted(edges["start_us"].to_numpy(), start, side="right") - 1
        ends = (edges["start_us"] + edges["duration_us"]).to_numpy()
        inside = (index >= 0) & (start < ends[np.maximum(index, 0)]) & ~np.isnan(start)
        step.iloc[rows[inside]] = edges["step"].to_numpy()[index[inside]]
    return step
