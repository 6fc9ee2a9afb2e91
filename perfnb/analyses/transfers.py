"""Collective calls without their waiting, and how much of chosen ones delays each step."""

from __future__ import annotations

import weakref
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.bus_bandwidth import bus_bandwidth
from perfnb.device_time import devices, unions
from perfnb.intervals import Intervals, covered, subtract, union
from perfnb.run import Run

ON_HOST: Final = ("communication.cpu", "communication.blocked", "communication.wall")
"""Parts of the host ledger in which ranks exchange data; what is left, run-queue time, is the host's affair."""

TRANSFER_COLUMNS: Final = (
    "rank",
    "step",
    "call",
    "group",
    "collective",
    "clock",
    "device",
    "group_size",
    "size_bytes",
    "bus_bytes",
    "launch_us",
    "start_us",
    "transfer_us",
    "wait_us",
    "is_lower_bound",
)

# Several detectors of one diagnosis ask for the same run; tables are never changed in place.
_KEPT: Final[dict[str, tuple[weakref.ref[pd.DataFrame], weakref.ref[pd.DataFrame], int | None, pd.DataFrame]]] = {}


def transfers(run: Run) -> pd.DataFrame:
    r"""Each call of a collective with its transfer and its waiting.

    The transfer is the shortest duration over the ranks, the last arriver's: on any other rank the duration holds waiting. It
    is the end of the call; what comes before is waiting. Calls are matched step by step, and only in steps that every rank
    has: a profiler's window may begin later on one of them.

    Parameters
    ----------
    run
        A run with steps and collectives.

    Returns
    -------
    pandas.DataFrame
        One row per call of a type with a bandwidth, in a step: rank, step, call (NA where no other rank's call matches it),
        group, collective, clock, device, group_size, size_bytes, bus_bytes (size times the factor of its bus bandwidth),
        launch_us, start_us (of the transfer), transfer_us, wait_us, is_lower_bound (of the bandwidth: the transfer may hold
        waiting).

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "collectives",
    ...     '''rank group collective group_size bytes start_us duration_us clock
    ...                                         0    dp    all_reduce 2          100   10       50          device
    ...                                         1    dp    all_reduce 2          100   40       20          device''',
    ... )
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 100\n1 1 0 100")
    >>> transfers(Run(steps=steps, collectives=calls))[["rank", "start_us", "transfer_us", "wait_us"]].to_numpy().tolist()
    [[0.0, 40.0, 20.0, 30.0], [1.0, 40.0, 20.0, 0.0]]
    """
    kept = _KEPT.get("last")
    if kept is not None and kept[0]() is run.collectives and kept[1]() is run.steps and kept[2] == run.world_size:
        return kept[3]
    found = _transfers(run)
    _KEPT["last"] = (weakref.ref(run.collectives), weakref.ref(run.steps), run.world_size, found)
    return found


def _transfers(run: Run) -> pd.DataFrame:
    calls = run.collectives.assign(step=step_of_calls(run))
    calls = calls[calls["step"].notna()]
    of_all = calls.groupby("step")["rank"].transform("nunique").eq(calls["rank"].nunique())
    calls = calls[of_all].reset_index(drop=True)
    matchable = calls.drop(columns="step").assign(sequence=calls["sequence"].mask(_is_position(calls)))
    found = bus_bandwidth(Run(steps=run.steps, collectives=matchable, world_size=run.world_size))
    own = calls.loc[found.index]
    time_us = found["time_us"]
    end_us = own["start_us"] + own["duration_us"]
    frame = own.assign(
        step=own["step"].astype("int64"),
        call=found["call"],
        group_size=found["group_size"],
        size_bytes=found["size_bytes"],
        bus_bytes=(found["bus_bytes_per_s"] * time_us / 1e6).round(),
        start_us=end_us - time_us,
        transfer_us=time_us,
        wait_us=own["duration_us"] - time_us,
        is_lower_bound=found["is_lower_bound"],
    )
    return frame[list(TRANSFER_COLUMNS)].reset_index(drop=True)


def _is_position(calls: pd.DataFrame) -> pd.Series:
    """Rows whose number is a place in their own trace: it counts from 0 there, and windows of two ranks begin at other steps."""
    first = calls.groupby(["rank", "group", "stream"], dropna=False, observed=True)["sequence"].transform("min")
    return first.eq(0) | calls["clock"].eq("host")


def step_of_calls(run: Run) -> NDArray[np.float64]:
    """Step of each row of `run.collectives`, NaN outside steps: that of its launch, else the one that it starts in."""
    calls = run.collectives
    launched = calls["launch_us"].to_numpy()
    moment = np.where(np.isnan(launched), calls["start_us"].to_numpy(), launched)
    ranks, found = calls["rank"].to_numpy(), np.full(len(calls), np.nan)
    for rank, steps in run.steps.groupby("rank"):
        own = np.flatnonzero(ranks == rank)
        edges = steps.sort_values("start_us")
        start = edges["start_us"].to_numpy()
        last = np.searchsorted(start, moment[own], side="right") - 1
        ends = (edges["start_us"] + edges["duration_us"]).to_numpy()
        inside = (last >= 0) & (moment[own] < ends[np.maximum(last, 0)])
        found[own[inside]] = edges["step"].to_numpy()[last[inside]]
    return found


