"""Detector of device time lost because the host waited for the device before it launched more work."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.analyses.step_overlap import per_step
from perfnb.categories import matching
from perfnb.detector import detector, example

_BLOCKING: Final = r"Synchronize"  # cuda* and hip*; copies block too, but one cannot tell which by their names

_TABLES: dict[str, Any] = {
    "steps": """rank step start_us duration_us
                0    7    0        100
                0    8    100      100
                1    7    0        100
                1    8    100      100""",
}


@detector(
    family="device idle",
    title="The device standing idle after the host waited for it",
    claims=("idle.sync",),
    needs=("device_ops",),
    after=("single_process_parallelism", "host_staged_collectives"),
    injected_by="item_every_op",
    source="torch_tb_profiler 0.4.3 reports waits above 5 % of a step",
    not_to_confuse_with=(
        "launch_overhead",
        "recompilation",
        "gpu_idle",
        "python_overhead",
        "data_stall",
        "exposed_communication",
    ),
    recorded_only_when="no device run of ours is recorded yet; the traces of the corpus have at most 0.4 %",
    examples=(
        example(
            "after a kernel ends at 40, cudaStreamSynchronize holds the host to 60; rank 1 launches ahead",
            lost_share=0.05,
            **_TABLES,
            host_ops="""rank process thread category name                  start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel      0        1           1
                        0    1       1      runtime  cudaStreamSynchronize 5        55          -
                        0    1       1      runtime  cudaLaunchKernel      60       1           2
                        0    1       1      runtime  cudaLaunchKernel      61       1           3
                        1    2       2      runtime  cudaLaunchKernel      0        1           1""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        40          1
                          0    0      7      compute gemm 60       40          2
                          0    0      7      compute gemm 100      100         3
                          1    0      7      compute gemm 0        200         1""",
        ),
        example(
            "a synchronisation over a step's edge: the device idles 10 us in each of two steps",
            lost_share=0.10,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops="""rank process thread category name                  start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel      0        1           1
                        0    1       1      runtime  cudaDeviceSynchronize 5        105         -
                        0    1       1      runtime  cudaLaunchKernel      110      1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        90          1
                          0    0      7      compute gemm 110      90          2""",
        ),
        example(
            "a host that waits 27 of 100 us while the device computes loses nothing",
            lost_share=0.0,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            host_ops="""rank process thread category name                  start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel      0        1           1
                        0    1       1      runtime  cudaLaunchKernel      1        1           2
                        0    1       1      runtime  cudaStreamSynchronize 5        27          -""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        50          1
                          0    0      7      compute gemm 50       50          2""",
        ),
    ),
)
def host_sync(ledger: pd.DataFrame, host_ops: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Device time lost because the host waited for the device, so that no more work was queued.

    Counted from the end of the device's work to the end of the blocking call (`*Synchronize`, a copy to the host as `.item()`
    makes one) that covers that moment. It matters because reading a value less often removes it. The time a host spends in
    such calls (held_us in the evidence) is not the loss: while the device works on, waiting is free. It cannot see which line
    of Python asked.
    """
    lost = ledger[ledger["part"].eq("idle.sync")].rename(columns={"time_us": "lost_us"})
    calls = host_ops[host_ops["category"].eq("runtime").to_numpy(dtype=bool) & matching(host_ops["name"], _BLOCKING)]
    held = per_step(calls[["rank", "start_us", "duration_us"]], steps).groupby(["rank", "step"])["inside_us"].sum()
    held_us = held.reindex(pd.MultiIndex.from_frame(lost[["rank", "step"]])).fillna(0.0).to_numpy()
    return lost.assign(held_us=held_us)
