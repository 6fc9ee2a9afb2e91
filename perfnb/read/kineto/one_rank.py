"""One trace file -> the tables of its rank, on its own clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.read.kineto import classify
from perfnb.read.kineto.around import around
from perfnb.read.kineto.collectives import collectives
from perfnb.read.kineto.communication import COMPUTE_NAME, recognizer
from perfnb.read.kineto.phases import phases
from perfnb.read.kineto.rows import ParserName, RawTrace, read_rows

_LEFT_OUT: Final = {
    "gpu_user_annotation": "annotations repeated on the device",
    "ph M": "names of processes and threads",
    "ph f": "ends of arrows",
    "ph i": "instants",
    "ph s": "starts of arrows",
    "python_function": "Python functions",
    "trace": "marks of the recording",
}
_KNOWN: Final = frozenset({*classify.HOST_CATEGORIES.values(), "annotation"})


MOMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "steps": ("start_us",),
    "host_ops": ("start_us",),
    "device_ops": ("start_us",),
    "collectives": ("launch_us", "start_us"),
    "allocations": ("time_us",),
}
"""Columns of a run's tables that are moments on its clock; every other time is a duration."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to read a file; the arguments of `read_kineto`."""

    step_names: tuple[str, ...] = ()
    communication_names: tuple[str, ...] = ()
    python: bool = False
    partial: bool = False
    parser: ParserName = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class OneRank:
    """The tables of one file.

    Attributes
    ----------
    path
        The file.
    origin_ns
        Absolute time of its first event, in nanoseconds: time 0 of its tables.
    frames
        Table name to its rows; column rank is 0 until the ranks of all files are known.
    keys
        Top-level keys of the file other than the event list.
    notes
        Sentences on what was repaired, left out or odd.
    cut_sentence
        Where the file ends early; "" where it does not.
    """

    path: Path
    origin_ns: int
    frames: Mapping[str, pd.DataFrame]
    keys: Mapping[str, Any]
    notes: tuple[str, ...]
    cut_sentence: str


def read_one(path: Path, options: Options) -> OneRank:
    """Tables of one file.

    Raises
    ------
    TraceFormatError
        If the file is no trace or is malformed before its end.
    """
    raw = read_rows(path, python=options.python, partial=options.partial, parser=options.parser)
    origin = int(raw.start_ns[raw.complete].min())
    host, host_rows = classify.host_ops(raw, 0, origin)
    device, device_rows = classify.device_ops(raw, 0, origin, recognizer(options.communication_names))
    ranges = around(host, device)
    device = _by_operator(device, ranges.is_distributed)
    steps, odd = classify.steps(host, 0, (*classify.STEP_NAMES, *options.step_names))
    cut = _cut_sentence(raw, origin, steps)
    if raw.cut is not None and not raw.cut.list_is_whole:
        steps = steps.assign(is_edge=steps["is_edge"] | (steps.index == len(steps) - 1))
    frames = {
        "steps": steps,
        "phases": phases(host, steps),
        "host_ops": host,
        "device_ops": device,
        "collectives": collectives(raw, (device, device_rows), (host, host_rows), ranges),
        "allocations": classify.allocations(raw, 0, origin),
    }
    notes = ([cut] if cut else []) + ([odd] if odd else []) + _notes(raw, host)
    return OneRank(path, origin, frames, raw.keys, tuple(notes), cut)


def shifted(one: OneRank, rank: int, origin_ns: int) -> dict[str, pd.DataFrame]:
    """Tables of a file with its rank, in microseconds since the given origin."""
    later = one.origin_ns - origin_ns
    return {name: _placed(frame, rank, later, MOMENTS.get(name, ())) for name, frame in one.frames.items()}


def _placed(frame: pd.DataFrame, rank: int, later_ns: int, moments: tuple[str, ...]) -> pd.DataFrame:
    """Rows of one rank with its number, on a clock that began the given time before its own."""
    if frame.empty:
        return frame
    there = [name for name in moments if name in frame.columns and later_ns]
    return frame.assign(rank=rank, **{name: _later(frame[name].to_numpy(dtype=np.float64), later_ns) for name in there})


def _later(time_us: NDArray[np.float64], later_ns: int) -> NDArray[np.float64]:
    known = ~np.isnan(time_us)
    whole = np.rint(np.where(known, time_us, 0.0) * 1000).astype(np.int64)
    return np.where(known, classify.microseconds(whole + later_ns), np.nan)


def _by_operator(device: pd.DataFrame, is_distributed: classify.Bools) -> pd.DataFrame:
    """Device ops with those kernels as communication that an operator of torch.distributed launched."""
    is_compute = per_text(device["kind"], "compute".__eq__)
    chosen = is_distributed & is_compute & ~per_text(device["name"], lambda name: name.startswith(COMPUTE_NAME))
    if not chosen.any():
        return device
    kind = device["kind"].astype(object).mask(chosen, "communication").astype("category")
    return device.assign(kind=kind, kind_source=device["kind_source"].astype(object).mask(chosen, "operator").astype("category"))


def _cut_sentence(raw: RawTrace, origin_ns: int, steps: pd.DataFrame) -> str:
    if raw.cut is None:
        return ""
    where = f"{raw.path.name} ends early at byte {raw.cut.byte:,} (uncompressed)"
    if raw.cut.list_is_whole:
        return f"{where}, after its {raw.entries:,} events: part of what Kineto writes after the events is missing"
    last_ns = int((raw.start_ns[raw.complete] + raw.duration_ns[raw.complete]).max())
    step = f"step {int(steps['step'].iloc[-1])} may be incomplete; " if len(steps) else ""
    why = f" ({raw.cut.reason})" if raw.cut.reason else ""
    return (
        f"{where}, in event {raw.cut.event:,}{why}: read {(last_ns - origin_ns) / 1e9:.3f} s up to there; "
        f"{step}what Kineto writes after the events is missing"
    )


def _notes(raw: RawTrace, host: pd.DataFrame) -> list[str]:
    """Sentences on what was repaired and on what a file holds that no table does."""
    name = raw.path.name
    notes = [f"{name}: read by the slower parser: {raw.remark}"] if raw.remark else []
    notes += [f"{name}: repaired {what} in {count:,} events" for what, count in sorted(raw.repairs.items())]
    left_out = ", ".join(f"{count:,} {_LEFT_OUT.get(kind, kind)}" for kind, count in sorted(raw.counts.items()))
    notes += [f"{name}: left out {left_out}"] if left_out else []
    others = host["category"].value_counts()
    notes += [
        f"{name}: {count:,} events of category {category!r}, which perfnb does not know, stand among the host ops"
        for category, count in others.items()
        if category not in _KNOWN and count
    ]
    return notes
