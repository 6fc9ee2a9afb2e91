"""Detector of steps in which the allocator hits the device's limit, gives its cache back and asks again."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfnb import text
from perfnb.analyses.device_memory import WARM_UP_STEPS, counter_growth
from perfnb.analyses.memory_calls import is_traced, memory_calls
from perfnb.detector import Unmeasured, detector, example

# Steps 20 and 21 of two ranks, 100 us each: rank 0 frees from 90 to 130 us, over the step's edge, while its device idles.
_STEPS = "rank step start_us duration_us\n0 20 0 100\n0 21 100 100\n1 20 0 100\n1 21 100 100"
_DEVICE_OPS = """rank device stream kind    name start_us duration_us correlation
                 0    0      7      compute gemm 0        90          1
                 0    0      7      compute gemm 130      70          2
                 1    0      7      compute gemm 0        200         3"""
_HOST_OPS = """rank process thread category name             start_us duration_us correlation
               0    1       1      runtime  cudaLaunchKernel 0        1           1
               0    1       1      runtime  {call}           90       39          -
               0    1       1      runtime  cudaLaunchKernel 129      1           2
               1    2       2      runtime  cudaLaunchKernel 0        1           3
               1    2       2      runtime  cudaFree         50       50          -"""


def _text(*, call: str = "cudaFree", retries: int = 2, from_step: int = 19) -> dict[str, Any]:
    """Those steps, of which the allocator's counter rises in the last of rank 0."""
    counted = [f"0 {step} 0 0" for step in (0, from_step)] + [f"0 20 0 0\n0 21 0 {retries}", "1 20 0 0", "1 21 0 0"]
    return {
        "steps": _STEPS,
        "device_ops": _DEVICE_OPS,
        "host_ops": _HOST_OPS.format(call=call),
        "allocator": "\n".join(["rank step device retries", *counted]),
    }


@detector(
    family="host",
    title="Taking device memory anew after it ran out",
    claims=("idle.launch",),
    injected_by="capped_memory",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="torch.cuda.memory_stats: num_alloc_retries counts failed cudaMalloc calls that flushed the cache; 5 % of a step",
    not_to_confuse_with=("allocator_churn", "launch_overhead", "host_sync", "python_overhead"),
    examples=(
        example(
            "rank 0 frees for 39 us over the edge of two steps of 100 us while its device idles; rank 1's device works on",
            lost_share=0.0975,
            **_text(),
        ),
        example(
            "in 10 of its 39 us the call was something else's: 3 us of allocating are under the threshold",
            lost_share=0.0075,
            steps=_STEPS,
            device_ops=_DEVICE_OPS,
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      runtime  cudaMalloc       100      3           -
                        0    1       1      runtime  cudaLaunchKernel 129      1           2
                        1    2       2      runtime  cudaLaunchKernel 0        1           3""",
            allocator="rank step device retries\n0 0 0 0\n0 19 0 0\n0 21 0 1\n1 20 0 0\n1 21 0 0",
        ),
        example("no retry after warm-up", lost_share=0.0, **_text(retries=0)),
    ),
)
def allocator_retries(
    allocator: pd.DataFrame, host_ops: pd.DataFrame | None = None, device_ops: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time in which the device idles while the host frees and allocates its memory, where allocations failed after warm-up.

    Each retry of the caching allocator waits for the device, gives whole cached segments back and asks the driver again. It
    matters because it stops the step, and one more tensor would end the training. It cannot see the wait for the device that
    comes before the first call, nor calls outside the traced steps. Not validated on a GPU.
    """
    if allocator["retries"].isna().all():
        message = "how often the allocator had to ask again was not recorded (num_alloc_retries)"
        raise Unmeasured(message)
    grown = counter_growth(allocator)
    if grown.empty:
        message = f"the allocator was not looked at twice after its first {WARM_UP_STEPS} steps: record more steps"
        raise Unmeasured(message)
    retries = int(grown["retries"].sum())
    if not retries:
        return pd.DataFrame(columns=["rank", "start_us", "duration_us"])
    if host_ops is None or not is_traced(host_ops, device_ops):
        message = f"{text.count(retries, 'allocation')} had to be asked for again, but not how long that took: record(trace=5)"
        raise Unmeasured(message)
    found = memory_calls(host_ops)
    if found.empty:
        message = f"{text.count(retries, 'allocation')} had to be asked for again, none of them in the traced steps: trace more"
        raise Unmeasured(message)
    return found
