"""Samples of a dataset timed one by one, in the order in which its loader asks for them, and the collating of each batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import getitem
from typing import Any, Final, NamedTuple

import numpy as np

FEWEST_BATCHES: Final = 16
"""A loader of even batches would stop at once; sixteen show whether some are slow."""

_Z_OF_95_PERCENT: Final = 1.959964
_THREADS_INSIDE: Final = 1.1  # whatif contract, section 4.3: the process computes 10 % more than the thread
_DEEPEST: Final = 6

Row = tuple[int, str, float, float, int]
"""batch, part, wall_us, cpu_us, bytes."""


@dataclass(slots=True)
class Timed:
    """What was timed so far.

    Attributes
    ----------
    rows
        One per sample (or batch fetched as one), and one per batch for its collating.
    batch_us
        Time of each batch.
    thread_us, process_us
        CPU of the thread and of the process inside samples.
    repeated
        Batches left out because they held an index that was read before.
    last
        The last batch, collated.
    last_index
        Index of one sample of it (of the batch itself where batching is off); None of an iterable dataset.
    stopped
        Why it stopped, in words.
    """

    rows: list[Row] = field(default_factory=list)
    batch_us: list[float] = field(default_factory=list)
    thread_us: float = 0.0
    process_us: float = 0.0
    repeated: int = 0
    last: Any = None
    last_index: Any = None
    stopped: str = "one epoch"

    @property
    def mean_us(self) -> float:
        """Mean time of a batch."""
        return math.fsum(self.batch_us) / len(self.batch_us)

    @property
    def half_width_share(self) -> float:
        """95 % half-width of the mean batch over that mean."""
        return half_width_share(self.batch_us)

    @property
    def cpu_factor(self) -> float:
        """What the thread's CPU is multiplied by: above 1 where threads inside the samples compute too."""
        factor = self.process_us / self.thread_us if self.thread_us > 0.0 else 1.0
        return factor if factor > _THREADS_INSIDE else 1.0


def half_width_share(times: Sequence[float]) -> float:
    """95 % half-width of the mean over the mean; NaN from a single value.

    Student's t by the expansion of Abramowitz and Stegun, 26.7.5, to its second term: within 1 % from 7 degrees of freedom on.

    Examples
    --------
    >>> round(half_width_share([90.0, 110.0] * 8), 3)
    0.055
    """
    count = len(times)
    if count < 2:  # noqa: PLR2004 - one value has no variance
        return float("nan")
    z, free = _Z_OF_95_PERCENT, count - 1
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    mean = math.fsum(times) / count
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in times) / free)
    return student * deviation / math.sqrt(count) / mean if mean > 0.0 else float("nan")


