"""Detector of reserved device memory that lies in holes between tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.device_memory import NO_CAPACITY, device_memory, fullest_moments
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_HOLES: Final = 0.10  # share of reserved memory: a prior of ours, not validated
_PRESSURE: Final = 0.90  # torch_tb_profiler 0.4.3, as memory_pressure: with room left holes harm nobody
_OFF: Final = (None, False, "off", "none", "")

_DEVICE = Machine(device_memory_bytes=(1000,))


@detector(
    family="memory",
    unit="memory",
    title="Reserved device memory in holes between tensors",
    injected_by="alternating_lengths",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="torch.cuda.memory_stats: inactive_split cannot be returned; 10 % of reserved is a prior, not validated",
    not_to_confuse_with=("memory_pressure", "memory_unused", "memory_rank_skew", "memory_leak", "allocator_churn"),
    examples=(
        example(
            "rank 1 reserves 920 of 1000 bytes and holes take 190 of them when most is allocated; rank 0 has none",
            lost_share=0.19,
            machine=_DEVICE,
            allocator="""rank step device allocated_bytes active_bytes inactive_split_bytes reserved_bytes peak_reserved_bytes
                         0    1    0      700             700          0                    720            850
                         1    1    0      500             500          400                  920            920
                         0    2    0      700             700          0                    720            850
                         1    2    0      700             700          190                  920            920""",
        ),
        example(
            "cache is no hole: 930 of 1000 bytes reserved, 280 of them whole free segments, 40 in holes",
            lost_share=0.0,
            machine=_DEVICE,
            allocator="""rank step device allocated_bytes active_bytes inactive_split_bytes reserved_bytes peak_reserved_bytes
                         0    1    0      610             610          40                   930            930""",
        ),
        example(
            "holes of 200 of 800 bytes in a device of 1000 press on nobody",
            lost_share=0.0,
            machine=_DEVICE,
            allocator="""rank step device allocated_bytes active_bytes inactive_split_bytes reserved_bytes peak_reserved_bytes
                         0    1    0      600             600          200                  800            800""",
        ),
        example(
            "the same where the allocator had to give memory back and ask again after warm-up",
            lost_share=0.20,
            machine=_DEVICE,
            allocator="""rank step device allocated_bytes active_bytes inactive_split_bytes reserved_bytes retries
                         0    1    0      600             600          200                  800            0
                         0    12   0      600             600          200                  800            0
                         0    14   0      600             600          200                  800            1""",
        ),
        example(
            "holes of 40 of the 400 bytes that may be used of a device of 1000: under the threshold",
            lost_share=0.04,
            machine=_DEVICE,
            config={"memory_fraction": 0.4},
            allocator="""rank step device allocated_bytes active_bytes inactive_split_bytes reserved_bytes peak_reserved_bytes
                         0    1    0      350             350          40                   400            400""",
        ),
    ),
)
def memory_fragmentation(
    allocator: pd.DataFrame, machine: Machine, config: Mapping[str, Any], gpu_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Reserved memory that no tensor holds and that cannot be returned either, since it lies beside tensors in their segments.

    Counted at one instant, the recorded one with the most allocated, from 10 % of reserved memory on, and only where it harms:
    pressure is 90 % or more, or the allocator was refused memory after warm-up. It matters because a request can fail while
    enough bytes are free. It cannot see holes within a step, only at the ends of those recorded, nor any with expandable
    segments, for which torch does not count them. Not validated on a GPU.
    """
    if has_knob(config, "expandable_segments") and value_of(config, "expandable_segments") not in _OFF:
        message = "torch does not count holes with expandable segments"
        raise Unmeasured(message)
    moments = fullest_moments(allocator)
    if moments["holes_bytes"].isna().all():
        message = "how much of the reserved memory lies in holes was not recorded (inactive_split_bytes)"
        raise Unmeasured(message)
    found = moments.merge(device_memory(allocator, machine, config, gpu_samples), on=["rank", "device"])
    if found["capacity_bytes"].isna().all():
        raise Unmeasured(NO_CAPACITY)
    harms = found["retries"].gt(0) | found["ooms"].gt(0) | found["pressure"].ge(_PRESSURE)
    return found.assign(bytes=found["holes_bytes"].where(found["holes_share"].ge(_HOLES) & harms, 0.0))
