"""A run repeated in time, in memory: every table shifted, with its own steps, correlations and sequence numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.run import Run
from perfnb.tables import SCHEMAS

_BETWEEN_US: Final = 1000.0
_TIMES: Final = ("start_us", "time_us")
_NUMBERS: Final = {  # what must not mean the same thing in two repetitions -> the columns that are numbered together
    "correlation": ("correlation", "waits_on_correlation"),
    "sequence": ("sequence",),
    "step": ("step",),
}


def events_of(run: Run) -> int:
    """Host rows and device rows."""
    return len(run.host_ops) + len(run.device_ops)


def repeated(run: Run, times: int) -> Run:
    """A run that holds the same work several times, one after the other, a millisecond apart.

    Parameters
    ----------
    run
        Where it comes from; its first repetition is itself.
    times
        How often the work is there.

    Returns
    -------
    Run
        Every table in the order of ranks, then of time.
    """
    frames = {name: getattr(run, name) for name in SCHEMAS}
    length = _length_us(frames) + _BETWEEN_US
    offsets = {what: _largest(frames, columns) + 1 for what, columns in _NUMBERS.items()}
    tables: dict[str, Any] = {name: _stacked(frame, times, length, offsets) for name, frame in frames.items()}
    return replace(run, **tables)


def fresh(run: Run) -> Run:
    """The same run as new objects, so that nothing remembered of an earlier call is used."""
    tables: dict[str, Any] = {name: getattr(run, name).copy() for name in SCHEMAS}
    return replace(run, **tables)


def _length_us(frames: dict[str, pd.DataFrame]) -> float:
    ends = [0.0]
    for frame in frames.values():
        for column in _TIMES:
            if column in frame and len(frame):
                duration = frame.get("duration_us", 0.0)
                ends.append(float((frame[column] + duration).max()))
    return float(np.ceil(max(ends)))


def _largest(frames: dict[str, pd.DataFrame], columns: tuple[str, ...]) -> int:
    found = [frame[column].max() for frame in frames.values() for column in columns if column in frame]
    return max((int(value) for value in found if not pd.isna(value)), default=0)


def _stacked(frame: pd.DataFrame, times: int, length_us: float, offsets: dict[str, int]) -> pd.DataFrame:
    if frame.empty:
        return frame
    parts = []
    for number in range(times):
        moved: dict[str, pd.Series] = {column: frame[column] + number * length_us for column in _TIMES if column in frame}
        for what, columns in _NUMBERS.items():
            moved |= {column: frame[column] + number * offsets[what] for column in columns if column in frame}
        parts.append(frame.assign(**moved))
    whole = pd.concat(parts, ignore_index=True)
    time = next((column for column in _TIMES if column in whole), "step")
    order = np.lexsort((whole[time].to_numpy(), whole["rank"].to_numpy()))  # stable: equal starts keep their order
    return whole.iloc[order].reset_index(drop=True)
