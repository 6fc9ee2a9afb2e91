"""Device time by kind: computing, communicating, copying or idle, over the whole recording or step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, cast

import pandas as pd

from perfnb.errors import LedgerError, PerfnbError
from perfnb.intervals import Intervals, clip, joined, subtract, union
from perfnb.launches import launches
from perfnb.run import Run

TOLERANCE_US: Final = 1e-3
"""A nanosecond: what the parts of a window may miss by."""

BREAKDOWN_COLUMNS: Final = (
    "window_us",
    "busy_us",
    "compute_us",
    "communication_us",
    "exposed_communication_us",
    "copy_us",
    "exposed_copy_us",
    "idle_us",
)


def device_breakdown(run: Run, by: Literal["window", "step"] = "window") -> pd.DataFrame:
    """Where each device's time goes.

    The window is the first start to the last end of kernels, copies and memsets. Compute is the union of compute kernels;
    exposed communication is communication while nothing computes; exposed copies are copies and memsets while neither runs.
    compute + exposed_communication + exposed_copy + idle = window (asserted).

    Parameters
    ----------
    run
        A run with device ops.
    by
        "window": the whole recording. "step": device steps, each from the first op that host step n launched to the first
        that step n + 1 launched, the last to the last end; the host runs ahead, so these are not the host's steps.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device) or (rank, device, step) with `BREAKDOWN_COLUMNS`, in microseconds. copy_us includes memsets.
        Empty where the run has no device ops.

    Raises
    ------
    PerfnbError
        If `by` is neither "window" nor "step".

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us
    ...                                        0    0      7      compute gemm 0        6
    ...                                        0    0      20     copy    HtoD 4        6''',
    ... )
    >>> device_breakdown(Run(device_ops=ops))[["window_us", "compute_us", "copy_us", "exposed_copy_us", "idle_us"]]
       window_us  compute_us  copy_us  exposed_copy_us  idle_us
    0       10.0         6.0      6.0              4.0      0.0
    """
    if by not in ("window", "step"):
        message = f"by={by!r} is not known: use 'window' or 'step'"
        raise PerfnbError(message)
    rows = []
    launched = launches(run)["step"] if by == "step" else pd.Series(dtype="Int64")
    for rank, device, ops in devices(run):
        for label, low, high in _windows(run, rank, ops, launched) if by == "step" else [(None, *_extent(ops))]:
            key = {"rank": rank, "device": device} | ({} if label is None else {"step": label})
            rows.append(key | _split(ops, low, high))
    key_columns = ["rank", "device"] + (["step"] if by == "step" else [])
    return pd.DataFrame(rows, columns=[*key_columns, *BREAKDOWN_COLUMNS])


def devices(run: Run) -> Iterator[tuple[int, int, pd.DataFrame]]:
    """Rank, device and device ops of each device; ops whose device is not known count as device -1."""
    numbered = run.device_ops.assign(device=run.device_ops["device"].fillna(-1).astype("int64"))
    for key, ops in numbered.groupby(["rank", "device"]):
        rank, device = cast("tuple[int, int]", key)
        yield int(rank), int(device), ops


def unions(ops: pd.DataFrame) -> tuple[Intervals, Intervals, Intervals]:
    """Unions of compute, of communication, and of copies with memsets."""
    start = ops["start_us"].to_numpy()
    end = start + ops["duration_us"].to_numpy()
    kind = ops["kind"].astype(object).to_numpy()
    compute, communication = kind == "compute", kind == "communication"
    rest = ~(compute | communication)
    return union(start[compute], end[compute]), union(start[communication], end[communication]), union(start[rest], end[rest])


def _extent(ops: pd.DataFrame) -> tuple[float, float]:
    return float(ops["start_us"].min()), float((ops["start_us"] + ops["duration_us"]).max())


def _windows(run: Run, rank: int, ops: pd.DataFrame, launched: pd.Series) -> list[tuple[int, float, float]]:
    """Device steps: step number, start and end; `launched` is the host step that launched each op."""
    step = launched.reindex(ops.index)
    own = run.steps[run.steps["rank"] == rank].sort_values("start_us")
    first = ops["start_us"].groupby(step).min()
    starts = [(int(number), float(first[number])) for number in own["step"] if number in first.index]
    ends = [start for _, start in starts[1:]] + [_extent(ops)[1]] * bool(starts)
    return [(number, start, max(start, end)) for (number, start), end in zip(starts, ends, strict=True)]


def _split(ops: pd.DataFrame, low: float, high: float) -> dict[str, float]:
    compute, communication, copies = (clip(each, low, high) for each in unions(ops))
    exposed_communication = subtract(communication, compute)
    busy_without_copies = joined(compute, exposed_communication)
    exposed_copy = subtract(copies, busy_without_copies)
    busy = joined(busy_without_copies, exposed_copy).total
    idle = (high - low) - busy
    parts = compute.total + exposed_communication.total + exposed_copy.total
    if abs(parts - busy) > max(TOLERANCE_US, 1e-9 * (high - low)) or idle < -TOLERANCE_US:
        message = f"device parts sum to {parts:.3f} us, busy is {busy:.3f} us of {high - low:.3f} us: please report this trace"
        raise LedgerError(message)
    return {
        "window_us": high - low,
        "busy_us": busy,
        "compute_us": compute.total,
        "communication_us": communication.total,
        "exposed_communication_us": exposed_communication.total,
        "copy_us": copies.total,
        "exposed_copy_us": exposed_copy.total,
        "idle_us": max(idle, 0.0),
    }
