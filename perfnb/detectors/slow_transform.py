"""Detector of a loader that computes: decoding, augmenting, tokenising, collating."""

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


def _samples(cpu: float, runqueue: float, blocked: float) -> str:
    """Two workers, of which each ran, waited for a core, or neither for these shares of the time."""
    columns = "rank time_us workers worker_cpu_cores worker_runqueue_share worker_blocked_share"
    return f"{columns}\n0 0 2 - - -\n0 100 2 {2 * cpu} {runqueue} {blocked}"


@detector(
    family="data",
    title="Preparing samples on the CPU",
    claims=STALL_PARTS,
    needs=("loader",),
    after=("worker_restart", "oversubscribed_workers", "outlier_samples", "cold_cache", "slow_sample_read"),
    injected_by="heavy_transform",
    recorded_only_when="the detection benchmark injects it",
    source="CPU over twice the blocked time of fetches: fitted on recorded CPU runs; torch_tb_profiler 0.4.3: 5 % of a step",
    not_to_confuse_with=(
        "slow_sample_read",
        "data_stall",
        "outlier_samples",
        "worker_restart",
        "padding_waste",
        "exposed_transfer",
    ),
    examples=(
        example(
            "without workers loading computes 30 of 100 us and waits 10: all of it is lost to computing",
            lost_share=0.40,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEPS,
            phases=_phases(30, 10, ranks=2),
        ),
        example(
            "computes 3 of 100 us and waits 1: under the threshold",
            lost_share=0.04,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(3, 1),
        ),
        example(
            "computes only twice as long as it waits: neither is clearly the trouble",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            steps=_STEP,
            phases=_phases(20, 10),
        ),
        example(
            "two workers compute for .6 and wait for a core for .2 of the time: theirs are the 50 us of waiting",
            lost_share=0.50,
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 50),
            host_samples=_samples(0.6, 0.2, 0.2),
        ),
        example(
            "workers compute as long as they wait: neither is the trouble",
            lost_share=0.0,
            signals=("loader",),
            steps=_STEP,
            phases=_phases(0, 60),
            host_samples=_samples(0.5, 0.0, 0.5),
        ),
    ),
)
def slow_transform(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    machine: Machine,
    host_samples: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which training waits for data while the loader computes.

    It fires where the loader's CPU time, without that of its reads from storage, is more than twice as long as its waiting;
    with workers where it is longer than that, since idle workers wait too. Then the whole wait for data is its: what takes most
    of a sample is what a person has to look at, and each cure takes the rest along. Long
    pauses at the start of epochs and of single samples are left to their own detectors. It matters because workers compute
    beside the training, and what a cache keeps need not be computed again. It cannot tell decoding from augmenting, nor a
    transform from system calls. What workers do is sampled ten times a second.
    """
    causes = loader_causes(ledger, steps, config, host_samples, phases, machine)
    if causes.reason:
        raise Unmeasured(causes.reason)
    return causes.rows[causes.rows["is_making"]].assign(lost_us=lambda rows: rows["stall_us"])
