"""Traces that a profiler's window left beside a recording: their events on the recorder's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from perfnb import tables
from perfnb.errors import TraceFormatError
from perfnb.read.kineto.one_rank import OneRank, Options, read_one, shifted
from perfnb.read.kineto.reader import stacked
from perfnb.read.kineto.signals import signals_of
from perfnb.read.recorded_columns import Columns

TRACED: Final = ("host_ops", "device_ops", "collectives", "allocations")
"""Tables of a trace that a run of a recorder takes."""

_PATTERN: Final = "trace*.json.gz"


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """What the windows of one rank told.

    Attributes
    ----------
    frames
        Tables of `TRACED` to rows, with the rank.
    windows
        First and last step of each window, whether its trace could be read or not.
    notes
        Sentences.
    """

    frames: Mapping[str, pd.DataFrame]
    windows: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def traced(columns: Columns, rank: int, folder: Path | None, origin_ns: int) -> Traced:
    """Events of the traces of a rank's windows, in microseconds since the origin on the rank's own clock.

    A trace is placed by its first step: the recorder noted on its own clock when that began.
    """
    there = {path.name: path for path in sorted(folder.glob(_PATTERN))} if folder is not None else {}
    rows = zip(*(columns.values(name) for name in ("step_first", "step_last", "start_ns", "file")), strict=True)
    windows: list[tuple[int, int]] = []
    placed: list[Mapping[str, pd.DataFrame]] = []
    notes: list[str] = []
    for first, last, start_ns, file in rows:
        if not all(isinstance(each, int) for each in (first, last, start_ns)):
            continue
        windows.append((first, last))
        path = there.pop(file, None) if isinstance(file, str) else None
        try:
            one = read_one(path, Options()) if path is not None else None
        except (TraceFormatError, OSError) as error:
            notes.append(f"the trace of steps {first} to {last} cannot be read: {error}")
            continue
        if one is None:
            notes.append(f"the trace of steps {first} to {last} is not there")
            continue
        begin_us = _first_step_us(one)
        if begin_us is None:
            notes.append(f"{one.path.name} has no step: it cannot be placed on the recorder's clock and is left out")
            continue
        later_ns = start_ns - origin_ns - round(begin_us * 1000)
        placed.append(shifted(one, rank, one.origin_ns - later_ns))
        notes += one.notes
    notes += [f"{name} belongs to no window that was noted: read it with perfnb.read_trace" for name in there]
    return Traced(_joined(placed), tuple(windows), tuple(notes))


def signals(frames: Mapping[str, pd.DataFrame], world_size: int | None) -> tuple[frozenset[str], dict[str, str]]:
    """Which tables of the traces tell, and why the others do not."""
    made = {name: frames.get(name, tables.empty(name)) for name in (*TRACED, "steps", "phases")}
    found, missing = signals_of(made, world_size)
    return found & set(TRACED), {name: missing[name] for name in TRACED if name in missing}


def is_within(step: Sequence[int], windows: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each step is in a window."""
    numbers = np.asarray(step, dtype=np.int64)
    inside = np.zeros(len(numbers), dtype=np.bool_)
    for first, last in windows:
        inside |= (numbers >= first) & (numbers <= last)
    return inside


def _first_step_us(one: OneRank) -> float | None:
    steps = one.frames["steps"]
    return float(steps["start_us"].min()) if len(steps) else None


def _joined(placed: Sequence[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    return {name: tables.conform(name, stacked([frames[name] for frames in placed])) for name in TRACED} if placed else {}
