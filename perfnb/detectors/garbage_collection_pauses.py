"""Detector of pauses in which Python's garbage collector stops the training."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.contention_free import PHASES
from perfnb.analyses.pauses import pauses_in_parts
from perfnb.detector import detector, example

_PARTS: Final = ("other.cpu", *(f"{phase}.cpu" for phase in PHASES if phase != "other"))
_WALLS: Final = ("other.wall", *(f"{phase}.wall" for phase in PHASES if phase != "other"))

_STEPS: Final = """rank step start_us duration_us
                   0    7    0        100
                   0    8    100      100
                   1    7    0        100
                   1    8    100      100"""
_PHASES: Final = """rank step phase   wall_us cpu_us runqueue_us blocked_us
                    0    7    forward 50      50     0           0
                    0    7    other   50      50     0           0
                    0    8    forward 50      50     0           0
                    0    8    other   50      50     0           0
                    1    7    forward 50      50     0           0
                    1    7    other   50      50     0           0
                    1    8    forward 50      50     0           0
                    1    8    other   50      50     0           0"""


@detector(
    family="host",
    title="Python's garbage collector",
    claims=(*_PARTS, *_WALLS, "idle.python", "idle.launch", "idle.data", "idle.unattributed"),
    needs=("gc",),
    tier=2,
    injected_by="garbage",
    source="torch_tb_profiler 0.4.3 reports waits above 5 % of a step",
    not_to_confuse_with=("python_overhead", "checkpoint_stall", "cpu_contention", "data_stall"),
    recorded_only_when="the detection benchmark makes reference cycles",
    examples=(
        example(
            "one pause runs past the last step of rank 0, one straddles two steps of rank 1",
            lost_share=0.125,
            signals=("gc",),
            steps=_STEPS,
            phases=_PHASES,
            host_ops="""rank process thread category name        start_us duration_us
                        0    1       1      gc       generation2 190      20
                        1    1       1      gc       generation2 90       40""",
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            signals=("gc",),
            steps="rank step start_us duration_us\n0 7 0 100",
            phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 7 other 100 100 0 0",
            host_ops="rank process thread category name start_us duration_us\n0 1 1 gc generation0 20 4",
        ),
        example(
            "no collection ran while pauses were listened for",
            lost_share=0.0,
            signals=("gc",),
            steps="rank step start_us duration_us\n0 7 0 100",
            phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 7 other 100 100 0 0",
        ),
        example(
            "a pause of 40 us in a step that waited half of its time for a core: 20 us are the collector's",
            lost_share=0.20,
            signals=("gc",),
            steps="rank step start_us duration_us\n0 7 0 100",
            phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 7 other 100 50 50 0",
            host_ops="rank process thread category name start_us duration_us\n0 1 1 gc generation2 20 40",
        ),
        example(
            "a pause of 50 us of a device job counts while the device idles, 10 us",
            lost_share=0.10,
            signals=("gc",),
            steps="rank step start_us duration_us\n0 7 0 100",
            host_ops="rank process thread category name start_us duration_us\n0 1 1 gc generation2 20 50",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        60          -
                          0    0      7      compute gemm 70       30          -""",
        ),
    ),
)
def garbage_collection_pauses(ledger: pd.DataFrame, steps: pd.DataFrame, host_ops: pd.DataFrame | None = None) -> pd.DataFrame:
    """Times at which the training stands still for Python's garbage collector.

    A collection may run inside any phase, wherever the loop makes enough objects; its time is taken first from what the loop
    does between the phases. Of a step that waited for a core its share of that waiting is not the collector's. It matters
    because freezing what lives on (`gc.freeze`), or collecting less often, can spare most of it. It cannot see the objects
    that made it necessary, nor collections on other threads. On a device job it counts only while the device idles.
    """
    events = pd.DataFrame() if host_ops is None else host_ops
    wanted = ["rank", "start_us", "duration_us", "name"]
    pauses = events.loc[events["category"].eq("gc"), wanted] if len(events) else pd.DataFrame(columns=wanted)
    if pauses.empty:
        return pauses.assign(lost_us=np.empty(0))
    return pauses if ledger["clock"].eq("device").any() else pauses_in_parts(pauses, steps, ledger, (*_PARTS, *_WALLS))
