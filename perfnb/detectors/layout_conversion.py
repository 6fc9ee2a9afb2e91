"""Detector of kernels that do nothing but turn images from one memory layout into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.kernel_losses import kernel_losses, owned_by
from perfnb.detector import detector, example
from perfnb.run import Machine


@detector(
    family="device compute",
    title="Converting the layout of images",
    claims=("compute",),
    after=("full_precision_math",),
    injected_by="nchw_conv",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet",
    source="cuDNN names its kernels nchwToNhwcKernel and nhwcToNchwKernel; torch_tb_profiler 0.4.3 reports from 5 % of a step",
    not_to_confuse_with=("full_precision_math", "clock_throttling", "underfilled_gpu"),
    examples=(
        example(
            "conversions of 20 us in each step of rank 0, the second over the edge to step 8",
            lost_share=0.10,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            device_ops="""rank device stream kind    name                           start_us duration_us
                          0    0      7      compute cudnn::ops::nchwToNhwcKernel   0        20
                          0    0      7      compute sm80_xmma_fprop_nhwc           20       70
                          0    0      7      compute cudnn::ops::nhwcToNchwKernel   90       20
                          0    0      7      compute sm80_xmma_fprop_nhwc           110      90
                          1    0      7      compute sm80_xmma_fprop_nhwc           0        200""",
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name                           start_us duration_us
                          0    0      7      compute cudnn::ops::nchwToNhwcKernel   0        8
                          0    0      7      compute sm80_xmma_fprop_nhwc           8        192""",
        ),
    ),
)
def layout_conversion(
    config: Mapping[str, Any],
    machine: Machine,
    steps: pd.DataFrame,
    device_ops: pd.DataFrame,
    host_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time of kernels that convert images between channels-first and channels-last memory.

    Told by the names that cuDNN and others give them. It matters because a model in channels-last format needs none of them.
    It cannot see conversions inside other kernels, nor those whose name does not say so (as MIOpen's transposes). Not validated
    on a GPU.
    """
    kernels, _ = owned_by("layout_conversion", host_ops, device_ops, machine, config)
    return kernel_losses(kernels, pd.Series(1.0, index=kernels.index), steps)
