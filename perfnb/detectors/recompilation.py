"""Detector of a compiler that goes on compiling while the training runs."""

from __future__ import annotations

from typing import Final

import pandas as pd

from perfnb.analyses.step_overlap import per_step
from perfnb.categories import matching
from perfnb.detector import detector, example

_WARM_UP: Final = 5
"""Number of the last step in which compiling is the usual warm-up: a prior, not validated."""

_FEWEST_SLOW: Final = 3  # more than so many slow steps that hold compiling tell of it also within the warm-up: a prior
_SLOW: Final = 5.0  # times the median step: a prior
# torch/_dynamo/utils.py, dynamo_timed: the ranges that it leaves in a trace.
_COMPILES: Final = r"\(dynamo_timed\)$"


@detector(
    family="device idle",
    title="Compiling the model again",
    claims=(
        "idle.sync",
        "idle.launch",
        "idle.python",
        "forward.cpu",
        "forward.blocked",
        "forward.wall",
        "backward.cpu",
        "backward.blocked",
        "backward.wall",
        "other.cpu",
        "other.blocked",
        "other.wall",
    ),
    needs=("compile",),
    after=("host_sync",),
    injected_by="shape_churn",
    recorded_only_when="the detection benchmark injects it",
    source="priors, not validated: compiling after step 5, or in over 3 steps that take over 5 times the median",
    not_to_confuse_with=("launch_overhead", "python_overhead", "host_sync", "gpu_idle", "data_stall"),
    examples=(
        example(
            "compiling for 40 us over the edge of steps 7 and 8 of rank 0, on a CPU",
            lost_share=0.10,
            signals=("compile",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            phases="""rank step phase   wall_us
                      0    7    forward 100
                      0    8    forward 100
                      1    7    forward 100
                      1    8    forward 100""",
            host_ops="""rank process thread category name    start_us duration_us
                        0    1       1      compile  dynamo  80       40""",
        ),
        example(
            "steps 4 and 5 are warm-up: compiling there is no recompilation",
            lost_share=0.0,
            signals=("compile",),
            steps="""rank step start_us duration_us
                     0    4    0        100
                     0    5    100      100""",
            phases="""rank step phase   wall_us
                      0    4    forward 100
                      0    5    forward 100""",
            host_ops="""rank process thread category name    start_us duration_us
                        0    1       1      compile  dynamo  80       40""",
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            signals=("compile",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us
                      0    7    forward 100""",
            host_ops="""rank process thread category name    start_us duration_us
                        0    1       1      compile  dynamo  80       4""",
        ),
        example(
            "the device idles 20 of the 40 us that a trace shows of compiling",
            lost_share=0.10,
            signals=("compile",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops="""rank process thread category   name                                 start_us duration_us correlation
                        0    1       1      runtime    cudaLaunchKernel                     0        1           1
                        0    1       1      annotation "entire_frame_compile (dynamo_timed)" 20      40          -
                        0    1       1      runtime    cudaLaunchKernel                     59       1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        40          1
                          0    0      7      compute gemm 60       140         2""",
        ),
    ),
)
def recompilation(steps: pd.DataFrame, host_ops: pd.DataFrame | None = None) -> pd.DataFrame:
    """Time in which torch.compile compiles although the training is past its warm-up.

    A new shape, or a value that the compiled code was specialised to, makes it compile again. Counted is compiling after
    step 5, and, if over 3 steps that hold compiling take more than 5 times the median, that of those steps too. It matters
    because one compilation takes seconds and saves microseconds per step. It cannot see compilers other than torch's, nor tell
    which shape changed: TORCH_LOGS=recompiles does.
    """
    columns = ["rank", "start_us", "duration_us", "name", "step"]
    if host_ops is None:  # the collector pauses share this table: without any row of either, nothing compiled
        return pd.DataFrame(columns=columns).astype({"rank": int, "start_us": float, "duration_us": float})
    is_compiling = host_ops["category"].eq("compile").to_numpy() | matching(host_ops["name"], _COMPILES)
    ranges = host_ops[is_compiling]
    cut = per_step(ranges, steps)
    cut = cut.assign(event=cut.index).merge(
        steps[["rank", "step", "duration_us"]], on=["rank", "step"], suffixes=("", "_of_step")
    )
    median = steps.groupby("rank")["duration_us"].median()
    is_slow = cut["duration_us_of_step"] > _SLOW * cut["rank"].map(median)
    slow_steps = cut[is_slow].drop_duplicates(["rank", "step"])
    counts = slow_steps.groupby("rank").size()
    often = cut["rank"].map(counts).fillna(0) > _FEWEST_SLOW
    late = cut[(cut["step"] > _WARM_UP) | (is_slow & often)]
    edges = steps.set_index(["rank", "step"])["start_us"]
    begins = edges.reindex(pd.MultiIndex.from_frame(late[["rank", "step"]])).to_numpy()
    inside = late.assign(start_us=late["start_us"].clip(lower=begins), duration_us=late["inside_us"])
    return inside[columns]
