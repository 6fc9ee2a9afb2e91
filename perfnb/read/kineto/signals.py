"""What a run's tables show was recorded, and for what was not, why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import pandas as pd

from perfnb.categories import per_text
from perfnb.read.kineto.around import OPERATOR_PREFIXES
from perfnb.read.kineto.classify import LOADER_PATTERN

_LONGEST_KERNELS: Final = 5


def signals_of(made: Mapping[str, pd.DataFrame], world_size: int | None) -> tuple[frozenset[str], dict[str, str]]:
    """Names of what was recorded, and signal to reason for what was not."""
    host, device, steps = made["host_ops"], made["device_ops"], made["steps"]
    missing: dict[str, str] = {}
    if device.empty:
        missing["device_ops"] = "the trace holds no kernel, copy or memset: a CPU job, or CUDA activities were not recorded"
    if not host["category"].isin(["operator", "annotation"]).any():
        missing["host_ops"] = "the trace holds no host operator: record with ProfilerActivity.CPU as well"
    if steps.empty:
        missing["steps"] = (
            "no ProfilerStep ranges: call prof.step() once per iteration inside torch.profiler.profile(...), "
            "or pass step_names= with the start of your own annotations' names"
        )
    if made["phases"].empty:
        missing["phases"] = missing.get("steps", missing.get("host_ops", "no step was recorded"))
    elif made["phases"].loc[made["phases"]["phase"].eq("other"), "wall_us"].isna().all():
        missing["phases.other"] = "no backward functions in the steps, so forward and the rest cannot be told apart"
    if not per_text(host["name"], re.compile(LOADER_PATTERN).search).any():
        missing["loader"] = "no DataLoader range in the trace: batches come from something else, or CPU activity was not recorded"
    if made["collectives"].empty and (world_size > 1 if world_size is not None else _communicates(host)):
        missing["collectives"] = _no_communication(device, world_size)
    if made["allocations"].empty:
        missing["allocations"] = "the trace holds no memory events: record with profile_memory=True"
    if "host_ops" in missing:
        missing["compile"] = missing["host_ops"]  # torch's compiler leaves ranges in a trace
    known = {name for name, frame in made.items() if not frame.empty} | {"collectives", "compile", "loader", "phases.other"}
    return frozenset(known - missing.keys()), missing


def _communicates(host: pd.DataFrame) -> bool:
    """Whether operators or ranges of torch.distributed were recorded."""
    return bool(per_text(host["name"], lambda name: name.startswith((*OPERATOR_PREFIXES, "nccl:"))).any())


def _no_communication(device: pd.DataFrame, world_size: int | None) -> str:
    ranks = "calls torch.distributed" if world_size is None else f"has {world_size} ranks"
    reason = f"the job {ranks}, but no communication was recognised in the trace"
    if device.empty:
        return reason
    time = device.groupby("name", observed=True)["duration_us"].sum().nlargest(_LONGEST_KERNELS)
    shown = ", ".join(repr(str(name)[:80]) for name in time.index)
    return f"{reason}; if one of its longest kernels ({shown}) communicates, pass communication_names=[...] to read_trace"
