"""How exactly the simulated allocator repeats a recording: each address and each new segment beside the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot.allocator_settings import LARGEST_SMALL, SMALL_SEGMENT, AllocatorSettings
from perfnb.run import Run
from perfnb.whatif.allocator_events import columns_of, device_rows
from perfnb.whatif.allocator_seed import Seed, seed
from perfnb.whatif.caching_allocator import CachingAllocator

_PRIVATE: Final = "private:"
_UNSEEN: Final = 1 << 62
"""Address of a segment that the recording did not make; no real one is so high."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first event that the simulated allocator does not repeat.

    Attributes
    ----------
    sequence
        Its row of table allocations.
    what
        What is different, in words.
    requested, recorded, predicted
        Bytes, and the two addresses; None where there is none.
    """

    sequence: int
    what: str
    requested: int | None = None
    recorded: int | None = None
    predicted: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedReplay:
    """Counts up to the end, or to the first divergence.

    Attributes
    ----------
    allocations, matched
        Allocations of the recording, and those that were predicted at their real address.
    segments, matched_segments
        New segments (or ranges that were mapped) of the recording, and those predicted at the right moment with the right size.
    peak_reserved_bytes
        Highest reserved bytes of the replay, which follows the recording's own releases.
    recorded_peak_reserved_bytes
        The same of the recording.
    divergence
        None where it is exact.
    """

    allocations: int
    matched: int
    segments: int
    matched_segments: int
    peak_reserved_bytes: int
    recorded_peak_reserved_bytes: int
    divergence: Divergence | None

    @property
    def is_exact(self) -> bool:
        """Whether every address, segment and the reserved bytes came out as recorded."""
        return self.divergence is None


def replay_recorded(run: Run, rank: int = 0, device: int = 0) -> RecordedReplay | Unknown:
    """The recording once more: same requests, frees and releases, from the same state; addresses and new segments predicted.

    Parameters
    ----------
    run
        `perfnb.read_memory_snapshot(path)`.
    rank, device
        Whose memory.
    """
    rows = device_rows(run, rank, device)
    if isinstance(rows, Unknown):
        return rows
    columns = columns_of(rows)
    repeat = _Repeat(AllocatorSettings().with_knobs(run.config), [row for row in columns if row[0] < 0])
    divergence = None
    for row in columns:
        if row[0] >= 0:
            divergence = repeat.step(row)
            if divergence is not None:
                break
    if divergence is None:
        divergence = repeat.end(columns[-1][0], int(rows["reserved_bytes"].iloc[-1]))
    actions = rows.loc[rows["sequence"].ge(0), "action"]
    return RecordedReplay(
        int(actions.eq("alloc").sum()),
        repeat.matched,
        int(actions.isin(("segment_alloc", "segment_map")).sum()),
        repeat.matched_segments,
        repeat.allocator.peak_reserved_bytes,
        int(rows["reserved_bytes"].max()),
        divergence,
    )


@dataclass(slots=True)
class _Expected:
    """New segments of the recording that the next allocation has to ask for, and how many of them it has asked for."""

    segments: list[tuple[int, int]] = field(default_factory=list)
    asked: int = 0

    def address(self, _size: int) -> int:
        self.asked += 1
        return self.segments[self.asked - 1][0] if self.asked <= len(self.segments) else _UNSEEN


class _Repeat:
    """The simulated allocator beside the recording, one event after the other."""

    def __init__(self, settings: AllocatorSettings, start: Sequence[tuple[Any, ...]]) -> None:
        self.matched = self.matched_segments = 0
        self._expected = _Expected()
        self.allocator = CachingAllocator(settings, addresses=self._expected.address)
        self._number = 0
        self._keys: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._settings = settings
        seed(self.allocator, self._seeds(start), are_expandable=settings.expandable_segments)
        for _, action, address, *_ in start:
            if action == "free_requested":
                self._request_free(address)
        self.allocator.grown = []

    def _seeds(self, start: Sequence[tuple[Any, ...]]) -> list[Seed]:
        segments = [row for row in start if row[1] == "segment_existing"]
        blocks = [row for row in start if row[1] == "existing"]
        found, place = [], 0
        for _, _, address, size, _, stream, pool in segments:
            inside = []
            while place < len(blocks) and blocks[place][2] < address + size:
                _, _, at, length, requested, _, _ = blocks[place]
                inside.append((self._new_key(at), at, length, length if requested is None else requested))
                place += 1
            private = pool if pool.startswith(_PRIVATE) else None
            is_small = pool == "small" if private is None else self._is_small(size, inside)
            found.append(Seed(address, size, stream, is_small, private, tuple(inside)))
        return found

    def _is_small(self, size: int, blocks: Sequence[tuple[Any, int, int, int]]) -> bool:
        """Size class of a private pool's segment, whose name does not tell it."""
        if blocks:
            return self._settings.rounded(blocks[0][3]) <= LARGEST_SMALL
        return size == SMALL_SEGMENT

    def _new_key(self, address: int) -> int:
        self._number += 1
        self._keys[address] = self._number
        return self._number

    def _request_free(self, address: int) -> None:
        key = self._keys.pop(address, None)
        if key is not None:
            self.allocator.request_free(key)
            self._waiting[address] = key

    def step(self, row: tuple[Any, ...]) -> Divergence | None:
        """Repeat an event; the divergence where it comes out differently."""
        sequence, action, address, size, requested, stream, pool = row
        if action == "alloc":
            return self._alloc(sequence, address, requested, stream, pool if pool.startswith(_PRIVATE) else None)
        if action == "free_requested":
            self._request_free(address)
        elif action == "free_completed":
            self.allocator.complete_free(self._waiting.pop(address, None))
        elif action in ("segment_alloc", "segment_map"):
            self._expected.segments.append((address, size))
        elif action in ("segment_free", "segment_unmap"):
            return self._give_back(sequence, action, address, -size)
        return None

    def end(self, sequence: int, reserved: int) -> Divergence | None:
        """What is left over at the end."""
        if self._expected.segments:
            return Divergence(sequence, "the recording made a new segment for which nothing was allocated")
        if self.allocator.reserved_bytes != reserved:
            return Divergence(sequence, f"{self.allocator.reserved_bytes:,} bytes reserved at the end, recorded {reserved:,}")
        return None

    def _alloc(self, sequence: int, address: int, requested: int, stream: int, private: str | None) -> Divergence | None:
        expected, grown = self._expected, self.allocator.grown
        predicted = self.allocator.malloc(self._new_key(address), requested, stream, private)
        wanted, expected.segments, expected.asked = expected.segments, [], 0
        if grown != wanted:
            self.allocator.grown = []
            what = "a new segment was recorded, a cached block predicted" if not grown else (
                "a new segment is predicted, a cached block was recorded" if not wanted else "another new segment is predicted"
            )  # fmt: skip
            return Divergence(sequence, what, requested, address, predicted)
        if grown:
            self.matched_segments += len(grown)
            grown.clear()
        if predicted != address:
            return Divergence(sequence, "another address is predicted", requested, address, predicted)
        self.matched += 1
        return None

    def _give_back(self, sequence: int, action: str, address: int, size: int) -> Divergence | None:
        allocator = self.allocator
        block = allocator.free_block(address)
        if block is None or block.address + block.size < address + size:
            return Divergence(sequence, "the recording gave back memory that is in use in the replay", size, address)
        if action == "segment_free":
            if block.address != address or block.size != size or block.is_split:
                return Divergence(
                    sequence, "the recording gave back a segment that is only in part free", size, address, block.address
                )
            allocator.release(block)
            return None
        before = allocator.reserved_bytes
        allocator.unmap(block)
        if before - allocator.reserved_bytes != size:
            return Divergence(sequence, "another range is predicted to be unmapped", size, address, block.address)
        return None
