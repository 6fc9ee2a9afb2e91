"""The simulated allocator beside a slow one written from the rules, and its rules one by one with addresses worked by hand."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.errors import NoRoomError
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.whatif.allocator_blocks import Block
from perfnb.whatif.caching_allocator import RULES, CachingAllocator

KIB, MIB = 1 << 10, 1 << 20


def _reference() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "reference_allocator", Path(__file__).with_name("reference_allocator.py")
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["reference_allocator"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


REFERENCE = _reference()
SETTINGS = {
    "default": AllocatorSettings(),
    "expandable": AllocatorSettings(expandable_segments=True),
    "max_split": AllocatorSettings(max_split_bytes=24 * MIB),
    "rounding": AllocatorSettings(roundup_power2_divisions=(8,) * 16),
    "mixed_rounding": AllocatorSettings(roundup_power2_divisions=(4, 2, 1, 0, 16) + (8,) * 11),
    "collecting": AllocatorSettings(garbage_collection_threshold=0.5),
}
SIZES = st.one_of(
    st.integers(1, 5000),
    st.integers(1, 3 * MIB),
    st.integers(MIB - 1024, MIB + 1024),
    st.integers(MIB, 40 * MIB),
    st.sampled_from([512, 513, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 19 * MIB, 20 * MIB, 24 * MIB, 25 * MIB, 44 * MIB]),
    st.sampled_from([20 * MIB, 30 * MIB]),  # the same again and again: blocks of equal size, segments of equal age
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 0, 7])),
        st.tuples(st.just("malloc"), SIZES, st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("request"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("complete"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Addresses:
    """Addresses of new segments as the slow allocator gives them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, _size: int) -> int:
        self.made += 1
        return self.made * int(REFERENCE.SPACING)


def run_both(name: str, steps: list[tuple[str, int, int]], capacity: int | None) -> tuple[CachingAllocator, Any]:
    allowed = capacity if name == "collecting" else None
    limit = None if name == "collecting" else capacity
    fast = CachingAllocator(SETTINGS[name], limit, allowed=allowed, addresses=Addresses())
    slow = REFERENCE.ReferenceAllocator(SETTINGS[name], limit, allowed)
    live: list[int] = []
    waiting: list[int] = []
    for number, (action, value, stream) in enumerate(steps):
        if action == "malloc":
            expected = slow.malloc(number, value, stream)
            try:
                assert fast.malloc(number, value, stream) == expected
                live.append(number)
            except NoRoomError:
                assert expected is None
        elif action in ("free", "request") and live:
            key = live.pop(value % len(live))
            for allocator in (fast, slow):
                (allocator.free if action == "free" else allocator.request_free)(key)
            waiting += [key] if action == "request" else []
        elif action == "complete" and waiting:
            key = waiting.pop(value % len(waiting))
            for allocator in (fast, slow):
                allocator.complete_free(key)
        elif action == "empty":
            fast.empty_cache()
            slow.empty_cache()
        assert counters(fast) == {
            "requested": slow.requested,
            "allocated": slow.total("used"),
            "active": slow.total("used", "waiting"),
            "inactive_split": slow.inactive_split,
            "reserved": slow.reserved,
            "retries": slow.retries,
            "ooms": slow.ooms,
            "device_allocs": slow.device_allocs,
            "device_frees": slow.device_frees,
        }
    return fast, slow


def counters(allocator: CachingAllocator) -> dict[str, int]:
    return {
        "requested": allocator.requested_bytes,
        "allocated": allocator.allocated_bytes,
        "active": allocator.active_bytes,
        "inactive_split": allocator.inactive_split_bytes,
        "reserved": allocator.reserved_bytes,
        "retries": allocator.retries,
        "ooms": allocator.ooms,
        "device_allocs": allocator.device_allocs,
        "device_frees": allocator.device_frees,
    }


