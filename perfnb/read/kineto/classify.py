"""Rows of one file -> rows of host_ops, device_ops, allocations and steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.read.kineto.columns import Int64s, TextColumn
from perfnb.read.kineto.rows import RawTrace
from perfnb.read.kineto.stamps import MISSING

# Category in lower case -> kind; never the presence of a stream (Triton operators and syncs carry one and are host rows).
DEVICE_KINDS: Final = {
    "kernel": "compute",
    "gpu_memcpy": "copy",
    "memcpy": "copy",
    "gpu_memset": "memset",
    "memset": "memset",
    "mtia_ccp_events": "compute",
    "collective_comm": "communication",
}
HOST_CATEGORIES: Final = {
    "cpu_op": "operator",
    "operator": "operator",
    "hpu_op": "operator",
    "user_annotation": "annotation",
    "runtime": "runtime",
    "python_function": "python",
    "cuda_sync": "synchronization",
    "xpu_sync": "synchronization",
    "overhead": "overhead",
}
STEP_NAMES: Final = ("ProfilerStep#",)
LOADER_PATTERN: Final = r"enumerate\(DataLoader\).*__next__"
_ANNOTATION_PATTERN: Final = r"^ProfilerStep#|enumerate\(DataLoader\)|^Optimizer\."  # written as operators until 2021
_HOST_MEMORY: Final = 0  # Device Type of [memory] events, c10/core/DeviceType.h: CPU

Bools = NDArray[np.bool_]
Integers = NDArray[np.intp]


def microseconds(nanoseconds: Int64s) -> NDArray[np.float64]:
    """Whole nanoseconds since the origin -> microseconds; rounding times 1000 gives the exact value back for 50 days."""
    return nanoseconds / 1000.0


def host_ops(raw: RawTrace, rank: int, origin_ns: int) -> tuple[pd.DataFrame, Integers]:
    """Host rows of one file as table host_ops, and their positions in the file's columns."""
    rows = _sorted(raw, raw.complete[~per_value(raw.texts["category"], DEVICE_KINDS.__contains__)[raw.complete]])
    category = raw.texts["category"].where(rows)
    kinds = _mapped(category, host_category)
    written_as_operator = per_value(raw.texts["category"], ("operator", "cpu_op").__contains__)[rows]
    is_annotation = per_value(raw.texts["name"], re.compile(_ANNOTATION_PATTERN).search)[rows] & written_as_operator
    return (
        pd.DataFrame(
            {
                "rank": rank,
                "process": raw.texts["process"].where(rows).categorical(),
                "thread": raw.texts["thread"].where(rows).categorical(),
                "category": _masked(kinds, is_annotation, "annotation").categorical(),
                "name": raw.texts["name"].where(rows).categorical(),
                "start_us": microseconds(raw.start_ns[rows] - origin_ns),
                "duration_us": microseconds(raw.duration_ns[rows]),
                "correlation": nullable(raw.integers["correlation"][rows]),
                "stream": nullable(raw.integers["stream"][rows]),
                "sequence": nullable(raw.integers["sequence"][rows]),
                "input_shapes": raw.texts["shapes"].where(rows).categorical(),
                "input_types": raw.texts["types"].where(rows).categorical(),
                "waits_on_stream": nullable(raw.integers["waits_on_stream"][rows]),
                "waits_on_correlation": nullable(raw.integers["waits_on_correlation"][rows]),
            }
        ),
        rows,
    )


def device_ops(raw: RawTrace, rank: int, origin_ns: int, communication: Callable[[str], bool]) -> tuple[pd.DataFrame, Integers]:
    """Kernels, copies and memsets of one file as table device_ops, and their positions in the file's columns.

    `communication` tells from a kernel's name whether it is communication; a kernel with a collective among its arguments is.
    """
    rows = _sorted(raw, raw.complete[per_value(raw.texts["category"], DEVICE_KINDS.__contains__)[raw.complete]])
    category, name = raw.texts["category"].where(rows), raw.texts["name"].where(rows)
    kind = _mapped(category, lambda text: DEVICE_KINDS.get(text, ""))
    is_kernel = per_value(kind, "compute".__eq__)
    stated = is_kernel & (raw.texts["collective"].codes[rows] >= 0)
    named = is_kernel & ~stated & per_value(name, communication)
    peer_to_peer = per_value(kind, "copy".__eq__) & per_value(name, lambda text: "PtoP" in text)
    source = np.select([stated, named], [1, 2], 0)
    process = _numbers(raw.texts["process"].where(rows))
    device = raw.integers["device"][rows]
    return (
        pd.DataFrame(
            {
                "rank": rank,
                "device": nullable(np.where(device == MISSING, process, device)),
                "stream": nullable(raw.integers["stream"][rows]),
                "kind": _masked(kind, stated | named | peer_to_peer, "communication").categorical(),
                "name": name.categorical(),
                "start_us": microseconds(raw.start_ns[rows] - origin_ns),
                "duration_us": microseconds(raw.duration_ns[rows]),
                "correlation": nullable(raw.integers["correlation"][rows]),
                "bytes": nullable(raw.integers["bytes"][rows]),
                "kind_source": pd.Categorical.from_codes(source, categories=pd.Index(["category", "arguments", "name"])),
                "grid": raw.texts["grid"].where(rows).categorical(),
                "block": raw.texts["block"].where(rows).categorical(),
                "occupancy_share": _shares(raw.texts["occupancy"].where(rows)),
            }
        ),
        rows,
    )


