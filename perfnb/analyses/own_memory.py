"""Resident memory of the training process, sample by sample, set to the steps that the samples fall in."""

from __future__ import annotations

import numpy as np
import pandas as pd


def own_memory_by_step(samples: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    r"""Samples of the process's own memory with the step that each falls in.

    Parameters
    ----------
    samples
        Rows of `host_samples` that tell own_memory_bytes.
    steps
        The run's.

    Returns
    -------
    pandas.DataFrame
        One row per sample inside the steps, as `perfnb.analyses.leak_test.growing_memories` takes them: rank, device (NA),
        step, at (its position in steps), memory_bytes, capacity_bytes (the median memory limit of its rank) and epoch.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> samples = table_from_text("host_samples", "rank time_us own_memory_bytes memory_limit_bytes\n0 150 7 100\n0 999 8 100")
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 100\n0 2 100 100")
    >>> own_memory_by_step(samples, steps)[["step", "at", "memory_bytes"]].to_numpy().tolist()
    [[2.0, 2.5, 7.0]]
    """
    frames = []
    limits = samples.groupby("rank")["memory_limit_bytes"].median().astype("Float64").astype("float64")
    for rank, own in samples.groupby("rank"):
        order = steps[steps["rank"].eq(rank)].sort_values("start_us")
        if order.empty:
            continue
        start, number = order["start_us"].to_numpy(), order["step"].to_numpy()
        end = start[-1] + order["duration_us"].to_numpy()[-1]
        inside = own[own["time_us"].between(start[0], end)].sort_values("time_us")
        time = inside["time_us"].to_numpy()
        place = np.searchsorted(start, time, side="right") - 1
        frames.append(
            pd.DataFrame(
                {
                    "rank": rank,
                    "device": pd.NA,
                    "step": number[place],
                    "at": np.interp(time, np.append(start, end), np.append(number, number[-1] + 1)),
                    "memory_bytes": inside["own_memory_bytes"].to_numpy(dtype=np.float64),
                    "capacity_bytes": limits[rank],
                    "epoch": order["epoch"].to_numpy()[place],
                }
            )
        )
    if not frames:
        return pd.DataFrame(columns=["rank", "device", "step", "at", "memory_bytes", "capacity_bytes", "epoch"])
    return pd.concat(frames, ignore_index=True).astype({"device": "Int64", "epoch": "Int64"})
