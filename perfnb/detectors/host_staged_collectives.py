"""Detector of collectives that go through the host's memory although the tensors are on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import ConfigHint, Unmeasured, detector, example
from perfnb.device_time import devices, unions
from perfnb.idle_time import CAUSES
from perfnb.intervals import covered, subtract, union
from perfnb.run import Run

_CLAIMS: Final = ("exposed_communication", "exposed_copy", *(f"idle.{cause}" for cause in CAUSES))
_ACCELERATORS: Final = ("cuda", "hip")
_STEPS: Final = """rank step start_us duration_us
                   0    7    0        100
                   0    8    100      100
                   1    7    0        100
                   1    8    100      100"""


def _device_ops(busy: int) -> str:
    rows = ["rank device stream kind name start_us duration_us"]
    rows += [f"{rank} {rank} 7 compute gemm {start} {busy}" for rank in range(2) for start in (0, 100)]
    return "\n".join(rows)


@detector(
    family="communication",
    title="Collectives that go through the host",
    claims=_CLAIMS,
    after=("single_process_parallelism",),
    injected_by="gloo_on_gpu",
    recorded_only_when="no job on GPUs with gloo is recorded yet; not validated on a GPU",
    source="PyTorch documentation, torch.distributed: NCCL for GPUs, gloo copies through the host; torch_tb_profiler's 5 %",
    not_to_confuse_with=("exposed_communication", "slow_interconnect", "single_process_parallelism"),
    examples=(
        example(
            "gloo exchanges from 70 us on; nothing computes in the last 20 of 100 us",
            lost_share=0.20,
            world_size=2,
            steps=_STEPS,
            device_ops=_device_ops(80),
            collectives="""rank group collective start_us duration_us clock
                           0    gloo  all_reduce 70       30          host
                           0    gloo  all_reduce 170      30          host
                           1    gloo  all_reduce 70       30          host
                           1    gloo  all_reduce 170      30          host""",
        ),
        example(
            "an exchange over a step's edge: 5 us in one step, and 5 hidden behind compute in the next",
            lost_share=0.025,
            world_size=2,
            steps=_STEPS,
            device_ops=_device_ops(95),
            collectives="""rank group collective start_us duration_us clock
                           0    gloo  all_reduce 95       10          host
                           1    gloo  all_reduce 95       10          host""",
        ),
        example(
            "with NCCL at work too, gloo only exchanges what is on the host",
            lost_share=0.0,
            world_size=2,
            steps=_STEPS,
            device_ops=_device_ops(80),
            collectives="""rank group collective group_size device stream start_us duration_us clock
                           0    gloo  all_reduce 2          -      -      70       30          host
                           0    dp    all_reduce 2          0      20     80       10          device""",
        ),
    ),
)
def host_staged_collectives(
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    collectives: pd.DataFrame | None = None,
    device_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time in which a device computes nothing while gloo exchanges its data through the host's memory.

    Fires on a device job whose collectives all run in gloo. It matters because a GPU's tensors are copied to the host and back
    for each call, where NCCL moves them from device to device. It cannot see whether tensors of one call were on the host to
    begin with, and copies before the exchange begins are not in it. Not validated on a GPU.
    """
    is_gloo = has_knob(config, "backend") and value_of(config, "backend") == "gloo"
    on_device = has_knob(config, "device") and str(value_of(config, "device")).startswith(_ACCELERATORS)
    if collectives is None or device_ops is None:
        if is_gloo and on_device:
            message = (
                "backend is gloo with tensors on a GPU: each exchange goes through the host; record(trace=5) shows what it costs"
            )
            raise ConfigHint(message)
        message = "no call of a collective and no work of a device were recorded together: record(trace=5) on a job with devices"
        raise Unmeasured(message)
    calls = collectives[collectives["clock"].eq("host") & collectives["group"].eq("gloo")]
    if device_ops.empty or calls.empty or collectives["clock"].eq("device").any():
        return pd.DataFrame(columns=["rank", "step", "device", "lost_us"])
    rows = []
    for rank, device, ops in devices(Run(device_ops=device_ops)):
        own = calls[calls["rank"].eq(rank)]
        start = own["start_us"].to_numpy()
        compute, _, _ = unions(ops)
        spans = subtract(union(start, start + own["duration_us"].to_numpy()), compute)
        edges = steps[steps["rank"].eq(rank)]
        low = edges["start_us"].to_numpy()
        lost = covered(spans, low, low + edges["duration_us"].to_numpy())
        rows.append(edges[["rank", "step"]].assign(device=device, lost_us=lost, calls=len(own)))
    return pd.concat(rows, ignore_index=True)
