"""Detector of a loader that waits for its samples: for a disk, a network, a lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.loader_causes import loader_causes
from perfnb.analyses.loader_stall import STALL_PARTS
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_STEPS = "rank step start_us duration_us\n0 7 0 100\n0 8 100 100\n1 7 0 100\n1 8 100 100"
_STEP = "rank step start_us duration_us\n0 7 0 100"


def _phases(cpu: int, blocked: int, ranks: int = 1) -> str:
    """Phases of steps 7 and 8 of 100 us each, of which loading takes as given."""
    rest = 100 - cpu - blocked
    return "rank step phase wall_us cpu_us runqueue_us blocked_us\n" + "\n".join(
        f"{rank} {step} data {cpu + blocked} {cpu} 0 {blocked}\n{rank} {step} forward {rest} {rest} 0 0"
        for rank in range(ranks)
        for step in ((7, 8) if ranks > 1 else (7,))
    )


def _samples(cpu: float, blocked: float, switches: str = "-") -> str:
    """Two workers, of which each ran, or was blocked for these shares of the time; how often both gave up their core."""
    columns = "rank time_us workers worker_cpu_cores worker_runqueue_share worker_blocked_share worker_switches_per_s"
    return f"{columns}\n0 0 2 - - - -\n0 100 2 {2 * cpu} 0 {blocked} {switches}"


@detector(
    family="data",
    title="Waiting for samples to be read",
    claims=STALL_PARTS,
    needs=("loader",),
    after=("worker_restart", "oversubscribed_workers", "outlier_samples", "cold_cache"),
    injected_by="slow_item, cold_read",
    recorded_only_when="the detection benchmark injects it",
    source="reads: 64 of 64 recorded CPU runs with slow reads are blocked for longer than they run; torch_tb_profiler: 5 %",
    not_to_confuse_with=(
        "slow_transform",
        "data_stall",
        "outlier_samples",
        "worker_restart",
        "padding_waste",
        "exposed_transfer",
    ),
    examples=(
        example(
            "without workers loading waits 30 of 100 us and computes 10: all of it is lost to waiting for samples",
            lost_share=0.40,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEPS,
            phases=_phases(10, 30, ranks=2),
        ),
        example(
            "waits 3 of 100 us and computes 1: under the threshold",
            lost_share=0.04,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(1, 3),
        ),
        example(
            "computes as long as it waits: not the reading",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(20, 20),
        ),
        example(
            "computes as long as it waits, but .1 cores of that are spent on 400 MB/s of reads from storage",
            lost_share=0.40,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(20, 20),
            host_samples="rank time_us workers read_bytes_per_s\n0 0 0 -\n0 100 0 4e8",
        ),
        example(
            "two workers wait .8 and run .2 of the time: theirs are the 50 of 100 us that training waits for them",
            lost_share=0.50,
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 50),
            host_samples=_samples(0.2, 0.8),
        ),
        example(
            "training waits for .5 of the time, so that .5 of the workers' waiting may be idleness: .25 is no more than they run",
            lost_share=0.0,
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 50),
            host_samples=_samples(0.25, 0.75),
        ),
        example(
            "the same with two switches per fetch of four samples: each sample is a wait",
            lost_share=0.50,
            config={"num_workers": 2, "batch_size": 4},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 50),
            host_samples=_samples(0.25, 0.75, "20000"),
        ),
        example(
            "fewer switches: batches may be all that the workers wait for",
            lost_share=0.0,
            config={"num_workers": 2, "batch_size": 4},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 50),
            host_samples=_samples(0.25, 0.75, "19000"),
        ),
    ),
)
def slow_sample_read(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    machine: Machine,
    host_samples: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which training waits for data while the loader waits itself: for storage, a network, a lock, a sleep.

    It fires where that is longer than the loader's CPU time; then the whole wait for data is its: what takes most of a sample
    is what a person has to look at, and more workers or a cache take the rest along (a local copy does not). The CPU time that
    the measured reads from storage take counts as waiting, at .25 ns per byte. Workers are also blocked where they have nothing
    to do: they have to be blocked for longer than they can have been idle, or to give up their core for every second sample at
    least. Long pauses at the start of epochs and of single samples are left to their own detectors. The evidence shows the rate
    of reads and how often the loader gave up its core per fetch: about once per sample where each sample is a wait. It matters
    because more workers wait at the same time, and a cache or a local copy does not wait. It cannot see what is waited for, nor
    the CPU time of system calls other than reads from storage: that stays with the transform. What workers do is sampled ten
    times a second.
    """
    causes = loader_causes(ledger, steps, config, host_samples, phases, machine)
    if causes.reason:
        raise Unmeasured(causes.reason)
    return causes.rows[causes.rows["is_reading"]].assign(lost_us=lambda rows: rows["stall_us"])
