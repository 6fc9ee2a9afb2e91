"""One trace file -> raw columns: the parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import TraceFormatError
from perfnb.read.kineto.events import Arguments, Event, TraceFile
from perfnb.read.kineto.stamps import MISSING, nanoseconds

_NO_ARGUMENTS: Final = Arguments()
_SKIPPED: Final = frozenset({"python_function", "trace", "gpu_user_annotation", "cuda_profiler_range"})
_LARGEST_DROPPED_SHARE: Final = 0.01  # a choice: more than that and the file is not what it claims to be


@dataclass(frozen=True, slots=True, eq=False)
class RawTrace:
    """Complete events of one file as columns, in file order.

    Attributes
    ----------
    rows
        Columns category (lower case), name, process, thread (categoricals), correlation, stream, device, bytes, sequence
        (Int64) and, as objects, the collective arguments.
    start_ns, duration_ns
        Absolute whole nanoseconds (with the file's base time), one per row.
    keys
        Top-level keys of the file other than the event list.
    counts
        What was not kept, by kind.
    """

    path: Path
    rows: pd.DataFrame
    start_ns: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    keys: dict[str, Any]
    counts: Counter[str]


@dataclass
class _Columns:
    """Columns that grow chunk by chunk; texts as codes, since a trace has few names and many rows."""

    texts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: {} for name in ("category", "name", "process", "thread")}
    )
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def add(self, name: str, values: NDArray[Any]) -> None:
        self.parts.setdefault(name, []).append(values)

    def add_text(self, name: str, values: Sequence[object]) -> None:
        codes = self.texts[name]
        self.add(
            name,
            np.fromiter(
                (codes.setdefault(value if type(value) is str else _text(value), len(codes)) for value in values),
                dtype=np.int32,
                count=len(values),
            ),
        )

    def column(self, name: str) -> NDArray[Any]:
        return np.concatenate(self.parts[name])

    def categorical(self, name: str) -> pd.Categorical:
        return pd.Categorical.from_codes(self.column(name).tolist(), categories=pd.Index(list(self.texts[name]), dtype="object"))


def read_rows(path: Path, *, python: bool = False) -> RawTrace:
    """Complete events (ph X) of one trace file.

    Parameters
    ----------
    path
        A plain or gzip JSON file.
    python
        Whether to keep the rows of Python functions, often nine tenths of a file.

    Returns
    -------
    RawTrace
        One row per event that was kept.

    Raises
    ------
    TraceFormatError
        If the file is no trace, is damaged, or over 1 % of its entries are no events.
    """
    file = TraceFile(path)
    columns = _Columns()
    counts: Counter[str] = Counter()
    skipped = _SKIPPED - {"python_function"} if python else _SKIPPED
    for chunk in file.events():
        _add(columns, [event for event in chunk if event.ph == "X"], skipped, counts)
        counts.update(_kind(event) for event in chunk if event.ph != "X")
    total = sum(counts.values()) + sum(map(len, columns.parts.get("start", [])))
    if file.dropped > _LARGEST_DROPPED_SHARE * max(total, 1):
        message = f"{path.name}: {file.dropped:,} of {total + file.dropped:,} entries are no events: this is no usable trace"
        raise TraceFormatError(message)
    if file.replaced:
        counts["chunks with bytes that are no UTF-8 (replaced)"] = 1
    if file.dropped:
        counts["entries that are no events"] = file.dropped
    if not columns.parts:
        message = (
            f"{path.name} holds no complete event (ph X) that could be used: record with activities=[ProfilerActivity.CPU, ...]"
        )
        raise TraceFormatError(message)
    base = _base_ns(file.keys)
    return RawTrace(
        path=path,
        rows=pd.DataFrame(
            {name: columns.categorical(name) for name in columns.texts}
            | {name: _nullable(columns.column(name)) for name in _INTEGERS}
            | {name: columns.column(name) for name in _OBJECTS}
        ),
        start_ns=columns.column("start") + base,
        duration_ns=columns.column("duration"),
        keys=file.keys,
        counts=counts,
    )


_INTEGERS: Final = ("correlation", "stream", "device", "bytes", "sequence")
_OBJECTS: Final = ("collective", "dtype", "elements_in", "elements_out", "group_size", "group", "call", "shapes", "types")


def _add(columns: _Columns, events: list[Event], skipped: frozenset[str], counts: Counter[str]) -> None:
    categories = [event.cat.lower() if type(event.cat) is str else "" for event in events]
    left_out = [category in skipped for category in categories]
    counts.update(category for category, out in zip(categories, left_out, strict=True) if out)
    events = [event for event, out in zip(events, left_out, strict=True) if not out]
    categories = [category for category, out in zip(categories, left_out, strict=True) if not out]
    start = nanoseconds([bytes(event.ts) for event in events])
    duration = nanoseconds([bytes(event.dur) for event in events])
    whole = (start != MISSING) & (duration != MISSING) & (duration >= 0)
    if not whole.all():
        counts["events without a readable start or duration"] += int((~whole).sum())
        kept = np.flatnonzero(whole)
        events, categories = [events[row] for row in kept], [categories[row] for row in kept]
        start, duration = start[kept], duration[kept]
    if not events:
        return
    columns.add("start", start)
    columns.add("duration", duration)
    columns.add_text("category", categories)
    columns.add_text("name", [event.name for event in events])
    columns.add_text("process", [event.pid for event in events])
    columns.add_text("thread", [event.tid for event in events])
    arguments = [event.args or _NO_ARGUMENTS for event in events]
    for name in _INTEGERS:
        columns.add(name, _integers([getattr(each, name) for each in arguments]))
    for name in _OBJECTS:
        values = np.empty(len(arguments), dtype=object)
        values[:] = (
            [getattr(each, name) for each in arguments] if name not in ("shapes", "types") else _shapes(events, arguments, name)
        )
        columns.add(name, values)


def _shapes(events: Sequence[Event], arguments: Sequence[Arguments], name: str) -> list[object]:
    """Shapes are kept only where a collective of a host library needs them: they would take more room than all else."""
    return [
        getattr(each, name) if type(event.name) is str and event.name.startswith("gloo:") else None
        for event, each in zip(events, arguments, strict=True)
    ]


def _integers(values: Sequence[object]) -> NDArray[np.int64]:
    return np.fromiter(
        (value if type(value) is int and abs(value) < -MISSING else _integer(value) for value in values), np.int64, len(values)
    )


def _integer(value: object) -> int:
    if value is None:
        return int(MISSING)
    try:
        number = int(str(value), 0)  # "0x0" is how ROCm writes its default stream
    except ValueError:
        return int(MISSING)
    return number if abs(number) < -MISSING else int(MISSING)


def _nullable(values: NDArray[np.int64]) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(values, values == MISSING)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _kind(event: Event) -> str:
    return "[memory]" if event.name == "[memory]" else f"ph {event.ph}"


def _base_ns(keys: dict[str, Any]) -> int:
    base = _integer(keys.get("baseTimeNanoseconds"))
    return 0 if base == MISSING else base
