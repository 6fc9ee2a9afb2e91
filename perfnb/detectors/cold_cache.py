"""Detector of a first pass over data that is slow because nothing of it is in memory yet."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.analyses.loader_stall import STALL_PARTS, stall_per_step
from perfnb.analyses.sampled_time import mean_between
from perfnb.detector import Unmeasured, detector, example

_THIRDS: Final = 3
_READS_FALL: Final = 3.0  # gpuprof 0.7.1: reads of the first third over those of the last
_LEAST_READ_BYTES_PER_S: Final = 50e6  # gpuprof 0.7.1: what it calls reading much
_STALL_FALLS: Final = 1.3  # gpuprof 0.7.1: waiting in the first third over the last
_FEWEST_STEPS: Final = 9  # three in each third


def _text(first: int, other: int, *, reads: tuple[float, float, float] = (6e7, 0, 0), ranks: int = 1) -> dict[str, Any]:
    """Ten steps of 1 s, of which the first is not used: ms of waiting for data in three of them and in the others; reads."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    samples = ["rank time_us read_bytes_per_s"]
    for rank in range(ranks):
        for step, wait_ms in enumerate((other, first, first, first, *[other] * 6)):
            wait = 1000 * wait_ms
            rest = 1_000_000 - wait
            steps.append(f"{rank} {step} {step * 1_000_000} 1000000")
            phases += [f"{rank} {step} data {wait} 0 0 {wait}", f"{rank} {step} forward {rest} {rest} 0 0"]
        samples += [
            f"{rank} 1000000 -",
            *(f"{rank} {moment}000000 {rate}" for moment, rate in zip((4, 7, 10), reads, strict=True)),
        ]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "host_samples": "\n".join(samples)}


@detector(
    family="data",
    title="Reading data for the first time, from storage",
    claims=STALL_PARTS,
    needs=("loader",),
    after=("worker_restart", "oversubscribed_workers", "outlier_samples"),
    tier=3,
    injected_by="cold_first_third",
    recorded_only_when="the detection benchmark injects it",
    source="gpuprof 0.7.1: reads of the first third >= 3 x the last's and >= 50 MB/s, while waiting falls >= 1.3 x",
    not_to_confuse_with=("slow_sample_read", "slow_transform", "outlier_samples", "worker_restart", "data_stall"),
    examples=(
        example(
            "three of nine steps wait 400 ms and read 60 MB/s, the others wait 100: 300 ms in a third of the steps",
            lost_share=0.10,
            signals=("loader",),
            **_text(400, 100, ranks=2),
        ),
        example(
            "120 ms more in a third of the steps: 4 % stay under the threshold",
            lost_share=0.04,
            signals=("loader",),
            **_text(130, 10),
        ),
        example(
            "the last third still reads a third of the first: that goes on",
            lost_share=0.0,
            signals=("loader",),
            **_text(40, 10, reads=(6e7, 3e7, 2.1e7)),
        ),
        example("reads 40 MB/s: not much", lost_share=0.0, signals=("loader",), **_text(40, 10, reads=(4e7, 0, 0))),
        example("waiting falls only 1.2 times", lost_share=0.0, signals=("loader",), **_text(48, 40)),
    ),
)
def cold_cache(ledger: pd.DataFrame, steps: pd.DataFrame, host_samples: pd.DataFrame) -> pd.DataFrame:
    """Time that the first third of a run waits longer for data than the last, while it reads from storage and the last does not.

    It fires where the rank reads at least 50 MB/s in the first third of its steps, a third of that or less in the last, and
    waits for data at least 1.3 times as long per step. It matters because a longer run pays it once only, and data that is
    staged or cached beforehand never. It cannot see caches of a network file system, whose reads the host does not count as
    reads from storage, nor a first epoch that is longer than a third of the run. Reads are sampled once a second.
    """
    stall = stall_per_step(ledger).merge(steps[["rank", "step", "start_us", "duration_us"]], on=["rank", "step"])
    found, is_known = [stall.iloc[:0].assign(lost_us=0.0)], False
    for rank in stall["rank"].unique():
        own = stall[stall["rank"].eq(rank)].sort_values("start_us")
        samples = host_samples[host_samples["rank"].eq(rank) & host_samples["read_bytes_per_s"].notna()].sort_values("time_us")
        if len(own) < _FEWEST_STEPS or len(samples) < _THIRDS:
            continue
        edges = np.linspace(0, len(own), _THIRDS + 1).round().astype(int)
        starts = own["start_us"].to_numpy()
        low = starts[edges[:-1]]
        high = (starts + own["duration_us"].to_numpy())[edges[1:] - 1]
        reads = mean_between(_with_start(samples), [np.nan, *samples["read_bytes_per_s"]], low, high)
        is_known = is_known or not np.isnan(reads[[0, -1]]).any()
        waited = [own["stall_us"].iloc[low_row:high_row].mean() for low_row, high_row in pairwise(edges)]
        if reads[0] >= max(_LEAST_READ_BYTES_PER_S, _READS_FALL * reads[-1]) and waited[0] >= _STALL_FALLS * waited[-1]:
            first = own.iloc[: edges[1]]
            usual = float(own["stall_us"].iloc[edges[-2] :].median())
            found.append(first.assign(lost_us=(first["stall_us"] - usual).clip(lower=0.0), read_bytes_per_s=reads[0]))
    if not is_known:
        message = f"needs {_FEWEST_STEPS} steps and {_THIRDS} samples of reads from storage, once a second: record for longer"
        raise Unmeasured(message)
    return pd.concat(found)


def _with_start(samples: pd.DataFrame) -> list[float]:
    """Moments of the samples, with the one before the first, which it tells of: as long before as the others are apart."""
    times = samples["time_us"].to_list()
    return [times[0] - float(np.median(np.diff(times))), *times]
