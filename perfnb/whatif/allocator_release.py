"""What a simulated allocator gives back short of its whole cache. Not validated on a GPU."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perfnb.whatif.allocator_blocks import Pool

if TYPE_CHECKING:
    from perfnb.whatif.caching_allocator import CachingAllocator


def release_oversize(allocator: CachingAllocator, pool: Pool, size: int) -> bool:
    """Where blocks from some size on are never split: give back one that is large enough, else the largest ones, until enough.

    Returns
    -------
    bool
        Whether as much was given back as is wanted.
    """
    most = allocator.settings.max_split_bytes
    if most is None:
        return False
    wanted = max(size, most)
    place = bisect_left(pool.order, (wanted, 0))
    if place < len(pool.order):
        block = pool.free[pool.order[place][1]]
        if block.is_split or block.space is not None:
            return False
        allocator.release(block)
        return True
    released = 0
    while released < wanted and pool.order and pool.order[-1][0] >= most:
        block = pool.free[pool.order[-1][1]]
        if block.is_split or block.space is not None:
            break
        released += block.size
        allocator.release(block)
    return released >= wanted


def collect(allocator: CachingAllocator, pools: Sequence[Pool]) -> None:
    """Give back large segments that were free for longest, while more is reserved than the threshold allows.

    The age of a free segment is the number of searches for a large block since it became free.
    """
    excess = allocator.reserved_bytes - int(allocator.settings.garbage_collection_threshold * (allocator.allowed or 0))
    free = [block for pool in pools for block in pool.free.values() if not block.is_split and block.space is None]
    age = {block.address: block.pool.kind.searches - block.searches for block in free}
    total, reclaimed = sum(age.values()), 0
    while reclaimed < excess and free:
        mean = total / len(free)
        old = [block for block in free if age[block.address] >= mean]
        for block in old:  # all of them, even past the threshold, so that the next collection comes later
            reclaimed += block.size
            total -= age[block.address]
            allocator.release(block)
        free = [block for block in free if age[block.address] < mean]
