"""Detector of steps that stand still for the next batch."""

from __future__ import annotations

import pandas as pd

from perfnb.analyses.loader_stall import STALL_PARTS
from perfnb.detector import detector, example


@detector(
    family="data",
    title="Waiting for data",
    claims=STALL_PARTS,
    needs=("loader",),
    is_base=True,
    injected_by=(
        "worker_handover, slow_item, cold_read, cold_first_third, heavy_transform, rare_slow_item, short_epochs, many_workers"
    ),
    source="torch_tb_profiler 0.4.3 reports a DataLoader above 5 % of a step; TraceML warns from 10-20 %, gpuprof from 15-30 %",
    not_to_confuse_with=("python_overhead", "launch_overhead", "host_sync", "exposed_communication", "slow_rank"),
    examples=(
        example(
            "the loader holds 50 of 100 us of rank 0, none of rank 1, without collectives: half of that on average",
            lost_share=0.25,
            signals=("loader",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            phases="""rank step phase   wall_us
                      0    7    data    50
                      0    7    forward 50
                      0    8    data    50
                      0    8    forward 50
                      1    7    forward 100
                      1    8    forward 100""",
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            signals=("loader",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us
                      0    7    data    4
                      0    7    forward 96""",
        ),
        example(
            "time on the run queue is the host's trouble, not the loader's",
            lost_share=0.30,
            signals=("loader",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    7    data    50      10     20          20
                      0    7    forward 50      50     0           0""",
        ),
        example(
            "a wait of 60 us over a step's edge, of which the device idles 20 us in step 7 and 30 us in step 8 (10 are hidden)",
            lost_share=0.25,
            signals=("loader",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops="""rank process thread category   name                                  start_us duration_us correlation
                        0    1       1      runtime    cudaLaunchKernel                      0        1           1
                        0    1       1      annotation enumerate(DataLoader)#_Iter.__next__  70       60          -
                        0    1       1      runtime    cudaLaunchKernel                      130      1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        80          1
                          0    0      7      compute gemm 130      70          2""",
        ),
    ),
)
def data_stall(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time in which training waits for the next batch, as far as no cause of it was found.

    On a device job this is the time that the device idles while the host is inside the DataLoader; loading that the device's
    queued work hides costs nothing and is not counted. On a CPU job it is all time inside the DataLoader but that on the run
    queue, which other processes cause. Restarted or too many workers, outliers, a cold cache, slow reads and slow transforms
    take theirs first. It matters because workers, prefetching or caching can hide or remove nearly all of it. It cannot see
    batches that come from anything but a torch DataLoader, nor why a batch is slow where a run has no samples of the host.
    """
    stall = ledger[ledger["part"].isin(STALL_PARTS)]
    return stall.rename(columns={"time_us": "lost_us"})
