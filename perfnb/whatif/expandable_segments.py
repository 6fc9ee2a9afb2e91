"""Segments that grow: addresses are reserved once, and memory is put behind them granule by granule. Not validated on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perfnb.whatif.allocator_blocks import AddressSpace, Block, Pool

if TYPE_CHECKING:
    from perfnb.whatif.caching_allocator import CachingAllocator

_UNKNOWN_DEVICE_BYTES: Final = 1 << 44
"""Addresses of a segment where the device's memory is not known; torch takes 9/8 of the device's memory."""


class ExpandableSegments:
    """The rules of expandable segments for an allocator."""

    def __init__(self, allocator: CachingAllocator) -> None:
        self._allocator = allocator

    @staticmethod
    def chosen(pool: Pool, place: int) -> Block:
        """The free block to hand out, from the first that is large enough on.

        A free block that memory could be added to counts as large as it could become, so a later one may fit better.
        """
        order, free = pool.order, pool.free
        block = free[order[place][1]]
        while place + 1 < len(order):
            following = free[order[place + 1][1]]
            if _reach(following) >= _reach(block):
                break
            block, place = following, place + 1
        return block

    def grow(self, pool: Pool, size: int) -> Block | None:
        """A block of a size at the lowest address where free and unmapped ranges have room for it, out of its pool."""
        block = self._place(pool, size)
        if not block.is_mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            following = block.next
            if following is None or not self._map(following, min(size - block.size, following.size)):
                return None
            block = following  # it took in the block before it
        pool.remove(block)
        return block

    def unmap(self, block: Block) -> None:
        """Give back the whole granules inside a free block; what is left on either side stays free."""
        space = block.space
        if space is None:
            return
        first = space.base + -(-(block.address - space.base) // space.granule) * space.granule
        last = space.base + (block.address + block.size - space.base) // space.granule * space.granule
        if first >= last:
            return
        allocator, pool = self._allocator, block.pool
        pool.remove(block)
        if last < block.address + block.size:
            after = Block(last, block.address + block.size - last, pool, space)
            after.insert_after(block)
            pool.add(after)
        if first > block.address:
            before = block
            block = Block(first, last - first, pool, space)
            before.size = first - before.address
            block.insert_after(before)
            pool.add(before)
        block.size, block.is_mapped = last - first, False
        allocator.merge(block, block.previous)
        allocator.merge(block, block.next)
        if block.is_split:  # else nothing is left of the segment
            pool.add_unmapped(block)
        allocator.reserved_bytes -= last - first
        allocator.device_frees += 1

    def new_space(self, pool: Pool, base: int, size: int) -> Block:
        """Reserved addresses of a new segment, all of them unmapped."""
        granule = self._allocator.settings.granule(is_small=pool.kind.is_small)
        block = Block(base, size, pool, AddressSpace(base, size, granule))
        block.is_mapped = False
        pool.add_unmapped(block)
        return block

    def _place(self, pool: Pool, size: int) -> Block:
        for address in pool.unmapped_order:
            block = pool.unmapped[address]
            if block.previous is not None and not block.previous.in_use:
                block = block.previous
            room = 0
            other: Block | None = block
            while room < size and other is not None and not other.in_use:
                room += other.size
                other = other.next
            if room >= size:
                return block
        granule = self._allocator.settings.granule(is_small=pool.kind.is_small)
        known = self._allocator.capacity
        length = max(-(-(known + known // 8) // granule) * granule if known is not None else _UNKNOWN_DEVICE_BYTES, 0)
        length = max(length, -(-size // granule) * granule)
        return self.new_space(pool, self._allocator.new_address(length), length)

    def _map(self, block: Block, size: int) -> bool:
        """Put memory behind the first bytes of an unmapped range, in whole granules; all of them or none."""
        allocator, pool = self._allocator, block.pool
        granule = block.space.granule if block.space is not None else 1
        size = -(-size // granule) * granule
        if not allocator.has_room(size):
            return False
        pool.remove_unmapped(block)
        address = block.address
        if size < block.size:
            rest = Block(address + size, block.size - size, pool, block.space)
            rest.is_mapped = False
            rest.insert_after(block)
            pool.add_unmapped(rest)
            block.size = size
        block.is_mapped = True
        allocator.merge(block, block.previous)
        allocator.merge(block, block.next)
        pool.add(block)
        allocator.reserve(address, size)
        return True


def _reach(block: Block) -> int:
    """Size that a free block could have if memory were put behind the addresses after it."""
    following = block.next
    return block.size + (following.size if following is not None and not following.is_mapped else 0)
