"""Interval algebra against a brute-force timeline."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfnb.intervals import Intervals, clip, contains, covered, gaps, intersect, joined, subtract, union

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), max_size=12)


def made(spans: list[list[int]]) -> Intervals:
    return union([span[0] for span in spans], [span[1] for span in spans])


def cells(spans: list[list[int]]) -> set[int]:
    return {cell for low, high in spans for cell in range(low, high)}


def cells_of(intervals: Intervals) -> set[int]:
    return {cell for low, high in zip(intervals.start, intervals.end, strict=True) for cell in range(int(low), int(high))}


@given(SPANS)
def test_a_union_covers_each_moment_once(spans: list[list[int]]) -> None:
    found = made(spans)

    assert cells_of(found) == cells(spans)
    assert found.total == len(cells(spans))
    assert (found.start[1:] > found.end[:-1]).all()


@given(SPANS, SPANS)
def test_intersect_subtract_and_joined_are_those_of_sets(one: list[list[int]], other: list[list[int]]) -> None:
    a, b = made(one), made(other)

    assert cells_of(intersect(a, b)) == cells(one) & cells(other)
    assert cells_of(subtract(a, b)) == cells(one) - cells(other)
    assert cells_of(joined(a, b)) == cells(one) | cells(other)


@given(SPANS, st.integers(0, 20), st.integers(20, 40))
def test_clip_and_gaps_part_a_window(spans: list[list[int]], low: int, high: int) -> None:
    whole = made(spans)
    window = set(range(low, high))

    assert cells_of(clip(whole, low, high)) == cells(spans) & window
    assert cells_of(gaps(whole, low, high)) == window - cells(spans)


@given(SPANS, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), min_size=1, max_size=5))
def test_covered_length_of_a_window_is_that_of_its_cells(spans: list[list[int]], windows: list[list[int]]) -> None:
    lengths = covered(made(spans), [low for low, _ in windows], [high for _, high in windows])

    assert lengths.tolist() == [len(cells(spans) & set(range(low, high))) for low, high in windows]


@given(SPANS, st.lists(st.integers(0, 40), min_size=1))
def test_a_moment_is_inside_from_a_start_up_to_but_not_at_an_end(spans: list[list[int]], times: list[int]) -> None:
    found = contains(made(spans), np.array(times, dtype=float))

    assert found.tolist() == [time in cells(spans) for time in times]
