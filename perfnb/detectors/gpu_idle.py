"""Detector of a device that stands idle for reasons that no other detector names."""

from __future__ import annotations

import pandas as pd

from perfnb.detector import detector, example


@detector(
    family="device idle",
    title="The device standing idle, waiting for another stream or rank, or for reasons not recorded",
    claims=("idle.dependency", "idle.unattributed"),
    needs=("device_ops",),
    flag_above=0.10,
    is_base=True,
    after=("single_process_parallelism", "host_staged_collectives", "garbage_collection_pauses"),
    injected_by="several: what no other fault of idle time explains",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded; a trace of the corpus idles .61 on peers",
    source="XProf reports idle devices from 10 % of a step on, TraceLens from 15 %",
    not_to_confuse_with=("launch_overhead", "host_sync", "recompilation", "python_overhead", "data_stall"),
    examples=(
        example(
            "launched at 0, a kernel waits from 40 to 70 for another stream: 5 us are launch, 25 of 100 us dependency",
            lost_share=0.125,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      runtime  cudaLaunchKernel 1        1           2
                        0    1       1      runtime  cudaLaunchKernel 2        1           3
                        1    2       2      runtime  cudaLaunchKernel 0        1           1
                        1    2       2      runtime  cudaLaunchKernel 1        1           2
                        1    2       2      runtime  cudaLaunchKernel 2        1           3""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        40          1
                          0    0      8      compute gemm 70       30          2
                          0    0      7      compute gemm 100      100         3
                          1    1      7      compute gemm 0        40          1
                          1    1      8      compute gemm 70       30          2
                          1    1      7      compute gemm 100      100         3""",
        ),
        example(
            "of kernels whose launch was not recorded nothing is known: 40 us over the edge of two steps",
            lost_share=0.20,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        80          -
                          0    0      7      compute gemm 120      80          -""",
        ),
        example(
            "9 of 100 us stay under the threshold",
            lost_share=0.09,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        41          -
                          0    0      7      compute gemm 50       50          -""",
        ),
        example(
            "time that the host took to launch is launch overhead's",
            lost_share=0.0,
            steps="""rank step start_us duration_us
                     0    7    0        190""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      operator aten::add        96       4           -
                        0    1       1      runtime  cudaLaunchKernel 99       1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        96          1
                          0    0      7      compute gemm 100      90          2""",
        ),
    ),
)
def gpu_idle(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time in which the device does nothing, and neither data, launches, synchronisation nor Python explains it.

    Either the next kernel was launched long before and waited for another stream, device or rank, or its launch was not
    recorded. It matters because the device is paid for while it waits. It cannot say for whom it waited: record all ranks, and
    CPU activity too. Not validated on a GPU.
    """
    return ledger[ledger["part"].isin(["idle.dependency", "idle.unattributed"])].rename(columns={"time_us": "lost_us"})