def segments_of(allocator: CachingAllocator) -> list[list[Block]]:
    """Blocks of each segment in order."""
    pools = allocator._pools.values()
    blocks = [*allocator._live.values(), *allocator._waiting.values()]
    blocks += [block for pool in pools for block in (*pool.free.values(), *pool.unmapped.values())]
    found = []
    for block in blocks:
        if block.previous is None:
            chain = [block]
            while chain[-1].next is not None:
                chain.append(chain[-1].next)
            found.append(chain)
    assert sum(map(len, found)) == len(blocks)
    return found


@pytest.mark.parametrize("name", SETTINGS)
@given(steps=STEPS, capacity=st.sampled_from([None, 48 * MIB, 100 * MIB, 300 * MIB]))
@settings(max_examples=60)
def test_it_does_what_the_slow_allocator_does_at_every_step(
    name: str, steps: list[tuple[str, int, int]], capacity: int | None
) -> None:
    run_both(name, steps, capacity)


@pytest.mark.parametrize("name", SETTINGS)
@given(steps=STEPS, capacity=st.sampled_from([None, 100 * MIB]))
@settings(max_examples=25)
def test_blocks_tile_their_segments_and_no_two_neighbours_are_free(
    name: str, steps: list[tuple[str, int, int]], capacity: int | None
) -> None:
    allocator, _ = run_both(name, steps, capacity)

    for chain in segments_of(allocator):
        for block, following in pairwise(chain):
            assert block.address + block.size == following.address
            assert following.previous is block
            assert block.in_use or following.in_use or block.is_mapped != following.is_mapped
    mapped = sum(block.size for chain in segments_of(allocator) for block in chain if block.is_mapped)
    assert mapped == allocator.reserved_bytes
    for pool in allocator._pools.values():
        assert pool.order == sorted((block.size, block.address) for block in pool.free.values())
        assert pool.unmapped_order == sorted(pool.unmapped)


@pytest.mark.parametrize("name", SETTINGS)
@given(steps=STEPS)
@settings(max_examples=25)
def test_freeing_everything_and_emptying_the_cache_leaves_nothing(name: str, steps: list[tuple[str, int, int]]) -> None:
    allocator, _ = run_both(name, steps, None)

    for key in [*allocator._live, *allocator._waiting]:
        allocator.free(key)
    allocator.empty_cache()

    assert {counters(allocator)[what] for what in ("requested", "allocated", "active", "inactive_split", "reserved")} == {0}


@pytest.mark.parametrize("name", ["default", "expandable", "max_split", "rounding"])
@given(steps=STEPS)
@settings(max_examples=25)
def test_a_capacity_of_the_reserved_peak_never_needs_a_retry(name: str, steps: list[tuple[str, int, int]]) -> None:
    allocator, _ = run_both(name, steps, None)
    peak = allocator.peak_reserved_bytes

    again, _ = run_both(name, steps, peak) if peak else (allocator, None)

    assert (again.retries, again.ooms) == (0, 0)


# The rules one by one


def allocator_of(capacity: int | None = None, allowed: int | None = None, **changed: Any) -> CachingAllocator:
    """Segments at 1 GiB, 2 GiB, ..."""
    made = iter(range(1, 100))
    return CachingAllocator(AllocatorSettings(**changed), capacity, allowed=allowed, addresses=lambda _size: next(made) << 30)


FIRST, SECOND, THIRD = 1 << 30, 2 << 30, 3 << 30


def test_small_requests_share_a_segment_of_2_mib_in_steps_of_512_bytes() -> None:
    allocator = allocator_of()

    addresses = [allocator.malloc(key, size) for key, size in enumerate((1, 512, 513, 0))]

    assert addresses == [FIRST, FIRST + 512, FIRST + 1024, 0]  # nothing is handed out for 0 bytes
    assert (allocator.allocated_bytes, allocator.reserved_bytes, allocator.requested_bytes) == (2048, 2 * MIB, 1026)
    assert allocator.inactive_split_bytes == 2 * MIB - 2048


