"""The rules of torch's CUDA caching allocator, to ask what it would do: which block it hands out, what it reserves, when not.

Written from the order of steps in c10/cuda/CUDACachingAllocator.cpp and the constants of torch 2.13's headers. `RULES` says which
of the rules recordings of others have confirmed; none of them has been validated on a GPU by our own hand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable
from types import MappingProxyType
from typing import Final

from perfnb.errors import NoRoomError
from perfnb.read.memory_snapshot.allocator_settings import LARGEST_SMALL, AllocatorSettings
from perfnb.whatif.allocator_blocks import Block, Pool, SizeClass
from perfnb.whatif.allocator_release import collect, release_oversize
from perfnb.whatif.expandable_segments import ExpandableSegments

PUBLIC_SNAPSHOTS: Final = "11 public snapshots of one model on one stream with default settings"
RULES: Final = MappingProxyType(
    {
        "round": PUBLIC_SNAPSHOTS,
        "find": PUBLIC_SNAPSHOTS,
        "new_segment": PUBLIC_SNAPSHOTS,
        "split": PUBLIC_SNAPSHOTS,
        "free_and_merge": PUBLIC_SNAPSHOTS,
        "roundup_power2_divisions": None,
        "max_split_size_mb": None,
        "no_room": None,
        "garbage_collection_threshold": None,
        "expandable_segments": None,
        "other_streams": None,
        "private_pools": None,
    }
)
"""Rule to the recordings that it reproduced, address by address; None: not validated."""

_FIRST_ADDRESS: Final = 1 << 40
_GAP: Final = 2 << 20  # between two segments, so that no block of one ends where another begins


class CachingAllocator:
    """A simulated allocator of one device.

    Parameters
    ----------
    settings
        Its settings.
    capacity
        Bytes that the device gives at most; None: as many as are asked for.
    allowed
        Bytes that a memory fraction allows; None: no fraction is set. Without one nothing is ever collected.
    addresses
        Gives the address of a new segment of a size; by default they follow one another.

    Examples
    --------
    >>> allocator = CachingAllocator(AllocatorSettings())
    >>> _ = allocator.malloc("weights", 3 << 20), allocator.malloc("bias", 100)
    >>> allocator.allocated_bytes, allocator.reserved_bytes
    (3146240, 23068672)
    """

    def __init__(
        self,
        settings: AllocatorSettings,
        capacity: int | None = None,
        *,
        allowed: int | None = None,
        addresses: Callable[[int], int] | None = None,
    ) -> None:
        self.settings, self.capacity, self.allowed = settings, capacity, allowed
        self.requested_bytes = self.allocated_bytes = self.active_bytes = self.inactive_split_bytes = self.reserved_bytes = 0
        self.peak_requested_bytes = self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.retries = self.ooms = self.device_allocs = self.device_frees = 0
        self.grown: list[tuple[int, int]] | None = None  # a list here is told of each new segment or range
        self._pools: dict[tuple[Hashable, bool, int], Pool] = {}
        self._kinds: dict[tuple[Hashable, bool], SizeClass] = {}
        self._live: dict[Hashable, Block] = {}
        self._waiting: dict[Hashable, Block] = {}
        self._next_address = _FIRST_ADDRESS
        self._addresses = addresses or self._following
        self._expandable = ExpandableSegments(self)
        self._is_collecting = allowed is not None and settings.garbage_collection_threshold > 0

    def malloc(self, key: Hashable, requested: int, stream: int = 0, private: Hashable = None) -> int:
        """Address of a block for a request; a request of 0 bytes has none, and gets 0.

        Parameters
        ----------
        key
            Name of the request, to free it by.
        requested
            Bytes.
        stream
            Stream on which it is used.
        private
            Pool of a CUDA graph; None: the allocator's own.

        Raises
        ------
        NoRoomError
            If there is none, after everything that can be given back was.
        """
        if requested <= 0:
            return 0
        settings = self.settings
        size = settings.rounded(requested)
        pool = self.pool(stream, is_small=size <= LARGEST_SMALL, private=private)
        block = self._found(pool, size) or self._grown(pool, size)
        was_split, counts = block.is_split, block.space is None
        if settings.splits(block.size, size, is_small=pool.kind.is_small):
            rest = Block(block.address + size, block.size - size, pool, block.space)
            block.size = size
            rest.insert_after(block)
            pool.add(rest)
            if counts:
                self.inactive_split_bytes += -size if was_split else rest.size
        elif was_split and counts:
            self.inactive_split_bytes -= block.size
        self.hand_out(key, block, requested)
        return block.address

    def free(self, key: Hashable) -> None:
        """Give a block back, whose memory can be used again at once; a key without a block is passed over."""
        self.request_free(key)
        self.complete_free(key)

    def request_free(self, key: Hashable) -> None:
        """Give a block back whose memory another stream may still use."""
        block = self._live.pop(key, None)
        if block is not None:
            self.allocated_bytes -= block.size
            self._waiting[key] = block

    def complete_free(self, key: Hashable) -> None:
        """The last stream is done with a block; one that was taken back before is passed over."""
        block = self._waiting.pop(key, None)
        if block is None:
            return
        self.active_bytes -= block.size
        self.requested_bytes -= block.requested
        block.in_use, block.requested = False, 0
        change = 0
        for other in (block.previous, block.next):
            change -= self.merge(block, other)
        block.pool.add(block)
        if block.space is None:
            self.inactive_split_bytes += change + (block.size if block.is_split else 0)

    def empty_cache(self) -> None:
        """Give back every segment that is wholly free, once all streams are done."""
        for key in list(self._waiting):
            self.complete_free(key)
        for pool in sorted(self._pools.values(), key=lambda one: one.kind.is_small):  # large ones first
            if not pool.of_graph:  # while its graph lives
                for block in list(pool.free.values()):
                    if block.space is not None:
                        self._expandable.unmap(block)
                    elif not block.is_split:
                        self.release(block)

    def pool(self, stream: int, *, is_small: bool, private: Hashable = None) -> Pool:
        """Free blocks of a stream and size class."""
        key = (private, is_small, stream)
        found = self._pools.get(key)
        if found is None:
            kind = self._kinds.setdefault((private, is_small), SizeClass(is_small))
            found = self._pools[key] = Pool(kind, of_graph=private is not None)
        return found

    def merge(self, block: Block, other: Block | None) -> int:
        """Take a free neighbour into a block; gives the bytes that it brought."""
        if other is None or other.in_use or other.is_mapped != block.is_mapped:
            return 0
        (other.pool.remove if other.is_mapped else other.pool.remove_unmapped)(other)
        if block.previous is other:
            block.address = other.address
            block.previous = other.previous
            if other.previous is not None:
                other.previous.next = block
        else:
            block.next = other.next
            if other.next is not None:
                other.next.previous = block
        block.size += other.size
        return other.size

    def release(self, block: Block) -> None:
        """Give a segment that is one free block back to the device."""
        block.pool.remove(block)
        self.reserved_bytes -= block.size
        self.device_frees += 1

    def hand_out(self, key: Hashable, block: Block, requested: int) -> None:
        """Count a block, which is in no pool, as in use."""
        block.in_use, block.requested = True, requested
        self._live[key] = block
        self.requested_bytes += requested
        self.allocated_bytes += block.size
        self.active_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        self.peak_requested_bytes = max(self.peak_requested_bytes, self.requested_bytes)

    def blocks(self) -> list[Block]:
        """All blocks, in use or free, by address."""
        free = (block for pool in self._pools.values() for block in pool.free.values())
        return sorted((*self._live.values(), *self._waiting.values(), *free), key=lambda block: block.address)

    def free_block(self, address: int) -> Block | None:
        """The free block that begins at an address, or holds it; None where there is none."""
        for pool in self._pools.values():
            if address in pool.free:
                return pool.free[address]
        inside = (block for pool in self._pools.values() for block in pool.free.values())
        return next((block for block in inside if block.address < address < block.address + block.size), None)

    def new_space(self, pool: Pool, address: int, size: int) -> Block:
        """Addresses of a new expandable segment, without memory behind them."""
        return self._expandable.new_space(pool, address, size)

    def unmap(self, block: Block) -> None:
        """Give back the whole granules of a free block of an expandable segment."""
        self._expandable.unmap(block)

    def has_room(self, size: int) -> bool:
        """Whether the device has so many bytes more."""
        return self.capacity is None or self.reserved_bytes + size <= self.capacity

    def reserve(self, address: int, size: int) -> None:
        """Count bytes that the device gave."""
        self.reserved_bytes += size
        self.device_allocs += 1
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        if self.grown is not None:
            self.grown.append((address, size))

    def new_address(self, size: int) -> int:
        """Address of a new segment, or of the addresses of an expandable one."""
        return self._addresses(size)

    def _following(self, size: int) -> int:
        address = self._next_address
        self._next_address += size + _GAP
        return address

    def _found(self, pool: Pool, size: int) -> Block | None:
        """The free block that fits best, out of its pool; None where there is none that may be used."""
        if self._is_collecting:
            pool.kind.searches += 1
        place = bisect_left(pool.order, (size, 0))
        if place == len(pool.order):
            return None
        block = pool.free[pool.order[place][1]]
        if block.space is not None:
            block = self._expandable.chosen(pool, place)
        most = self.settings.max_split_bytes
        if most is not None:
            if size < most <= block.size:
                return None
            if size >= most and block.size >= size + self.settings.max_non_split_rounding_bytes:
                return None
        pool.remove(block)
        return block

    def _grown(self, pool: Pool, size: int) -> Block:
        """A block of new memory; gives back what is cached where there is no room for it."""
        if self._is_collecting:
            collect(self, [pool for (private, is_small, _), pool in self._pools.items() if private is None and not is_small])
        block = self._new(pool, size)
        if block is None and release_oversize(self, pool, size):
            block = self._new(pool, size)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._new(pool, size)
        if block is None:
            self.ooms += 1
            limits = [limit for limit in (self.capacity, self.allowed) if limit is not None]
            segment = self.settings.segment_for(size)
            raise NoRoomError(size, segment, self.allocated_bytes, self.reserved_bytes, min(limits, default=0))
        return block

    def _new(self, pool: Pool, size: int) -> Block | None:
        segment = self.settings.segment_for(size)
        if self.allowed is not None and self.reserved_bytes + segment > self.allowed:
            return None
        if self.settings.expandable_segments:
            return self._expandable.grow(pool, size)
        if not self.has_room(segment):
            return None
        block = Block(self.new_address(segment), segment, pool)
        self.reserve(block.address, segment)
        return block
