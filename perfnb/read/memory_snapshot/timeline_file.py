"""Timelines that torch's older `export_memory_timeline` wrote: sizes by category, without addresses and without segments."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import numpy as np
import pandas as pd

from perfnb import tables
from perfnb.errors import SnapshotFormatError
from perfnb.run import Run

# torch/profiler/_memory_profiler.py: _CATEGORY_TO_INDEX, in the order of the colours; the last one has no category
CATEGORIES: Final = (
    "parameter",
    "optimizer_state",
    "batch",
    "temporary",
    "activation",
    "gradient",
    "autograd_detail",
    "unknown",
)
_PREEXISTING, _CREATE, _INCREMENT_VERSION, _DESTROY = 1, 2, 3, 4  # torch/profiler/_memory_profiler.py: class Action
_ACTIONS: Final = {_PREEXISTING: "existing", _CREATE: "alloc", _INCREMENT_VERSION: "category_changed", _DESTROY: "free_requested"}
_LARGEST: Final = 1 << 62
_NOTE: Final = (
    "a timeline counts tensors, not the allocator's blocks, and has neither addresses nor segments: it cannot be replayed"
)


def timeline_run(plain: list[Any], name: str, rank: int) -> Run:
    """Table allocations of a timeline file, raw events or sizes by category; on device 0, as the file does not say which."""
    if _is_totals(plain):
        frame = _of_totals(plain, name)
        note = "changes of each category between two moments: single allocations were added up by torch"
    else:
        frame = _of_events(plain, name)
        note = "single events of tensors"
    allocations = tables.conform("allocations", frame.assign(rank=rank, device=0))
    return Run(
        allocations=allocations,
        signals=frozenset({"allocations"}),
        missing={"memory_start_state": _NOTE},
        notes=(f"timeline: {note}", _NOTE, "the file does not tell its device: taken as device 0"),
        source=(name,),
    )


def _is_totals(plain: list[Any]) -> bool:
    """Whether it is `[times, sizes by category]`: two lists of equal length, each size a list that begins with 0."""
    if len(plain) != 2 or not all(isinstance(part, list) for part in plain):  # noqa: PLR2004 - times and sizes
        return False
    times, sizes = plain
    return len(times) == len(sizes) and all(isinstance(row, list) for row in sizes)


def _of_totals(plain: list[Any], name: str) -> pd.DataFrame:
    times, sizes = plain
    width = len(CATEGORIES) + 1
    if any(len(row) != width for row in sizes):
        _wrong(name, f"a moment has no {width} sizes: it is none of torch's memory timelines")
    values = _whole([number for row in sizes for number in row], name).reshape(-1, width)[:, 1:]
    change = np.diff(values, axis=0, prepend=0)
    moment, category = np.nonzero(change)
    at = _whole(times, name)
    totals = change.sum(axis=1).cumsum()
    is_last = np.append(moment[1:] != moment[:-1], values=True) if len(moment) else np.empty(0, dtype=bool)
    changes = change[moment, category]
    action = np.where(changes > 0, "alloc", "free_requested")
    frame = pd.DataFrame(
        {
            "time_us": (at[moment] - (at[0] if len(at) else 0)).astype(float),
            "bytes": changes,
            "sequence": np.arange(len(moment)),
            "action": action,
            "category": pd.Categorical.from_codes(category, categories=pd.Index(list(CATEGORIES))),
        }
    )
    known = pd.Series(totals[moment], dtype="Int64").where(pd.Series(is_last, dtype=bool))
    return frame.assign(allocated_bytes=known)


def _of_events(plain: list[Any], name: str) -> pd.DataFrame:
    if any(not isinstance(row, list) or len(row) != 4 for row in plain):  # noqa: PLR2004 - time, action, bytes, category
        _wrong(name, "is none of torch's memory timelines: their events have a time, an action, bytes and a category")
    table = _whole([number for row in plain for number in row], name).reshape(-1, 4)
    time_ns, action, size, category = table.T
    if not np.isin(action, list(_ACTIONS)).all() or not ((category >= 0) & (category < len(CATEGORIES))).all():
        _wrong(name, "an event has an action or a category that torch does not have")
    is_before = action == _PREEXISTING
    order = np.argsort(~is_before, kind="stable")  # what was there before comes first
    time_ns, action, size, category, is_before = (part[order] for part in (time_ns, action, size, category, is_before))
    at = time_ns[~is_before]
    count = int(is_before.sum())
    return pd.DataFrame(
        {
            "time_us": np.where(is_before, np.nan, (time_ns - (at[0] if len(at) else 0)) / 1000),
            "bytes": size,
            "sequence": np.arange(-count, len(size) - count),
            "action": [_ACTIONS[int(one)] for one in action],
            "requested_bytes": np.abs(size),
            "category": pd.Categorical.from_codes(category, categories=pd.Index(list(CATEGORIES))),
            "allocated_bytes": np.cumsum(size),
        }
    )


def _whole(numbers: list[Any], name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if set(map(type, numbers)) - {int, float} or any(abs(number) >= _LARGEST for number in numbers):
        _wrong(name, "holds what is no whole number: it is none of torch's memory timelines")
    return np.array([int(number) for number in numbers], dtype=np.int64)


def _wrong(name: str, what: str) -> NoReturn:
    message = f"{name}: {what}"
    raise SnapshotFormatError(message)
