"""Detector of device time lost because the host launches kernels more slowly than the device runs them."""

from __future__ import annotations

import pandas as pd

from perfnb.detector import detector, example


@detector(
    family="device idle",
    title="Waiting for kernels to be launched",
    claims=("idle.launch",),
    needs=("device_ops", "host_ops"),
    after=(
        "host_sync",
        "recompilation",
        "allocator_retries",
        "allocator_churn",
        "single_process_parallelism",
        "garbage_collection_pauses",
    ),
    injected_by="small_ops",
    recorded_only_when="no device run of ours is recorded yet; the ResNet-50 traces of the corpus lose 6 to 18 % to it",
    source="TensorFlow profiler: kernel launch time is moderate from 3 % and high from 15 % of a step; torch_tb_profiler 5 %",
    not_to_confuse_with=("python_overhead", "host_sync", "recompilation", "gpu_idle", "data_stall", "exposed_communication"),
    examples=(
        example(
            "the host is inside operators for 20 us before its second launch of rank 0; rank 1's device never idles",
            lost_share=0.05,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      operator aten::add        40       20          -
                        0    1       1      runtime  cudaLaunchKernel 60       1           2
                        0    1       1      runtime  cudaLaunchKernel 61       1           3
                        1    2       2      runtime  cudaLaunchKernel 0        1           1""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        40          1
                          0    0      7      compute gemm 60       40          2
                          0    0      7      compute gemm 100      100         3
                          1    0      7      compute gemm 0        200         1""",
        ),
        example(
            "an operator over a step's edge keeps the device idle 10 us on each side",
            lost_share=0.10,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      operator aten::add        85       25          -
                        0    1       1      runtime  cudaLaunchKernel 110      1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        90          1
                          0    0      7      compute gemm 110      90          2""",
        ),
        example(
            "4 of 100 us between call and start stay under the threshold",
            lost_share=0.04,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      runtime  cudaLaunchKernel 50       4           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        50          1
                          0    0      7      compute gemm 54       46          2""",
        ),
    ),
)
def launch_overhead(ledger: pd.DataFrame) -> pd.DataFrame:
    """Device time lost while the host prepares and launches kernels one by one.

    Counted while the device idles and the launching thread is inside operators or runtime calls, or the kernel is on its way.
    It matters because many small operators leave a fast device starving; compiling, CUDA graphs, a fused optimizer or a larger
    batch remove launches. It cannot see work hidden behind a full launch queue, which costs nothing.
    """
    return ledger[ledger["part"].eq("idle.launch")].rename(columns={"time_us": "lost_us"})