def test_segments_are_2_mib_20_mib_or_as_large_as_the_block() -> None:
    allocator = allocator_of()

    for key, size in enumerate((MIB, MIB + 1, 10 * MIB, 11 * MIB)):
        allocator.malloc(key, size)

    # 1 MiB: 2; 1 MiB + 1: 20; 10 MiB fits into the 18.99 left of that; 11 MiB: 12
    assert allocator.reserved_bytes == (2 + 20 + 12) * MIB
    assert allocator.device_allocs == 3


def test_the_rest_of_a_large_block_is_split_off_only_above_1_mib() -> None:
    allocator = allocator_of()

    allocator.malloc("a", 19 * MIB)  # segment of 20: the rest of 1 MiB stays with the block
    allocator.malloc("b", 21 * MIB - 512)  # segment of 22: the rest is 1 MiB + 512

    assert allocator.allocated_bytes == 20 * MIB + 21 * MIB - 512
    assert allocator.inactive_split_bytes == MIB + 512


def test_the_smallest_free_block_that_fits_is_taken_and_of_equal_ones_the_lowest() -> None:
    allocator = allocator_of()
    for key, size in (("a", 30 * MIB), ("b", 20 * MIB), ("c", 20 * MIB)):
        allocator.malloc(key, size)
    for key in ("a", "c", "b"):
        allocator.free(key)

    assert allocator.malloc("d", 20 * MIB) == SECOND
    assert allocator.malloc("e", 20 * MIB) == THIRD
    assert allocator.malloc("f", 20 * MIB) == FIRST


def test_a_freed_block_merges_with_both_neighbours() -> None:
    allocator = allocator_of()
    for key in "abc":
        allocator.malloc(key, 512 * KIB)
    allocator.free("a")
    allocator.free("c")

    assert allocator.malloc("d", 600 * KIB) == FIRST + MIB  # a is free and too small

    allocator.free("d")
    allocator.free("b")

    assert allocator.inactive_split_bytes == 0
    assert allocator.malloc("e", MIB) == FIRST


def test_streams_and_private_pools_share_nothing() -> None:
    allocator = allocator_of()
    allocator.malloc("a", MIB)
    allocator.free("a")

    assert allocator.malloc("b", MIB, stream=7) == SECOND
    assert allocator.malloc("c", MIB, private="private:0.1") == THIRD


def test_the_cache_of_a_private_pool_is_kept() -> None:
    allocator = allocator_of()
    allocator.malloc("a", MIB, private="private:0.1")
    allocator.free("a")
    allocator.empty_cache()

    assert allocator.reserved_bytes == 2 * MIB


def test_memory_that_another_stream_uses_is_free_only_when_that_is_done() -> None:
    allocator = allocator_of()
    allocator.malloc("a", 20 * MIB)
    allocator.request_free("a")

    assert (allocator.allocated_bytes, allocator.active_bytes) == (0, 20 * MIB)
    assert allocator.malloc("b", 20 * MIB) == SECOND

    allocator.complete_free("a")

    assert allocator.malloc("c", 20 * MIB) == FIRST


def test_without_room_whole_segments_are_given_back_and_a_retry_is_counted() -> None:
    allocator = allocator_of(capacity=60 * MIB)
    for key, size in (("a", 20 * MIB), ("b", 40 * MIB)):
        allocator.malloc(key, size)
    allocator.free("a")
    allocator.free("b")

    assert allocator.malloc("c", 42 * MIB) == THIRD
    assert (allocator.retries, allocator.device_frees, allocator.reserved_bytes) == (1, 2, 42 * MIB)


def test_a_segment_in_use_in_part_cannot_be_given_back() -> None:
    allocator = allocator_of(capacity=60 * MIB)
    allocator.malloc("a", 40 * MIB)
    allocator.free("a")
    allocator.malloc("b", 5 * MIB)  # holds the segment of 40 MiB

    with pytest.raises(NoRoomError, match="no room for 37,748,736 bytes: 5,242,880 allocated, 41,943,040 of 62,914,560 reserved"):
        allocator.malloc("c", 36 * MIB)
    assert (allocator.retries, allocator.ooms) == (1, 1)


