"""Raw columns of one file -> rows of host_ops, device_ops and steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.read.kineto.communication import is_communication
from perfnb.read.kineto.rows import RawTrace

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


def microseconds(nanoseconds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whole nanoseconds since the origin -> microseconds; rounding times 1000 gives the exact value back for 50 days."""
    return nanoseconds / 1000.0


def device_ops(raw: RawTrace, rank: int, origin_ns: int) -> pd.DataFrame:
    """Kernels, copies and memsets of one file; columns of table device_ops and the collective arguments."""
    rows, start, duration = _sorted(raw, raw.rows["category"].isin(list(DEVICE_KINDS)).to_numpy())
    by_category = rows["category"].astype(object).map(DEVICE_KINDS)
    by_name = _per_name(rows["name"], is_communication)
    peer_to_peer = by_category.eq("copy") & rows["name"].astype(object).str.contains("PtoP", regex=False)
    stated = rows["collective"].notna() & by_category.eq("compute")
    named = by_category.eq("compute") & by_name & ~stated
    kind = by_category.mask(stated | named | peer_to_peer, "communication")
    source = pd.Series("category", index=rows.index, dtype=object).mask(stated, "arguments").mask(named, "name")
    process_number = pd.to_numeric(rows["process"].astype(object), errors="coerce").astype("Int64")
    return rows.assign(
        rank=rank,
        device=rows["device"].fillna(process_number),
        kind=kind.astype("category"),
        kind_source=source.astype("category"),
        start_us=microseconds(start - origin_ns),
        duration_us=microseconds(duration),
    )


def host_ops(raw: RawTrace, rank: int, origin_ns: int) -> pd.DataFrame:
    """Host rows of one file; columns of table host_ops and the shapes of host collectives."""
    rows, start, duration = _sorted(raw, ~raw.rows["category"].isin(list(DEVICE_KINDS)).to_numpy())
    category = rows["category"].astype(object)
    kinds = {name: _host_category(name) for name in category.unique()}
    is_annotation = _per_name_pattern(rows["name"], _ANNOTATION_PATTERN) & category.isin(["operator", "cpu_op"])
    return rows.assign(
        rank=rank,
        category=category.map(kinds).mask(is_annotation, "annotation").astype("category"),
        start_us=microseconds(start - origin_ns),
        duration_us=microseconds(duration),
    )


def steps(host: pd.DataFrame, rank: int) -> tuple[pd.DataFrame, str | None]:
    """Steps of one rank, and a note on what was odd about them.

    Profiler steps among the host rows, of the thread that has most of them; where there are none, the starts of successive
    loader waits bound them. Steps without a duration are left out; numbers that repeat or are none give way to the order.
    """
    is_step = _per_name_pattern(host["name"], "^(?:" + "|".join(STEP_NAMES) + ")") & host["category"].eq("annotation")
    frame, note = _marked_steps(host[is_step]) if is_step.any() else (_bounded_by_loader(host), None)
    longer = (
        frame[frame["duration_us"] > 0].sort_values("start_us", kind="stable").drop_duplicates("start_us").reset_index(drop=True)
    )
    if len(longer) < len(frame):
        note = f"rank {rank}: left out {len(frame) - len(longer)} steps without a duration or with the start of another"
    return longer.assign(rank=rank, is_edge=(longer.index == 0) | (longer.index == len(longer) - 1)), note


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
    start = np.sort(host.loc[_per_name_pattern(host["name"], LOADER_PATTERN), "start_us"].to_numpy())
    count = max(len(start) - 1, 0)
    return pd.DataFrame(
        {"step": np.arange(count), "start_us": start[:count], "duration_us": np.diff(start), "steps_inferred": True}
    )


def _sorted(raw: RawTrace, chosen: NDArray[np.bool_]) -> tuple[pd.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """Chosen rows by (start, longest first, row in the file): parents stand before their children."""
    index = np.flatnonzero(chosen)
    start, duration = raw.start_ns[index], raw.duration_ns[index]
    order = np.lexsort((index, -duration, start))
    return raw.rows.iloc[index[order]].reset_index(drop=True), start[order], duration[order]


def _host_category(category: str) -> str:
    if category in HOST_CATEGORIES:
        return HOST_CATEGORIES[category]
    return "runtime" if category.endswith(("_runtime", "_driver")) else category or "unnamed"


def _per_name(names: pd.Series, test: Callable[[str], object]) -> pd.Series:
    """A test of text, made once per distinct name."""
    answers = {name: bool(test(name)) for name in names.cat.categories}
    return names.astype(object).map(answers).fillna(value=False).astype(bool)


def _per_name_pattern(names: pd.Series, pattern: str) -> pd.Series:
    return _per_name(names, re.compile(pattern).search)
