"""Bandwidth of each collective call, and how much of what its link can reach that is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.matched_calls import matched_calls
from perfnb.run import Run

# Bus bandwidth over algorithm bandwidth for n ranks: NCCL tests, doc/PERFORMANCE.md, "Summary".
_FACTORS: Final[Mapping[str, tuple[float, bool]]] = MappingProxyType(
    {  # times (n - 1) / n where the flag is set
        "all_reduce": (2.0, True),
        "reduce_scatter": (1.0, True),
        "all_gather": (1.0, True),
        "all_to_all": (1.0, True),
        "broadcast": (1.0, False),
        "reduce": (1.0, False),
    }
)
BANDWIDTH_COLUMNS: Final = (
    "rank",
    "call",
    "group",
    "sequence",
    "collective",
    "group_size",
    "size_bytes",
    "size_class",
    "time_us",
    "time_source",
    "is_lower_bound",
    "algorithm_bytes_per_s",
    "bus_bytes_per_s",
    "reachable_bytes_per_s",
    "reachable_source",
    "reached_share",
)
SUMMARY_COLUMNS: Final = (
    "collective",
    "size_class",
    "group_size",
    "calls",
    "size_bytes",
    "time_us",
    "is_lower_bound",
    "bus_bytes_per_s",
    "best_bus_bytes_per_s",
    "reachable_bytes_per_s",
    "reachable_source",
    "reached_share",
)


def bus_bandwidth(run: Run, reachable_bytes_per_s: float | None = None) -> pd.DataFrame:
    r"""Algorithm and bus bandwidth of each collective call, by the formulas of the NCCL tests.

    Bus bandwidth is the size over the time, times 2 (n - 1) / n for an all-reduce, (n - 1) / n for an all-gather, a
    reduce-scatter (both of the whole array) and an all-to-all, 1 for a broadcast and a reduce: comparable with the speed of a
    link whatever the number of ranks n. The time is the transfer, the shortest duration over the ranks; a call that only one
    rank recorded may have waited, so its bandwidth is a lower bound.

    Parameters
    ----------
    run
        A run with collectives.
    reachable_bytes_per_s
        What the link can reach, as bus bandwidth. Without it the best call of this run of the same collective, size class and
        number of ranks stands for it, where there are two or more: no hardware number is made up.

    Returns
    -------
    pandas.DataFrame
        One row per row of `run.collectives` of a type with a formula, same index: rank, call (number over the ranks; NA where
        matched with no other rank), group, sequence, collective, group_size, size_bytes (the whole array), size_class (the
        power of two at or below it), time_us, time_source ("transfer" or "own duration"), is_lower_bound,
        algorithm_bytes_per_s, bus_bytes_per_s, reachable_bytes_per_s, reachable_source ("given" or "best of this run"),
        reached_share. NA where dtype, elements or number of ranks are not recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> header = "rank group collective group_size elements_in bytes start_us duration_us clock"
    >>> calls = table_from_text("collectives", header + "\n0 dp all_reduce 2 250 1000 0 100 device")
    >>> bus_bandwidth(Run(collectives=calls), 20e6)[["bus_bytes_per_s", "is_lower_bound", "reached_share"]]
       bus_bytes_per_s  is_lower_bound  reached_share
    0       10000000.0            True            0.5
    """
    table, matched = run.collectives, matched_calls(run)
    row, first = matched.rows["row"].to_numpy(), matched.first_rows
    sizes = np.diff(np.append(first, len(row)))
    call, ranks = np.full(len(table), -1), table["group_size"].to_numpy(dtype="float64", na_value=np.nan)
    time_us = table["duration_us"].to_numpy().copy()
    if len(first):  # durations need no common clock
        call[row] = matched.rows["call"].to_numpy()
        ranks[row] = np.where(np.isnan(ranks[row]), np.repeat(sizes, sizes), ranks[row])
        time_us[row] = np.repeat(np.minimum.reduceat(time_us[row], first), sizes)
    chosen = table["collective"].isin(list(_FACTORS)).to_numpy(dtype=bool)
    calls, call, ranks, time_us = table[chosen], call[chosen], ranks[chosen], time_us[chosen]
    is_matched = call >= 0
    kind, size = calls["collective"].astype(object), _size_bytes(calls, ranks)
    kinds = [kind.eq(name).to_numpy(dtype=bool) for name in _FACTORS]
    shared = (ranks - 1) / ranks
    factor = np.select(kinds, [factor * shared if is_shared else factor for factor, is_shared in _FACTORS.values()], np.nan)
    usable = (time_us > 0) & (ranks > 1)
    algorithm = np.where(usable, size / np.where(usable, time_us, 1.0) * 1e6, np.nan)
    frame = calls[["rank", "group", "sequence", "collective"]].assign(
        call=pd.arrays.IntegerArray(call, ~is_matched),
        group_size=pd.array(ranks, dtype="Float64").astype("Int64"),
        size_bytes=size,
        size_class=np.exp2(np.floor(np.log2(np.where(size > 0, size, np.nan)))),
        time_us=time_us,
        time_source=np.where(is_matched, "transfer", "own duration"),
        is_lower_bound=~is_matched,
        algorithm_bytes_per_s=algorithm,
        bus_bytes_per_s=algorithm * factor,
    )
    return _against(frame, reachable_bytes_per_s)[list(BANDWIDTH_COLUMNS)]


def bandwidth_summary(bandwidth: pd.DataFrame) -> pd.DataFrame:
    """Bandwidth by collective, size class and number of ranks.

    Parameters
    ----------
    bandwidth
        As `bus_bandwidth` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per (collective, size_class, group_size), by collective and size: calls (over all ranks: a matched one counts
        once), medians of size_bytes, time_us, bus_bytes_per_s and reached_share, best_bus_bytes_per_s, is_lower_bound (any),
        reachable_bytes_per_s, reachable_source. Calls without a bandwidth are left out.
    """
    once = bandwidth[bandwidth["bus_bytes_per_s"].notna()]
    once = once[once["call"].isna() | ~once["call"].duplicated()]
    by = once.assign(collective=once["collective"].astype(str)).groupby(
        ["collective", "size_class", "group_size"], as_index=False
    )
    return by.agg(
        calls=("rank", "size"),
        size_bytes=("size_bytes", "median"),
        time_us=("time_us", "median"),
        is_lower_bound=("is_lower_bound", "any"),
        bus_bytes_per_s=("bus_bytes_per_s", "median"),
        best_bus_bytes_per_s=("bus_bytes_per_s", "max"),
        reachable_bytes_per_s=("reachable_bytes_per_s", "first"),
        reachable_source=("reachable_source", "first"),
        reached_share=("reached_share", "median"),
    )[list(SUMMARY_COLUMNS)]


def _size_bytes(calls: pd.DataFrame, ranks: np.ndarray) -> np.ndarray:
    """Size S of the formulas: the whole array of a gather or scatter, else what a rank gives."""
    given, taken, size = (
        calls[name].to_numpy(dtype="float64", na_value=np.nan) for name in ("elements_in", "elements_out", "bytes")
    )
    kind = calls["collective"].astype(object)
    whole = np.where(taken > 0, size / np.where(given > 0, given, np.nan) * taken, size * ranks)
    return np.where(kind.eq("all_gather").to_numpy(), whole, size)


def _against(frame: pd.DataFrame, reachable_bytes_per_s: float | None) -> pd.DataFrame:
    """The frame with what could be reached, and the share of it that was."""
    if reachable_bytes_per_s is not None:
        reachable = frame["bus_bytes_per_s"].notna().map({True: reachable_bytes_per_s, False: np.nan}).astype("float64")
        source = "given"
    else:
        identity = frame["call"].astype("float64").fillna(pd.Series(-1.0 - np.arange(len(frame)), index=frame.index))
        alike = frame.assign(kind=frame["collective"].astype(str), identity=identity).groupby(
            ["kind", "size_class", "group_size"]
        )
        several = alike["identity"].transform("nunique").gt(1)  # one call beside itself reaches 100 % and says nothing
        reachable, source = alike["bus_bytes_per_s"].transform("max").where(several), "best of this run"
    return frame.assign(
        reachable_bytes_per_s=reachable,
        reachable_source=reachable.notna().map({True: source, False: None}),
        reached_share=frame["bus_bytes_per_s"] / reachable,
    )
