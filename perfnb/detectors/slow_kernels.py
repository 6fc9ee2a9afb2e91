"""Detector of kernels that reach less than half of what their device was measured to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.kernel_losses import kernel_losses, missing_rates, owned_by, time_share, unlaunched
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_LEAST_JUDGED: Final = 0.5
"""Share of compute time that must have been judged for "no kernel is slow" to mean something: a choice."""

# 2 x 64 x 64 x 64 = 524,288 FLOP: 8 us at this rate.
_RATES: Final = Machine(constants={"matmul.float32.flops_per_s": 65.536e9, "memory.bytes_per_s": 1e12})
_HOST: Final = """rank process thread category name             start_us duration_us correlation input_shapes      input_types
                  0    1       1      operator aten::mm         0        9           -           [[64,64],[64,64]] ["float"]
                  0    1       1      runtime  cudaLaunchKernel 1        1           1           -                 -
                  1    1       1      operator aten::mm         0        9           -           [[64,64],[64,64]] ["float"]
                  1    1       1      runtime  cudaLaunchKernel 1        1           1           -                 -"""


@detector(
    family="device compute",
    title="Kernels under half of what the device reaches",
    claims=("compute",),
    after=("misaligned_shapes",),
    injected_by="pointwise_chain",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet, and its rates are not measured",
    source="a prior, not validated: half of what a microbenchmark reaches on the same device (roofline, Williams et al. 2009)",
    not_to_confuse_with=("misaligned_shapes", "unfused_attention", "underfilled_gpu", "clock_throttling"),
    examples=(
        example(
            "a product of rank 0 takes 32 us where the device reaches 8, over the edge of two steps; that of rank 1 takes 10",
            lost_share=0.06,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 84       32          1
                          0    0      7      compute relu 198      2           -
                          1    0      7      compute gemm 0        10          1
                          1    0      7      compute relu 198      2           -""",
        ),
        example(
            "16 us where 8 are reached is half of it, which is not below",
            lost_share=0.0,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 20       16          1
                          0    0      7      compute relu 198      2           -""",
        ),
        example(
            "17 us are below half: 4.5 of 100 us stay under the threshold",
            lost_share=0.045,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 20       17          1
                          0    0      7      compute relu 198      2           -""",
        ),
    ),
)
def slow_kernels(
    config: Mapping[str, Any], machine: Machine, steps: pd.DataFrame, device_ops: pd.DataFrame, host_ops: pd.DataFrame
) -> pd.DataFrame:
    """Time that kernels take over what their work takes at the rates that this device was measured to reach.

    Judged are matrix products, convolutions with a recorded backward, attention, and elementwise operators by the bytes that
    they move; each against a microbenchmark of its kind and type on this device, never the data sheet. It matters because
    another implementation, or compiling the model, does the same work faster. It cannot see that several quick elementwise
    kernels would be quicker as one, nor judge operators whose FLOP and bytes are not known. Not validated on a GPU.
    """
    kernels, everything = owned_by("slow_kernels", host_ops, device_ops, machine, config)
    judged = everything[everything["attained_share"].notna()]
    if kernels.empty and time_share(judged, everything) < _LEAST_JUDGED and len(everything):
        share = time_share(judged, everything)
        why = unlaunched(everything) or missing_rates(everything, machine, host_ops)
        message = f"{share:.0%} of compute time can be judged: {why}"
        raise Unmeasured(message)
    return kernel_losses(kernels, 1.0 - kernels["attained_share"], steps)
