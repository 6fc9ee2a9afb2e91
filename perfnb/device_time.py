"""Device time by kind: computing, communicating, copying or idle, over the whole recording or step by step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LedgerError, PerfnbError
from perfnb.intervals import Floats, Intervals, covered, joined, subtract, union
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
    frames = []
    launched = launches(run)["step"] if by == "step" else pd.Series(dtype="Int64")
    for rank, device, ops in devices(run):
        step, low, high = _device_steps(run, rank, ops, launched) if by == "step" else _whole(ops)
        parts = {"rank": rank, "device": device} | ({"step": step} if by == "step" else {}) | _split(ops, low, high)
        frames.append(pd.DataFrame(parts, index=range(len(low))))
    columns = ["rank", "device", *(["step"] if by == "step" else []), *BREAKDOWN_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


@dataclass(slots=True)
class _Kept:
    """Ops by device, and their unions by the ops' identity, of one table; tables are never changed in place."""

    of: weakref.ref[pd.DataFrame]
    devices: list[tuple[int, int, pd.DataFrame]]
    unions: dict[int, tuple[Intervals, Intervals, Intervals]]


_kept: list[_Kept] = []
"""Of the table asked for last, while it lives: many answers of one diagnosis ask the same."""


def devices(run: Run) -> Iterator[tuple[int, int, pd.DataFrame]]:
    """Rank, device and device ops of each device; ops whose device is not known count as device -1."""
    found = next((each.devices for each in _kept if each.of() is run.device_ops), None)
    if found is None:
        numbered = run.device_ops.assign(device=run.device_ops["device"].fillna(-1).astype("int64"))
        keyed = (cast("tuple[tuple[int, int], pd.DataFrame]", each) for each in numbered.groupby(["rank", "device"]))
        found = [(int(rank), int(device), ops) for (rank, device), ops in keyed]
        _kept[:] = [_Kept(weakref.ref(run.device_ops, _forget), found, {})]
    yield from found


def _forget(gone: weakref.ref[pd.DataFrame]) -> None:
    _kept[:] = [each for each in _kept if each.of is not gone]


def unions(ops: pd.DataFrame) -> tuple[Intervals, Intervals, Intervals]:
    """Unions of compute, of communication, and of copies with memsets."""
    for kept in tuple(_kept):
        if any(ops is each for _, _, each in kept.devices):
            if id(ops) not in kept.unions:
                kept.unions[id(ops)] = _unions(ops)
            return kept.unions[id(ops)]
    return _unions(ops)


def _unions(ops: pd.DataFrame) -> tuple[Intervals, Intervals, Intervals]:
    start = ops["start_us"].to_numpy()
    end = start + ops["duration_us"].to_numpy()
    compute, communication = (ops["kind"].eq(kind).to_numpy(dtype=bool) for kind in ("compute", "communication"))
    rest = ~(compute | communication)
    return union(start[compute], end[compute]), union(start[communication], end[communication]), union(start[rest], end[rest])


def _whole(ops: pd.DataFrame) -> tuple[None, Floats, Floats]:
    """Start and end of the one window that holds all ops."""
    return None, np.array([ops["start_us"].min()]), np.array([(ops["start_us"] + ops["duration_us"]).max()])


def _device_steps(run: Run, rank: int, ops: pd.DataFrame, launched: pd.Series) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Number, start and end of each device step; `launched` is the host step that launched each op."""
    first = ops["start_us"].groupby(launched.reindex(ops.index)).min()
    own = run.steps.loc[run.steps["rank"] == rank].sort_values("start_us")["step"]
    step = own[own.isin(first.index)].to_numpy()
    low = first.loc[step].to_numpy(dtype=float)
    high = np.append(low[1:], (ops["start_us"] + ops["duration_us"]).max())[: len(low)]
    return step, low, np.maximum(low, high)


def _split(ops: pd.DataFrame, low: Floats, high: Floats) -> dict[str, Floats]:
    """Parts of each window [low, high)."""
    compute, communication, copies = unions(ops)
    exposed_communication = subtract(communication, compute)
    busy_without_copies = joined(compute, exposed_communication)
    exposed_copy = subtract(copies, busy_without_copies)
    spans = {
        "busy_us": joined(busy_without_copies, exposed_copy),
        "compute_us": compute,
        "communication_us": communication,
        "exposed_communication_us": exposed_communication,
        "copy_us": copies,
        "exposed_copy_us": exposed_copy,
    }
    parts = {"window_us": high - low} | {name: covered(each, low, high) for name, each in spans.items()}
    idle = parts["window_us"] - parts["busy_us"]
    sums = parts["compute_us"] + parts["exposed_communication_us"] + parts["exposed_copy_us"]
    wrong = (np.abs(sums - parts["busy_us"]) > np.maximum(TOLERANCE_US, 1e-9 * parts["window_us"])) | (idle < -TOLERANCE_US)
    if wrong.any():
        row = int(np.argmax(wrong))
        message = (
            f"device parts sum to {sums[row]:.3f} us, busy is {parts['busy_us'][row]:.3f} us of "
            f"{parts['window_us'][row]:.3f} us: please report this trace"
        )
        raise LedgerError(message)
    return parts | {"idle_us": np.maximum(idle, 0.0)}
