"""Parents of nested intervals, against a stack that walks them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb import nesting
from perfnb.nesting import ROOT, innermost, parents


def by_stack(start: list[int], end: list[int], lane: list[int]) -> list[int]:
    order = sorted(range(len(start)), key=lambda row: (lane[row], start[row], -end[row], row))
    found, stack = [ROOT] * len(start), list[int]()
    for row in order:
        while stack and (lane[stack[-1]] != lane[row] or end[stack[-1]] < end[row]):
            stack.pop()
        found[row] = stack[-1] if stack else ROOT
        stack.append(row)
    return found


rows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(0, 2)), max_size=40)


@given(rows, st.sampled_from([1, 3, 1 << 15]))
def test_parents_are_those_of_a_stack(intervals: list[tuple[int, int, int]], block: int) -> None:
    start = [begin for begin, _, _ in intervals]
    end = [begin + length for begin, length, _ in intervals]
    lane = [thread for _, _, thread in intervals]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "_BLOCK", block)

        found = parents(start, end, lane).tolist()

    assert found == by_stack(start, end, lane)


@given(rows, st.data())
def test_innermost_is_the_nearest_chosen_parent(intervals: list[tuple[int, int, int]], data: st.DataObject) -> None:
    parent = by_stack([row[0] for row in intervals], [row[0] + row[1] for row in intervals], [row[2] for row in intervals])
    chosen = data.draw(st.lists(st.booleans(), min_size=len(parent), max_size=len(parent)))

    found = innermost(np.array(parent, dtype=np.int64), np.array(chosen, dtype=bool)).tolist()

    for row, answer in enumerate(found):
        above = parent[row]
        while above != ROOT and not chosen[above]:
            above = parent[above]
        assert answer == above
