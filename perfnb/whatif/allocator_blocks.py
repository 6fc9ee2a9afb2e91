"""Blocks of a simulated caching allocator and the pools in which its free ones wait, smallest first."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

__all__ = ["AddressSpace", "Block", "Pool", "SizeClass"]


@dataclass(slots=True)
class AddressSpace:
    """Reserved addresses of one expandable segment, mapped granule by granule."""

    base: int
    size: int
    granule: int


@dataclass(slots=True)
class SizeClass:
    """What small or large blocks of one pool share over all streams: how often a free one was looked for."""

    is_small: bool
    searches: int = 0


class Block:
    """A part of a segment.

    Attributes
    ----------
    address, size
        Where it is.
    requested
        What was asked for, of a block in use.
    pool
        Where it waits when it is free.
    previous, next
        Its neighbours in the segment.
    in_use
        Until its memory can be handed out again: longer than it is allocated where another stream still uses it.
    is_mapped
        Whether memory is behind the addresses; always, except in an expandable segment.
    space
        The expandable segment, None in others.
    searches
        Count of searches when it became free: its age is the difference.
    """

    __slots__ = ("address", "in_use", "is_mapped", "next", "pool", "previous", "requested", "searches", "size", "space")

    def __init__(self, address: int, size: int, pool: Pool, space: AddressSpace | None = None) -> None:
        self.address, self.size, self.pool, self.space = address, size, pool, space
        self.requested = self.searches = 0
        self.previous: Block | None = None
        self.next: Block | None = None
        self.in_use, self.is_mapped = False, True

    def insert_after(self, other: Block) -> None:
        """Make it the next neighbour of another block."""
        self.previous, self.next = other, other.next
        if other.next is not None:
            other.next.previous = self
        other.next = self

    @property
    def is_split(self) -> bool:
        """Whether it is only a part of its segment."""
        return self.previous is not None or self.next is not None


class Pool:
    """Free blocks of one size class and stream, in the order (size, address); unmapped ranges by address."""

    __slots__ = ("free", "kind", "of_graph", "order", "unmapped", "unmapped_order")

    def __init__(self, kind: SizeClass, *, of_graph: bool) -> None:
        self.kind, self.of_graph = kind, of_graph
        self.order: list[tuple[int, int]] = []
        self.free: dict[int, Block] = {}
        self.unmapped: dict[int, Block] = {}
        self.unmapped_order: list[int] = []

    def add(self, block: Block) -> None:
        """Let a block wait."""
        block.searches = self.kind.searches
        insort(self.order, (block.size, block.address))
        self.free[block.address] = block

    def remove(self, block: Block) -> None:
        """Take a block out."""
        del self.order[bisect_left(self.order, (block.size, block.address))]
        del self.free[block.address]

    def add_unmapped(self, block: Block) -> None:
        """Keep a range without memory."""
        insort(self.unmapped_order, block.address)
        self.unmapped[block.address] = block

    def remove_unmapped(self, block: Block) -> None:
        """Take a range without memory out."""
        del self.unmapped_order[bisect_left(self.unmapped_order, block.address)]
        del self.unmapped[block.address]
