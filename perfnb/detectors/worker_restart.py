"""Detector of loader workers that are started anew for every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.analyses.loader_pauses import COPYING_PARTS, FEWEST_STARTS, copying_excess, epoch_starts, restart_excess
from perfnb.analyses.loader_stall import STALL_PARTS, knob_or_none, stall_per_step, worker_count
from perfnb.detector import Unmeasured, detector, example


def _text(first: int, other: int, epochs: int = 4, ranks: int = 1) -> dict[str, Any]:
    """Epochs of four steps of 100 us: waiting for data in the first and in the other steps of each."""
    steps, phases = ["rank step start_us duration_us epoch"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for rank in range(ranks):
        for step in range(4 * epochs):
            wait = other if step % 4 else first
            steps.append(f"{rank} {step} {step * 100} 100 {step // 4}")
            phases += [f"{rank} {step} data {wait} 0 0 {wait}", f"{rank} {step} forward {100 - wait} {100 - wait} 0 0"]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


@detector(
    family="data",
    title="Starting the loader's workers anew for each epoch",
    claims=(*STALL_PARTS, *COPYING_PARTS),
    needs=("loader",),
    injected_by="short_epochs",
    recorded_only_when="the detection benchmark injects it",
    source="three starts and half of all waiting are priors; torch.utils.data: persistent_workers keeps workers between epochs",
    not_to_confuse_with=("data_stall", "outlier_samples", "slow_sample_read", "slow_transform"),
    examples=(
        example(
            "three later epochs begin with 82 us of waiting, the others steps wait 2: 80 us in 3 of 15 steps",
            lost_share=0.16,
            config={"num_workers": 2},
            signals=("loader",),
            **_text(82, 2, ranks=2),
        ),
        example(
            "22 us of waiting in 3 of 15 steps: 4 % stay under the threshold",
            lost_share=0.04,
            config={"num_workers": 2},
            signals=("loader",),
            **_text(22, 2),
        ),
        example(
            "first steps hold half of all waiting, not more",
            lost_share=0.0,
            config={"num_workers": 2},
            signals=("loader",),
            **_text(80, 20),
        ),
        example("two starts are no pattern", lost_share=0.0, config={"num_workers": 2}, signals=("loader",), **_text(82, 2, 3)),
        example("no workers, none to start", lost_share=0.0, config={"num_workers": 0}, signals=("loader",), **_text(82, 2)),
        example(
            "workers that are kept are not started anew",
            lost_share=0.0,
            config={"num_workers": 2, "persistent_workers": True},
            signals=("loader",),
            **_text(82, 2),
        ),
    ),
)
def worker_restart(
    ledger: pd.DataFrame, steps: pd.DataFrame, config: Mapping[str, Any], host_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time in which training waits for the loader's workers to start and load their first batches, at the start of epochs.

    The loss is what the first step of an epoch waits longer than the median step, and computes longer: after a fork each page of
    memory is copied when it is first written. It fires where at least three epochs began
    and their first steps hold more than half of all waiting. It matters because workers can be kept from one epoch to the next.
    It cannot tell a start of workers from other work that only the first batch of an epoch needs, such as shuffling an index.
    """
    workers = worker_count(config, host_samples)
    if workers is None:
        message = "whether the loader has workers is not known: pass num_workers in the config"
        raise Unmeasured(message)
    stall = stall_per_step(ledger)
    none = stall.iloc[:0].assign(lost_us=0.0)
    if workers == 0 or knob_or_none(config, "persistent_workers") is True:
        return none
    if steps["epoch"].isna().all():
        message = "the steps do not tell when an epoch begins: record with perfnb.record"
        raise Unmeasured(message)
    if len(epoch_starts(steps)) < FEWEST_STARTS:
        return none
    waited = stall.assign(lost_us=restart_excess(stall, steps), workers=workers)
    copied = copying_excess(ledger, waited)
    return waited.assign(lost_us=waited["lost_us"] + copied, copied_us=copied)
