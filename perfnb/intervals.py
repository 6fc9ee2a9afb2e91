"""Sets of time intervals on sorted numpy arrays: union, clip, subtract, intersect, gaps, overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Disjoint intervals [start, end), sorted by start; both arrays have one entry per interval."""

    start: Floats
    end: Floats

    @property
    def total(self) -> float:
        """Sum of the lengths."""
        return float((self.end - self.start).sum())

    def __len__(self) -> int:
        """Number of intervals."""
        return len(self.start)


EMPTY = Intervals(np.empty(0), np.empty(0))


def union(start: ArrayLike, end: ArrayLike) -> Intervals:
    """Disjoint sorted intervals that cover what the given ones cover; touching ones are joined, empty ones dropped.

    Examples
    --------
    >>> union([0, 5, 2], [3, 6, 4])
    Intervals(start=array([0., 5.]), end=array([4., 6.]))
    """
    first, last = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    keep = last > first
    first, last = first[keep], last[keep]
    if not len(first):
        return EMPTY
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    opens = np.concatenate([[True], first[1:] > last[:-1]])
    closes = np.concatenate([opens[1:], [True]])
    return Intervals(first[opens], last[closes])


def clip(intervals: Intervals, low: float, high: float) -> Intervals:
    """The part of the intervals that lies in [low, high).

    Examples
    --------
    >>> clip(union([0, 5], [3, 9]), 1, 6)
    Intervals(start=array([1., 5.]), end=array([3., 6.]))
    """
    return union(np.clip(intervals.start, low, high), np.clip(intervals.end, low, high))


def gaps(intervals: Intervals, low: float, high: float) -> Intervals:
    """The part of [low, high) that no interval covers.

    Examples
    --------
    >>> gaps(union([1, 4], [2, 5]), 0, 6)
    Intervals(start=array([0., 2., 5.]), end=array([1., 4., 6.]))
    """
    inside = clip(intervals, low, high)
    return union(np.concatenate([[low], inside.end]), np.concatenate([inside.start, [high]]))


def intersect(one: Intervals, other: Intervals) -> Intervals:
    """What both cover.

    Examples
    --------
    >>> intersect(union([0], [5]), union([1, 4], [2, 9]))
    Intervals(start=array([1., 4.]), end=array([2., 5.]))
    """
    if not len(one) or not len(other):
        return EMPTY
    low, high = min(one.start[0], other.start[0]), max(one.end[-1], other.end[-1])
    outside_one, outside_other = gaps(one, low, high), gaps(other, low, high)
    outside = union(
        np.concatenate([outside_one.start, outside_other.start]), np.concatenate([outside_one.end, outside_other.end])
    )
    return gaps(outside, low, high)


def subtract(one: Intervals, other: Intervals) -> Intervals:
    """What the first covers and the second does not.

    Examples
    --------
    >>> subtract(union([0], [5]), union([1], [2]))
    Intervals(start=array([0., 2.]), end=array([1., 5.]))
    """
    if not len(one) or not len(other):
        return one
    return intersect(one, gaps(other, one.start[0], one.end[-1]))


def covered(intervals: Intervals, low: ArrayLike, high: ArrayLike) -> Floats:
    """Length of each window [low, high) that the intervals cover; windows may overlap, one value per window.

    Examples
    --------
    >>> covered(union([0, 5], [3, 9]), [0, 2], [4, 6])
    array([3., 2.])
    """
    return covered_until(intervals, high) - covered_until(intervals, low)


def covered_until(intervals: Intervals, time: ArrayLike) -> Floats:
    """Length that the intervals cover before each of the given times."""
    moments = np.asarray(time, dtype=np.float64)
    if not len(intervals):
        return np.zeros_like(moments)
    before = np.concatenate([[0.0], np.cumsum(intervals.end - intervals.start)])
    index = np.searchsorted(intervals.start, moments, side="right") - 1
    inside = np.minimum(moments, intervals.end[np.maximum(index, 0)]) - intervals.start[np.maximum(index, 0)]
    return np.where(index < 0, 0.0, before[np.maximum(index, 0)] + np.maximum(inside, 0.0))


def contains(intervals: Intervals, time: ArrayLike) -> NDArray[np.bool_]:
    """Whether each time lies in an interval.

    Examples
    --------
    >>> contains(union([0, 5], [3, 9]), [1, 3, 8])
    array([ True, False,  True])
    """
    moments = np.asarray(time, dtype=np.float64)
    if not len(intervals):
        return np.zeros(moments.shape, dtype=bool)
    index = np.searchsorted(intervals.start, moments, side="right") - 1
    return (index >= 0) & (moments < intervals.end[np.maximum(index, 0)])


def joined(one: Intervals, other: Intervals) -> Intervals:
    """What either covers.

    Examples
    --------
    >>> joined(union([0], [2]), union([1], [3]))
    Intervals(start=array([0.]), end=array([3.]))
    """
    return union(np.concatenate([one.start, other.start]), np.concatenate([one.end, other.end]))
