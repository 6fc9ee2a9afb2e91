"""Detector of a link that moves less data than links of its kind are known to."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.analyses.expected_bandwidth import MEASURED, Expected, expected_bandwidth
from perfnb.analyses.transfers import delay_of, job_of, transfers
from perfnb.detector import Unmeasured, detector, example
from perfnb.run import Machine

_LARGEST_SHARE: Final = 0.7  # of the expected bus bandwidth; with it and 10 calls a prior (detectors.md, section 3)
_SMALLEST_BYTES: Final = 64e6  # below, the start of a call still shows
_FEWEST_CALLS: Final = 10
_LINK: Final = Machine(constants={MEASURED: 20e9})


def _text(time: int, *, size: int = 100_000_000, calls: int = 10) -> dict[str, Any]:
    """Steps of 50 ms of two ranks, each with one call of that size that takes `time` us after the compute, on two devices."""
    steps = ["rank step start_us duration_us"]
    ops = ["rank device stream kind name start_us duration_us"]
    collectives = ["rank group collective group_size bytes device stream start_us duration_us clock"]
    for step in range(calls):
        start = step * 50_000
        begin = start + 50_000 - time
        for rank in range(2):
            steps.append(f"{rank} {step} {start} 50000")
            ops.append(f"{rank} {rank} 7 compute gemm {start} {50_000 - time}")
            ops.append(f"{rank} {rank} 20 communication nccl {begin} {time}")
            collectives.append(f"{rank} dp all_reduce 2 {size} {rank} 20 {begin} {time} device")
    return {"steps": "\n".join(steps), "device_ops": "\n".join(ops), "collectives": "\n".join(collectives)}


@detector(
    family="communication",
    title="A link that is slower than its kind",
    claims=("exposed_communication",),
    after=("single_process_parallelism", "host_staged_collectives", "redundant_gradient_sync", "small_collectives"),
    injected_by="slow_link",
    recorded_only_when="no job on two GPUs of ours is recorded yet; not validated on a GPU",
    source="figures of nccl-tests by kind of link (perfnb.analyses.expected_bandwidth); .7 of them is a prior",
    not_to_confuse_with=("exposed_communication", "small_collectives"),
    examples=(
        example(
            "100 MB in 10 ms are 10 GB/s of 20: half of 10 ms in 50",
            lost_share=0.10,
            machine=_LINK,
            world_size=2,
            **_text(10_000),
        ),
        example("100 MB in 8 ms are .625 of it: 3 of 50 ms", lost_share=0.06, machine=_LINK, world_size=2, **_text(8_000)),
        example("100 MB in 7 ms are .71 of it", lost_share=0.0, machine=_LINK, world_size=2, **_text(7_000)),
        example(
            "60 MB in 6 ms: too small to judge a link by",
            lost_share=0.0,
            machine=_LINK,
            world_size=2,
            **_text(6_000, size=60_000_000),
        ),
        example("nine calls are too few", lost_share=0.0, machine=_LINK, world_size=2, **_text(10_000, calls=9)),
    ),
)
def slow_interconnect(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    collectives: pd.DataFrame,
    device_ops: pd.DataFrame,
    machine: Machine,
    world_size: int | None,
) -> pd.DataFrame:
    """Time that large collectives take over what their link is known to reach.

    Judges kinds of calls of 64 MB or more of which ten or more were recorded on all ranks: their median bus bandwidth is below
    .7 of what the link is expected to reach, as measured on this machine or else by its kind. It matters because a card in the
    wrong slot, a missing bridge or a network that fell back costs that in every step. It cannot see why, and it does not guess
    which link the ranks use: that takes the text of `nvidia-smi topo -m`. Not validated on a GPU.
    """
    run = job_of(steps, collectives, device_ops, world_size)
    found = transfers(run)
    found = found[found["clock"].eq("device").to_numpy(dtype=bool)]
    large = found[found["size_bytes"].ge(_SMALLEST_BYTES) & ~found["is_lower_bound"].to_numpy(dtype=bool)]
    lost = pd.Series(0.0, index=found.index)
    judged: list[Expected | str] = []
    for _, calls in large.groupby(["collective", "group_size"], observed=True):
        if calls["call"].nunique() < _FEWEST_CALLS:
            continue
        numbers = {int(device) for device in calls["device"].dropna().unique()}
        expected = expected_bandwidth(machine, int(calls["group_size"].iloc[0]), sorted(numbers))
        judged.append(expected)
        if isinstance(expected, str):
            continue
        reached = calls["bus_bytes"] / calls["transfer_us"] * 1e6 / expected.bytes_per_s
        if reached.median() < _LARGEST_SHARE:
            lost[calls.index] = calls["transfer_us"] * (1.0 - reached).clip(lower=0.0)
    unknown = [each for each in judged if isinstance(each, str)]
    if unknown and len(unknown) == len(judged):
        raise Unmeasured(unknown[0])
    known = next((each for each in judged if isinstance(each, Expected)), None)
    delay = delay_of(run, ledger, found, lost)
    return delay if known is None else delay.assign(link=known.link, expected_bytes_per_s=known.bytes_per_s)
