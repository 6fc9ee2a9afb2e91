"""State of the allocator before the first event of a snapshot: its state at the end, walked back event by event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perfnb.read.memory_snapshot.allocator_settings import SMALL_SEGMENT
from perfnb.read.memory_snapshot.layout import Events, Segment, pool_name


@dataclass(frozen=True, slots=True)
class StartSegment:
    """A segment before the first event; of an expandable one each range that is mapped."""

    address: int
    size: int
    stream: int
    is_small: bool
    is_expandable: bool
    pool: str


@dataclass(frozen=True, slots=True)
class StartBlock:
    """A block in use before the first event.

    Attributes
    ----------
    address, requested, stream
        Where it is, what was asked for (None in old snapshots) and on which stream.
    size
        Its size, where it is still there at the end; else it follows from the rules.
    is_allocated
        Not yet freed; else its memory waits for another stream.
    stack
        Where it was allocated, as far as it is known.
    """

    address: int
    requested: int | None
    stream: int
    size: int | None
    is_allocated: bool
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class StartState:
    """Segments and blocks before the first event, by address."""

    segments: tuple[StartSegment, ...]
    blocks: tuple[StartBlock, ...]


def start_state(segments: Sequence[Segment], events: Events) -> StartState | str:
    """Segments and blocks before the first event; a sentence where the events do not lead to the state at the end."""
    walk = _Backwards(segments)
    undo = {
        "alloc": walk.alloc,
        "free_requested": walk.free_requested,
        "free_completed": walk.free_completed,
        "segment_alloc": walk.segment_alloc,
        "segment_free": walk.segment_free,
        "segment_map": walk.segment_map,
        "segment_unmap": walk.segment_unmap,
    }
    actions, addresses, sizes, streams = events.action, events.address, events.size, events.stream
    for place in range(len(actions) - 1, -1, -1):
        step = undo.get(actions[place])
        if step is not None and not step(addresses[place], sizes[place], streams[place]):
            return f"events and state at the end disagree at event {place:,} ({actions[place]} at {addresses[place]:#x})"
    return walk.state()


class _Backwards:
    """Each method takes an event back; False where the state contradicts it."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = {one.address: _start(one) for one in segments if not one.is_expandable}
        self._ranges = [_start(one) for one in segments if one.is_expandable]
        self._blocks = {
            block.address: StartBlock(block.address, block.requested, one.stream, block.size, block.is_allocated, block.stack)
            for one in segments
            for block in one.blocks
            if block.is_active
        }

    def alloc(self, address: int, size: int, _stream: int) -> bool:
        block = self._blocks.pop(address, None)
        return block is not None and block.is_allocated and block.requested in (None, size)

    def free_requested(self, address: int, size: int, stream: int) -> bool:
        block = self._blocks.get(address)
        if block is None or block.is_allocated:
            return False
        self._blocks[address] = StartBlock(address, size, stream, block.size, is_allocated=True)
        return True

    def free_completed(self, address: int, size: int, stream: int) -> bool:
        if address in self._blocks:
            return False
        self._blocks[address] = StartBlock(address, size, stream, None, is_allocated=False)
        return True

    def segment_alloc(self, address: int, size: int, _stream: int) -> bool:
        segment = self._segments.pop(address, None)
        return segment is not None and segment.size == size

    def segment_free(self, address: int, size: int, stream: int) -> bool:
        if address in self._segments:
            return False
        is_small = size == SMALL_SEGMENT  # segments of the large pool are larger by default
        self._segments[address] = StartSegment(
            address, size, stream, is_small, is_expandable=False, pool=pool_name(None, is_small=is_small)
        )
        return True

    def segment_map(self, address: int, size: int, _stream: int) -> bool:
        place = bisect_right(self._ranges, address, key=lambda one: one.address) - 1
        if place < 0:
            return False
        whole = self._ranges[place]
        before, after = address - whole.address, whole.address + whole.size - address - size
        if after < 0:
            return False
        rest = [(whole.address, before), (address + size, after)]
        self._ranges[place : place + 1] = [
            StartSegment(start, length, whole.stream, whole.is_small, is_expandable=True, pool=whole.pool)
            for start, length in rest
            if length
        ]
        return True

    def segment_unmap(self, address: int, size: int, stream: int) -> bool:
        place = bisect_right(self._ranges, address, key=lambda one: one.address)
        start, end = max(place - 1, 0), place
        beside = self._ranges[start : place + 1]
        like = next((one for one in beside if one.address + one.size == address or address + size == one.address), None)
        is_small = like.is_small if like is not None else size % (10 * SMALL_SEGMENT) > 0  # granules of 2 or 20 MiB
        pool = like.pool if like is not None else pool_name(None, is_small=is_small)
        made = StartSegment(address, size, stream, is_small, is_expandable=True, pool=pool)
        # ranges beside it were mapped as one with it, so they are one again
        self._ranges[start : place + 1] = _joined([*self._ranges[start:end], made, *self._ranges[end : place + 1]])
        return True

    def state(self) -> StartState:
        segments = [*self._segments.values(), *_joined(self._ranges)]
        return StartState(
            tuple(sorted(segments, key=lambda one: one.address)),
            tuple(self._blocks[address] for address in sorted(self._blocks)),
        )


def _joined(ranges: Sequence[StartSegment]) -> list[StartSegment]:
    """Ranges that follow one another as one."""
    found: list[StartSegment] = []
    for one in ranges:
        last = found[-1] if found else None
        if last is not None and last.address + last.size == one.address and last.pool == one.pool and last.stream == one.stream:
            found[-1] = replace(last, size=last.size + one.size)
        else:
            found.append(one)
    return found


def _start(one: Segment) -> StartSegment:
    return StartSegment(one.address, one.size, one.stream, one.is_small, one.is_expandable, one.pool)
