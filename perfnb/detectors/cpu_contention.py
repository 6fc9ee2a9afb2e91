"""Detector of time in which the training was ready to run and all cores were taken."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.analyses.contention_free import OWN_SHARE, RUNQUEUE_CLAIMS, cores_of_job, run_queue_time
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine


@detector(
    family="host",
    title="Waiting for a free core",
    claims=RUNQUEUE_CLAIMS,
    needs=("schedstat",),
    tier=2,
    after=("cpu_quota_throttling", "thread_oversubscription", "oversubscribed_workers"),
    injected_by="cpu_hog",
    source="kernel documentation, schedstats: time spent waiting on a run queue; 5 % as torch_tb_profiler 0.4.3 reports waits",
    not_to_confuse_with=("python_overhead", "data_stall", "checkpoint_stall", "garbage_collection_pauses"),
    recorded_only_when="the detection benchmark runs busy loops beside the training",
    examples=(
        example(
            "20 of 100 us of rank 0 without a core, none of rank 1: half of that on average",
            lost_share=0.10,
            signals=("schedstat",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    7    data    30      10     5           15
                      0    7    forward 70      55     15          0
                      0    8    data    30      10     5           15
                      0    8    forward 70      55     15          0
                      1    7    forward 100     100    0           0
                      1    8    forward 100     100    0           0""",
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            signals=("schedstat",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    7    forward 100     96     4           0""",
        ),
        example(
            "a device job waits 60 of 100 us for a core while its device idles 10",
            lost_share=0.10,
            signals=("schedstat",),
            steps="""rank step start_us duration_us
                     0    7    0        100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    7    forward 100     40     60          0""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        45          -
                          0    0      7      compute gemm 55       45          -""",
        ),
    ),
)
def cpu_contention(
    steps: pd.DataFrame,
    ledger: pd.DataFrame,
    machine: Machine,
    phases: pd.DataFrame | None = None,
    host_samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time for which the training thread was ready to run and had no core, not for a quota, threads or workers of its own.

    It matters because nothing of the training itself is slow then: the remedy is a host with free cores, or fewer programs,
    loader workers or ranks on this one; the evidence says how many cores the job itself used meanwhile. It cannot see waiting
    of the machine that this one is a guest of, nor name the other programs. On a device job it counts only idle time of the
    device that nothing else explains.
    """
    waited = run_queue_time(ledger, phases)
    if waited["runqueue_us"].isna().all():
        message = "no step tells how long it waited for a core"
        raise Unmeasured(message)
    waited = waited.rename(columns={"runqueue_us": "lost_us"}).fillna({"lost_us": 0.0})
    if host_samples is None or machine.cpu_capacity is None:
        return waited
    used = waited.merge(steps[["rank", "step", "start_us", "duration_us"]], on=["rank", "step"])
    own = cores_of_job(used, host_samples)
    by = np.where(own >= OWN_SHARE * machine.cpu_capacity, "this job itself", "other programs")
    return used.assign(job_cpu_cores=own, by=np.where(np.isnan(own), "not known", by)).drop(columns=["start_us", "duration_us"])
