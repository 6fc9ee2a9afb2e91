"""Who arrived when at each collective: how long each rank waited there, and for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.analyses.matched_calls import CROSS_RANK_TIMES, SYNCHRONOUS, MatchedCalls, matched_calls
from perfnb.run import Run

LARGEST_RESIDUAL_US: Final = 100.0
"""Ends of one collective that lie further apart than this, at the 90th percentile: clocks of the ranks disagree (a prior)."""

ARRIVAL_COLUMNS: Final = (
    "call",
    "rank",
    "step",
    "group",
    "sequence",
    "collective",
    "clock",
    "bytes",
    "start_us",
    "duration_us",
    "wait_us",
    "last_rank",
    "transfer_us",
)


def arrivals(run: Run) -> pd.DataFrame:
    """Arrival of each rank at each collective that every rank of its group recorded.

    A rank waits from its own start to the latest start of the call; all of it is caused by the rank that came last (of equals
    the lowest). The shortest duration over the ranks is the transfer: nobody waits in it. Sends and receives and groups with
    missing ranks are left out: `arrivals_summary` says so.

    Parameters
    ----------
    run
        A run of several ranks with collectives, on one clock or as `align_clocks` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per (call, rank), sorted by call, then rank: call (number), rank, step (the step of the launch; NA outside
        steps), group, sequence, collective, clock, bytes, start_us, duration_us, wait_us, last_rank, transfer_us. Empty where
        nothing can be matched or the clocks disagree.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "collectives",
    ...     '''rank group collective group_size start_us duration_us clock
    ...                                         0    dp    all_reduce 2          0        9           device
    ...                                         1    dp    all_reduce 2          4        5           device''',
    ... )
    >>> arrivals(Run(collectives=calls))[["call", "rank", "wait_us", "last_rank", "transfer_us"]]
       call  rank  wait_us  last_rank  transfer_us
    0     0     0      4.0          1          5.0
    1     0     1      0.0          1          5.0
    """
    return arrivals_of(run, matched_calls(run))


def arrivals_summary(run: Run) -> str:
    """What `arrivals` looked at, what it left out and why, in sentences."""
    return summary_of(run, matched_calls(run))


def longest_waits(found: pd.DataFrame, calls: int = 20) -> pd.DataFrame:
    """The calls in which ranks waited longest, for `perfnb.charts.arrivals.arrivals_chart`.

    Parameters
    ----------
    found
        As `arrivals` returns it.
    calls
        How many calls.

    Returns
    -------
    pandas.DataFrame
        Rows of these calls, in order of time.
    """
    waits = found.groupby("call")["wait_us"].sum().nlargest(calls)
    first = found["start_us"].groupby(found["call"]).transform("min")
    return found.assign(first_us=first)[found["call"].isin(waits.index)].sort_values(
        ["first_us", "call", "rank"], ignore_index=True
    )[list(found.columns)]


def arrivals_of(run: Run, matched: MatchedCalls) -> pd.DataFrame:
    """As `arrivals`, of calls that are matched already."""
    if len(matched.rows) and _refusal(run, matched):
        matched = replace(matched, rows=matched.rows.iloc[:0])
    rows, first = matched.rows, matched.first_rows
    calls = run.collectives.iloc[rows["row"].to_numpy()]
    sizes = np.diff(np.append(first, len(rows)))
    start, duration = calls["start_us"].to_numpy(), calls["duration_us"].to_numpy()
    ranks = rows["rank"].to_numpy()
    nobody = np.empty(0)
    latest = np.repeat(np.maximum.reduceat(start, first) if len(first) else nobody, sizes)
    transfer = np.repeat(np.minimum.reduceat(duration, first) if len(first) else nobody, sizes)
    came_last = np.where(start == latest, ranks, np.iinfo(np.int64).max)
    last = np.repeat(np.minimum.reduceat(came_last, first) if len(first) else np.empty(0, dtype=np.int64), sizes)
    found = rows.assign(
        step=_steps(run, rows["row"].to_numpy(), first, sizes),
        bytes=calls["bytes"].array,
        start_us=start,
        duration_us=duration,
        wait_us=latest - start,
        last_rank=last.astype(np.int64),
        transfer_us=transfer,
    )
    return found[list(ARRIVAL_COLUMNS)].reset_index(drop=True)


def summary_of(run: Run, matched: MatchedCalls) -> str:
    """As `arrivals_summary`, of calls that are matched already."""
    if not len(run.collectives):
        return "Not measured: no collective was recorded."
    number = len(matched.first_rows)
    sentences = []
    refusal = _refusal(run, matched) if number else ""
    if refusal:
        sentences.append(f"Not measured: {refusal}.")
    elif number:
        ranks = text.numbers(int(rank) for rank in matched.rows["rank"].unique())
        spread = text.duration(end_spread_us(run, matched, "device" if _on_device(matched).any() else "host"))
        sentences.append(f"{text.count(number, 'call')} matched on ranks {ranks}; 9 in 10 end within {spread} on all of them.")
    else:
        sentences.append("Not measured: no call was recorded on every rank of its group.")
    read, world = run.collectives["rank"].nunique(), run.world_size
    if world and world > read:
        sentences.append(f"{read} of {world} ranks were read.")
    if matched.left_out:
        sentences.append(f"Left out: {'; '.join(matched.left_out)}.")
    if matched.assumed:
        sentences.append(f"Assumed: {'; '.join(matched.assumed)}.")
    if matched.groups_overlap:
        sentences.append("Groups overlap: a rank may be late in one because it waited in another; that is not untangled here.")
    return " ".join(sentences)


def end_spread_us(run: Run, matched: MatchedCalls, clock: str) -> float:
    """90th percentile of the spread of ends over the ranks, of calls that no rank can leave early; NaN without such calls."""
    rows, first = matched.rows, matched.first_rows
    if not len(first):
        return float("nan")
    calls = run.collectives.iloc[rows["row"].to_numpy()]
    end = (calls["start_us"] + calls["duration_us"]).to_numpy()
    spread = np.maximum.reduceat(end, first) - np.minimum.reduceat(end, first)
    heads = rows.iloc[first]
    counted = (heads["collective"].isin(SYNCHRONOUS) & heads["clock"].eq(clock)).to_numpy(dtype=bool)
    return float(np.quantile(spread[counted], 0.9)) if counted.any() else float("nan")


def _refusal(run: Run, matched: MatchedCalls) -> str:
    """Why times of two ranks cannot be compared; empty where they can.

    Only ends on the device clock judge: a host range ends when its thread wakes, 4 ms apart in a recorded run of one host.
    """
    if CROSS_RANK_TIMES in run.missing:
        return run.missing[CROSS_RANK_TIMES]
    spread = end_spread_us(run, matched, "device")
    if spread > LARGEST_RESIDUAL_US:
        return (
            f"the ranks' clocks disagree: one in 10 collectives ends over {text.duration(spread)} apart on them; "
            "shift them with align_clocks(run) first"
        )
    return ""


def _on_device(matched: MatchedCalls) -> pd.Series:
    return matched.rows["clock"].eq("device")


def _steps(run: Run, rows: NDArray[np.int64], first: NDArray[np.int64], sizes: NDArray[np.int64]) -> pd.arrays.IntegerArray:
    """Step of each call, on each of its rows: that of its launch, where one rank at least recorded it."""
    own = _step_of_rows(run)[rows]
    of_call = np.fmax.reduceat(own, first) if len(first) else own
    spread = np.repeat(of_call, sizes)
    return pd.arrays.IntegerArray(np.nan_to_num(spread).astype(np.int64), np.isnan(spread))


def _step_of_rows(run: Run) -> NDArray[np.float64]:
    """Step of each row of `run.collectives`, NaN outside steps.

    Device work runs after its host step, so the launch decides; where none was recorded, the step that the call starts in, or
    that started last before it.
    """
    calls = run.collectives
    launched = calls["launch_us"].to_numpy()
    known = ~np.isnan(launched)
    moment = np.where(known, launched, calls["start_us"].to_numpy())
    found = np.full(len(calls), np.nan)
    ranks = calls["rank"].to_numpy()
    for rank, steps in run.steps.groupby("rank"):
        own = np.flatnonzero(ranks == rank)
        edges = steps.sort_values("start_us")
        start = edges["start_us"].to_numpy()
        last = np.searchsorted(start, moment[own], side="right") - 1
        ends = (edges["start_us"] + edges["duration_us"]).to_numpy()
        inside = (last >= 0) & ((moment[own] < ends[np.maximum(last, 0)]) | ~known[own])
        found[own[inside]] = edges["step"].to_numpy()[last[inside]]
    return found
