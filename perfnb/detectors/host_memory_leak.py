"""Detector of the training process's own memory that grows from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.leak_test import growing_memories, why_short
from perfnb.analyses.own_memory import own_memory_by_step
from perfnb.detector import Unmeasured, detector, example

_MIB = 1 << 20


def _text(slope_bytes: int, steps: int = 210, *, until: int | None = None, ranks: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Steps of 100 us with a sample at the end of each: the last rank's process grows, up to a step, of 64 GiB that there are.

    Passes over the data end after 100 steps.
    """
    host = ["rank time_us own_memory_bytes memory_limit_bytes"]
    told = ["rank step start_us duration_us epoch"]
    for step in range(steps):
        for rank in ranks:
            grown = slope_bytes * min(step, until if until is not None else step) * (rank == ranks[-1])
            host.append(f"{rank} {step * 100 + 99} {300 * _MIB + grown} {65_536 * _MIB}")
            told.append(f"{rank} {step} {step * 100} 100 {step // 100}")
    return {"host_samples": "\n".join(host), "steps": "\n".join(told)}


@detector(
    family="memory",
    unit="memory",
    tier=3,
    title="The training process's memory grows from step to step",
    injected_by="kept_tensors",
    recorded_only_when="the detection benchmark injects it",
    source="leak test (memory.md 2), and 5 % of the limit over the steps left: 23 kB per step of a healthy process stay below",
    not_to_confuse_with=("memory_leak", "host_memory_pressure", "memory_pressure"),
    examples=(
        example(
            "the second of two ranks keeps 1 MiB per step: 10,000 of them are 9.8 of 64 GiB",
            lost_share=10_000 / 65_536,
            **_text(_MIB, ranks=(0, 1)),
        ),
        example(
            "256 KiB per step are 3.8 % of the limit in 10,000 steps: under the threshold",
            lost_share=2_500 / 65_536,
            **_text(_MIB // 4),
        ),
        example(
            "with 300 steps planned only what was seen counts",
            lost_share=207 / 65_536,
            config={"planned_steps": 300},
            **_text(_MIB),
        ),
        example(
            "a dataset that keeps what it loaded grows in the first pass over the data, and then no more",
            lost_share=0.0,
            **_text(_MIB, steps=210, until=100),
        ),
        example(
            "a passing growth over most of the recording ends with the pass", lost_share=0.0, **_text(_MIB, steps=320, until=100)
        ),
    ),
)
def host_memory_leak(host_samples: pd.DataFrame, steps: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Resident memory of the training process that rises over the recorded steps beyond noise, warm-up and the first epoch.

    Samples are set to the steps they fall in, and of each step the lowest counts. Counted are the bytes that the growth comes
    to over the steps that are left (planned_steps of the config, else 10,000), as a share of the memory limit. It matters
    because the system kills the process when the limit is reached, hours into the training. It cannot see what keeps the
    memory, growth of loader workers, or, before the first pass over the data has ended, that a dataset is filling a cache.
    """
    known = host_samples[host_samples["own_memory_bytes"].notna()]
    if known.empty:
        message = "the memory of the training process was not recorded"
        raise Unmeasured(message)
    found = growing_memories(own_memory_by_step(known, steps), config, within_steps=True)
    if reason := why_short(found):
        raise Unmeasured(reason)
    if found.loc[found["verdict"].eq("leak"), "capacity_bytes"].isna().any():
        message = "how much memory the process may use was not recorded"
        raise Unmeasured(message)
    return found[found["capacity_bytes"].notna()]
