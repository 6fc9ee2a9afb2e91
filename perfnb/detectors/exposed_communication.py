"""Detector of time in which a rank communicates and computes nothing: the heading of its family."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.analyses.expected_bandwidth import link_between
from perfnb.analyses.transfers import ON_HOST, exchanged_per_step, exposed_waits, job_of
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_CLAIMS = ("exposed_communication", *ON_HOST)
_TWO_RANKS = """rank device stream kind          name           start_us duration_us correlation
                0    0      7      compute       gemm           0        80          -
                0    0      20     communication ncclDevKernel  70       30          -
                0    0      7      compute       gemm           100      80          -
                0    0      20     communication ncclDevKernel  170      30          -
                1    1      7      compute       gemm           0        80          -
                1    1      20     communication ncclDevKernel  70       30          -
                1    1      7      compute       gemm           100      80          -
                1    1      20     communication ncclDevKernel  170      30          -"""
_STEPS = """rank step start_us duration_us
            0    7    0        100
            0    8    100      100
            1    7    0        100
            1    8    100      100"""


@detector(
    family="communication",
    title="Communication that no computing hides",
    claims=_CLAIMS,
    after=(
        "single_process_parallelism",
        "host_staged_collectives",
        "redundant_gradient_sync",
        "small_collectives",
        "slow_interconnect",
    ),
    is_base=True,
    flag_above=0.10,
    injected_by="gradient_exchange, wide_layers",
    recorded_only_when="no run of ours with large gradients is recorded yet; traces of the corpus lose 10 to 83 % to it",
    source="torch_tb_profiler 0.4.3 reports communication above 10 % of a step; gpuprof 20 %, XProf 30 %",
    not_to_confuse_with=(
        "slow_rank",
        "data_stall",
        "python_overhead",
        "launch_overhead",
        "host_sync",
        "input_straggler",
        "uneven_batches",
        "rank_imbalance",
    ),
    examples=(
        example(
            "two ranks of equal work communicate for 20 of 100 us after their compute",
            lost_share=0.20,
            world_size=2,
            steps=_STEPS,
            device_ops=_TWO_RANKS,
        ),
        example(
            "the rank that comes first waits from 80 to 85 us, which is imbalance: the transfer of both is 15 us",
            lost_share=0.15,
            world_size=2,
            steps=_STEPS,
            device_ops="""rank device stream kind          name           start_us duration_us correlation
                          0    0      7      compute       gemm           0        80          -
                          0    0      20     communication ncclDevKernel  70       30          -
                          0    0      7      compute       gemm           100      85          -
                          0    0      20     communication ncclDevKernel  185      15          -
                          1    1      7      compute       gemm           0        85          -
                          1    1      20     communication ncclDevKernel  85       15          -
                          1    1      7      compute       gemm           100      80          -
                          1    1      20     communication ncclDevKernel  170      30          -""",
            collectives="""rank group collective group_size bytes device stream start_us duration_us clock
                           0    dp    all_reduce 2          100   0      20     70       30          device
                           1    dp    all_reduce 2          100   1      20     85       15          device
                           0    dp    all_reduce 2          100   0      20     185      15          device
                           1    dp    all_reduce 2          100   1      20     170      30          device""",
        ),
        example(
            "a kernel over a step's edge counts in each step with its part",
            lost_share=0.10,
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
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase         wall_us
                      0    7    communication 9
                      0    7    forward       91""",
        ),
        example(
            "rank 0 exchanges for 60 us because it waits 40 for rank 1: both exchange for 20",
            lost_share=0.20,
            world_size=2,
            steps="rank step start_us duration_us\n0 7 0 100\n1 7 0 100",
            phases="""rank step phase         cpu_us runqueue_us blocked_us wall_us
                      0    7    communication 5      0           55         60
                      0    7    forward       40     0           0          40
                      1    7    communication 5      0           15         20
                      1    7    forward       80     0           0          80""",
        ),
    ),
)
def exposed_communication(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    machine: Machine,
    world_size: int | None,
    collectives: pd.DataFrame | None = None,
    device_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which a rank exchanges data with others and nothing computes at the same time, as far as no cause was found.

    Waiting for a rank that comes late is imbalance and does not count: on the device's clock, of calls that all ranks recorded,
    the shortest duration over the ranks is the transfer; on the host's clock the rank that exchanges for the shortest time in a
    step stands for all. It matters because larger buckets, compression or accumulation shorten or hide it. With one rank of
    several it is an upper bound, since waiting and transfer cannot be told apart; nor can it see exchanges inside forward and
    backward of a recorded run without a profiler's window (FSDP, DDP on GPUs).
    """
    if ledger["clock"].eq("device").any():
        own = ledger[ledger["part"].eq("exposed_communication")].rename(columns={"time_us": "lost_us"})
        own = own.assign(link=link_between(machine.links) or "not known")
        if collectives is None or collectives.empty or device_ops is None:
            return own
        run = job_of(steps, collectives, device_ops, world_size)
        waits = exposed_waits(run, ledger)
        both = own.merge(waits, how="left", on=["rank", "step", "device"])
        return both.assign(lost_us=np.maximum(both["lost_us"] - both["waited_us"].fillna(0.0), 0.0))
    exchanged = exchanged_per_step(ledger)
    if exchanged["lost_us"].sum() > 0 or world_size == 1:
        return exchanged
    if collectives is None and (world_size or 2) > 1:
        message = "nothing was seen of what the ranks exchange: record(trace=5) on every rank"
        raise Unmeasured(message)
    return exchanged
