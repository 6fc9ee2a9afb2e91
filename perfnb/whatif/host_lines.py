"""What each host thread did at every moment of a window: the innermost recorded row, without gaps or overlaps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.intervals import Intervals, clip, union
from perfnb.nesting import ROOT, innermost, parents, whole_nanoseconds
from perfnb.read.kineto.classify import LOADER_PATTERN

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

KINDS: Final = (
    "operator",
    "host other",
    "runtime call",
    "data loading",
    "synchronization",
    "launch",
    "kernel",
    "communication",
    "copy",
    "queue",
    "dependency",
    "unknown",
)
"""What a piece of a critical path is; `host other` is Python, annotations and whatever no row tells."""

KIND_CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
_OF_CATEGORY: Final = {"operator": "operator", "runtime": "runtime call"}
_ENGINE: Final = "autograd::"  # rows of the backward engine, which runs on a thread of its own


@dataclass(frozen=True, slots=True, eq=False)
class HostLine:
    """One host thread over a window.

    Attributes
    ----------
    label
        How the thread is shown.
    edges_us
        Moments at which the innermost row changes, from the start of the window to its end.
    row
        Of each stretch between two edges, the label of its row in `run.host_ops`; `ROOT` where none covers it.
    kind
        Of each stretch, its place in `KINDS`.
    spans
        Time in operators, runtime calls and loader waits: what is left is the thread waiting, or in Python.
    """

    label: str
    edges_us: Floats
    row: Integers
    kind: Integers
    spans: Intervals

    def stretches(self, low: float, high: float) -> tuple[Floats, Floats, Integers, Integers]:
        """Start, end, row and kind of each stretch in [low, high), cut to it."""
        first = int(np.searchsorted(self.edges_us, low, side="right")) - 1
        last = int(np.searchsorted(self.edges_us, high, side="left"))
        edges = np.clip(self.edges_us[first : last + 1], low, high)
        return edges[:-1], edges[1:], self.row[first:last], self.kind[first:last]


def work_lines(host: pd.DataFrame, chosen: Iterable[int], low: float, high: float) -> dict[int, HostLine]:
    """Lines of the chosen threads (numbers of `thread_numbers`) over [low, high)."""
    start, end = host["start_us"].to_numpy(), (host["start_us"] + host["duration_us"]).to_numpy()
    lane = thread_numbers(host)
    wanted = list(dict.fromkeys(int(number) for number in chosen))
    category = _per_value(host["category"], lambda text: text)
    inside = (end > low) & (start < high) & (end > start) & np.isin(lane, wanted) & (category != "synchronization")
    rows = np.flatnonzero(inside)
    start, end, lane, category = start[rows], end[rows], lane[rows], category[rows]
    up = parents(*whole_nanoseconds(host.iloc[rows]), lane)
    is_loader = _per_value(host["name"], re.compile(LOADER_PATTERN).search)[rows].astype(bool)
    in_loader = is_loader | (innermost(up, is_loader) != ROOT)
    kind = np.full(len(rows), KIND_CODES["host other"], dtype=np.int64)
    for each, name in _OF_CATEGORY.items():
        kind[category == each] = KIND_CODES[name]
    kind[in_loader] = KIND_CODES["data loading"]
    works = (kind != KIND_CODES["host other"]) | (category == "overhead")
    labels = host.index.to_numpy()[rows]
    names = _labels(host)
    lines = {}
    for number in wanted:
        own = np.flatnonzero(lane == number)
        own = own[np.lexsort((own, -end[own], start[own]))]
        edges = np.unique(np.clip(np.concatenate([[low, high], start[own], end[own]]), low, high))
        before = np.searchsorted(start[own], edges[:-1], side="right") - 1
        active = np.where(before >= 0, own[np.maximum(before, 0)] if len(own) else ROOT, ROOT)
        over = np.flatnonzero((active != ROOT) & (end[active] <= edges[:-1])) if len(own) else np.empty(0, dtype=np.int64)
        while len(over):  # a row that has ended gives way to the one around it
            active[over] = up[active[over]]
            over = over[active[over] != ROOT]
            over = over[end[active[over]] <= edges[over]]
        covered = active != ROOT
        row, code = np.full(len(active), ROOT), np.full(len(active), KIND_CODES["host other"])
        row[covered], code[covered] = labels[active[covered]], kind[active[covered]]
        busy = own[works[own]]
        lines[number] = HostLine(names.get(number, "host"), edges, row, code, clip(union(start[busy], end[busy]), low, high))
    return lines


def thread_numbers(host: pd.DataFrame) -> Integers:
    """Number of each row's thread."""
    process, thread = host["process"].cat, host["thread"].cat
    return (process.codes.to_numpy().astype(np.int64) + 1) * (len(thread.categories) + 1) + thread.codes.to_numpy() + 1


def engine_threads(host: pd.DataFrame) -> Integers:
    """Threads on which the backward engine runs."""
    return np.unique(thread_numbers(host)[_per_value(host["name"], lambda name: name.startswith(_ENGINE)).astype(bool)])


def _labels(host: pd.DataFrame) -> dict[int, str]:
    first = host[["process", "thread"]].assign(number=thread_numbers(host)).drop_duplicates("number")
    return {
        int(number): f"host thread {thread}" if isinstance(thread, str) else "host"
        for number, thread in zip(first["number"], first["thread"].astype(object), strict=True)
    }


def _per_value(column: pd.Series, answer: Callable[[str], object]) -> NDArray[np.object_]:
    """Answer for each row of a categorical, asked once per value; None where the row has no value."""
    answers = [answer(str(value)) for value in column.cat.categories]
    found = np.empty(len(answers) + 1, dtype=object)
    found[: len(answers)] = answers
    return found[column.cat.codes.to_numpy()]
