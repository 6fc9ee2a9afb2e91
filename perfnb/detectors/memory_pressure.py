"""Detector of a device whose memory is nearly all taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.device_memory import NO_CAPACITY, NOT_RECORDED, device_memory, peaks_of
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_FULL: Final = 0.90  # of usable memory: torch_tb_profiler 0.4.3 warns from there, TraceML from 92 %
_SEVERE: Final = 0.97  # gpuprof 0.7.1

_DEVICE = Machine(device_memory_bytes=(1000,))


@detector(
    family="memory",
    unit="memory",
    title="Device memory beyond nine tenths of what is usable",
    injected_by="capped_memory",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="torch_tb_profiler 0.4.3 warns at 90 % of the device's memory, TraceML at 92 %, gpuprof calls 97 % severe",
    not_to_confuse_with=("memory_fragmentation", "memory_unused", "memory_rank_skew", "memory_leak", "allocator_churn"),
    upper_bound=True,
    examples=(
        example(
            "rank 1 reserves 980 of 1000 bytes at most, 80 beyond nine tenths; rank 0 reserves 850",
            lost_share=0.08,
            machine=_DEVICE,
            allocator="""rank step device peak_allocated_bytes peak_reserved_bytes
                         0    1    0      400                  850
                         1    1    0      900                  930
                         0    2    0      400                  850
                         1    2    0      930                  980""",
        ),
        example(
            "960 of 1000 bytes, but a driver and others hold 40: that is all there is",
            lost_share=0.096,
            machine=_DEVICE,
            allocator="""rank step device time_us peak_reserved_bytes reserved_bytes
                         0    1    0      0       960                 900
                         0    2    0      10      960                 900""",
            gpu_samples="""rank gpu time_us memory_used_bytes memory_total_bytes
                           0    0   5       940               1000
                           0    0   15      940               1000""",
        ),
        example(
            "950 of 1000 bytes are 50 beyond nine tenths",
            lost_share=0.05,
            machine=_DEVICE,
            allocator="rank step device peak_reserved_bytes\n0 1 0 950",
        ),
        example(
            "940 of 1000 bytes are 40 beyond nine tenths: under the threshold",
            lost_share=0.04,
            machine=_DEVICE,
            allocator="rank step device peak_reserved_bytes\n0 1 0 940",
        ),
        example(
            "single allocations of a trace tell of 960 bytes",
            lost_share=0.06,
            machine=_DEVICE,
            allocations="""rank device time_us bytes allocated_bytes reserved_bytes
                           0    0      0       10    700             950
                           0    0      5       10    710             960
                           0    -      6       10    999             -""",
        ),
        example(
            "890 of 1000 bytes are below nine tenths",
            lost_share=0.0,
            machine=_DEVICE,
            allocator="rank step device peak_reserved_bytes\n0 1 0 890",
        ),
        example(
            "an out-of-memory at 700 of 1000 bytes: all there is was asked for",
            lost_share=0.10,
            machine=_DEVICE,
            allocator="rank step device peak_reserved_bytes ooms\n0 1 0 700 1",
        ),
    ),
)
def memory_pressure(
    machine: Machine,
    config: Mapping[str, Any],
    allocator: pd.DataFrame | None = None,
    allocations: pd.DataFrame | None = None,
    gpu_samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Device memory that the job requires beyond 90 % of what is usable.

    Without a replay of its allocations a job requires at most its reserved peak (all that is usable, where it ran out of
    memory) and at least its allocated peak: the finding says upper bound, and its interval spans both. Usable is the device's
    memory less what the driver and other processes were seen to hold, or the share that memory_fraction allows. It matters
    because the next longer batch, or another process on the device, ends the training. It cannot tell memory that is needed
    from memory that torch merely keeps, nor a shortage from fragmentation. Not validated on a GPU.
    """
    peaks = peaks_of(allocator, allocations)
    if peaks["peak_reserved_bytes"].isna().all() and peaks["reserved_bytes"].isna().all():
        raise Unmeasured(NOT_RECORDED)
    found = device_memory(peaks, machine, config, gpu_samples)
    if found["pressure"].isna().all():
        raise Unmeasured(NO_CAPACITY)
    found = found[found["pressure"].notna()]
    free = _FULL * found["usable_bytes"]
    lost = (found["required_bytes"] - free).clip(lower=0.0)
    return found.assign(
        bytes=lost,
        low_bytes=(found["allocated_peak_bytes"].fillna(0.0) - free).clip(lower=0.0),
        high_bytes=lost,
        is_severe=found["pressure"] >= _SEVERE,
    )
