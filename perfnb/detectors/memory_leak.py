"""Detector of device memory that grows from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.device_memory import NO_CAPACITY, device_memory
from perfnb.analyses.leak_test import growing_memories, why_short
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_GIB = 1 << 30


def _text(slope_bytes: int, steps: int = 210, *, period: int | None = None, ranks: tuple[int, ...] = (0,)) -> str:
    """End of each step of a device of 80 GiB that holds 1 GiB and grows; with a period it falls back after so many steps."""
    rows = ["rank step device allocated_bytes"]
    for step in range(steps):
        grown = slope_bytes * (step % period if period else step)
        rows += [f"{rank} {step} 0 {_GIB + grown * (rank == ranks[-1])}" for rank in ranks]
    return "\n".join(rows)


@detector(
    family="memory",
    unit="memory",
    title="Device memory grows from step to step",
    injected_by="kept_graph",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="leak test: 400 of 400 made leaks of 512 B to 2 MB per step in 200 steps, none of 600 harmless series (memory.md 2)",
    not_to_confuse_with=("memory_pressure", "memory_fragmentation", "memory_unused", "memory_rank_skew", "host_memory_leak"),
    examples=(
        example(
            "the second of two ranks keeps 1 MiB per step: 10,000 of them are 9.8 of 80 GiB",
            lost_share=10_000 * (1 << 20) / (80 * _GIB),
            machine=Machine(device_memory_bytes=(80 * _GIB,)),
            allocator=_text(1 << 20, ranks=(0, 1)),
        ),
        example(
            "256 KiB per step are 2.4 of 80 GiB in 10,000 steps: under the threshold",
            lost_share=10_000 * (1 << 18) / (80 * _GIB),
            machine=Machine(device_memory_bytes=(80 * _GIB,)),
            allocator=_text(1 << 18),
        ),
        example(
            "1 MiB per step with 1,790 of 2,000 planned steps left",
            lost_share=1_790 * (1 << 20) / (80 * _GIB),
            config={"planned_steps": 2_000},
            machine=Machine(device_memory_bytes=(80 * _GIB,)),
            allocator=_text(1 << 20),
        ),
        example(
            "garbage that is collected every 90 steps is no leak",
            lost_share=0.0,
            machine=Machine(device_memory_bytes=(80 * _GIB,)),
            allocator=_text(1 << 20, period=90),
        ),
        example(
            "a growth of 256 B per step is less than the allocator hands out at once",
            lost_share=0.0,
            machine=Machine(device_memory_bytes=(80 * _GIB,)),
            allocator=_text(256),
        ),
    ),
)
def memory_leak(
    allocator: pd.DataFrame, machine: Machine, config: Mapping[str, Any], gpu_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Device memory, in use at the end of a step, that rises over the recorded steps beyond noise, warm-up and late collection.

    Counted are the bytes that the growth comes to over the steps that are left: planned_steps of the config, else 10,000
    (`horizon_steps`); `steps_to_out_of_memory` says when the device is full. It matters because such a job dies hours later, and
    a graph kept with a loss holds all its activations. It cannot tell a leak from a sawtooth longer than the recording, nor see
    what holds the memory: that takes two snapshots with stacks. Not validated on a GPU.
    """
    known = allocator[allocator["allocated_bytes"].notna()]
    if known.empty:
        message = "what torch's allocator holds at the end of a step was not recorded"
        raise Unmeasured(message)
    sizes = device_memory(known, machine, config, gpu_samples)[["rank", "device", "usable_bytes", "capacity_bytes"]]
    rows = known.assign(
        device=known["device"].fillna(0).astype("int64"),
        at=known["step"].astype("float64"),
        memory_bytes=known["allocated_bytes"].astype("float64"),
        epoch=float("nan"),
    )[["rank", "device", "step", "at", "memory_bytes", "epoch"]].merge(sizes, how="left", on=["rank", "device"])
    found = growing_memories(rows, config)
    if reason := why_short(found):
        raise Unmeasured(reason)
    if found.loc[found["verdict"].eq("leak"), "capacity_bytes"].isna().any():
        raise Unmeasured(NO_CAPACITY)
    return found[found["capacity_bytes"].notna()]