def test_sizes_are_rounded_up_to_eighths_between_powers_of_two() -> None:
    settings_ = AllocatorSettings(roundup_power2_divisions=(8,) * 16)

    # 1.1 MiB -> 1.125; 9 MiB stays (8 + 1 eighth of 8); just above it: 10; below 4 KiB steps of 512
    assert [settings_.rounded(size) for size in (int(1.1 * MIB), 9 * MIB, 9 * MIB + 1, 4096, 4097, 600)] == [
        9 * MIB // 8,
        9 * MIB,
        10 * MIB,
        4096,
        4608,
        1024,
    ]


def test_blocks_from_max_split_on_are_neither_split_nor_given_to_small_requests() -> None:
    allocator = allocator_of(max_split_bytes=30 * MIB)
    allocator.malloc("a", 40 * MIB)
    allocator.free("a")

    assert allocator.malloc("b", 10 * MIB) == SECOND  # below max_split: the block of 40 MiB is kept for larger ones
    assert allocator.malloc("c", 31 * MIB) == FIRST  # whole: 9 MiB more than asked for, below the 20 allowed
    assert allocator.allocated_bytes == 50 * MIB

    allocator.free("c")

    assert allocator.malloc("d", 30 * MIB) == FIRST  # 10 MiB more than asked for
    allocator.free("d")
    allocator.malloc("e", 52 * MIB)
    allocator.malloc("f", 40 * MIB)
    allocator.free("e")
    assert allocator.malloc("g", 32 * MIB) == FIRST + (3 << 30)  # exactly 20 MiB more are too many


def test_without_room_an_oversize_block_that_is_enough_is_given_back_first() -> None:
    allocator = allocator_of(capacity=90 * MIB, max_split_bytes=30 * MIB)
    for key, size in (("a", 40 * MIB), ("b", 50 * MIB)):
        allocator.malloc(key, size)
    allocator.free("a")
    allocator.free("b")

    # 20 MiB may not use either; the smaller block of at least max_split goes back, without a retry
    assert allocator.malloc("c", 20 * MIB) == THIRD
    assert (allocator.retries, allocator.reserved_bytes) == (0, 70 * MIB)


@pytest.mark.parametrize(("wanted", "has_room"), [(20 * MIB, True), (50 * MIB, False)])
def test_oversize_blocks_of_an_expandable_segment_are_not_given_back_one_by_one(wanted: int, *, has_room: bool) -> None:
    allocator = allocator_of(capacity=60 * MIB, expandable_segments=True, max_split_bytes=30 * MIB)
    allocator.malloc("a", 40 * MIB)
    allocator.malloc("b", 10 * MIB)
    allocator.free("a")

    if has_room:
        allocator.malloc("c", wanted)
    else:
        with pytest.raises(NoRoomError):
            allocator.malloc("c", wanted)

    assert allocator.retries == 1  # the whole cache went back instead


def test_without_one_that_is_enough_the_largest_oversize_blocks_are_given_back_until_it_is() -> None:
    allocator = allocator_of(capacity=95 * MIB, max_split_bytes=30 * MIB)
    for key, size in (("a", 40 * MIB), ("b", 50 * MIB)):
        allocator.malloc(key, size)
    allocator.free("a")
    allocator.free("b")

    assert allocator.malloc("c", 60 * MIB) == THIRD
    assert (allocator.retries, allocator.device_frees, allocator.reserved_bytes) == (0, 2, 60 * MIB)


