"""Detector of kernels with fewer blocks than the device has multiprocessors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.kernel_losses import kernel_losses, owned_by, time_share
from perfnb.analyses.kernel_owners import fill_share
from perfnb.analyses.reached_rates import MULTIPROCESSORS
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_LEAST_JUDGED: Final = 0.5
"""Share of compute time whose grids must be known for "the device is full" to mean something: a choice."""

_HUNDRED: Final = Machine(constants={MULTIPROCESSORS: 100.0})


@detector(
    family="device compute",
    title="Kernels too small for the device",
    claims=("compute",),
    after=("slow_kernels",),
    injected_by="batch_sweep",
    upper_bound=True,
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet",
    source="torch_tb_profiler 0.4.3, Est. SM efficiency: blocks over multiprocessors, at most 1; its threshold of 5 % of a step",
    not_to_confuse_with=("full_precision_math", "layout_conversion", "misaligned_shapes", "clock_throttling"),
    examples=(
        example(
            "50 blocks on 100 multiprocessors for 40 us over the edge of two steps; rank 1 has 200 blocks all the time",
            lost_share=0.05,
            machine=_HUNDRED,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us grid
                          0    0      7      compute gemm 80       40          [25,2,1]
                          0    0      7      compute relu 198      2           [100,1,1]
                          1    0      7      compute gemm 0        200         [200,1,1]""",
        ),
        example(
            "80 blocks for 20 of 100 us: 4 us stay under the threshold",
            lost_share=0.04,
            machine=_HUNDRED,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us grid
                          0    0      7      compute gemm 0        20          [80,1,1]
                          0    0      7      compute gemm 100      20          [80,1,1]
                          0    0      7      compute relu 198      2           [100,1,1]""",
        ),
    ),
)
def underfilled_gpu(
    config: Mapping[str, Any],
    machine: Machine,
    steps: pd.DataFrame,
    device_ops: pd.DataFrame,
    host_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time of kernels x the share of multiprocessors that get no block of them.

    Counted over the kernels that no other detector owns. It matters because a larger batch does more work in the same time on a
    device that is not full. It is an upper bound: kernels that run side by side on several streams share the device, and a few
    large blocks may use all of its memory bandwidth. It cannot see how full a multiprocessor is. Not validated on a GPU.
    """
    kernels, everything = owned_by("underfilled_gpu", host_ops, device_ops, machine, config)
    if MULTIPROCESSORS not in machine.constants:
        message = f"how many multiprocessors the device has is not known: give machine.constants['{MULTIPROCESSORS}']"
        raise Unmeasured(message)
    share = time_share(everything[everything["blocks"].notna()], everything)
    if len(everything) and share < _LEAST_JUDGED:
        message = f"the trace holds the grids of kernels in {share:.0%} of compute time only"
        raise Unmeasured(message)
    return kernel_losses(kernels, 1.0 - fill_share(kernels, machine), steps)
