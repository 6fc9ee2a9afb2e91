"""A simulated allocator in the state in which a recording began: its segments, the blocks in use, and what is free between."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from perfnb.whatif.allocator_blocks import Block, Pool
from perfnb.whatif.caching_allocator import CachingAllocator

_FURTHER_BYTES = 1 << 44
"""Addresses after the last range of an expandable segment; torch takes 9/8 of the device's memory, which is not recorded."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A segment, or a mapped range of an expandable one, with the blocks in it that are in use.

    Attributes
    ----------
    address, size, stream, is_small, private
        Of the segment.
    blocks
        Key, address, size and requested bytes of each block in use, by address.
    """

    address: int
    size: int
    stream: int
    is_small: bool
    private: Hashable
    blocks: tuple[tuple[Hashable, int, int, int], ...]


def seed(allocator: CachingAllocator, segments: Sequence[Seed], *, are_expandable: bool) -> None:
    """Give an empty allocator segments at their recorded addresses; peaks count from there.

    With expandable segments the ranges of a pool are taken as one segment, as the recording does not tell them apart.
    """
    last: dict[Pool, Block] = {}
    for one in segments:
        pool = allocator.pool(one.stream, is_small=one.is_small, private=one.private)
        if not are_expandable:
            _fill(allocator, pool, one, None)
        else:
            last[pool] = _fill(allocator, pool, one, last.get(pool) or _space(allocator, pool, one, segments))
    allocator.device_allocs = 0


def _space(allocator: CachingAllocator, pool: Pool, first: Seed, segments: Sequence[Seed]) -> Block:
    """Reserved addresses from the first range on; unmapped so far."""
    end = max(one.address + one.size for one in segments)
    return allocator.new_space(pool, first.address, end - first.address + _FURTHER_BYTES)


def _fill(allocator: CachingAllocator, pool: Pool, one: Seed, unmapped: Block | None) -> Block:
    """Lay out the blocks of a segment; in an expandable one from an unmapped range, whose rest is given back."""
    previous = unmapped.previous if unmapped is not None else None
    space = unmapped.space if unmapped is not None else None
    if unmapped is not None:
        pool.remove_unmapped(unmapped)
        previous = _gap(pool, unmapped, one.address, previous)
    at, end = one.address, one.address + one.size
    made: list[tuple[Hashable, Block, int]] = []
    for key, address, size, requested in one.blocks:
        if address > at:
            made.append((None, Block(at, address - at, pool, space), 0))
        made.append((key, Block(address, size, pool, space), requested))
        at = address + size
    if at < end:
        made.append((None, Block(at, end - at, pool, space), 0))
    for _, block, _ in made:
        if previous is not None:
            block.insert_after(previous)
        previous = block
    for key, block, requested in made:
        if requested:
            allocator.hand_out(key, block, requested)
        else:
            pool.add(block)
            allocator.inactive_split_bytes += block.size if block.is_split and space is None else 0
    allocator.reserve(one.address, one.size)
    rest = Block(end, 0, pool, space)
    if unmapped is not None and previous is not None:
        rest.size = unmapped.address + unmapped.size - end
        rest.is_mapped = False
        rest.insert_after(previous)
        pool.add_unmapped(rest)
    return rest


def _gap(pool: Pool, unmapped: Block, address: int, previous: Block | None) -> Block | None:
    """Unmapped addresses before a range, if there are any; gives the block before the range."""
    if previous is not None:
        previous.next = None
    if address == unmapped.address:
        return previous
    gap = Block(unmapped.address, address - unmapped.address, pool, unmapped.space)
    gap.is_mapped = False
    if previous is not None:
        gap.insert_after(previous)
    pool.add_unmapped(gap)
    return gap
