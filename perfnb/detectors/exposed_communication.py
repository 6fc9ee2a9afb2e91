"""Detector of time in which a rank communicates and computes nothing."""

from __future__ import annotations

import pandas as pd

from perfnb.detector import detector, example


@detector(
    family="communication",
    title="Communication that no computing hides",
    claims=("exposed_communication", "communication.cpu", "communication.blocked", "communication.wall"),
    needs=("collectives",),
    flag_above=0.10,
    injected_by="wide_layers",
    recorded_only_when="no run of ours with large gradients is recorded yet; traces of the corpus lose 10 to 83 % to it",
    source="torch_tb_profiler 0.4.3 reports communication above 10 % of a step; gpuprof 20 %, XProf 30 %",
    not_to_confuse_with=("slow_rank", "data_stall", "python_overhead", "launch_overhead", "host_sync"),
    examples=(
        example(
            "two ranks of equal work communicate for 20 of 100 us after their compute",
            lost_share=0.20,
            signals=("collectives",),
            world_size=2,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            device_ops="""rank device stream kind          name           start_us duration_us correlation
                          0    0      7      compute       gemm           0        80          -
                          0    0      20     communication ncclDevKernel  70       30          -
                          0    0      7      compute       gemm           100      80          -
                          0    0      20     communication ncclDevKernel  170      30          -
                          1    1      7      compute       gemm           0        80          -
                          1    1      20     communication ncclDevKernel  70       30          -
                          1    1      7      compute       gemm           100      80          -
                          1    1      20     communication ncclDevKernel  170      30          -""",
        ),
        example(
            "a kernel over a step's edge counts in each step with its part",
            lost_share=0.10,
            signals=("collectives",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind          name           start_us duration_us correlation
                          0    0      7      compute       gemm           0        90          -
                          0    0      20     communication ncclDevKernel  80       30          -
                          0    0      7      compute       gemm           110      90          -""",
        ),
        example(
            "9 of 100 us stay under the threshold",
            lost_share=0.09,
            signals=("collectives",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase         wall_us
                      0    7    communication 9
                      0    7    forward       91""",
        ),
    ),
)
def exposed_communication(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time in which a rank exchanges data with others and nothing computes at the same time.

    It is sized on each step's critical rank, the one with the most work: the others wait for it inside their collectives, and
    that waiting is imbalance. It matters because larger buckets, compression or accumulation shorten or hide it. With one rank
    of several it is an upper bound, since waiting and transfer cannot be told apart.
    """
    parts = ["exposed_communication", "communication.cpu", "communication.blocked", "communication.wall"]
    return ledger[ledger["part"].isin(parts)].rename(columns={"time_us": "lost_us"})
