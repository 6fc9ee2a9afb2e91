"""Each gap in a device's work, and why the device idled."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.device_time import TOLERANCE_US, devices
from perfnb.errors import LedgerError
from perfnb.idle_time import CAUSES, busy_gaps, idle_causes
from perfnb.intervals import covered, intersect, union
from perfnb.launches import launches
from perfnb.run import Run

GAP_COLUMNS: Final = (
    "rank",
    "device",
    "gap",
    "start_us",
    "duration_us",
    "cause",
    "time_us",
    "overhead_us",
    "ended_by",
    "ended_by_name",
    "call_start_us",
    "call_end_us",
)
SUMMARY_COLUMNS: Final = ("rank", "device", "cause", "idle_us", "share", "gaps", "median_us", "longest_us", "overhead_us")
_SMALLEST_US: Final = 1e-4  # a tenth of a nanosecond: less is an error of float arithmetic
_CAUSE: Final = pd.CategoricalDtype(list(CAUSES))


def idle_gaps(run: Run) -> pd.DataFrame:
    """Every gap between the first and the last op of each device, split by cause.

    Causes are those of the step ledger, see `perfnb.idle_time.idle_causes`: data, sync, launch, python, transfer, dependency
    and unattributed. The parts of a gap sum to the gap (asserted).

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.DataFrame
        One row per (gap, cause), in order of time: rank, device (-1 where not known), gap (its number on the device), start_us
        and duration_us of the gap, cause, time_us (of the gap that this cause takes), overhead_us (of time_us, under an
        overhead row of the trace: the profiler's own cost, or the driver's), ended_by (row label in `run.device_ops` of the op
        that ends the gap), ended_by_name, and call_start_us and call_end_us of its launch call (NA where not recorded).

    Raises
    ------
    LedgerError
        If parts do not sum to their gap: a defect of perfnb.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation
    ...                                       0    1       1      runtime  cudaLaunchKernel 30       4           1''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us correlation
    ...                                       0    0      7      compute gemm 0        10          -
    ...                                       0    0      7      compute relu 36       10          1''',
    ... )
    >>> idle_gaps(Run(host_ops=host, device_ops=ops))[["start_us", "duration_us", "cause", "time_us"]]
       start_us  duration_us   cause  time_us
    0      10.0         26.0  launch      6.0
    1      10.0         26.0  python     20.0
    """
    launched = launches(run)
    frames = [_gaps_of(run, rank, device, ops, launched) for rank, device, ops in devices(run)]
    if not frames:
        return pd.DataFrame(columns=list(GAP_COLUMNS))
    return pd.concat(frames, ignore_index=True)[list(GAP_COLUMNS)]


def idle_summary(run: Run) -> pd.DataFrame:
    """Idle time of each device by cause.

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, cause), every cause of every device: idle_us, share (of the device's idle time; NA where it
        never idled), gaps (that the cause has a part in), median_us and longest_us (of its parts; NA without any) and
        overhead_us (of idle_us, under an overhead row of the trace).
    """
    parts = idle_gaps(run)
    every = pd.MultiIndex.from_tuples(
        [(rank, device, cause) for rank, device, _ in devices(run) for cause in CAUSES], names=["rank", "device", "cause"]
    )
    if not len(every):
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    grouped = parts.assign(cause=parts["cause"].astype(object)).groupby(["rank", "device", "cause"])
    found = grouped.agg(
        idle_us=("time_us", "sum"),
        gaps=("time_us", "size"),
        median_us=("time_us", "median"),
        longest_us=("time_us", "max"),
        overhead_us=("overhead_us", "sum"),
    )
    found = found.reindex(every).reset_index().fillna({"idle_us": 0.0, "gaps": 0, "overhead_us": 0.0})
    idle = found.groupby(["rank", "device"])["idle_us"].transform("sum")
    found = found.assign(
        cause=found["cause"].astype(_CAUSE), share=found["idle_us"] / idle.where(idle > 0), gaps=found["gaps"].astype("int64")
    )
    return found[list(SUMMARY_COLUMNS)]


def _gaps_of(run: Run, rank: int, device: int, ops: pd.DataFrame, launched: pd.DataFrame) -> pd.DataFrame:
    low, high = float(ops["start_us"].min()), float((ops["start_us"] + ops["duration_us"]).max())
    host = run.host_ops[run.host_ops["rank"] == rank]
    start, end, ended_by = busy_gaps(ops, low, high)
    causes = idle_causes(host, ops, launched, low, high)
    over = host[host["category"].eq("overhead")]
    overhead = union(over["start_us"], over["start_us"] + over["duration_us"])
    time = np.stack([covered(causes[cause], start, end) for cause in CAUSES], axis=1)
    under = np.stack([covered(intersect(causes[cause], overhead), start, end) for cause in CAUSES], axis=1)
    missing = np.abs(time.sum(axis=1) - (end - start))
    if (missing > TOLERANCE_US).any():
        worst = int(np.argmax(missing))
        message = (
            f"causes of the gap at {start[worst]:.3f} us of rank {rank} device {device} sum to {time[worst].sum():.3f} us of "
            f"{end[worst] - start[worst]:.3f} us: please report this trace"
        )
        raise LedgerError(message)
    gap, cause = np.nonzero(time > _SMALLEST_US)
    ender = ops.index[ended_by[gap]]
    return pd.DataFrame(
        {
            "rank": rank,
            "device": device,
            "gap": gap,
            "start_us": start[gap],
            "duration_us": (end - start)[gap],
            "cause": pd.Categorical.from_codes(cause, dtype=_CAUSE),
            "time_us": time[gap, cause],
            "overhead_us": under[gap, cause],
            "ended_by": ender,
            "ended_by_name": ops["name"].array[ended_by[gap]],
            "call_start_us": launched["call_start_us"].loc[ender].to_numpy(),
            "call_end_us": launched["call_end_us"].loc[ender].to_numpy(),
        }
    )
