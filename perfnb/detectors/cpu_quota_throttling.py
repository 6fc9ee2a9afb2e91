"""Detector of time in which the control group's CPU quota was used up, so that the training was kept from running."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.contention_free import RUNQUEUE_CLAIMS, run_queue_time
from perfnb.analyses.cpu_quota import FEWEST_THROTTLED, throttled_share
from perfnb.analyses.sampled_steps import growth_in_steps
from perfnb.detector import Unmeasured, detector, example

_BLOCK_US: Final = 2e6  # samples of the group come once a second: over two of them both sides are known

_STEPS: Final = "rank step start_us duration_us\n" + "\n".join(
    f"{rank} {step} {step * 1_000_000} 1000000" for rank in (0, 1) for step in range(4)
)


def _phases(waiting_us: int) -> str:
    rows = [f"{rank} {step} forward 1000000 {1_000_000 - waiting_us} {waiting_us} 0" for rank in (0, 1) for step in range(4)]
    return "rank step phase wall_us cpu_us runqueue_us blocked_us\n" + "\n".join(rows)


def _samples(throttled_us: int, periods: int, throttled: int) -> str:
    """Counters of both ranks' groups, once a second."""
    rows = [
        f"{rank} {second * 1_000_000} {second * throttled_us} {second * periods} {second * throttled}"
        for rank in (0, 1)
        for second in range(5)
    ]
    return "rank time_us throttled_us nr_periods nr_throttled\n" + "\n".join(rows)


@detector(
    family="host",
    title="Being held back by the CPU quota",
    claims=RUNQUEUE_CLAIMS,
    needs=("schedstat",),
    tier=2,
    injected_by="cpu_quota",
    source="kernel documentation, CFS bandwidth control: nr_throttled of nr_periods; from .05 of the periods on is a prior",
    not_to_confuse_with=("cpu_contention", "thread_oversubscription", "python_overhead", "data_stall"),
    recorded_only_when="the detection benchmark sets a quota where the machine permits one",
    examples=(
        example(
            "of 300 ms a second without a core, the quota held the group back for 200 ms, in 2 of 10 periods",
            lost_share=0.20,
            signals=("schedstat",),
            steps=_STEPS,
            phases=_phases(300_000),
            host_samples=_samples(200_000, 10, 2),
        ),
        example(
            "several threads were held back for 900 ms together: the one that trains waited 300 ms",
            lost_share=0.30,
            signals=("schedstat",),
            steps=_STEPS,
            phases=_phases(300_000),
            host_samples=_samples(900_000, 10, 9),
        ),
        example(
            "40 ms of each second stay under the threshold",
            lost_share=0.04,
            signals=("schedstat",),
            steps=_STEPS,
            phases=_phases(300_000),
            host_samples=_samples(40_000, 10, 1),
        ),
        example(
            "1 of 25 periods is no quota to speak of, whatever it says of time",
            lost_share=0.0,
            signals=("schedstat",),
            steps=_STEPS,
            phases=_phases(300_000),
            host_samples=_samples(200_000, 25, 1),
        ),
        example(
            "waiting for a core without a quota: other programs",
            lost_share=0.0,
            signals=("schedstat",),
            steps=_STEPS,
            phases=_phases(300_000),
            host_samples=_samples(0, 10, 0),
        ),
    ),
)
def cpu_quota_throttling(
    steps: pd.DataFrame, ledger: pd.DataFrame, host_samples: pd.DataFrame, phases: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time for which the CPU quota of the job's control group (a container's CPU limit) kept the training from running.

    The kernel parks every thread of a group that used up its quota until the next period: the training thread is then ready
    and has no core. The loss is that waiting, at most the time for which the group was held back. It matters because a limit
    that fits, or fewer threads and workers, removes it: the host may have cores to spare. It cannot see the limit of a machine
    below a virtual one, nor count exactly where several threads are held back at once, since the kernel adds them up. On a
    device job it counts only idle time that nothing else explains.
    """
    used = steps.merge(run_queue_time(ledger, phases), on=["rank", "step"]).sort_values(["rank", "start_us"], ignore_index=True)
    throttled = growth_in_steps(used, host_samples, "throttled_us")
    if np.isnan(throttled).all():
        message = "no control group counts the use of a CPU quota, or it was read only once"
        raise Unmeasured(message)
    used = used.assign(throttled_us=throttled, throttled_share=used["rank"].map(throttled_share(host_samples)))
    used = used[used["throttled_share"].ge(FEWEST_THROTTLED) & used["runqueue_us"].gt(0)]
    used = used.assign(throttled_us=used["throttled_us"].fillna(used["runqueue_us"] * _of_waiting(used)))
    block = (used.groupby("rank")["duration_us"].cumsum() - used["duration_us"]) // _BLOCK_US
    sums = used.groupby(["rank", block])[["throttled_us", "runqueue_us"]].transform("sum")
    share = (sums["throttled_us"] / sums["runqueue_us"]).clip(upper=1.0)
    lost = used["runqueue_us"] * share
    return used.assign(lost_us=lost)[["rank", "step", "lost_us", "runqueue_us", "throttled_us", "throttled_share"]]


def _of_waiting(used: pd.DataFrame) -> pd.Series:
    """Time held back per time waited of each rank: what steps before the first and after the last sample get."""
    known = used[used["throttled_us"].notna()].groupby("rank")[["throttled_us", "runqueue_us"]].sum()
    return used["rank"].map(known["throttled_us"] / known["runqueue_us"]).fillna(0.0)
