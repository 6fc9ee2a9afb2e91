"""Detector of copies of batches to the device that nothing hides."""

from __future__ import annotations

import pandas as pd

from perfnb.analyses.exposed_copies import exposed_copies
from perfnb.detector import detector, example

_HEAD = "rank device stream kind name start_us duration_us correlation"


@detector(
    family="data",
    title="Copying batches to the device",
    claims=("exposed_copy", "idle.transfer"),
    injected_by="pageable_copy",
    recorded_only_when="no GPU run of ours with such copies is recorded yet",
    source="TraceML 0.5.0 warns from 10 to 20 % of a step; torch_tb_profiler 0.4.3 reports copies above 5 %",
    not_to_confuse_with=("data_stall", "host_sync", "launch_overhead", "exposed_communication", "python_overhead"),
    examples=(
        example(
            "a copy of 20 us over the edge of two steps of rank 0, 5 of them beside a kernel; none on rank 1",
            lost_share=15 / 400,
            steps="rank step start_us duration_us\n0 7 0 100\n0 8 100 100\n1 7 0 100\n1 8 100 100",
            device_ops=f"""{_HEAD}
                           0 0 7 compute gemm 0 95 -
                           0 0 8 copy "Memcpy HtoD (Pinned -> Device)" 90 20 -
                           0 0 7 compute gemm 110 90 -
                           1 0 7 compute gemm 0 200 -""",
        ),
        example(
            "the host is held 30 us by a copy from pageable memory, of which the device copies 10 and idles 20",
            lost_share=0.30,
            steps="rank step start_us duration_us\n0 7 0 100",
            host_ops="""rank process thread category name            start_us duration_us correlation
                        0    1       1      runtime  cudaMemcpyAsync 40       30          1
                        0    1       1      runtime  cudaLaunchKernel 70      1           2""",
            device_ops=f"""{_HEAD}
                           0 0 7 compute gemm 0 40 -
                           0 0 7 copy "Memcpy HtoD (Pageable -> Device)" 60 10 1
                           0 0 7 compute gemm 70 30 2""",
        ),
        example(
            "a copy to the host is not the loader's, nor one between devices",
            lost_share=0.0,
            steps="rank step start_us duration_us\n0 7 0 100",
            device_ops=f"""{_HEAD}
                           0 0 7 compute gemm 0 60 -
                           0 0 7 copy "Memcpy DtoH (Device -> Pinned)" 60 20 -
                           0 0 7 copy "Memcpy DtoD (Device -> Device)" 80 20 -""",
        ),
    ),
)
def exposed_transfer(ledger: pd.DataFrame, steps: pd.DataFrame, device_ops: pd.DataFrame) -> pd.DataFrame:
    """Time in which a device only copies from the host, or idles while a copy from pageable memory holds the host.

    A copy beside a compute kernel or communication costs nothing and is not counted. It matters because copies from pinned
    memory that nobody waits for run beside the computing of the step before. It cannot tell a batch from other tensors that are
    copied to the device in a step. Not validated on a GPU of ours: it rests on recorded traces of others.
    """
    copied = exposed_copies(device_ops, steps).rename(columns={"exposed_us": "lost_us"})
    held = ledger.loc[ledger["part"].eq("idle.transfer"), ["rank", "step", "device", "time_us"]]
    held = held.rename(columns={"time_us": "lost_us"}).assign(held_us=lambda rows: rows["lost_us"])
    return pd.concat([frame for frame in (copied, held) if len(frame)]) if len(copied) or len(held) else held
