"""Detector of device memory that a larger batch could use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.analyses.batch_fit import LARGEST_ERROR, batch_fit
from perfnb.analyses.device_memory import NO_CAPACITY, NOT_RECORDED, device_memory, peaks_of
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_PRESSURE: Final = 0.60  # a prior of ours, not validated; 55 % of jobs on 80 GB devices peak at 50 % or less (arXiv 2502.18680)
_FIXED_SHARE: Final = 0.10  # of a step whatever its batch: with less a larger batch is hardly faster per sample; a prior of ours
_FIXED_PARTS: Final = ("idle.launch", "idle.python", "exposed_communication")  # of a trace: none of them grows with the batch

_DEVICE = Machine(device_memory_bytes=(1000,))


def _text(peak: int, fixed_us: int, *, sizes: tuple[int, ...] = (8, 16)) -> dict[str, Any]:
    """Steps of two ranks, three of each batch size in turn, that take a fixed time and 10 us per sample; all of it forward."""
    steps, phases, training, start = [], [], [], 0
    for step, size in enumerate(3 * sizes):
        length = fixed_us + 10 * size
        for rank in (0, 1):
            steps.append(f"{rank} {step} {start} {length}")
            phases.append(f"{rank} {step} forward {length}")
            training.append(f"{rank} {step} {size}")
        start += length
    allocator = [f"{rank} {step} 0 {peak}" for step in range(2) for rank in (0, 1)]
    return {
        "steps": "\n".join(["rank step start_us duration_us", *steps]),
        "phases": "\n".join(["rank step phase wall_us", *phases]),
        "training": "\n".join(["rank step batch_size", *training]),
        "allocator": "\n".join(["rank step device peak_reserved_bytes", *allocator]),
    }


@detector(
    family="memory",
    unit="opportunity",
    title="Device memory that a larger batch could use",
    injected_by="tiny_batch",
    recorded_only_when="no GPU run of ours is recorded yet",
    source="under 60 % in use is a prior; 55 % of jobs on devices of 80 GB peak at half of it or less (arXiv 2502.18680)",
    not_to_confuse_with=("memory_pressure", "memory_fragmentation", "memory_rank_skew", "memory_leak"),
    flag_above=1 - _PRESSURE,
    upper_bound=False,
    examples=(
        example(
            "300 of 1000 bytes on both ranks, and 100 us of each step whatever the batch: 700 are unused",
            lost_share=0.70,
            machine=_DEVICE,
            **_text(300, 100),
        ),
        example(
            "600 of 1000 bytes are no small part",
            lost_share=0.0,
            machine=_DEVICE,
            **_text(600, 100),
        ),
        example(
            "time grows with the batch, 8 of 88 us apart: a larger one gains nothing",
            lost_share=0.0,
            machine=_DEVICE,
            **_text(300, 8),
        ),
        example(
            "300 of 1000 bytes; of a traced step of 100 us the device waits 20 us for launches",
            lost_share=0.70,
            machine=_DEVICE,
            allocator="rank step device peak_reserved_bytes\n0 1 0 300",
            steps="rank step start_us duration_us\n0 1 0 100",
            host_ops="""rank process thread category name             start_us duration_us correlation
                        0    1       1      runtime  cudaLaunchKernel 0        1           1
                        0    1       1      operator aten::add        60       20          -
                        0    1       1      runtime  cudaLaunchKernel 79       1           2""",
            device_ops="""rank device stream kind    name start_us duration_us correlation
                          0    0      7      compute gemm 0        60          1
                          0    0      7      compute gemm 80       20          2""",
        ),
    ),
)
def memory_unused(
    ledger: pd.DataFrame,
    machine: Machine,
    config: Mapping[str, Any],
    allocator: pd.DataFrame | None = None,
    allocations: pd.DataFrame | None = None,
    training: pd.DataFrame | None = None,
    steps: pd.DataFrame | None = None,
    gpu_samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Usable memory of the fullest device beyond the reserved peak, where a larger batch would take less time per sample.

    Nothing is lost: it is an opportunity, seen where less than 60 % of the memory is in use and at least 10 % of a step does
    not depend on its batch: by a line through the times of two or more batch sizes, or as exposed communication, launches and
    Python while the device idles. It matters because devices are paid for whole. It cannot see whether a larger batch is as
    good for the training, nor how large it may be: that takes a dry run. Not validated on a GPU.
    """
    peaks = peaks_of(allocator, allocations)
    if peaks["peak_reserved_bytes"].isna().all() and peaks["reserved_bytes"].isna().all():
        raise Unmeasured(NOT_RECORDED)
    found = device_memory(peaks, machine, config, gpu_samples)
    if found["pressure"].isna().all():
        raise Unmeasured(NO_CAPACITY)
    fullest = found.loc[[found["pressure"].idxmax()]]
    unused = fullest["usable_bytes"] - fullest["required_bytes"]
    if not float(fullest["pressure"].iloc[0]) < _PRESSURE:
        return fullest.iloc[:0].assign(bytes=0.0)
    fixed = _fixed_share(ledger, training, steps)
    if fixed is None:
        message = (
            f"{text.byte_size(float(unused.iloc[0]))} are unused, but whether a larger batch would pay is not known: needs steps "
            "of two batch sizes, or a trace (record(trace=5))"
        )
        raise Unmeasured(message)
    share = fixed if fixed >= _FIXED_SHARE else 0.0
    return fullest.assign(bytes=unused if share else 0.0, capacity_bytes=fullest["usable_bytes"], fixed_share=fixed)


def _fixed_share(ledger: pd.DataFrame, training: pd.DataFrame | None, steps: pd.DataFrame | None) -> float | None:
    """Share of a step that does not depend on its batch: the larger of what a line and what a trace tell, None where neither."""
    told = []
    if training is not None and steps is not None:
        used = steps.merge(ledger[["rank", "step"]].drop_duplicates(), on=["rank", "step"])
        both = used.merge(training[["rank", "step", "batch_size"]], on=["rank", "step"])
        fit = batch_fit(both["batch_size"], both["duration_us"])
        if fit is not None and fit.error <= LARGEST_ERROR:
            told.append(fit.fixed_share)
    if ledger["clock"].eq("device").any():
        told.append(float(ledger.loc[ledger["part"].isin(_FIXED_PARTS), "time_us"].sum() / ledger["time_us"].sum()))
    return max(told, default=None)
