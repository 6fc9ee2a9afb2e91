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


def steps(host: pd.DataFrame, rank: int) -> pd.DataFrame:
    """Profiler steps among the host rows of one rank; where there are none, the starts of successive loader waits bound them."""
    marked = host[host["category"].eq("annotation") & _per_name_pattern(host["name"], "^(?:" + "|".join(STEP_NAMES) + ")")]
    if len(marked):
        number = pd.to_numeric(marked["name"].astype(object).str.extract(r"#(\d+)$")[0], errors="coerce")
        order = pd.Series(np.arange(len(marked)), index=marked.index)
        frame = pd.DataFrame(
            {
                "rank": rank,
                "step": number.fillna(order).astype("int64"),
                "start_us": marked["start_us"],
                "duration_us": marked["duration_us"],
                "steps_inferred": False,
            }
        )
    else:
        start = np.sort(host.loc[_per_name_pattern(host["name"], LOADER_PATTERN), "start_us"].to_numpy())
        frame = pd.DataFrame(
            {
                "rank": rank,
                "step": np.arange(max(len(start) - 1, 0)),
                "start_us": start[:-1],
                "duration_us": np.diff(start),
                "steps_inferred": True,
            }
        )
    frame = frame.sort_values("start_us", kind="stable").drop_duplicates(["rank", "start_us"]).reset_index(drop=True)
    return frame.assign(is_edge=(frame.index == 0) | (frame.index == len(frame) - 1))


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
