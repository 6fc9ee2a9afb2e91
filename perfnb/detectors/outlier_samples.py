"""Detector of few samples that are far slower than the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.loader_causes import sample_means
from perfnb.analyses.loader_pauses import outlier_excess
from perfnb.analyses.loader_stall import STALL_PARTS, loader_stall
from perfnb.detector import Unmeasured, detector, example


def _text(
    long_ms: int, every: int, *, short_ms: int = 1, count: int = 24, ranks: int = 1, read: str = "0", step_ms: int = 100
) -> dict[str, Any]:
    """Steps of which every n-th waits long for data and the others short; with the rate of reads from storage."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for rank in range(ranks):
        for step in range(count + 1):  # the first is not used
            wait = 1000 * (long_ms if step % every == 1 else short_ms)
            rest = 1000 * step_ms - wait
            steps.append(f"{rank} {step} {step * 1000 * step_ms} {1000 * step_ms}")
            phases += [f"{rank} {step} data {wait} 0 0 {wait}", f"{rank} {step} forward {rest} {rest} 0 0"]
    samples = ["rank time_us workers read_bytes_per_s", *(f"{rank} 1000000 0 {read}" for rank in range(ranks))]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "host_samples": "\n".join(samples)}


@detector(
    family="data",
    title="Waiting for few samples that are far slower than the others",
    claims=STALL_PARTS,
    needs=("loader",),
    after=("worker_restart", "oversubscribed_workers"),
    injected_by="rare_slow_item",
    recorded_only_when="the detection benchmark injects it",
    source="8 x median, 20 ms, a quarter of fetches, half of the wait: fitted on recorded CPU runs with rare items of 250 ms",
    not_to_confuse_with=("slow_sample_read", "slow_transform", "worker_restart", "data_stall"),
    examples=(
        example(
            "every eighth of 24 fetches waits 81 ms, the others 1: 80 ms in an eighth of the steps",
            lost_share=0.10,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(81, 8, ranks=2),
        ),
        example(
            "33 ms in every eighth: 4 % stay under the threshold",
            lost_share=0.04,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(33, 8),
        ),
        example(
            "every fourth fetch is the most that are outliers",
            lost_share=0.20,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(81, 4),
        ),
        example(
            "every third is none", lost_share=0.0, config={"num_workers": 0}, signals=("loader",), **_text(81, 3, step_ms=1000)
        ),
        example(
            "two are no pattern", lost_share=0.0, config={"num_workers": 0}, signals=("loader",), **_text(81, 12, step_ms=1000)
        ),
        example(
            "20 ms is nothing to call slow",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(20, 8, step_ms=1000),
        ),
        example(
            "eight times the median is not slower than that",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(80, 8, short_ms=10, step_ms=1000),
        ),
        example(
            "less than half of the waiting is theirs",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(34, 10, short_ms=4, count=30, step_ms=1000),
        ),
        example(
            "1 MB/s from storage: these are reads",
            lost_share=0.0,
            config={"num_workers": 0},
            signals=("loader",),
            **_text(81, 8, read="1e6", step_ms=1000),
        ),
    ),
)
def outlier_samples(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    host_samples: pd.DataFrame,
    config: Mapping[str, Any],
    phases: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which training waits for few samples that are far slower than the others.

    The loss is what those fetches wait longer than the median one. A fetch counts where it is blocked for more than eight times
    the median and 20 ms; there must be at least three, at most a quarter of all fetches, with more than half of all blocked
    time, in a rank that reads less than 1 MB/s from storage. It matters because a deeper queue of batches, or one that may
    overtake, hides rare waits at no cost. It cannot tell which sample is slow, nor see one that is slow by computing.
    """
    stall = loader_stall(ledger, steps, config, host_samples, phases)
    if stall.reason:
        raise Unmeasured(stall.reason)
    reads = sample_means(host_samples)["read_bytes_per_s"]
    if reads.isna().all():
        message = "reads from storage were not sampled: record for some seconds on Linux"
        raise Unmeasured(message)
    rows = stall.rows
    return rows.assign(lost_us=outlier_excess(rows, steps, reads), read_bytes_per_s=rows["rank"].map(reads))
