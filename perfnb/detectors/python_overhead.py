"""Detector of time lost in Python code between the parts of a step, such as logging."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.growth import FEWEST_STEPS, growth
from perfnb.analyses.trend import trend
from perfnb.detector import Unmeasured, detector, example

_HOST_FLAG = 0.10  # recorded CPU runs with logging lose 37-42 % here, those without at most 2 %


@detector(
    family="device idle",
    title="Python code between the parts of a step",
    claims=("idle.python", "other.cpu", "other.wall"),
    after=("garbage_collection_pauses", "checkpoint_stall"),
    flag_above_on_host=_HOST_FLAG,
    injected_by="python_logging",
    source="device: torch_tb_profiler 0.4.3 reports waits above 5 % of a step; CPU: recorded runs, .37-.42 against <= .02",
    not_to_confuse_with=("data_stall", "launch_overhead", "host_sync", "exposed_communication", "slow_rank"),
    examples=(
        example(
            "12 of 100 us of rank 0 are in no phase, 8 of 100 us of rank 1: 10 us on average",
            lost_share=0.10,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            phases="""rank step phase   wall_us
                      0    7    forward 88
                      0    7    other   12
                      0    8    forward 88
                      0    8    other   12
                      1    7    forward 92
                      1    7    other   8
                      1    8    forward 92
                      1    8    other   8""",
        ),
        example(
            "9 of 100 us stay under the threshold of a CPU job",
            lost_share=0.09,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us
                      0    7    forward 91
                      0    7    other   9""",
        ),
        example(
            "an evaluation in which only 2 of 40 us are outside of the model",
            lost_share=0.02,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase     wall_us
                      0    7    forward   60
                      0    7    inference 38
                      0    7    other     2""",
        ),
        example(
            "no operator runs around a step's edge: the device idles 6 us in step 7 and 4 us in step 8",
            lost_share=0.05,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      runtime  cudaLaunchKernel 104      1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        94          1
                          0    0      7      compute gemm 104      96          2""",
        ),
        example(
            "4 of 100 us of device time stay under the threshold of a device job",
            lost_share=0.04,
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      runtime  cudaLaunchKernel 54       1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        50          1
                          0    0      7      compute gemm 54       46          2""",
        ),
    ),
)
def python_overhead(
    steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame | None = None, host_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time that Python code takes between the parts of a step: metrics, logging, bookkeeping.

    On a device job this is the time that the device idles while the launching thread is in no recorded operator. On a CPU job
    it is all time outside data loading, forward, backward, communication and optimizer, but what saving and the garbage
    collector take of it, and what steps that grow all along have more than the first ones; nor do forward passes without
    gradients count, such as those of an evaluation, where perfnb recorded them. It matters because such work rarely needs to be
    done at every step. It cannot tell logging from other code of yours at the same place, such as what an evaluation computes
    from its outputs, nor see what lies between a forward pass and backward(): that counts as the loss.
    """
    found = ledger[ledger["part"].isin(["idle.python", "other.cpu", "other.wall"])]
    if found.empty and ledger["clock"].eq("host").any():
        message = "forward and backward were not recognised in the steps, so the rest cannot be told from them"
        raise Unmeasured(message)
    if not ledger["clock"].eq("host").all():
        return found.rename(columns={"time_us": "lost_us"})
    grown = found.merge(growth(steps, ledger, phases, host_samples), how="left", on=["rank", "step"])["grown_us"].fillna(0.0)
    grown = np.minimum(grown.to_numpy(), _own_growth(found))
    return found.assign(lost_us=(found["time_us"] - grown).clip(lower=0.0)).drop(columns="time_us")


def _own_growth(found: pd.DataFrame) -> NDArray[np.float64]:
    """How much the time between the phases itself has over its beginning, by its trend: other phases may be what grows."""
    grown = np.zeros(len(found))
    for rank in found["rank"].unique():
        mine = np.flatnonzero(found["rank"].eq(rank))
        own = found["time_us"].to_numpy()[mine]
        rise = trend(own).slope * (len(own) - 1) if len(own) >= FEWEST_STEPS else 0.0
        grown[mine] = np.linspace(0.0, max(rise, 0.0), len(mine))
    return grown
