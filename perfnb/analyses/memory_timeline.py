"""Memory of each rank's host and devices over time, as the profiler recorded allocations and frees, with its peaks."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.step_functions import thinned
from perfnb.run import Run

MEMORY_COLUMNS: Final = (
    "rank",
    "device",
    "time_us",
    "bytes",
    "since_start_bytes",
    "baseline_bytes",
    "allocated_bytes",
    "reserved_bytes",
)

_MEMORY: Final = ["rank", "device"]
_CHANGES: Final = ("alloc", "free_requested")
_SERIES: Final = ("allocated_bytes", "reserved_bytes", "since_start_bytes")


def memory_timeline(run: Run) -> pd.DataFrame:
    """Allocated and reserved bytes after every allocation and free.

    Parameters
    ----------
    run
        A run that was recorded with `profile_memory=True`.

    Returns
    -------
    pandas.DataFrame
        One row per allocation or free, in the order they happened: rank, device (NA is the host's memory), time_us, bytes
        (negative for a free), since_start_bytes (sum of the changes so far), baseline_bytes (what was allocated before the
        recording: the first total minus its own change), allocated_bytes and reserved_bytes (the allocator's totals after the
        row). Totals and baseline are NA where the trace has none, as in traces of 2021. Empty where nothing was recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> blocks = table_from_text(
    ...     "allocations",
    ...     '''rank device time_us bytes allocated_bytes reserved_bytes
    ...                                       0    0      1       512   1512            2048
    ...                                       0    0      5       -512  1000            2048''',
    ... )
    >>> memory_timeline(Run(allocations=blocks))[["since_start_bytes", "baseline_bytes"]].to_numpy().tolist()
    [[512, 1000], [0, 1000]]
    """
    rows = _changes(run.allocations)
    memory = rows.groupby(_MEMORY, dropna=False, sort=False)
    baseline = rows["allocated_bytes"] - rows["bytes"]
    first = baseline.groupby([rows[name] for name in _MEMORY], dropna=False, sort=False).transform("first")
    found = rows.assign(since_start_bytes=memory["bytes"].cumsum(), baseline_bytes=first.astype("Int64"))
    return found[list(MEMORY_COLUMNS)]


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that change the allocated bytes; of a snapshot, also the state before its first event and the segments are rows."""
    is_change = rows["action"].isna() | rows["action"].isin(_CHANGES)
    return rows[is_change & ~rows["sequence"].lt(0).fillna(value=False).astype(bool)].reset_index(drop=True)


def memory_peaks(timeline: pd.DataFrame) -> pd.DataFrame:
    """Peaks and balance of each memory.

    Parameters
    ----------
    timeline
        `memory_timeline(run)`.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device): allocations and frees (numbers of them), largest_bytes (the largest allocation),
        baseline_bytes (allocated before the recording), peak_allocated_bytes and peak_time_us (the first moment that reaches
        it), peak_reserved_bytes, peak_growth_bytes (most that was added since the recording began), left_bytes (added and not
        freed by its end) and unseen_bytes (change of the recorded totals that no row explains: 0 unless rows are missing).
    """
    rows = []
    for key, own in timeline.groupby(_MEMORY, dropna=False):
        total = own["allocated_bytes"]
        gap = (total - own["since_start_bytes"] - own["baseline_bytes"]).dropna()
        highest = total.to_numpy(dtype=float, na_value=np.nan)
        rows.append(
            dict(zip(_MEMORY, key, strict=True))
            | {
                "allocations": int(own["bytes"].gt(0).sum()),
                "frees": int(own["bytes"].lt(0).sum()),
                "largest_bytes": max(int(own["bytes"].max()), 0),
                "baseline_bytes": own["baseline_bytes"].iloc[0],
                "peak_allocated_bytes": total.max(),
                "peak_time_us": float(own["time_us"].iloc[int(np.nanargmax(highest))]) if total.notna().any() else float("nan"),
                "peak_reserved_bytes": own["reserved_bytes"].max(),
                "peak_growth_bytes": max(int(own["since_start_bytes"].max()), 0),
                "left_bytes": int(own["since_start_bytes"].iloc[-1]),
                "unseen_bytes": gap.iloc[-1] if len(gap) else pd.NA,
            }
        )
    columns = [
        *_MEMORY,
        "allocations",
        "frees",
        "largest_bytes",
        "baseline_bytes",
        "peak_allocated_bytes",
        "peak_time_us",
        "peak_reserved_bytes",
        "peak_growth_bytes",
        "left_bytes",
        "unseen_bytes",
    ]
    nullable = ("device", "baseline_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "unseen_bytes")
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(nullable, "Int64"))


def memory_drawing(timeline: pd.DataFrame, most_rows: int = 2000) -> pd.DataFrame:
    """Lines of memory over time, few enough to draw, every peak exact.

    Parameters
    ----------
    timeline
        `memory_timeline(run)`.
    most_rows
        Most rows to keep.

    Returns
    -------
    pandas.DataFrame
        One row per point of a line, by line and time: rank, device, measure ("allocated", "reserved"; "since_start" for a
        memory whose totals were not recorded), time_us and bytes. The largest and the least value of each line are kept.
    """
    long = timeline.melt(id_vars=[*_MEMORY, "time_us"], value_vars=list(_SERIES), var_name="measure", value_name="value")
    long = long.assign(measure=long["measure"].str.removesuffix("_bytes")).rename(columns={"value": "bytes"})
    has_totals = timeline["allocated_bytes"].notna().groupby([timeline[name] for name in _MEMORY], dropna=False).transform("any")
    unwanted = long["measure"].eq("since_start") & np.tile(has_totals.to_numpy(dtype=bool), len(_SERIES))
    lines = long[~unwanted & long["bytes"].notna()]
    few = thinned(lines.sort_values("time_us", kind="stable"), [*_MEMORY, "measure"], "bytes", most_rows)
    return few.astype({"bytes": "int64"}).sort_values([*_MEMORY, "measure", "time_us"], kind="stable", ignore_index=True)
