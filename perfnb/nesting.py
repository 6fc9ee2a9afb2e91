"""Which interval encloses which: parents of nested calls, on numpy arrays."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
_BLOCK: Final = 1 << 15  # rows

ROOT: Final = -1
"""Parent of an interval that nothing encloses."""


def parents(start: ArrayLike, end: ArrayLike, lane: ArrayLike) -> Integers:
    """Position of the innermost interval of the same lane that encloses each interval; `ROOT` where none does.

    Of equal intervals the later row lies in the earlier one. An interval that only overlaps the one before it is its sibling.

    Parameters
    ----------
    start, end
        Of each interval.
    lane
        Number of the thread that each interval belongs to.

    Examples
    --------
    >>> parents([0, 1, 2, 4, 0], [9, 5, 3, 5, 3], [0, 0, 0, 0, 1])
    array([-1,  0,  1,  1, -1])
    """
    begins, ends, lanes = np.asarray(start), np.asarray(end), np.asarray(lane)
    order = np.lexsort((np.arange(len(begins)), -ends, begins, lanes))
    begins, ends, lanes = begins[order], ends[order], lanes[order]
    found = np.full(len(order), ROOT, dtype=np.int64)
    for low, high in _blocks(begins, ends, lanes):
        above = _above(ends[low:high], lanes[low:high])
        known = np.flatnonzero(above != ROOT)
        found[order[low + known]] = order[low + above[known]]
    return found


def _above(ends: NDArray[Any], lanes: NDArray[Any]) -> Integers:
    """Position of the innermost interval around each one of a block; the intervals stand in the order of a walk."""
    above = np.arange(-1, len(ends) - 1, dtype=np.int64)  # candidate: the row before, then what encloses that one, ...
    open_rows = np.arange(len(ends))
    while len(open_rows):
        candidate = above[open_rows]
        outside = (candidate == ROOT) | (lanes[candidate] != lanes[open_rows])
        above[open_rows[outside]] = ROOT
        encloses = ~outside & (ends[candidate] >= ends[open_rows])
        going_on = ~(outside | encloses)
        open_rows, candidate = open_rows[going_on], candidate[going_on]
        above[open_rows] = above[candidate]  # every step skips at least one closed row: it ends
    return above


def _blocks(begins: NDArray[Any], ends: NDArray[Any], lanes: NDArray[Any]) -> list[tuple[int, int]]:
    """Stretches of about `_BLOCK` rows that no interval reaches out of, so that the work on each stays in a core's cache."""
    size = len(begins)
    if size <= _BLOCK:
        return [(0, size)]
    latest = np.empty_like(ends)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(lanes)) + 1, [size]])
    for low, high in itertools.pairwise(edges.tolist()):
        latest[low:high] = np.maximum.accumulate(ends[low:high])
    free = np.concatenate([[True], (lanes[1:] != lanes[:-1]) | (begins[1:] > latest[:-1])])
    cuts = np.flatnonzero(free)
    wanted = np.searchsorted(cuts, np.arange(_BLOCK, size, _BLOCK))
    chosen = np.unique(np.append(cuts[wanted[wanted < len(cuts)]], [0, size]))
    return list(itertools.pairwise(chosen.tolist()))


def whole_nanoseconds(rows: pd.DataFrame) -> tuple[Integers, Integers]:
    """Start and end of each row in whole nanoseconds: as float64 the ends of two rows that end together differ in the last digit.

    Examples
    --------
    >>> whole_nanoseconds(pd.DataFrame({"start_us": [0.1], "duration_us": [0.2]}))
    (array([100]), array([300]))
    """
    start = np.rint(rows["start_us"].to_numpy() * 1e3).astype(np.int64)
    return start, start + np.rint(rows["duration_us"].to_numpy() * 1e3).astype(np.int64)


def innermost(parent: ArrayLike, chosen: ArrayLike) -> Integers:
    """Position of the nearest chosen interval above each one, not itself; `ROOT` where there is none.

    Parameters
    ----------
    parent
        As `parents` gives it.
    chosen
        Whether each interval counts.

    Examples
    --------
    >>> innermost([-1, 0, 1], [True, False, True])
    array([-1,  0,  0])
    """
    up, counts = np.asarray(parent), np.asarray(chosen, dtype=bool)
    found = up.copy()
    open_rows = np.flatnonzero((found != ROOT) & ~counts[found])
    while len(open_rows):
        found[open_rows] = up[found[open_rows]]
        still = (found[open_rows] != ROOT) & ~counts[found[open_rows]]
        open_rows = open_rows[still]
    return found
