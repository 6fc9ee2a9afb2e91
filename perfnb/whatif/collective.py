"""Buckets in which DistributedDataParallel exchanges gradients, and when the last of them has arrived."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIB: Final = 1 << 20  # torch/nn/parallel/distributed.py: bucket_cap_mb counts these
FIRST_BUCKET_BYTES: Final = MIB  # the same file: dist._DEFAULT_FIRST_BUCKET_BYTES, only where bucket_cap_mb is None
DEFAULT_BUCKET_MIB: Final = 25  # the same file, where bucket_cap_mb is None


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of one parameter.

    Attributes
    ----------
    size_bytes
        Its size.
    dtype, device
        Gradients of different kinds never share a bucket.
    is_sparse
        Whether it goes alone.
    """

    size_bytes: int
    dtype: str = "float32"
    device: str = ""
    is_sparse: bool = False


def bucket_limits(bucket_cap_mb: float | Sequence[float] | None) -> tuple[float, ...]:
    """Bytes at which each bucket in turn is full; the last limit repeats.

    None is not 25: any stated value, 25 too, holds from the first bucket on (torch 2.13, torch/nn/parallel/distributed.py).

    Examples
    --------
    >>> bucket_limits(None), bucket_limits(2)
    ((1048576, 26214400), (2097152,))
    """
    if bucket_cap_mb is None:
        return (FIRST_BUCKET_BYTES, DEFAULT_BUCKET_MIB * MIB)
    if isinstance(bucket_cap_mb, Sequence):
        return tuple(each * MIB for each in bucket_cap_mb)
    return (bucket_cap_mb * MIB,)


def buckets(gradients: Sequence[Gradient], limits: Sequence[float], *, is_rebuilt: bool = True) -> tuple[tuple[int, ...], ...]:
    """Gradients of each bucket, in the order in which the buckets are exchanged.

    A bucket takes gradients until its size reaches its limit, so it may exceed it; each kind of gradients has a series of its
    own. torch 2.13, torch/csrc/distributed/c10d/reducer.cpp, compute_bucket_assignment_by_size: rebuilt after the first
    backward in the order in which gradients arrive; with `find_unused_parameters` never rebuilt, so filled in the order in
    which parameters are defined, and exchanged from the last bucket to the first.

    Parameters
    ----------
    gradients
        In the order in which they arrive.
    limits
        As `bucket_limits` gives them.
    is_rebuilt
        Whether buckets follow the order of arrival; else they are filled against it, which is the order of definition for a
        model whose modules run in that order.

    Returns
    -------
    tuple of tuple of int
        Numbers of the gradients, counted in the order of arrival.

    Examples
    --------
    >>> arriving = [Gradient(size * MIB) for size in (1, 2, 3)]
    >>> buckets(arriving, bucket_limits(3))
    ((0, 1), (2,))
    >>> buckets(arriving, bucket_limits(3), is_rebuilt=False)
    ((1, 0), (2,))
    """
    order = range(len(gradients)) if is_rebuilt else range(len(gradients) - 1, -1, -1)
    filled: list[tuple[int, ...]] = []
    open_ones: dict[tuple[str, str], list[int]] = {}
    sizes: dict[tuple[str, str], int] = {}
    used: dict[tuple[str, str], int] = {}
    for number in order:
        each = gradients[number]
        if each.is_sparse:
            filled.append((number,))
            continue
        kind = (each.dtype, each.device)
        open_ones.setdefault(kind, []).append(number)
        sizes[kind] = sizes.get(kind, 0) + each.size_bytes
        if sizes[kind] >= limits[min(used.get(kind, 0), len(limits) - 1)]:
            filled.append(tuple(open_ones.pop(kind)))
            sizes[kind], used[kind] = 0, used.get(kind, 0) + 1
    filled += [tuple(rest) for rest in open_ones.values()]
    if is_rebuilt:
        return tuple(filled)
    return tuple(sorted(filled, key=max))


def bucket_bytes(gradients: Sequence[Gradient], layout: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Size of each bucket of a layout."""
    return tuple(sum(gradients[number].size_bytes for number in bucket) for bucket in layout)


def ready_us(arrivals_us: Sequence[float], layout: Iterable[Sequence[int]]) -> Floats:
    """When each bucket can be exchanged: once all gradients in it and in the buckets before it are there.

    Buckets leave in the order of their numbers, whichever is full first (reducer.cpp, mark_bucket_ready).

    Examples
    --------
    >>> ready_us([10.0, 20.0, 30.0], [(0, 2), (1,)]).tolist()
    [30.0, 30.0]
    """
    last = [max(arrivals_us[number] for number in bucket) for bucket in layout]
    return np.maximum.accumulate(np.array(last, dtype=np.float64))


def ends_us(ready: Sequence[float] | Floats, durations_us: Sequence[float] | Floats) -> Floats:
    """When each exchange ends: one after another on one stream, none before its bucket is ready.

    Examples
    --------
    >>> ends_us([10.0, 20.0, 100.0], [30.0, 5.0, 8.0]).tolist()
    [40.0, 45.0, 108.0]
    """
    ends = itertools.accumulate(
        zip(ready, durations_us, strict=True), lambda end, each: max(end, each[0]) + each[1], initial=float("-inf")
    )
    return np.array(list(ends)[1:], dtype=np.float64)


def exposed_us(backward_us: float, ready: Sequence[float] | Floats, durations_us: Sequence[float] | Floats) -> float:
    """By how much exchanges end after backward would.

    Examples
    --------
    >>> exposed_us(100.0, [10.0, 20.0, 100.0], [30.0, 5.0, 8.0])
    8.0
    """
    return max(float(ends_us(ready, durations_us)[-1]) - backward_us, 0.0) if len(ready) else 0.0


def update_us(
    forward_us: float,
    backward_us: float,
    optimizer_us: float,
    ready: Sequence[float] | Floats,
    durations_us: Sequence[float] | Floats,
    *,
    micro_batches: int = 1,
    syncs_each: bool = False,
) -> float:
    """Time of one update that exchanges gradients inside backward (whatif contract, section 6.2).

    Examples
    --------
    Two micro-batches, gradients exchanged in the last one only, and in each:

    >>> update_us(50.0, 100.0, 10.0, [100.0], [30.0], micro_batches=2)
    340.0
    >>> update_us(50.0, 100.0, 10.0, [100.0], [30.0], micro_batches=2, syncs_each=True)
    370.0
    """
    exchanges = micro_batches if syncs_each else 1
    late = exposed_us(backward_us, ready, durations_us)
    return micro_batches * (forward_us + backward_us) + exchanges * late + optimizer_us


def ring_factor(collective: str, ranks: int) -> float:
    """Bytes that cross each link per byte of a collective, as nccl-tests counts bus bandwidth (its PERFORMANCE.md).

    Examples
    --------
    >>> ring_factor("all_reduce", 4), ring_factor("reduce_scatter", 4), ring_factor("broadcast", 4)
    (1.5, 0.75, 1.0)
    """
    if collective == "all_reduce":
        return 2.0 * (ranks - 1) / ranks
    if collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return (ranks - 1) / ranks
    return 1.0
