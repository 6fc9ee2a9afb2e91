"""What the operators inside the loader's spans tell: how much of loading is surely CPU work, and what collating costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching
from perfnb.read.kineto.classify import LOADER_PATTERN
from perfnb.whatif.uncertainty import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLLATE_OPERATORS: Final = ("aten::stack", "aten::cat")  # torch/utils/data/_utils/collate.py: collate_tensor_fn
MULTIPLE_WORKERS: Final = "_MultiProcessingDataLoaderIter"
_NONE: Final = -2
"""Number of a text that no operator has; -1 is that of one that was not recorded."""


@dataclass(frozen=True, slots=True)
class LoadingOperators:
    """Of one rank's loader spans.

    Attributes
    ----------
    share
        Share of the spans inside operators of the same thread: CPU work; the rest is Python, reading or waiting.
    collate_us
        Time per batch that remains when samples come ready from memory; None where no collate operator is seen.
    in_workers
        Whether the spans are waits for worker processes, which hold no operators of the samples.
    """

    share: float
    collate_us: Estimate | None
    in_workers: bool


def loading_operators(host: pd.DataFrame, low_us: float, high_us: float) -> LoadingOperators | None:
    """Operators inside the loader spans that start in [low, high); None where there are no spans.

    torch collates a batch last: the samples' operators come first, then one `aten::stack` per field. So from the end of the
    last operator that is a sample's to the end of the span is what remains with cached samples. At least the collate
    operators themselves remain; at most also all that comes before the samples' first operator, the sampler among it.

    Parameters
    ----------
    host
        Host rows of one rank, sorted by start.
    """
    spans = host[matching(host["name"], LOADER_PATTERN) & host["start_us"].between(low_us, high_us, inclusive="left")]
    if spans.empty:
        return None
    operators = _Operators.of(host[host["category"].eq("operator")])
    found = [
        operators.in_span(start, length, thread, process)
        for start, length, thread, process in spans[["start_us", "duration_us", "thread", "process"]].itertuples(index=False)
    ]
    costs = [cost for _, cost in found if cost is not None]
    complete = len(costs) == len(found)
    in_workers = bool(spans["name"].astype(object).str.contains(MULTIPLE_WORKERS, regex=False).any())
    mean = np.mean(costs, axis=0) if complete else (0.0, 0.0, 0.0)
    return LoadingOperators(
        share=min(sum(time for time, _ in found) / max(float(spans["duration_us"].sum()), 1e-9), 1.0),
        collate_us=Estimate(float(mean[1]), float(mean[0]), float(mean[2])) if complete and not in_workers else None,
        in_workers=in_workers,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Operators:
    """Operators by start: when they begin and end, and numbers of their texts."""

    begin: Floats
    end: Floats
    thread: Ints
    process: Ints
    name: Ints
    numbers: Mapping[str, Mapping[str, int]]
    collating: Ints

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Operators:
        """Of rows sorted by start; numbers stand for texts, since each span compares them."""
        begin = rows["start_us"].to_numpy()
        found, numbers = {}, {}
        for column in ("thread", "process", "name"):
            found[column], known = pd.factorize(rows[column].astype(object))
            numbers[column] = {str(each): number for number, each in enumerate(known)}
        collating = [number for each, number in numbers["name"].items() if each in COLLATE_OPERATORS]
        return cls(
            begin, begin + rows["duration_us"].to_numpy(), **found, numbers=numbers, collating=np.array(collating, dtype=int)
        )

    def in_span(self, start: float, length: float, thread: str, process: str) -> tuple[float, tuple[float, float, float] | None]:
        """Time of the outermost operators of a span of a thread, and what collating costs: least, likely, most."""
        low, high = np.searchsorted(self.begin, [start, start + length])
        own = self.thread[low:high] == self.numbers["thread"].get(thread, _NONE)
        own &= self.process[low:high] == self.numbers["process"].get(process, _NONE)
        rows = low + np.flatnonzero(own)
        if not len(rows):
            return 0.0, None
        begin, end = self.begin[rows] - start, self.end[rows] - start
        outermost = np.concatenate([[True], begin[1:] >= np.maximum.accumulate(end)[:-1]])
        begin, end, names = begin[outermost], end[outermost], self.name[rows][outermost]
        busy = float((end - begin).sum())
        collating = np.isin(names, self.collating)
        if not collating.any():
            return busy, None
        last = int(np.flatnonzero(collating)[-1])
        first = last
        while first and collating[first - 1]:
            first -= 1
        _, kind, count = np.unique(names[:first], return_inverse=True, return_counts=True)
        repeated = np.flatnonzero(count[kind] > 1)
        before = float(begin[repeated[0]]) if len(repeated) else 0.0
        likely = length - (float(end[repeated[-1]]) if len(repeated) else float(begin[first]))
        return busy, (float((end - begin)[first:].sum()), likely, likely + before)
