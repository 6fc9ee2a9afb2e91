"""What a recorded run's tables can tell, why the others cannot, how each rank stands and on which machine it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.read.recorded_rank import RankTables
from perfnb.read.recorded_traces import TRACED, signals
from perfnb.record.clocks import NO_SCHEDSTAT
from perfnb.run import Machine

_NO_WINDOW: Final = "no profiler window was recorded: record(trace=5)"
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "steps": "no step ended while it was recorded: call perfnb.step() at the end of each, or loop over recorder.steps(...)",
        "phases": "no phase of a step was recorded",
        "host_ops": _NO_WINDOW,
        "device_ops": _NO_WINDOW,
        "collectives": _NO_WINDOW,
        "allocations": _NO_WINDOW,
        "allocator": "no state of torch's allocator was recorded: the training used no GPU through torch",
        "gpu_samples": "no GPU was sampled",
        "host_samples": "the host was not sampled",
        "training": "nothing was told of the training itself: recorder.log(loss=...)",
        "compile": "whether torch compiled was not recorded: an older recording",
        "loader": "no step waited for a batch: batches come from something else than a DataLoader",
        "schedstat": NO_SCHEDSTAT,
    }
)
_LARGEST_SIZE: Final = 2**62  # past it a number is no size


def signals_and_missing(
    made: Mapping[str, pd.DataFrame], headers: Sequence[Mapping[str, Any]], ranks: Sequence[RankTables], world_size: int | None
) -> tuple[frozenset[str], dict[str, str]]:
    """Names of what was recorded, and signal to reason for what was not."""
    found = {name for name, frame in made.items() if len(frame) and name != "gaps"}
    missing = dict(_REASONS)
    gaps = made["gaps"]
    whole = gaps[gaps["column"].isna() & gaps["table"].notna() & gaps["reason"].notna()]
    missing |= {str(table): str(reason) for table, reason in zip(whole["table"], whole["reason"], strict=True)}
    if made["phases"].empty:
        missing["schedstat"] = missing["phases"]
    counters = gaps.loc[gaps["table"].eq("phases") & gaps["column"].eq("runqueue_us") & gaps["reason"].notna(), "reason"]
    missing["schedstat"] = str(counters.iloc[0]) if len(counters) else missing["schedstat"]
    stated = {name for each in headers for name in _texts(each.get("signals"))}
    found |= {name for name in stated if name not in set(whole["table"])}
    by_trace = [signals(each.traced_frames, world_size) for each in ranks if each.traced_frames]
    if by_trace:
        found |= frozenset[str]().union(*(each for each, _ in by_trace))
        missing |= {name: reason for _, reasons in by_trace for name, reason in reasons.items() if name in TRACED}
    elif world_size == 1:
        found.add("collectives")  # one process communicates with nobody
    if made["phases"]["phase"].eq("data").any():
        found.add("loader")
    if made["phases"]["runqueue_us"].notna().any():
        found.add("schedstat")
    if made["host_ops"]["category"].eq("gc").any():
        found.add("gc")
    return frozenset(found), {name: reason for name, reason in missing.items() if name not in found}


def standing(rank: RankTables, count: int) -> str:
    """How a rank's recording stands, in words; "" where it finished."""
    state, until = rank.recording.state, rank.recording.until_us
    who = f"rank {rank.rank}" if count > 1 else "the recording"
    upto = "before a step ended" if rank.steps_done is None else f"up to step {rank.steps_done}"
    upto += f", {text.duration(until)} after the start" if until is not None else ""
    if state == "killed":
        return f"{who} was killed: complete {upto}"
    if state == "running":
        return f"{who} is still running: read {upto}"
    if state == "failed":
        return f"{who} failed ({text.clean(rank.recording.reason, 200)}): complete {upto}"
    return ""


def machine(headers: Sequence[Mapping[str, Any]]) -> Machine:
    """The machine of the first rank."""
    stated = headers[0].get("machine")
    known = stated if isinstance(stated, Mapping) else {}
    sizes = known.get("device_memory_bytes")
    cores = known.get("cpu_capacity")
    versions = headers[0].get("versions")
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    return Machine(
        devices=tuple(_texts(known.get("devices"))),
        device_memory_bytes=tuple(
            size if isinstance(size, int) and 0 <= size < _LARGEST_SIZE else 0
            for size in (sizes if isinstance(sizes, (list, tuple)) else ())
        ),
        cpu_capacity=float(cores) if isinstance(cores, (int, float)) and 0 < cores < _LARGEST_SIZE else None,
        torch_version=torch if isinstance(torch, str) else "",
    )


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, (list, tuple)) else []
