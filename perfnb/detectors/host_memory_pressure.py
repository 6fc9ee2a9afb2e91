"""Detector of a host, or control group, whose memory is nearly all taken."""

from __future__ import annotations

from typing import Final

import pandas as pd

from perfnb.detector import Unmeasured, detector, example

_FULL: Final = 0.90  # of the limit: a prior of ours, not validated
_STALLED: Final = 0.10  # PSI "some", mean of 10 s: a prior of ours, not validated
_SWAPPED_IN: Final = 1e6  # bytes per second: a prior of ours, not validated

_SIGNS: Final = ("pressure_memory_share", "swap_in_bytes_per_s", "own_share")


@detector(
    family="memory",
    unit="memory",
    tier=3,
    title="Host memory beyond nine tenths of its limit",
    injected_by="memory_limit",
    recorded_only_when="no run under a memory limit of ours is recorded yet",
    source="priors, not validated: nine tenths of the limit, with stalls for memory (Linux PSI) or pages read back from swap",
    not_to_confuse_with=("host_memory_leak", "memory_pressure"),
    examples=(
        example(
            "rank 1's group uses 980 of 1000 bytes and stalls for memory in 15 % of the time",
            lost_share=0.08,
            host_samples="""rank time_us memory_bytes memory_limit_bytes pressure_memory_share swap_in_bytes_per_s
                            0    0       500          1000               0                     0
                            1    0       900          1000               0.02                  0
                            0    10      500          1000               0                     0
                            1    10      980          1000               0.15                  0""",
        ),
        example(
            "it reads 2 MB/s back from swap",
            lost_share=0.06,
            host_samples="""rank time_us memory_bytes memory_limit_bytes pressure_memory_share swap_in_bytes_per_s
                            0    0       960          1000               0.05                  2000000""",
        ),
        example(
            "the training process alone holds nine tenths of the limit",
            lost_share=0.06,
            host_samples="""rank time_us memory_bytes memory_limit_bytes own_memory_bytes
                            0    0       960          1000               900""",
        ),
        example(
            "full of files that were read, which the kernel gives back: nothing stalls, nothing is swapped",
            lost_share=0.0,
            host_samples="""rank memory_bytes memory_limit_bytes pressure_memory_share swap_in_bytes_per_s own_memory_bytes
                            0    990          1000               0.09                  900000              300""",
        ),
        example(
            "stalls at 850 of 1000 bytes are someone else's",
            lost_share=0.0,
            host_samples="""rank time_us memory_bytes memory_limit_bytes pressure_memory_share swap_in_bytes_per_s
                            0    0       850          1000               0.50                  0""",
        ),
        example(
            "940 of 1000 bytes are 40 beyond nine tenths: under the threshold",
            lost_share=0.04,
            host_samples="""rank time_us memory_bytes memory_limit_bytes pressure_memory_share swap_in_bytes_per_s
                            0    0       940          1000               0.20                  0""",
        ),
    ),
)
def host_memory_pressure(host_samples: pd.DataFrame) -> pd.DataFrame:
    """Memory of the control group (of the host, where it has no limit) in use beyond 90 % of the limit.

    Only at moments that also show that memory is short: processes stall for it in 10 % of the time or more, 1 MB/s come back
    from swap, or the training process alone holds 90 % of the limit. It matters because the system then slows every process
    down, and in the end kills one. It cannot tell this job's memory from its neighbours' where the group has no limit of its
    own, and stalls and swapping are the whole host's.
    """
    rows = host_samples[host_samples["memory_bytes"].notna() & host_samples["memory_limit_bytes"].notna()]
    if rows.empty:
        message = "how much of the host's memory is in use was not recorded"
        raise Unmeasured(message)
    sizes = ["memory_bytes", "memory_limit_bytes", "own_memory_bytes"]
    rows = rows.astype(dict.fromkeys(sizes, "Float64")).astype(dict.fromkeys(sizes, "float64"))
    rows = rows.assign(
        used_share=rows["memory_bytes"] / rows["memory_limit_bytes"],
        own_share=rows["own_memory_bytes"] / rows["memory_limit_bytes"],
    )
    full = rows["used_share"] >= _FULL
    if full.any() and rows.loc[full, list(_SIGNS)].isna().all(axis=None):
        message = (
            "the memory is at its limit, but whether anything waits for it was not recorded (it may hold files that can be "
            "dropped): needs /proc/pressure/memory, swap counters or the process's own memory"
        )
        raise Unmeasured(message)
    is_short = (
        rows["pressure_memory_share"].ge(_STALLED) | rows["swap_in_bytes_per_s"].ge(_SWAPPED_IN) | rows["own_share"].ge(_FULL)
    )
    lost = (rows["memory_bytes"] - _FULL * rows["memory_limit_bytes"]).where(full & is_short, 0.0)
    worst = rows.assign(bytes=lost, capacity_bytes=rows["memory_limit_bytes"], device=float("nan"))
    worst = worst.loc[worst.groupby("rank")["bytes"].idxmax()]
    shown = ["rank", "device", "time_us", "bytes", "capacity_bytes", "memory_bytes", "used_share", *_SIGNS]
    return worst[shown].reset_index(drop=True)