def test_segments_that_were_free_for_longest_are_collected_above_the_threshold() -> None:
    allocator = allocator_of(allowed=100 * MIB, garbage_collection_threshold=0.5)
    for key in "abc":
        allocator.malloc(key, 20 * MIB)  # 60 MiB, in three searches
    allocator.free("b")
    allocator.free("c")
    allocator.malloc("e", 20 * MIB)  # the fourth search: takes b's segment, the lower one
    allocator.free("e")

    # the fifth search: 60 MiB are 10 above the threshold; b's segment is 1 search old, c's 2, and the mean is 1.5
    allocator.malloc("f", 30 * MIB)

    assert allocator.reserved_bytes == (60 - 20 + 30) * MIB
    assert allocator.malloc("g", 20 * MIB) == SECOND
    assert (allocator.retries, allocator.device_frees) == (0, 1)


def test_a_segment_as_old_as_the_mean_is_collected() -> None:
    allocator = allocator_of(allowed=100 * MIB, garbage_collection_threshold=0.1)
    allocator.malloc("a", 20 * MIB)
    allocator.free("a")

    allocator.malloc("b", 30 * MIB)

    assert allocator.reserved_bytes == 30 * MIB


def test_without_a_memory_fraction_nothing_is_collected() -> None:
    allocator = allocator_of(capacity=100 * MIB, garbage_collection_threshold=0.01)
    allocator.malloc("a", 20 * MIB)
    allocator.free("a")
    allocator.malloc("b", 30 * MIB)

    assert allocator.reserved_bytes == 50 * MIB


def test_an_expandable_segment_grows_in_granules_of_20_mib_and_places_blocks_side_by_side() -> None:
    allocator = allocator_of(expandable_segments=True)

    addresses = [allocator.malloc(key, 15 * MIB) for key in range(3)]

    assert addresses == [FIRST, FIRST + 15 * MIB, FIRST + 30 * MIB]
    assert allocator.reserved_bytes == 60 * MIB  # 45 MiB in use
    assert allocator.device_allocs == 3


def test_an_expandable_segment_gives_back_the_whole_granules_of_its_holes() -> None:
    allocator = allocator_of(capacity=120 * MIB, expandable_segments=True)
    for key in "abc":
        allocator.malloc(key, 30 * MIB)  # 100 MiB mapped, the last 10 free
    allocator.free("b")  # from 30 to 60 MiB

    # 30 MiB more at the end are two granules, and only one has room; the hole's granule from 40 to 60 goes back
    assert allocator.malloc("d", 40 * MIB) == FIRST + 90 * MIB
    assert (allocator.retries, allocator.device_frees, allocator.reserved_bytes) == (1, 1, 120 * MIB)
    # 10 MiB are free at 30 and at 130; the first could grow by the 20 MiB after it, the second is at the end of the addresses,
    # which are 9/8 of the capacity in whole granules
    assert allocator.malloc("e", 10 * MIB) == FIRST + 130 * MIB
    assert allocator.malloc("f", 10 * MIB) == FIRST + 30 * MIB


def test_a_free_block_that_could_grow_counts_as_large_as_it_could_become() -> None:
    allocator = allocator_of(expandable_segments=True)
    for key in "abc":
        allocator.malloc(key, 20 * MIB)
    allocator.free("a")
    allocator.malloc("d", 50 * MIB)  # to 120 MiB mapped, the last 10 free, with unmapped addresses behind them

    # both the hole of a and the end are large enough; the end counts as all the addresses behind it
    assert allocator.malloc("e", 10 * MIB) == FIRST


def test_of_two_equal_holes_of_an_expandable_segment_the_lower_one_is_taken() -> None:
    allocator = allocator_of(expandable_segments=True)
    for key in "abcde":
        allocator.malloc(key, 20 * MIB)
    for key in "bd":
        allocator.free(key)

    assert allocator.malloc("f", 20 * MIB) == FIRST + 20 * MIB


def test_every_rule_says_what_confirmed_it() -> None:
    assert {name for name, source in RULES.items() if source} == {"round", "find", "new_segment", "split", "free_and_merge"}
