"""Detector of one process that drives several devices by DataParallel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.categories import per_text
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import ConfigHint, Unmeasured, detector, example
from perfnb.idle_time import CAUSES

_RANGE: Final = "DataParallel.forward"  # torch/nn/parallel/data_parallel.py names its forward so
_MOVED: Final = ("exposed_communication", "exposed_copy")
_IDLE: Final = tuple(f"idle.{cause}" for cause in CAUSES)
_STEPS: Final = "rank step start_us duration_us\n0 7 0 100\n0 8 100 100\n1 7 0 100\n1 8 100 100"


def _tables(busy: int, *, name: str = _RANGE) -> dict[str, Any]:
    """Two processes of two devices each: the first computes 80 of 100 us and copies for 10, the second computes `busy`."""
    ops = ["rank device stream kind name start_us duration_us"]
    host = ["rank process thread category name start_us duration_us"]
    for rank in range(2):
        for start in (0, 100):
            host.append(f"{rank} 1 1 annotation {name} {start} 90")
            ops += [
                f"{rank} {2 * rank} 7 copy memcpy {start} 10",
                f"{rank} {2 * rank} 7 compute gemm {start + 10} 80",
                f"{rank} {2 * rank + 1} 7 compute gemm {start + 10} {busy}",
            ]
    return {"steps": _STEPS, "device_ops": "\n".join(ops), "host_ops": "\n".join(host)}


@detector(
    family="communication",
    title="One process for several devices",
    claims=(*_MOVED, *_IDLE),
    injected_by="data_parallel",
    upper_bound=True,
    recorded_only_when="no job of one process on two GPUs is recorded yet; not validated on a GPU",
    source="torch_tb_profiler 0.4.3 advises DistributedDataParallel where one process uses several GPUs; waits above 5 %",
    not_to_confuse_with=("host_staged_collectives", "exposed_communication"),
    examples=(
        example(
            "10 us of copies on the first device, 40 of idling on the second: the mean is 25 of 100 us",
            lost_share=0.25,
            **_tables(60),
        ),
        example(
            "several devices without DataParallel: a model that is spread by hand",
            lost_share=0.0,
            **_tables(60, name="forward"),
        ),
    ),
)
def single_process_parallelism(
    ledger: pd.DataFrame,
    config: Mapping[str, Any],
    host_ops: pd.DataFrame | None = None,
    device_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time that DataParallel's copies take, and in which the devices other than its first idle.

    Fires where a process has ranges of `DataParallel.forward` and work on several devices; the loss is the mean over them. It
    matters because one Python thread launches for all devices, and parameters and gradients pass through the first one in each
    step. It cannot tell what of the idling has another cause, so it is an upper bound. Not validated on a GPU.
    """
    if host_ops is None or device_ops is None:
        if has_knob(config, "parallelism") and value_of(config, "parallelism") == "dp":
            message = "parallelism is dp: one process drives all devices; record(trace=5) shows what that costs"
            raise ConfigHint(message)
        message = "ranges of the host and work of the devices were not recorded: record(trace=5)"
        raise Unmeasured(message)
    parallel = host_ops.loc[per_text(host_ops["name"], _RANGE.__eq__), "rank"].unique()
    several = device_ops.groupby("rank")["device"].nunique()
    ranks = [rank for rank in parallel if several.get(rank, 0) > 1]
    own = ledger[ledger["rank"].isin(ranks) & ledger["clock"].eq("device")]
    busy = own[own["part"].eq("compute")].groupby(["rank", "device"])["time_us"].sum()
    first = busy.groupby("rank").idxmax().to_list()
    is_first = own.set_index(["rank", "device"]).index.isin(first)
    counted = own["part"].isin(_MOVED) | (own["part"].isin(_IDLE) & ~is_first)
    return own.assign(lost_us=own["time_us"].where(counted, 0.0))
