"""Calls by which torch's caching allocator takes device memory from the driver and gives it back."""

from __future__ import annotations

from typing import Final

import pandas as pd

# c10/cuda/CUDACachingAllocator.cpp: the first two for plain segments, the others for expandable ones; hip* on AMD
CALLS: Final = frozenset(
    prefix + name
    for prefix, names in {
        "cuda": ("Malloc", "Free"),
        "hip": ("Malloc", "Free", "ExtMallocWithFlags", "MemCreate", "MemMap", "MemUnmap", "MemRelease", "MemSetAccess"),
        "cu": ("MemCreate", "MemMap", "MemUnmap", "MemRelease", "MemSetAccess"),
    }.items()
    for name in names
)


def is_traced(host_ops: pd.DataFrame | None, device_ops: pd.DataFrame | None) -> bool:
    """Whether calls of the runtime and the device's work were recorded, so that such calls would have been seen."""
    if host_ops is None or device_ops is None or device_ops.empty:
        return False
    return bool(host_ops["category"].eq("runtime").any())


def memory_calls(host_ops: pd.DataFrame) -> pd.DataFrame:
    r"""Those calls: rank, name, start_us and duration_us of each.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = "rank category name start_us duration_us\n0 runtime cudaMalloc 5 10\n0 runtime cudaMallocHost 20 10"
    >>> memory_calls(table_from_text("host_ops", calls))["name"].to_list()
    ['cudaMalloc']
    """
    names = host_ops["name"].astype("category")
    wanted = names.cat.codes.isin([code for code, name in enumerate(names.cat.categories) if name in CALLS])
    return host_ops.loc[wanted & host_ops["category"].eq("runtime"), ["rank", "name", "start_us", "duration_us"]]
