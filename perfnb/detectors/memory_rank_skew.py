"""Detector of one rank whose device needs much more memory than the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.device_memory import NO_CAPACITY, NOT_RECORDED, device_memory, peaks_of
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_SKEW: Final = 0.20  # (max - min) / max: TraceML 0.5.0
_PRESSURE: Final = 0.30  # TraceML 0.5.0: below, memory is no concern on any rank

_DEVICE = Machine(device_memory_bytes=(1000,))


def _text(*peaks: int) -> str:
    """Two steps of one rank for each peak."""
    rows = [f"{rank} {step} {rank} {peak}" for step in (1, 2) for rank, peak in enumerate(peaks)]
    return "\n".join(["rank step device peak_reserved_bytes", *rows])


@detector(
    family="memory",
    unit="memory",
    title="Device memory of the rank with the most beyond that of the middle one",
    injected_by="uneven_rank",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="TraceML 0.5.0: ranks' peak memory differs by 20 % of the largest, with at least 30 % of a device in use",
    not_to_confuse_with=("memory_pressure", "memory_fragmentation", "memory_unused", "memory_leak"),
    examples=(
        example(
            "800 bytes on one rank of three, 500 on the others: 300 of 1000 over the middle one",
            lost_share=0.30,
            machine=_DEVICE,
            world_size=3,
            allocator=_text(500, 800, 500),
        ),
        example(
            "800 and 720 bytes: they differ by a tenth",
            lost_share=0.0,
            machine=_DEVICE,
            world_size=2,
            allocator=_text(800, 720),
        ),
        example(
            "250 and 100 bytes of 1000: no device has three tenths in use",
            lost_share=0.0,
            machine=_DEVICE,
            world_size=2,
            allocator=_text(250, 100),
        ),
        example(
            "320 and 240 bytes differ by a quarter, but 40 of 1000 over the middle are under the threshold",
            lost_share=0.04,
            machine=_DEVICE,
            world_size=2,
            allocator=_text(320, 240),
        ),
    ),
)
def memory_rank_skew(
    machine: Machine,
    config: Mapping[str, Any],
    world_size: int | None,
    allocator: pd.DataFrame | None = None,
    allocations: pd.DataFrame | None = None,
    gpu_samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Reserved peak of the rank with the most memory beyond the median rank's, where the ranks differ by 20 % or more.

    It matters because the fullest device sets the batch size of all. It cannot tell longer samples on that rank from layers
    that only it holds, as in a pipeline, nor memory that is needed from memory that torch merely keeps.
    Not validated on a GPU.
    """
    peaks = peaks_of(allocator, allocations)
    if peaks["peak_reserved_bytes"].isna().all() and peaks["reserved_bytes"].isna().all():
        raise Unmeasured(NOT_RECORDED)
    found = device_memory(peaks, machine, config, gpu_samples)
    ranks = found["rank"].nunique()
    if ranks < 2 or ranks < (world_size or 2):  # noqa: PLR2004 - a comparison needs two
        message = f"has the memory of {ranks} of {world_size} ranks" if (world_size or 1) > ranks else "the job has one rank"
        raise Unmeasured(message)
    if found["reserved_peak_bytes"].isna().any():
        message = "what torch's allocator reserved was not recorded on every rank"
        raise Unmeasured(message)
    if found["pressure"].isna().all():
        raise Unmeasured(NO_CAPACITY)
    peaks = found.loc[found.groupby("rank")["reserved_peak_bytes"].idxmax()]
    peak = peaks["reserved_peak_bytes"]
    differ = (peak.max() - peak.min()) / peak.max() >= _SKEW and peaks["pressure"].max() >= _PRESSURE
    lost = (peak - peak.median()).clip(lower=0.0) if differ else 0.0
    return peaks.assign(bytes=lost, median_peak_bytes=peak.median())[peaks["capacity_bytes"].notna()]
