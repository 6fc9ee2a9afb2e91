"""Detector of 16-bit products with a dimension that tensor cores cannot load in whole pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.kernel_losses import kernel_losses, missing_rates, not_negative, owned_by, time_share, unlaunched
from perfnb.detector import FLAG_ABOVE, Unmeasured, detector, example
from perfnb.run import Machine

# 2 x 64 x 64 x 63 = 516,096 FLOP: 20 us at this rate; 2 x 64 x 64 x 64 = 524,288 FLOP.
_RATES: Final = Machine(constants={"matmul.bfloat16.flops_per_s": 25.8048e9, "memory.bytes_per_s": 1e12})


def _host(columns: int) -> str:
    shapes = f"[[64,64],[64,{columns}]]"
    return f"""rank process thread category name             start_us duration_us correlation input_shapes input_types
               0    1       1      operator aten::mm         0        9           -           {shapes}     ["c10::BFloat16"]
               0    1       1      runtime  cudaLaunchKernel 1        1           1           -            -"""


@detector(
    family="device compute",
    title="Products with dimensions that are no multiple of 8",
    claims=("compute",),
    after=("unfused_attention",),
    injected_by="odd_width",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet",
    source="NVIDIA, Matrix Multiplication Background User's Guide: tensor cores like multiples of 8 elements of 16 bits",
    not_to_confuse_with=("full_precision_math", "unfused_attention", "underfilled_gpu", "clock_throttling"),
    examples=(
        example(
            "63 columns: 40 us where 20 are reached, over the edge of two steps; rank 1 has none",
            lost_share=0.05,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops=_host(63),
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 80       40          1
                          0    0      7      compute relu 198      2           -
                          1    0      7      compute relu 0        200         -""",
        ),
        example(
            "64 columns are a multiple of 8, however slow",
            lost_share=0.0,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_host(64),
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 80       40          1
                          0    0      7      compute relu 198      2           -""",
        ),
        example(
            "63 columns in 28 us: 4 of 100 us stay under the threshold",
            lost_share=0.04,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_host(63),
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 80       28          1
                          0    0      7      compute relu 198      2           -""",
        ),
    ),
)
def misaligned_shapes(
    config: Mapping[str, Any], machine: Machine, steps: pd.DataFrame, device_ops: pd.DataFrame, host_ops: pd.DataFrame
) -> pd.DataFrame:
    """Time that 16-bit matrix products with odd dimensions take over what this device reaches for such work.

    A dimension that is no multiple of 8 elements keeps loads from being whole; a dimension of 1 is no case of it. It matters
    because padding a vocabulary or a width to a multiple of 8 costs next to nothing. It cannot tell how much of the lack is the
    dimension's, and how much any other cause's, in the same product. Not validated on a GPU.
    """
    kernels, everything = owned_by("misaligned_shapes", host_ops, device_ops, machine, config)
    if kernels.empty and host_ops["input_shapes"].isna().all():
        raise Unmeasured(missing_rates(everything, machine, host_ops))
    if kernels.empty and (reason := unlaunched(everything)):
        raise Unmeasured(reason)
    if len(kernels) and kernels["attained_share"].isna().all():
        if time_share(kernels, everything) < FLAG_ABOVE:  # lost at most all of it, which is no finding
            return kernel_losses(kernels, pd.Series(1.0, index=kernels.index), steps)
        message = (
            f"products with dimensions that are no multiple of 8 take {time_share(kernels, everything):.0%} of compute time, "
            f"but what they lose is not known: {missing_rates(kernels, machine, host_ops)}"
        )
        raise Unmeasured(message)
    return kernel_losses(kernels, not_negative(1.0 - kernels["attained_share"]), steps)
