"""A slow caching allocator written from the table of rules, with lists and sums; it tells its history as torch's snapshots do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings

MIB = 1 << 20
SPACING = 1 << 45  # between segments
SPACE = 1 << 44  # addresses of an expandable segment


Where = tuple[bool, int, Any]
"""Whether small, stream, private pool."""


@dataclass
class Piece:
    """A part of a segment: free, used, waiting (for another stream) or unmapped."""

    start: int
    size: int
    state: str = "free"
    key: Any = None
    requested: int = 0
    freed_at: int = 0


@dataclass
class Segment:
    """What was asked of the device at once, or the addresses of an expandable segment."""

    start: int
    stream: int
    small: bool
    private: Any
    expandable: bool
    pieces: list[Piece] = field(default_factory=list)

    @property
    def mapped(self) -> int:
        return sum(piece.size for piece in self.pieces if piece.state != "unmapped")


class ReferenceAllocator:
    """The rules, one method per row of the table."""

    def __init__(self, settings: AllocatorSettings, capacity: int | None = None, allowed: int | None = None) -> None:
        self.settings, self.capacity, self.allowed = settings, capacity, allowed
        self.segments: list[Segment] = []
        self.events: list[dict[str, Any]] = []
        self.retries = self.ooms = self.device_allocs = self.device_frees = self.made = 0
        self.searches: dict[tuple[Any, bool], int] = {}

    # what can be seen

    @property
    def pieces(self) -> list[Piece]:
        return [piece for segment in self.segments for piece in segment.pieces]

    @property
    def reserved(self) -> int:
        return sum(segment.mapped for segment in self.segments)

    def total(self, *states: str) -> int:
        return sum(piece.size for piece in self.pieces if piece.state in states)

    @property
    def requested(self) -> int:
        return sum(piece.requested for piece in self.pieces if piece.state in ("used", "waiting"))

    @property
    def inactive_split(self) -> int:
        plain = [segment for segment in self.segments if not segment.expandable and len(segment.pieces) > 1]
        return sum(piece.size for segment in plain for piece in segment.pieces if piece.state == "free")

    # what is asked of it

    def malloc(self, key: Any, requested: int, stream: int = 0, private: Any = None) -> int | None:
        """Address, or None when out of memory."""
        size = self.rounded(requested)
        small = size <= MIB
        if self.collects:
            self.searches[private, small] = self.searches.get((private, small), 0) + 1
        where = (small, stream, private)
        found = self.best_fit(size, where)
        if found is None and self.collects:
            self.collect()
        if found is None:
            found = self.new_memory(size, where)
        if found is None and self.release_oversize(size, where):
            found = self.new_memory(size, where)
        if found is None:
            self.empty_cache()
            self.retries += 1
            found = self.new_memory(size, where)
        if found is None:
            self.ooms += 1
            free = None if self.capacity is None else self.capacity - self.reserved
            self.events.append({"action": "oom", "device_free": free or 0, "size": size, "stream": stream})
            return None
        segment, piece = found
        if self.splits(piece.size, size, where):
            rest = Piece(piece.start + size, piece.size - size, freed_at=self.searches.get((private, small), 0))
            segment.pieces.insert(segment.pieces.index(piece) + 1, rest)
            piece.size = size
        piece.state, piece.key, piece.requested = "used", key, requested
        self.tell("alloc", piece.start, requested, stream)
        return piece.start

    def request_free(self, key: Any) -> None:
        for segment in self.segments:
            for piece in segment.pieces:
                if piece.state == "used" and piece.key == key:
                    piece.state = "waiting"
                    self.tell("free_requested", piece.start, piece.requested, segment.stream)

    def complete_free(self, key: Any) -> None:
        for segment in self.segments:
            for piece in segment.pieces:
                if piece.state == "waiting" and piece.key == key:
                    self.tell("free_completed", piece.start, piece.requested, segment.stream)
                    piece.state, piece.key, piece.requested = "free", None, 0
                    piece.freed_at = self.searches.get((segment.private, segment.small), 0)
                    self.join(segment)
                    return

    def free(self, key: Any) -> None:
        self.request_free(key)
        self.complete_free(key)

    def empty_cache(self) -> None:
        for key in [piece.key for piece in self.pieces if piece.state == "waiting"]:
            self.complete_free(key)
        for small in (False, True):
            for segment in [one for one in self.segments if one.small == small and one.private is None]:
                if segment.expandable:
                    free = [one for one in segment.pieces if one.state == "free"]
                    for piece in free:
                        self.unmap(segment, piece)
                    if free and all(piece.state == "unmapped" for piece in segment.pieces):  # one never mapped stays
                        self.segments.remove(segment)
                elif [piece.state for piece in segment.pieces] == ["free"]:
                    self.give_back(segment)

    # the rules

    def rounded(self, requested: int) -> int:
        if requested < 512:
            return 512
        power = 1
        while power * 2 <= requested:
            power *= 2
        divisions = self.settings.roundup_power2_divisions
        if divisions:
            interval = MIB
            place = 0
            while interval * 2 <= requested and place < 15:
                interval, place = interval * 2, place + 1
            if divisions[place] > 1 and requested > 512 * divisions[place]:
                size = power
                while size < requested:
                    size += power // divisions[place]
                return size
        return (requested + 511) // 512 * 512

    def splits(self, whole: int, size: int, where: Where) -> bool:
        if where[0] or self.settings.expandable_segments:
            return whole - size >= 512
        most = self.settings.max_split_bytes
        return whole - size > MIB and (most is None or size < most)

    def segment_size(self, size: int) -> int:
        if size <= MIB:
            return 2 * MIB
        if size < 10 * MIB:
            return 20 * MIB
        return (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)

    def free_pieces(self, where: Where) -> list[tuple[Segment, Piece]]:
        found = [
            (segment, piece)
            for segment in self.segments
            if (segment.small, segment.stream, segment.private) == where
            for piece in segment.pieces
            if piece.state == "free"
        ]
        return sorted(found, key=lambda pair: (pair[1].size, pair[1].start))

    def best_fit(self, size: int, where: Where) -> tuple[Segment, Piece] | None:
        fitting = [pair for pair in self.free_pieces(where) if pair[1].size >= size]
        if not fitting:
            return None
        place = 0
        if self.settings.expandable_segments:
            while place + 1 < len(fitting) and self.reach(*fitting[place + 1]) < self.reach(*fitting[place]):
                place += 1
        segment, piece = fitting[place]
        most = self.settings.max_split_bytes
        if most is not None and size < most <= piece.size:
            return None
        if most is not None and size >= most and piece.size >= size + self.settings.max_non_split_rounding_bytes:
            return None
        return segment, piece

    def reach(self, segment: Segment, piece: Piece) -> int:
        place = segment.pieces.index(piece) + 1
        following = segment.pieces[place] if place < len(segment.pieces) else None
        return piece.size + (following.size if following is not None and following.state == "unmapped" else 0)

    def new_memory(self, size: int, where: Where) -> tuple[Segment, Piece] | None:
        wanted = self.segment_size(size)
        if self.allowed is not None and self.reserved + wanted > self.allowed:
            return None
        if self.settings.expandable_segments:
            return self.expand(size, where)
        if self.capacity is not None and self.reserved + wanted > self.capacity:
            return None
        small, stream, private = where
        segment = Segment(self.address(), stream, small, private, expandable=False)
        piece = Piece(segment.start, wanted)
        segment.pieces.append(piece)
        self.segments.append(segment)
        self.device_allocs += 1
        self.tell("segment_alloc", segment.start, wanted, stream)
        return segment, piece

    def expand(self, size: int, where: Where) -> tuple[Segment, Piece] | None:
        own = [one for one in self.segments if (one.small, one.stream, one.private) == where and one.expandable]
        place = None
        for segment in sorted(own, key=lambda one: one.start):
            for index, piece in enumerate(segment.pieces):
                if place is None and piece.state == "unmapped":
                    first = index - 1 if index and segment.pieces[index - 1].state == "free" else index
                    if self.room(segment, first) >= size:
                        place = (segment, segment.pieces[first].start)
        if place is None:
            small, stream, private = where
            segment = Segment(self.address(), stream, small, private, expandable=True)
            segment.pieces.append(Piece(segment.start, SPACE if self.capacity is None else self.space(size, where), "unmapped"))
            self.segments.append(segment)
            place = (segment, segment.start)
        segment, start = place
        while True:
            piece = next(one for one in segment.pieces if one.start == start)
            if piece.state == "free" and piece.size >= size:
                return segment, piece
            have = piece.size if piece.state == "free" else 0
            target = piece if piece.state == "unmapped" else segment.pieces[segment.pieces.index(piece) + 1]
            if not self.map(segment, target, min(size - have, target.size)):
                return None

    def space(self, size: int, where: Where) -> int:
        granule = 2 * MIB if where[0] else 20 * MIB
        wanted = max((self.capacity or 0) * 9 // 8, size)
        return (wanted + granule - 1) // granule * granule

    def room(self, segment: Segment, first: int) -> int:
        found = 0
        for piece in segment.pieces[first:]:
            if piece.state not in ("free", "unmapped"):
                break
            found += piece.size
        return found

    def map(self, segment: Segment, piece: Piece, size: int) -> bool:
        granule = 2 * MIB if segment.small else 20 * MIB
        size = (size + granule - 1) // granule * granule
        if self.capacity is not None and self.reserved + size > self.capacity:
            return False
        rest = Piece(piece.start + size, piece.size - size, "unmapped")
        piece.size, piece.state = size, "free"
        piece.freed_at = self.searches.get((segment.private, segment.small), 0)
        if rest.size:
            segment.pieces.insert(segment.pieces.index(piece) + 1, rest)
        self.device_allocs += 1
        self.tell("segment_map", piece.start, size, segment.stream)
        self.join(segment)
        return True

    def unmap(self, segment: Segment, piece: Piece) -> None:
        granule = 2 * MIB if segment.small else 20 * MIB
        first = segment.start + -(-(piece.start - segment.start) // granule) * granule
        last = segment.start + (piece.start + piece.size - segment.start) // granule * granule
        if first >= last:
            return
        parts = [Piece(piece.start, first - piece.start), Piece(first, last - first, "unmapped")]
        parts.append(Piece(last, piece.start + piece.size - last))
        index = segment.pieces.index(piece)
        segment.pieces[index : index + 1] = [part for part in parts if part.size]
        self.device_frees += 1
        self.tell("segment_unmap", first, last - first, segment.stream)
        self.join(segment)

    def join(self, segment: Segment) -> None:
        """Merge neighbours that are both free, or both unmapped."""
        joined: list[Piece] = []
        for piece in segment.pieces:
            if joined and joined[-1].state == piece.state and piece.state in ("free", "unmapped"):
                joined[-1].size += piece.size
                joined[-1].freed_at = max(joined[-1].freed_at, piece.freed_at)
            else:
                joined.append(piece)
        segment.pieces = joined

    def give_back(self, segment: Segment) -> None:
        self.segments.remove(segment)
        self.device_frees += 1
        self.tell("segment_free", segment.start, segment.mapped, segment.stream)

    def release_oversize(self, size: int, where: Where) -> bool:
        most = self.settings.max_split_bytes
        if most is None:
            return False
        wanted = max(size, most)
        pairs = self.free_pieces(where)
        enough = [segment for segment, piece in pairs if piece.size >= wanted]
        if enough:
            if len(enough[0].pieces) > 1:
                return False
            self.give_back(enough[0])
            return True
        released = 0
        for segment, piece in reversed(pairs):
            if released >= wanted or piece.size < most or len(segment.pieces) > 1:
                break
            released += piece.size
            self.give_back(segment)
        return released >= wanted

    @property
    def collects(self) -> bool:
        return self.allowed is not None and self.settings.garbage_collection_threshold > 0

    def collect(self) -> None:
        target = self.reserved - int(self.settings.garbage_collection_threshold * (self.allowed or 0))
        now = self.searches.get((None, False), 0)
        while target > 0:
            whole = [one for one in self.segments if not one.small and one.private is None and not one.expandable]
            free = [one for one in whole if [piece.state for piece in one.pieces] == ["free"]]
            ages = [now - one.pieces[0].freed_at for one in free]
            old = [one for one, age in zip(free, ages, strict=True) if age >= sum(ages) / len(ages)]
            if not old:
                return
            for one in old:
                target -= one.mapped
                self.give_back(one)

    # what it tells

    def address(self) -> int:
        self.made += 1
        return self.made * SPACING

    def tell(self, action: str, address: int, size: int, stream: int) -> None:
        self.events.append(
            {"action": action, "addr": address, "size": size, "stream": stream, "time_us": 1000 + len(self.events)}
        )

    def snapshot(self, first_event: int = 0) -> dict[str, Any]:
        """State and events from some event on, in torch's layout."""
        segments = []
        for segment in sorted(self.segments, key=lambda one: one.start):
            runs: list[list[Piece]] = [[]]
            for piece in segment.pieces:
                if piece.state == "unmapped":
                    runs.append([])
                else:
                    runs[-1].append(piece)
            segments += [self._shown(segment, run) for run in runs if run]
        most = self.settings.max_split_bytes
        divisions = self.settings.roundup_power2_divisions or (0,) * 16
        return {
            "segments": segments,
            "device_traces": [self.events[first_event:]],
            "allocator_settings": {
                "PYTORCH_CUDA_ALLOC_CONF": "",
                "max_split_size": -1 if most is None else most,
                "garbage_collection_threshold": self.settings.garbage_collection_threshold,
                "expandable_segments": self.settings.expandable_segments,
                "roundup_power2_divisions": {str(1 << place): value for place, value in enumerate(divisions)},
            },
        }

    def _shown(self, segment: Segment, pieces: list[Piece]) -> dict[str, Any]:
        states = {"free": "inactive", "used": "active_allocated", "waiting": "active_awaiting_free"}
        return {
            "device": 0,
            "address": pieces[0].start,
            "total_size": sum(piece.size for piece in pieces),
            "stream": segment.stream,
            "segment_type": "small" if segment.small else "large",
            "segment_pool_id": (0, 0),
            "is_expandable": segment.expandable,
            "blocks": [
                {"address": piece.start, "size": piece.size, "requested_size": piece.requested, "state": states[piece.state]}
                for piece in pieces
            ],
        }
