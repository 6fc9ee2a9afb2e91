"""Length of the launch queue of each stream: device ops that were launched and have not started yet."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.step_functions import lasting, quantile_over_time, running, thinned
from perfnb.launches import launches
from perfnb.run import Run

FULL_QUEUE: Final = 1024  # HTA 0.6.1, trace_analysis.CUDA_MAX_LAUNCH_QUEUE_PER_STREAM
"""Launches that a CUDA stream holds before the next call has to wait."""

_STREAM: Final = ["rank", "device", "stream"]
_SUMMARY: Final = (
    *_STREAM,
    "launched_ops",
    "window_us",
    "mean_length",
    "median_length",
    "p90_length",
    "max_length",
    "max_calls",
    "full_us",
    "full_share",
)


def launch_queue(run: Run) -> pd.DataFrame:
    """Queue length of each stream over time.

    A device op enters the queue of its stream when its launch call starts and leaves it when it starts on the device. A graph's
    ops all enter with its one call: `calls` counts launches, each until its last op starts; that is what a stream holds. Ops
    whose launch was not recorded, and ops that seem to start before their launch, never queue. So neither number is ever
    negative, and both are 0 at the end.

    Parameters
    ----------
    run
        A run with device ops and the runtime calls that launched them.

    Returns
    -------
    pandas.DataFrame
        One row per moment at which a queue changes, by stream and time: rank, device (-1 where not known), stream, time_us,
        and length (ops) and calls (launches) from that moment to the next row of the stream. Empty where no launch was
        recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...                                       0    1       1      runtime  cudaLaunchKernel 0        2           1
    ...                                       0    1       1      runtime  cudaLaunchKernel 3        2           2''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us correlation
    ...                                       0    0      7      compute a    5        4           1
    ...                                       0    0      7      compute b    9        4           2''',
    ... )
    >>> launch_queue(Run(host_ops=host, device_ops=ops))[["time_us", "length"]].to_numpy().tolist()
    [[0.0, 1.0], [3.0, 2.0], [5.0, 1.0], [9.0, 0.0]]
    """
    launched = launches(run)
    ops = run.device_ops[[*_STREAM, "start_us"]].assign(
        device=run.device_ops["device"].fillna(-1).astype("int64"), enters_us=launched["call_start_us"], call=launched["call"]
    )
    queued = ops[ops["enters_us"] < ops["start_us"]].sort_values("start_us", kind="stable")
    frames = []
    for key, own in queued.groupby(_STREAM, dropna=False):
        one = np.ones(len(own))
        moments = np.concatenate([own["enters_us"], own["start_us"]])
        time, length = running(moments, np.concatenate([one, -one]))
        enters, leaves = ~own.duplicated("call"), ~own.duplicated("call", keep="last")
        calls = running(moments, np.concatenate([enters.astype("float64"), -leaves.astype("float64")]))[1]
        frames.append(_keyed(key, len(time)).assign(time_us=time, length=length.astype(np.int64), calls=calls.astype(np.int64)))
    if not frames:
        return pd.DataFrame(columns=[*_STREAM, "time_us", "length", "calls"])
    return pd.concat(frames, ignore_index=True)


def launch_queue_summary(queue: pd.DataFrame, full_length: int = FULL_QUEUE) -> pd.DataFrame:
    """Queue length of each stream, averaged over time, and the time for which the queue was full.

    Parameters
    ----------
    queue
        `launch_queue(run)`.
    full_length
        Number of waiting launch calls at and above which a queue counts as full.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, stream): launched_ops (that queued), window_us (first launch to last start), mean_length,
        median_length, p90_length (all weighted by time) and max_length, max_calls, full_us (time at
        or above `full_length` calls) and full_share (of the window).
    """
    rows = []
    for key, own in queue.groupby(_STREAM, dropna=False):
        time, length = own["time_us"].to_numpy(dtype=float), own["length"].to_numpy(dtype=float)
        calls = own["calls"].to_numpy(dtype=float)
        lasted = lasting(time, float(time[-1]))
        window, full = float(lasted.sum()), float(lasted[calls >= full_length].sum())
        rows.append(
            _keyed(key, 1).assign(
                launched_ops=int(np.maximum(np.diff(length, prepend=0.0), 0.0).sum()),
                window_us=window,
                mean_length=float((length * lasted).sum()) / window,
                median_length=quantile_over_time(length, lasted, 0.5),
                p90_length=quantile_over_time(length, lasted, 0.9),
                max_length=int(length.max()),
                max_calls=int(calls.max()),
                full_us=full,
                full_share=full / window,
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(_SUMMARY))


def thinned_launch_queue(queue: pd.DataFrame, most_rows: int = 2000) -> pd.DataFrame:
    """Rows of `launch_queue(run)` that draw the same lines, the longest queues among them.

    Parameters
    ----------
    queue
        `launch_queue(run)`.
    most_rows
        Most rows to keep.

    Returns
    -------
    pandas.DataFrame
        As `launch_queue` gives it, fewer rows.
    """
    return thinned(queue, _STREAM, "length", most_rows)


def _keyed(key: object, rows: int) -> pd.DataFrame:
    """Rank, device and stream of a group, repeated; NA stays NA."""
    values = key if isinstance(key, tuple) else (key,)
    columns = {
        name: pd.array([pd.NA if pd.isna(value) else int(value)] * rows, dtype="Int64")
        for name, value in zip(_STREAM, values, strict=True)
    }
    return pd.DataFrame(columns).astype({"rank": "int64", "device": "int64"})
