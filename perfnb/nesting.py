"""Which interval encloses which: parents of nested calls, on numpy arrays."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

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
    ends, lanes = ends[order], lanes[order]
    above = np.arange(-1, len(order) - 1, dtype=np.int64)  # candidate: the row before, then what encloses that one, ...
    open_rows = np.arange(len(order))
    while len(open_rows):
        candidate = above[open_rows]
        outside = (candidate == ROOT) | (lanes[candidate] != lanes[open_rows])
        above[open_rows[outside]] = ROOT
        encloses = ~outside & (ends[candidate] >= ends[open_rows])
        open_rows, candidate = open_rows[~(outside | encloses)], candidate[~(outside | encloses)]
        above[open_rows] = above[candidate]  # every step skips at least one closed row: it ends
    found = np.full(len(order), ROOT, dtype=np.int64)
    known = above != ROOT
    found[order[known]] = order[above[known]]
    return found


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