def allocations(raw: RawTrace, rank: int, origin_ns: int) -> pd.DataFrame:
    """Allocations and frees of one file as table allocations, in the order in which they happened."""
    rows = raw.memory
    order = np.lexsort((rows, raw.integers["order"][rows], raw.start_ns[rows]))
    rows = rows[order]
    on_host = raw.integers["device_type"][rows] == _HOST_MEMORY
    return pd.DataFrame(
        {
            "rank": rank,
            "device": nullable(np.where(on_host, MISSING, raw.integers["device_id"][rows])),
            "time_us": microseconds(raw.start_ns[rows] - origin_ns),
            "address": nullable(raw.integers["address"][rows]),
            "bytes": raw.integers["allocation"][rows],
            "allocated_bytes": nullable(raw.integers["allocated"][rows]),
            "reserved_bytes": nullable(raw.integers["reserved"][rows]),
        }
    )


def steps(host: pd.DataFrame, rank: int, names: tuple[str, ...] = STEP_NAMES) -> tuple[pd.DataFrame, str | None]:
    """Steps of one rank, and a note on what was odd about them.

    Annotations whose name starts with one of `names`, of the thread that has most of them; where there are none, the starts of
    successive loader waits bound them. Steps without a duration are left out; numbers that repeat or are none give way to the
    order.
    """
    is_marked = per_text(host["category"], ("annotation", "operator").__contains__)  # until 2021 annotations were operators
    is_step = per_text(host["name"], lambda name: name.startswith(names)) & is_marked
    frame, note = _marked_steps(host[is_step]) if is_step.any() else (_bounded_by_loader(host), None)
    longer = (
        frame[frame["duration_us"] > 0].sort_values("start_us", kind="stable").drop_duplicates("start_us").reset_index(drop=True)
    )
    if len(longer) < len(frame):
        note = f"rank {rank}: left out {len(frame) - len(longer)} steps without a duration or with the start of another"
    return longer.assign(rank=rank, is_edge=(longer.index == 0) | (longer.index == len(longer) - 1)), note


def host_category(category: str) -> str:
    """Category of table host_ops from a trace's category in lower case; one that is not known keeps its name."""
    if category in HOST_CATEGORIES:
        return HOST_CATEGORIES[category]
    return "runtime" if category.endswith(("_runtime", "_driver")) else category or "unnamed"


def per_value(column: TextColumn, test: Callable[[str], object]) -> Bools:
    """A test of text for each row of a column, made once per distinct text; False where there is none."""
    return np.array([bool(test(value)) for value in column.distinct] + [False])[column.codes]


def nullable(values: Int64s) -> pd.arrays.IntegerArray:
    """Whole numbers in which `MISSING` is NA."""
    return pd.arrays.IntegerArray(values, values == MISSING)


def _marked_steps(marked: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    threads = marked["process"].astype(str) + " " + marked["thread"].astype(str)
    marked = marked[threads.eq(str(threads.value_counts().idxmax()))]
    number = marked["name"].astype(object).str.extract(r"#(\d{1,15})$")[0]
    note = None
    if number.isna().any() or number.duplicated().any():
        note = "step numbers repeat or are missing in the trace: steps are numbered in order"
        number = pd.Series(np.arange(len(marked)), index=marked.index)
    return marked[["start_us", "duration_us"]].assign(step=number.astype("int64"), steps_inferred=False), note


def _bounded_by_loader(host: pd.DataFrame) -> pd.DataFrame:
    start = np.sort(host.loc[per_text(host["name"], re.compile(LOADER_PATTERN).search), "start_us"].to_numpy())
    count = max(len(start) - 1, 0)
    return pd.DataFrame(
        {"step": np.arange(count), "start_us": start[:count], "duration_us": np.diff(start), "steps_inferred": True}
    )


def _sorted(raw: RawTrace, rows: Integers) -> Integers:
    """Rows by (start, longest first, place in the file): parents stand before their children."""
    order = np.lexsort((-raw.duration_ns[rows], raw.start_ns[rows]))  # stable: equal rows keep the order of the file
    return rows[order]


def _mapped(column: TextColumn, change: Callable[[str], str]) -> TextColumn:
    """Column with each text replaced by another."""
    changed = [change(value) for value in column.distinct] if len(column.codes) else []
    values = sorted(set(changed))
    place = np.array([values.index(value) for value in changed] + [-1], dtype=np.int32)
    return TextColumn(place[column.codes] if changed else column.codes, np.array(values, dtype=object))


def _masked(column: TextColumn, chosen: Bools, value: str) -> TextColumn:
    """Column in which the chosen rows have the given text."""
    values = sorted({*column.distinct, value})
    place = np.array([values.index(each) for each in column.distinct] + [-1], dtype=np.int32)
    return TextColumn(np.where(chosen, np.int32(values.index(value)), place[column.codes]), np.array(values, dtype=object))


def _numbers(column: TextColumn) -> Int64s:
    """Whole numbers of texts; `MISSING` where a text is none."""
    numbers = [int(value) if value.isdecimal() and len(value) < _LONGEST_DEVICE else MISSING for value in column.distinct]
    return np.array([*numbers, MISSING], dtype=np.int64)[column.codes]


def _shares(column: TextColumn) -> NDArray[np.float64]:
    """Percent as shares; NaN where a text is no number."""
    shares = [_share(value) for value in column.distinct]
    return np.array([*shares, np.nan])[column.codes]


def _share(text: Any) -> float:
    try:
        percent = float(text)
    except ValueError:
        return float("nan")
    return percent / 100 if 0 <= percent <= _WHOLE else float("nan")


_WHOLE: Final = 100.0  # percent
_LONGEST_DEVICE: Final = 10  # digits of a device number
