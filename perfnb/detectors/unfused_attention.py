"""Detector of attention that is computed as products and a softmax, one kernel after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.kernel_losses import kernel_losses, missing_rates, not_negative, owned_by, time_share, unlaunched
from perfnb.detector import FLAG_ABOVE, Unmeasured, detector, example
from perfnb.run import Machine

# 2 x 2 x 32 x 16 x 32 x 2 = 131,072 FLOP and 4 x 2 x 32 x 16 x 4 = 16,384 bytes: 20 us at these rates, bound by bytes.
_RATES: Final = Machine(constants={"attention.float32.flops_per_s": 1e12, "memory.bytes_per_s": 819.2e6})
_HOST: Final = """rank process thread category name             start_us duration_us correlation input_shapes          input_types
                   0    1       1      operator aten::bmm        0        9           -           [[2,32,16],[2,16,32]] ["float"]
                   0    1       1      runtime  cudaLaunchKernel 1        1           1           -                     -
                   0    1       1      operator aten::_softmax   10       9           -           [[2,32,32],[],[]]     ["float"]
                   0    1       1      runtime  cudaLaunchKernel 11       1           2           -                     -
                   0    1       1      operator aten::bmm        20       9           -           [[2,32,32],[2,32,16]] ["float"]
                   0    1       1      runtime  cudaLaunchKernel 21       1           3           -                     -"""


@detector(
    family="device compute",
    title="Attention in separate kernels",
    claims=("compute",),
    after=("layout_conversion",),
    injected_by="manual_attention",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet",
    source="gpuprof names softmax beside batched products as unfused attention; Dao et al., FlashAttention, NeurIPS 2022",
    not_to_confuse_with=("full_precision_math", "layout_conversion", "underfilled_gpu", "clock_throttling"),
    examples=(
        example(
            "products and a softmax take 60 us where a fused attention takes 20; the last one lies over the edge of two steps",
            lost_share=0.10,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name    start_us duration_us correlation
                          0    0      7      compute gemm_a  50       20          1
                          0    0      7      compute softmax 70       20          2
                          0    0      7      compute gemm_b  90       20          3
                          0    0      7      compute relu    198      2           -
                          1    0      7      compute gemm    0        200         -""",
        ),
        example(
            "28 us where 20 would do: 4 of 100 us stay under the threshold",
            lost_share=0.04,
            machine=_RATES,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name    start_us duration_us correlation
                          0    0      7      compute gemm_a  40       10          1
                          0    0      7      compute softmax 60       8           2
                          0    0      7      compute gemm_b  80       10          3
                          0    0      7      compute relu    100      100         -""",
        ),
    ),
)
def unfused_attention(
    config: Mapping[str, Any], machine: Machine, steps: pd.DataFrame, device_ops: pd.DataFrame, host_ops: pd.DataFrame
) -> pd.DataFrame:
    """Time over what one fused kernel would take for attention that is computed step by step.

    A softmax with a batched product before and after it in the same thread, and all kernels that are launched between them
    (scaling, mask, dropout). A fused attention does the same FLOP and moves only queries, keys, values and results; its time is
    what this device was measured to reach. It matters because the scores need then never be written to memory. It cannot tell
    whether a fused kernel supports this mask and head size, nor see attention in kernels that a compiler made. Not validated on
    a GPU.
    """
    kernels, everything = owned_by("unfused_attention", host_ops, device_ops, machine, config)
    if kernels.empty and (reason := unlaunched(everything)):
        raise Unmeasured(reason)
    if kernels.empty:
        return kernel_losses(kernels, pd.Series(dtype=float), steps)
    if kernels["best_us"].isna().all() and time_share(kernels, everything) < FLAG_ABOVE:  # lost at most all of it: no finding
        return kernel_losses(kernels, pd.Series(1.0, index=kernels.index), steps)
    if kernels["best_us"].isna().all():
        products = kernels[kernels["family"].eq("matmul")].assign(family="attention")
        message = (
            f"attention runs in {kernels['block'].nunique()} unfused blocks, {time_share(kernels, everything):.0%} of compute "
            f"time, but how much a fused one would save is not known: {missing_rates(products, machine, host_ops)}"
        )
        raise Unmeasured(message)
    spent = kernels.groupby("block")["duration_us"].transform("sum")
    best = kernels.groupby("block")["best_us"].transform("sum", min_count=1)
    return kernel_losses(kernels, not_negative(1.0 - best / spent), steps)
