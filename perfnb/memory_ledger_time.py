"""What a memory holds over time, by category, phase or stack: lines whose sum is the allocated bytes at each of their moments."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.memory_ledger import BEFORE_RECORDING, NOT_TOLD, bytes_at_start, lifetimes, memory_changes, named_blocks
from perfnb.prediction import Unknown
from perfnb.run import Run

OTHERS: Final = "all others"
"""Line of the groups that are too many to draw."""

_COLUMNS: Final = ("time_us", "sequence", "address", "bytes", "category", "phase", "stack")


def memory_over_time(
    run: Run,
    rank: int = 0,
    device: int | Literal["host"] | None = None,
    by: Literal["category", "phase", "stack"] = "category",
    *,
    most_lines: int = 7,
    most_rows: int = 2000,
) -> pd.DataFrame | Unknown:
    """Lines of what holds a memory over time; `perfnb.charts.memory_chart` draws them.

    Parameters
    ----------
    run
        A memory snapshot, or a trace that was recorded with `profile_memory=True`.
    rank, device
        Whose memory, as in `perfnb.memory_ledger.memory_peak`.
    by
        What tells lines apart.
    most_lines
        The groups with the highest peaks have lines of their own, the others one together.
    most_rows
        Most rows to give, shared equally by the lines.

    Returns
    -------
    pandas.DataFrame or Unknown
        One row per line and moment: rank, device (NA: the host), measure (the group), time_us (where the recording has none, the
        number of the event) and bytes. All lines have the same moments, among which are those of each line's peak and of the
        peak of all.
    """
    rows = memory_changes(run, rank, device)
    if isinstance(rows, Unknown):
        return rows
    size = rows["bytes"].to_numpy(dtype=np.int64)
    ends, unmatched = lifetimes(rows["address"].to_numpy(dtype=np.int64, na_value=-1), size)
    is_alloc = size > 0
    blocks = named_blocks(run, rows, rows.loc[is_alloc, list(_COLUMNS)])
    names = blocks[by].astype(object).where(blocks[by].notna(), NOT_TOLD).to_numpy()
    begins, stops = np.flatnonzero(is_alloc), ends[is_alloc]
    series: dict[str, NDArray[np.int64]] = {}
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        change = np.zeros(len(rows) + 1, dtype=np.int64)
        np.add.at(change, begins[own], size[begins[own]])
        np.subtract.at(change, np.minimum(stops[own], len(rows)), size[begins[own]])
        series[str(name)] = np.cumsum(change[:-1])
    change = np.where(unmatched, size, 0)
    unseen = bytes_at_start(rows, size, change)[0] + np.cumsum(change)
    if unseen.any():
        series[BEFORE_RECORDING] = unseen
    series = _fewer(series, most_lines)
    places = _moments(series, max(most_rows // max(len(series), 1), 2))
    time = rows["time_us"].to_numpy(dtype=float)
    at = time if not np.isnan(time[places]).any() else rows.index.to_numpy(dtype=float)
    own_device = rows["device"].iloc[0]
    lines = [
        pd.DataFrame({"rank": rank, "device": own_device, "measure": name, "time_us": at[places], "bytes": values[places]})
        for name, values in series.items()
    ]
    return pd.concat(lines, ignore_index=True).astype({"device": "Int64"})


def _fewer(series: dict[str, NDArray[np.int64]], most: int) -> dict[str, NDArray[np.int64]]:
    """The lines with the highest peaks, highest first, and the sum of all others."""
    ordered = sorted(series, key=lambda name: (-int(series[name].max()), name))
    kept = {name: series[name] for name in ordered[:most]}
    if len(ordered) > most:
        kept[OTHERS] = np.sum([series[name] for name in ordered[most:]], axis=0)
    return kept


def _moments(series: dict[str, NDArray[np.int64]], most: int) -> NDArray[np.int64]:
    """Rows to draw: evenly spread, with the peak of each line and of all."""
    count = len(next(iter(series.values())))
    peaks = [int(np.argmax(values)) for values in (*series.values(), np.sum(list(series.values()), axis=0))]
    spread = np.linspace(0, count - 1, num=max(min(most - len(peaks), count), 2)).round().astype(int)
    return np.unique([*spread.tolist(), *peaks])
