"""Detector of collectives so small that starting them takes longer than sending their data."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.analyses.size_model import size_model
from perfnb.analyses.transfers import ON_HOST, delay_of, job_of, transfers
from perfnb.detector import Unmeasured, detector, example

_SMALLEST_SHARE: Final = 0.5  # of all transfer time that small calls hold: detectors.md, section 3, a prior


def _text(calls: tuple[tuple[int, int], ...], *, exchanged: int = 20) -> dict[str, Any]:
    """Two steps of 100 us of two ranks that exchange data in some of it, by calls of (bytes, microseconds) on gloo."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us"]
    collectives = ["rank group collective bytes start_us duration_us clock"]
    for step in range(2):
        for rank in range(2):
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {100 - exchanged}", f"{rank} {step} communication {exchanged}"]
            for number, (size, time) in enumerate(calls):
                collectives.append(f"{rank} gloo all_reduce {size} {step * 100 + 10 * number} {time} host")
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "collectives": "\n".join(collectives)}


_TEN_AND_A_BIT = ((100, 11), (200, 12), (400, 14))  # 10 us + bytes / 100 per us: small below 1,000 bytes


@detector(
    family="communication",
    title="Starting collectives that are too small",
    claims=("exposed_communication", *ON_HOST),
    after=("single_process_parallelism", "host_staged_collectives", "redundant_gradient_sync"),
    injected_by="tiny_buckets",
    recorded_only_when="the detection benchmark injects it",
    source="a call below alpha x beta bytes spends more on its start than on its data; half of all transfer time is a prior",
    not_to_confuse_with=("exposed_communication", "slow_interconnect", "redundant_gradient_sync"),
    examples=(
        example(
            "calls of 100, 200 and 400 bytes take 10 us and 1 us per 100 bytes: 30 of 37 us, of 20 us exchanged",
            lost_share=0.20 * 30 / 37,
            world_size=2,
            **_text(_TEN_AND_A_BIT),
        ),
        example(
            "the same in 6 us of exchange stay under the threshold",
            lost_share=0.06 * 30 / 37,
            world_size=2,
            **_text(_TEN_AND_A_BIT, exchanged=6),
        ),
        example(
            "5 calls below 100 bytes take 75 of 146 us: 50 of them their start",
            lost_share=0.20 * 50 / 146,
            world_size=2,
            **_text((*((50, 15),) * 5, (110, 21), (400, 50))),
        ),
        example(
            "4 of them take 60 of 131 us: under one half",
            lost_share=0.0,
            world_size=2,
            **_text((*((50, 15),) * 4, (110, 21), (400, 50))),
        ),
        example(
            "kernels of 11, 12 and 14 us, the second over a step's edge: 30 of 37 us in 200",
            lost_share=0.15,
            steps="rank step start_us duration_us\n0 7 0 100\n0 8 100 100",
            device_ops="""rank device stream kind          name start_us duration_us
                          0    0      7      compute       gemm 0        20
                          0    0      20     communication nccl 20       11
                          0    0      20     communication nccl 94       12
                          0    0      20     communication nccl 186      14""",
            collectives="""rank group collective group_size bytes device stream start_us duration_us clock
                           0    dp    all_reduce 2          100   0      20     20       11          device
                           0    dp    all_reduce 2          200   0      20     94       12          device
                           0    dp    all_reduce 2          400   0      20     186      14          device""",
        ),
    ),
)
def small_collectives(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    collectives: pd.DataFrame,
    world_size: int | None,
    device_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time that collectives take to start, where most are too small for their data to matter.

    Of each kind of call and number of ranks, time is fitted as alpha + bus bytes / beta over three sizes or more. Calls below
    alpha x beta bytes are small; where these hold half of all transfer time, their alpha is lost as far as nothing hides it. On
    the host's clock the share of alpha is that of the profiler's window. It matters because fewer, larger calls move the same
    data. It cannot tell alpha from beta with fewer than three sizes, and one rank alone also sees waiting in it.
    """
    run = job_of(steps, collectives, device_ops, world_size)
    found = transfers(run)
    if found.empty:
        if collectives.empty:
            return delay_of(run, ledger, found, found["transfer_us"]).assign(lost_us=0.0)
        message = "no call of a collective was recorded in a step with its size: record(trace=5) on every rank"
        raise Unmeasured(message)
    fixed = pd.Series(0.0, index=found.index)
    is_small = pd.Series(data=False, index=found.index)
    reasons: list[str] = []
    for _, calls in found.groupby(["collective", "group_size"], observed=True):
        model = size_model(calls["bus_bytes"].to_numpy(dtype="float64"), calls["transfer_us"].to_numpy())
        if isinstance(model, str):
            reasons.append(model)
            continue
        small = calls.index[calls["bus_bytes"].lt(model.small_bytes)]
        is_small[small] = True
        # of a call that a busy machine draws out, the same share: the fit takes errors as shares too
        fixed[small] = found.loc[small, "transfer_us"] * model.fixed_share(
            found.loc[small, "bus_bytes"].to_numpy(dtype="float64")
        )
    if len(reasons) == found.groupby(["collective", "group_size"], observed=True).ngroups:
        raise Unmeasured(reasons[0] if reasons else "sizes of the calls were not recorded: record_shapes=True")
    share = found.loc[is_small, "transfer_us"].sum() / found["transfer_us"].sum()
    if share < _SMALLEST_SHARE:
        fixed[:] = 0.0
    return delay_of(run, ledger, found, fixed).assign(small_calls=int(is_small.sum()), small_share=share)