def time_batches(
    loader: Any,
    *,
    longest_s: float,
    half_width: float,
    told: Callable[[Timed], None],
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Timed:
    """Times of samples and collating until the mean batch is known, the time is up or the loader has no more.

    The first batch is loaded and not counted: it opens files and imports what it needs.

    Parameters
    ----------
    loader
        A `torch.utils.data.DataLoader`; its workers are not started.
    longest_s
        Seconds after which no further batch is begun; a batch that was begun is loaded to its end.
    half_width
        95 % half-width of the mean batch, as a share of it, at which to stop.
    told
        Called after each batch.
    clock
        Nanoseconds of a monotonic clock.
    """
    found = Timed()
    end_ns = clock() + int(longest_s * 1e9)
    for number, (fetches, index) in enumerate(_batches(loader, found)):
        try:
            timed = [_timed(fetch, clock) for _, fetch in fetches]
        except StopIteration:  # of an iterable dataset; a last batch that is not full is left out
            break
        loaded = [each.value for each in timed]
        sizes = [bytes_of(value) for value in loaded]
        part = fetches[0][0]
        collated = _timed(partial(loader.collate_fn, loaded[0] if part == "samples" else loaded), clock)
        found.last, found.last_index = collated.value, index
        if number:
            found.rows += [
                (number - 1, part, each.wall_us, each.thread_us, size) for each, size in zip(timed, sizes, strict=True)
            ]
            found.rows.append((number - 1, "collate", collated.wall_us, collated.thread_us, bytes_of(collated.value)))
            found.thread_us += sum(each.thread_us for each in timed)
            found.process_us += sum(each.process_us for each in timed)
            found.batch_us.append(sum(each.wall_us for each in timed) + collated.wall_us)
        told(found)
        if len(found.batch_us) >= FEWEST_BATCHES and found.half_width_share < half_width:
            found.stopped = f"the mean is known to {half_width:.0%}"
            break
        if clock() >= end_ns:
            found.stopped = f"{longest_s:g} s are over"
            break
    return found


class _Call(NamedTuple):
    """What a call gave, its time, and the CPU time of the thread and of the process, in microseconds."""

    value: Any
    wall_us: float
    thread_us: float
    process_us: float


def _timed(call: Callable[[], Any], clock: Callable[[], int]) -> _Call:
    process, thread, start = time.process_time_ns(), time.thread_time_ns(), clock()
    value = call()
    end, thread_end, process_end = clock(), time.thread_time_ns(), time.process_time_ns()
    return _Call(value, (end - start) / 1e3, (thread_end - thread) / 1e3, (process_end - process) / 1e3)


Fetch = tuple[str, Callable[[], Any]]


def _batches(loader: Any, found: Timed) -> Iterator[tuple[list[Fetch], Any]]:
    """Of each batch the calls that load it, as torch's fetchers make them (utils/data/_utils/fetch.py), and an index in it."""
    dataset = loader.dataset
    if is_iterable(dataset):
        yield from _iterated(loader)
        return
    seen: set[Any] = set()
    batched = loader.batch_sampler is not None
    at_once = batched and bool(getattr(dataset, "__getitems__", None))
    for indices in iter(loader.batch_sampler if batched else loader.sampler):
        keys = [_key(index) for index in indices] if batched else [_key(indices)]
        if not seen.isdisjoint(keys) or len(set(keys)) < len(keys):
            found.repeated += 1
            continue
        seen.update(keys)
        if at_once:
            yield [("samples", partial(dataset.__getitems__, indices))], indices[0]
        elif batched:
            yield [("sample", partial(getitem, dataset, index)) for index in indices], indices[0]
        else:
            yield [("samples", partial(getitem, dataset, indices))], indices


def _iterated(loader: Any) -> Iterator[tuple[list[Fetch], Any]]:
    """Batches of an iterable dataset: the call that finds no more samples raises StopIteration."""
    samples = iter(loader.dataset)
    part = "samples" if loader.batch_sampler is None else "sample"
    while True:
        yield [(part, lambda: next(samples))] * (loader.batch_size or 1), None


def is_iterable(dataset: Any) -> bool:
    """Whether a dataset is iterated over, in place of asked for indices."""
    from torch.utils.data import IterableDataset  # noqa: PLC0415 - torch only where something is measured

    return isinstance(dataset, IterableDataset)


def _key(index: Any) -> Any:
    """An index as a key: of a tensor or array its numbers, for those are no keys themselves."""
    listed = getattr(index, "tolist", None)
    value = listed() if callable(listed) else index
    return repr(value) if isinstance(value, list | dict | set) else value


def alike(one: Any, other: Any) -> bool:
    """Whether two samples hold the same numbers; what is neither tensor nor array counts as its text.

    Examples
    --------
    >>> alike((np.zeros(2), 1), (np.zeros(2), 1)), alike([np.zeros(2)], [np.ones(2)])
    (True, False)
    """
    first, second = tensors_of(one), tensors_of(other)
    if [(type(each), each.shape) for each in first] != [(type(each), each.shape) for each in second]:
        return False
    if first:
        return all(bool((a == b).all()) for a, b in zip(first, second, strict=True))
    return repr(one) == repr(other)


def tensors_of(value: Any, depth: int = _DEEPEST) -> list[Any]:
    """Tensors and arrays in a sample or a batch, as deep as those nest."""
    if hasattr(value, "untyped_storage") or isinstance(value, np.ndarray):
        return [value]
    if depth == 0 or isinstance(value, str | bytes):
        return []
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, Sequence):
        value = vars(value).values() if hasattr(value, "__dict__") and not callable(value) else ()
    return [each for inner in value for each in tensors_of(inner, depth - 1)]


def bytes_of(value: Any) -> int:
    """Bytes of the tensors and arrays in a sample or a batch.

    Examples
    --------
    >>> bytes_of({"image": np.zeros((2, 3), dtype="float32"), "label": 1})
    24
    """
    return sum(int(each.nbytes) for each in tensors_of(value))
