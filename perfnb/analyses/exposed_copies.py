"""Copies from the host to a device that no compute kernel and no communication hides, step by step."""

from __future__ import annotations

import pandas as pd

from perfnb.analyses.copies import copies
from perfnb.device_time import devices, unions
from perfnb.intervals import covered, joined, subtract, union
from perfnb.run import Run


def exposed_copies(device_ops: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    r"""Time of each step in which a device copies from the host and does nothing else that is of use.

    Parameters
    ----------
    device_ops, steps
        Tables of a run.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, step): exposed_us, of that pageable_us (from memory of the host that is not pinned) and
        bytes_per_step, the mean over the steps of that rank. Copies whose name does not tell their direction count nowhere.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 7 0 100")
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name                    start_us duration_us
    ...                                        0    0      7      copy    "Memcpy HtoD (Pinned)"  0        30
    ...                                        0    0      8      compute gemm                    20       50''',
    ... )
    >>> exposed_copies(ops, steps)[["exposed_us", "pageable_us"]].to_numpy().tolist()
    [[20.0, 0.0]]
    """
    made = copies(Run(device_ops=device_ops[device_ops["kind"].eq("copy")]))
    to_device = made[made["direction"].eq("HtoD")]
    frames = []
    for rank, device, ops in devices(Run(device_ops=device_ops)):
        own = to_device[to_device["rank"].eq(rank) & to_device["device"].eq(device)]
        edges = steps[steps["rank"].eq(rank)]
        if own.empty or edges.empty:
            continue
        compute, communication, _ = unions(ops)
        busy = joined(compute, communication)
        low = edges["start_us"].to_numpy()
        high = low + edges["duration_us"].to_numpy()
        spans = [
            subtract(union(rows["start_us"], rows["start_us"] + rows["duration_us"]), busy)
            for rows in (own, own[own["host_memory"].eq("pageable")])
        ]
        exposed, pageable = (covered(each, low, high) for each in spans)
        frames.append(
            edges[["rank", "step"]].assign(
                device=device,
                exposed_us=exposed,
                pageable_us=pageable,
                bytes_per_step=float(own["bytes"].astype("Float64").sum()) / len(edges),
            )
        )
    columns = ["rank", "step", "device", "exposed_us", "pageable_us", "bytes_per_step"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