def delay_of(run: Run, ledger: pd.DataFrame, found: pd.DataFrame, lost_us: pd.Series) -> pd.DataFrame:
    """Time by which a part of each transfer delays each step.

    On the device's clock only what nothing computes during counts, in the host's steps as the ledger has them. On the host's
    the calls may lie in a profiler's window, and the ledger in the steps outside of it: the same share of the time in which
    ranks exchange data is taken there.

    Parameters
    ----------
    run
        The run, with device ops where it is a device job.
    ledger
        Its step ledger.
    found
        As `transfers` returns it.
    lost_us
        Part of each row's transfer to count.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step) of the ledger, on a device job per device too: rank, step, (device,) lost_us.
    """
    if run.is_device_job:
        return _on_device(run, ledger, found, lost_us)
    sums = found.assign(lost_us=lost_us).groupby("rank")[["lost_us", "transfer_us"]].sum()
    share = (sums["lost_us"] / sums["transfer_us"]).fillna(0.0)
    exchanged = exchanged_per_step(ledger)
    of_rank = exchanged["rank"].map(share).fillna(0.0)
    return pd.DataFrame(exchanged.assign(lost_us=exchanged["lost_us"] * of_rank))


def exchanged_per_step(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time of each (rank, step) of the host ledger in which ranks exchange data and none waits: rank, step, lost_us.

    That of the rank that exchanges for the shortest time, on all of them: the others wait for it, as in one call.
    """
    own = ledger[ledger["part"].isin(ON_HOST)].groupby(["rank", "step"], as_index=False)["time_us"].sum()
    shortest = own.groupby("step")["time_us"].transform("min")
    return pd.DataFrame({"rank": own["rank"], "step": own["step"], "lost_us": shortest})


def exposed_transfers(run: Run, found: pd.DataFrame) -> dict[tuple[int, int], Intervals]:
    """Of each (rank, device): when it transfers and nothing computes."""
    spans = {}
    for rank, device, ops in devices(run):
        own = found[found["rank"].eq(rank) & (found["device"].isna() | found["device"].eq(device)).to_numpy(dtype=bool)]
        start = own["start_us"].to_numpy()
        compute, _, _ = unions(ops)
        spans[rank, device] = subtract(union(start, start + own["transfer_us"].to_numpy()), compute)
    return spans


def _on_device(run: Run, ledger: pd.DataFrame, found: pd.DataFrame, lost_us: pd.Series) -> pd.DataFrame:
    chosen = lost_us.gt(0).to_numpy()
    part, whole = float(lost_us[chosen].sum()), float(found.loc[chosen, "transfer_us"].sum())
    share = part / whole if whole else 0.0
    used = ledger[["rank", "step"]].drop_duplicates()
    rows = []
    for (rank, device), spans in exposed_transfers(run, found[chosen]).items():
        steps = run.steps[run.steps["rank"].eq(rank)].merge(used, on=["rank", "step"])
        low = steps["start_us"].to_numpy()
        exposed = covered(spans, low, low + steps["duration_us"].to_numpy())
        rows.append(steps[["rank", "step"]].assign(device=device, lost_us=exposed * share))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["rank", "step", "device", "lost_us"])


def exposed_waits(run: Run, ledger: pd.DataFrame) -> pd.DataFrame:
    """Time of each step in which a device waits in a collective for another rank, and neither computes nor transfers.

    Parameters
    ----------
    run
        A device job with steps and collectives.
    ledger
        Its step ledger.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step, device) of the ledger: waited_us.
    """
    found = transfers(run)
    matched = found[~found["is_lower_bound"].to_numpy(dtype=bool)]
    moving = exposed_transfers(run, found)
    used = ledger[["rank", "step"]].drop_duplicates()
    rows = []
    for rank, device, ops in devices(run):
        own = matched[matched["rank"].eq(rank) & (matched["device"].isna() | matched["device"].eq(device)).to_numpy(dtype=bool)]
        until = own["start_us"].to_numpy()
        compute, _, _ = unions(ops)
        waiting = subtract(subtract(union(until - own["wait_us"].to_numpy(), until), compute), moving[rank, device])
        steps = run.steps[run.steps["rank"].eq(rank)].merge(used, on=["rank", "step"])
        low = steps["start_us"].to_numpy()
        waited = covered(waiting, low, low + steps["duration_us"].to_numpy())
        rows.append(steps[["rank", "step"]].assign(device=device, waited_us=waited))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["rank", "step", "device", "waited_us"])


def job_of(
    steps: pd.DataFrame, collectives: pd.DataFrame, device_ops: pd.DataFrame | None = None, world_size: int | None = None
) -> Run:
    """Run of these tables alone, for what reads a run; a device job where there are device ops."""
    if device_ops is None:
        return Run(steps=steps, collectives=collectives, world_size=world_size)
    signals = frozenset({"device_ops"})
    return Run(steps=steps, collectives=collectives, device_ops=device_ops, signals=signals, world_size=world_size)
