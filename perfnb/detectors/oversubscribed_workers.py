"""Detector of more loader workers than cores, which wait for one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.contention_free import OWN_SHARE, RUNQUEUE_CLAIMS, cores_of_job, run_queue_time
from perfnb.analyses.cpu_quota import FEWEST_THROTTLED, throttled_share
from perfnb.analyses.loader_stall import STALL_PARTS, held_up_by_one_another, loader_stall, usable_cores
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine


def _text(stall: int, runqueue: float, *, workers: int = 8, ranks: int = 1) -> dict[str, Any]:
    """Two steps of 100 us that wait as given for workers, which wait for a core for that share of the time and else compute."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    samples = ["rank time_us workers worker_cpu_cores worker_runqueue_share worker_blocked_share"]
    for rank in range(ranks):
        for step in range(2):
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} data {stall} 0 0 {stall}", f"{rank} {step} forward {100 - stall} {100 - stall} 0 0"]
        cores = workers * (1 - runqueue)
        samples += [f"{rank} 0 {workers} - - -", f"{rank} 200 {workers} {cores} {runqueue} 0"]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "host_samples": "\n".join(samples)}


@detector(
    family="data",
    title="More loader workers than cores",
    claims=(*STALL_PARTS, *RUNQUEUE_CLAIMS),
    needs=("loader",),
    after=("worker_restart",),
    injected_by="many_workers",
    recorded_only_when="the detection benchmark injects it",
    source="a run-queue share of .3 is a prior; torch.utils.data warns where num_workers is over the number of usable cores",
    not_to_confuse_with=("slow_sample_read", "slow_transform", "outlier_samples", "worker_restart", "data_stall"),
    upper_bound=True,
    examples=(
        example(
            "8 workers on 2 cores wait for one for .75 of the time: 30 of the 40 us that training waits for them",
            lost_share=0.30,
            signals=("loader",),
            machine=Machine(cpu_capacity=2),
            **_text(40, 0.75, ranks=2),
        ),
        example(
            "4 of 100 us stay under the threshold",
            lost_share=0.04,
            signals=("loader",),
            machine=Machine(cpu_capacity=2),
            **_text(8, 0.5),
        ),
        example(
            "workers that wait for a core for .25 of the time are not held up by one another",
            lost_share=0.0,
            signals=("loader",),
            machine=Machine(cpu_capacity=2),
            **_text(40, 0.25),
        ),
        example(
            "the training thread waits 20 of 100 us for a core that 8 workers take, with it, of two",
            lost_share=0.20,
            signals=("loader",),
            machine=Machine(cpu_capacity=2),
            steps="""rank step start_us duration_us
                     0    0    0        100
                     0    1    100      100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    0    forward 100     80     20          0
                      0    1    forward 100     80     20          0""",
            host_samples="""rank time_us workers own_cpu_cores worker_cpu_cores worker_runqueue_share worker_blocked_share
                            0    0       8       -             -                -                     -
                            0    200     8       0.8           1.0              0.1                   0.8""",
        ),
        example(
            "a CPU quota that is used up in 9 of 10 periods holds the training back, not its workers",
            lost_share=0.0,
            signals=("loader",),
            machine=Machine(cpu_capacity=0.6),
            steps="""rank step start_us duration_us
                     0    0    0        100
                     0    1    100      100""",
            phases="""rank step phase   wall_us cpu_us runqueue_us blocked_us
                      0    0    forward 100     60     40          0
                      0    1    forward 100     60     40          0""",
            host_samples="""rank time_us workers own_cpu_cores worker_cpu_cores worker_runqueue_share nr_periods nr_throttled
                            0    0       2       -             -                -                     0          0
                            0    200     2       0.5           0.1              0.1                   10         9""",
        ),
        example(
            "as many workers as cores: others take the cores",
            lost_share=0.0,
            signals=("loader",),
            machine=Machine(cpu_capacity=8),
            **_text(40, 0.75),
        ),
    ),
)
def oversubscribed_workers(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    host_samples: pd.DataFrame,
    config: Mapping[str, Any],
    machine: Machine,
    phases: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which training waits for loader workers that wait for a core, or for a core that they take.

    They are too many where they are more than there are cores. Waiting for them counts where they spend at least .3 of their
    time on the run queue; that the training thread waits for a core itself, where the job's own processes use at least .8 of
    all cores on average, unless a CPU quota holds them back: there it is they who take it. It matters because each further
    worker takes memory and switches, and the training thread has to share its core. What it says is the most that fewer
    workers give back: where samples need more CPU time than there is, they only wait less for one another. It cannot tell
    workers from other processes of the same job.
    """
    stall = loader_stall(ledger, steps, config, host_samples, phases)
    none = stall.rows.iloc[:0].assign(lost_us=0.0)
    if stall.workers == 0:
        return none
    cores = usable_cores(machine, host_samples)
    if cores is None:
        message = "how many cores the job may use is not known: record with perfnb.record"
        raise Unmeasured(message)
    if stall.workers is not None and stall.workers <= cores:
        return none
    if stall.reason:
        raise Unmeasured(stall.reason)
    own = _waited_for_a_core(ledger, steps, host_samples, phases, cores)
    return stall.rows.merge(own, how="left", on=["rank", "step"]).assign(
        lost_us=lambda rows: rows["own_runqueue_us"] + held_up_by_one_another(stall, cores).to_numpy(),
        workers=stall.workers,
        cores=cores,
    )


def _waited_for_a_core(
    ledger: pd.DataFrame, steps: pd.DataFrame, host_samples: pd.DataFrame, phases: pd.DataFrame | None, cores: float
) -> pd.DataFrame:
    """What the training thread of each step waited for a core, where the job itself takes most of them and no quota holds it."""
    waited = run_queue_time(ledger, phases).merge(steps[["rank", "step", "start_us", "duration_us"]], on=["rank", "step"])
    used = pd.Series(cores_of_job(waited, host_samples), index=waited.index).groupby(waited["rank"]).transform("mean")
    is_held_back = waited["rank"].map(throttled_share(host_samples)).ge(FEWEST_THROTTLED)
    lost = waited["runqueue_us"].where((used >= OWN_SHARE * cores) & ~is_held_back, 0.0).fillna(0.0)
    return waited[["rank", "step"]].assign(own_runqueue_us=lost)
