"""Rows of table allocations from a snapshot: the state before the first event, then every event with its whole block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from perfnb import tables
from perfnb.read.memory_snapshot.allocator_settings import LARGEST_SMALL, SMALL_SEGMENT, AllocatorSettings
from perfnb.read.memory_snapshot.block_sizes import BlockSizes, block_sizes
from perfnb.read.memory_snapshot.layout import Events, Segment, pool_name
from perfnb.read.memory_snapshot.start_state import StartState, start_state

_ALLOCATED: Final = ("existing", "alloc", "free_requested")
_RESERVED: Final = ("segment_existing", "segment_alloc", "segment_free", "segment_map", "segment_unmap")
_OF_SEGMENT: Final = frozenset(_RESERVED)
_NO_STATE: Final = StartState((), ())
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceRows:
    """Rows of one device and what was odd about them.

    Attributes
    ----------
    frame
        Table allocations.
    contradiction
        Why the state before the first event is not known; empty where it is.
    guessed
        Events whose whole block is not known.
    """

    frame: pd.DataFrame
    contradiction: str
    guessed: int


def device_rows(
    device: int, segments: Sequence[Segment], events: Events, settings: AllocatorSettings, origin_us: float
) -> DeviceRows:
    """Rows of one device; times count from `origin_us`."""
    state = start_state(segments, events)
    start = _NO_STATE if isinstance(state, str) else state
    sizes = block_sizes(start, events, settings)
    before = _start_rows(start, sizes)
    frame = _frame(before, events, sizes, settings, origin_us).assign(rank=0, device=device)
    if not isinstance(state, str):  # else the totals are not known either
        action = frame["action"]
        frame = frame.assign(
            allocated_bytes=frame["bytes"].where(action.isin(_ALLOCATED), 0).cumsum(),
            reserved_bytes=frame["bytes"].where(action.isin(_RESERVED), 0).cumsum(),
        )
    contradiction = state if isinstance(state, str) else ""
    return DeviceRows(tables.conform("allocations", frame), contradiction, sizes.guessed)


@dataclass(frozen=True, slots=True)
class _StartRow:
    action: str
    address: int
    size: int
    requested: int | None
    stream: int
    pool: str
    stack: str | None = None


def _start_rows(start: StartState, sizes: BlockSizes) -> list[_StartRow]:
    """Segments, then blocks, each by address; a block that waits for another stream is allocated and freed."""
    rows = [_StartRow("segment_existing", one.address, one.size, None, one.stream, one.pool) for one in start.segments]
    for block, size, pool in zip(start.blocks, sizes.at_start, _pools(start), strict=True):
        row = _StartRow("existing", block.address, size, block.requested, block.stream, pool, block.stack)
        rows.append(row)
        if not block.is_allocated:
            rows.append(replace(row, action="free_requested", size=-size))
    return rows


def _pools(start: StartState) -> list[str]:
    """Pool of each block, that of the segment around it."""
    starts = np.array([one.address for one in start.segments], dtype=np.int64)
    places = np.searchsorted(starts, np.array([one.address for one in start.blocks], dtype=np.int64), side="right") - 1
    return [start.segments[place].pool if place >= 0 else "large" for place in places]


def _frame(
    before: list[_StartRow], events: Events, sizes: BlockSizes, settings: AllocatorSettings, origin_us: float
) -> pd.DataFrame:
    address = _joined([row.address for row in before], events.address)
    requested = _joined([-1 if row.requested is None else row.requested for row in before], events.size)
    action = [row.action for row in before] + events.action
    of_segment = np.fromiter((one in _OF_SEGMENT for one in action), dtype=bool, count=len(action))
    pools = [row.pool for row in before] + _event_pools(events, settings)
    times = [float("nan") if one is None else one - origin_us for one in events.time_us]
    return pd.DataFrame(
        {
            "time_us": np.concatenate([np.full(len(before), np.nan), np.array(times, dtype=float)]),
            "address": pd.arrays.IntegerArray(address, address < 0),
            "bytes": _joined([row.size for row in before], sizes.changes),
            "sequence": pd.array(np.arange(-len(before), len(events.action)), dtype="Int64"),
            "action": _categorical(action),
            "requested_bytes": pd.arrays.IntegerArray(requested, of_segment | (requested < 0)),
            "stream": pd.array(_joined([row.stream for row in before], events.stream), dtype="Int64"),
            "pool": _categorical(pools),
            "stack": _categorical([row.stack for row in before] + events.stack),
        }
    )


def _event_pools(events: Events, settings: AllocatorSettings) -> list[str]:
    """Pool by size: a request's rounded one, and that of a segment, which is 2 MiB in the small pool."""
    size = np.array(events.size, dtype=np.int64)
    of_segment = np.fromiter((one in _OF_SEGMENT for one in events.action), dtype=bool, count=len(size))
    largest_small_segment = min(settings.large_segment_bytes - 1, SMALL_SEGMENT)
    is_small = np.where(of_segment, size <= largest_small_segment, size <= LARGEST_SMALL)
    names = [pool_name(None, is_small=one) for one in (False, True)]
    return [own or names[small] for own, small in zip(events.pool, is_small.astype(np.int8).tolist(), strict=True)]


def _categorical(values: Sequence[str | None]) -> pd.Categorical[Any]:
    """A column of few different texts, without a look at the characters of each."""
    places: dict[str, int] = {}
    codes = np.fromiter(
        (-1 if one is None else places.setdefault(one, len(places)) for one in values), dtype=np.int32, count=len(values)
    )
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(places), dtype="str"))


def _joined(before: Sequence[int], after: Sequence[int]) -> Integers:
    return np.concatenate([np.array(before, dtype=np.int64), np.array(after, dtype=np.int64)])
