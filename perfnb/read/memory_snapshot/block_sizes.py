"""Whole blocks behind the requests of a snapshot: its events name what was asked for, the allocator hands out more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from perfnb.read.memory_snapshot.allocator_settings import LARGEST_SMALL, AllocatorSettings
from perfnb.read.memory_snapshot.layout import Events
from perfnb.read.memory_snapshot.start_state import StartBlock, StartSegment, StartState

_MOST_LOOKS: Final = 50_000_000
"""Free blocks looked at for ranges that are unmapped, in all: there are few such events."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockSizes:
    """Sizes of whole blocks.

    Attributes
    ----------
    at_start
        Of the blocks of the start state.
    changes
        Of each event: bytes that it adds to the allocated bytes, or to the reserved ones for a segment; of an out-of-memory
        event the rounded request.
    guessed
        Events whose block is not where the rules put one: theirs is the rounded request.
    """

    at_start: list[int]
    changes: list[int]
    guessed: int


def block_sizes(start: StartState, events: Events, settings: AllocatorSettings) -> BlockSizes:
    """Sizes of the blocks, by following where each one really was."""
    tiles = Tiles(settings)
    at_start = tiles.seed(start)
    changes = []
    for action, address, size in zip(events.action, events.address, events.size, strict=True):
        if action == "alloc":
            changes.append(tiles.alloc(address, size))
        elif action == "free_requested":
            changes.append(-(tiles.in_use.get(address) or settings.rounded(size)))
        elif action == "free_completed":
            tiles.free(address)
            changes.append(0)
        elif action == "oom":
            changes.append(settings.rounded(size))
        elif action in ("segment_alloc", "segment_map"):
            tiles.add(address, size, is_own=action == "segment_alloc")
            changes.append(size)
        else:
            tiles.remove(address, size)
            changes.append(-size)
    return BlockSizes(at_start, changes, tiles.guessed)


class Tiles:
    """Blocks and free ranges that tile the segments."""

    def __init__(self, settings: AllocatorSettings) -> None:
        self._settings = settings
        self._free: dict[int, int] = {}  # start to size
        self._ends: dict[int, int] = {}  # end to start
        self._edges: set[int] = set()  # starts of segments, over which nothing merges
        self._looks = 0
        self.in_use: dict[int, int] = {}
        self.guessed = 0

    def seed(self, start: StartState) -> list[int]:
        """Begin with the state before the first event; gives the sizes of its blocks."""
        sizes: list[int] = []
        place = 0
        for segment in start.segments:
            end = segment.address + segment.size
            first = place
            while place < len(start.blocks) and start.blocks[place].address < end:
                place += 1
            sizes += self._seed_segment(segment, start.blocks[first:place])
            if not segment.is_expandable:
                self._edges.add(segment.address)
        outside = start.blocks[place:]
        self.guessed += len(outside)
        return sizes + [block.size or self._settings.rounded(block.requested or 0) for block in outside]

    def _seed_segment(self, segment: StartSegment, blocks: Sequence[StartBlock]) -> list[int]:
        end, at, sizes = segment.address + segment.size, segment.address, []
        ends = [*(block.address for block in blocks[1:]), end][: len(blocks)]
        for block, following in zip(blocks, ends, strict=True):
            if block.address > at:
                self._release(at, block.address - at)
            size = block.size or with_tail(self._settings, block.requested or 0, following - block.address, segment)
            self.in_use[block.address] = size
            sizes.append(size)
            at = block.address + size
        if at < end:
            self._release(at, end - at)
        return sizes

    def alloc(self, address: int, requested: int) -> int:
        """Size of the block that a request took at an address."""
        settings = self._settings
        rounded = settings.rounded(requested)
        size = self._free.get(address, 0)
        if size < rounded:
            self.guessed += 1
            size = rounded
        else:
            del self._free[address]
            self._ends.pop(address + size, None)
            if settings.splits(size, rounded, is_small=rounded <= LARGEST_SMALL):
                self._free[address + rounded] = size - rounded
                self._ends[address + size] = address + rounded
                size = rounded
        self.in_use[address] = size
        return size

    def free(self, address: int) -> None:
        """Give a block back and merge it with what is free beside it."""
        size = self.in_use.pop(address, 0)
        if size:
            self._release(address, size)

    def add(self, address: int, size: int, *, is_own: bool) -> None:
        """A new segment, or a new range of an expandable one."""
        if is_own:
            self._edges.add(address)
        self._release(address, size)

    def remove(self, address: int, size: int) -> None:
        """A segment, or a range of an expandable one, goes back to the device."""
        start = address if address in self._free else self._holding(address)
        whole = self._free.get(start, 0)
        if start + whole < address + size:
            self.guessed += 1
            return
        del self._free[start]
        self._ends.pop(start + whole, None)
        self._edges.discard(address)
        for piece, end in ((start, address), (address + size, start + whole)):
            if end > piece:
                self._free[piece] = end - piece
                self._ends[end] = piece

    def _holding(self, address: int) -> int:
        self._looks += len(self._free)
        if self._looks > _MOST_LOOKS:
            return -1
        return next((start for start, size in self._free.items() if start < address < start + size), -1)

    def _release(self, start: int, size: int) -> None:
        end = start + size
        before = self._ends.get(start) if start not in self._edges else None
        if before is not None:
            del self._ends[start]
            self._free.pop(before, None)
            start = before
        if end not in self._edges and end in self._free:
            end += self._free.pop(end)
            self._ends.pop(end, None)
        self._free[start] = end - start
        self._ends[end] = start


def with_tail(settings: AllocatorSettings, requested: int, room: int, segment: StartSegment) -> int:
    """Size of a block of which only the request and the room up to the next one are known.

    What would not have been split off belongs to the block; a larger gap may hide a tail as well, which nothing shows.
    """
    rounded = settings.rounded(requested)
    rest = room - rounded
    if rest <= 0 or segment.is_small or segment.is_expandable:
        return min(rounded, room)
    if settings.max_split_bytes is not None and rounded >= settings.max_split_bytes:
        return room if rest < settings.max_non_split_rounding_bytes else rounded
    return room if rest <= LARGEST_SMALL else rounded
