"""Detector of steps that take device memory from the driver and give it back again and again, without need."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.analyses.device_memory import WARM_UP_STEPS, counter_growth
from perfnb.analyses.memory_calls import is_traced, memory_calls
from perfnb.detector import Unmeasured, detector, example

_OFTEN: Final = 0.20  # of steps: a prior of ours, not validated

# Steps 30 and 31 of two ranks, 100 us each: rank 0 allocates from 90 to 130 us, over the step's edge, while its device idles.
_STEPS = "rank step start_us duration_us\n0 30 0 100\n0 31 100 100\n1 30 0 100\n1 31 100 100"
_DEVICE_OPS = """rank device stream kind    name start_us duration_us correlation
                 0    0      7      compute gemm 0        90          1
                 0    0      7      compute gemm 130      70          2
                 1    0      7      compute gemm 0        200         3"""
_HOST_OPS = """rank process thread category name             start_us duration_us correlation
               0    1       1      runtime  cudaLaunchKernel 0        1           1
               0    1       1      runtime  cudaMalloc       90       {us}        -
               0    1       1      runtime  cudaLaunchKernel 129      1           2
               1    2       2      runtime  cudaLaunchKernel 0        1           3
               1    2       2      runtime  cudaFree         50       50          -"""


def _text(every: int, *, us: int = 39) -> dict[str, Any]:
    """Those steps, among 30 of which in each n-th rank 0's allocator asked the driver for memory."""
    counted = [f"0 {step} 0 {step // every} 0" for step in range(10, 41)]
    counted += [f"1 {step} 0 0 0" for step in range(10, 41)]
    return {
        "steps": _STEPS,
        "device_ops": _DEVICE_OPS,
        "host_ops": _HOST_OPS.format(us=us),
        "allocator": "\n".join(["rank step device device_allocs retries", *counted]),
    }


@detector(
    family="host",
    title="Taking device memory from the driver and giving it back",
    claims=("idle.launch",),
    after=("allocator_retries",),
    injected_by="emptied_cache",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="torch documentation, CUDA memory management: the cache asks the driver only for new peaks; 20 % is a prior",
    not_to_confuse_with=("allocator_retries", "launch_overhead", "host_sync", "python_overhead"),
    examples=(
        example(
            "asked in each step: 39 us over the edge of two steps of 100 us while rank 0's device idles; rank 1's works on",
            lost_share=0.0975,
            **_text(1),
        ),
        example("asked in each fifth step", lost_share=0.0975, **_text(5)),
        example("asked in each tenth step: a new peak now and then", lost_share=0.0, **_text(10)),
        example("4 of 200 us are under the threshold", lost_share=0.01, **_text(1, us=4)),
    ),
)
def allocator_churn(
    allocator: pd.DataFrame, host_ops: pd.DataFrame | None = None, device_ops: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time in which the device idles while the host allocates and frees its memory, where 20 % of steps do so after warm-up.

    After some steps a caching allocator has all it needs: one that goes on asking the driver is made to give its cache back,
    mostly by torch.cuda.empty_cache() in the loop. It matters because each such call waits for the device. It cannot tell that
    from sizes that never repeat. Where memory was short it is allocator_retries. Not validated on a GPU.
    """
    if allocator[["device_allocs", "device_frees"]].isna().all(axis=None):
        message = "how often the allocator asked the driver was not recorded (num_device_alloc, num_device_free)"
        raise Unmeasured(message)
    grown = counter_growth(allocator)
    if grown.empty:
        message = f"the allocator was not looked at twice after its first {WARM_UP_STEPS} steps: record more steps"
        raise Unmeasured(message)
    # of the steps between two looks at most as many asked as there were calls
    calls = grown[["device_allocs", "device_frees"]].max(axis=1)
    asked = calls.where(calls <= grown["steps"], grown["steps"])
    shares = asked.groupby(grown["rank"]).sum() / grown.groupby("rank")["steps"].sum()
    retried = grown.groupby("rank")["retries"].sum().gt(0)
    often = shares.index[shares.ge(_OFTEN) & ~retried]
    if not len(often):
        return pd.DataFrame(columns=["rank", "start_us", "duration_us"])
    if host_ops is None or not is_traced(host_ops, device_ops):
        message = (
            f"{text.share(float(shares[often].max()))} of steps ask the driver for memory, but how long that takes was not "
            "recorded: record(trace=5)"
        )
        raise Unmeasured(message)
    found = memory_calls(host_ops)
    return found[found["rank"].isin(often)]
