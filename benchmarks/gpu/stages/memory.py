"""Memory of about thirty configurations: peaks of each phase, the allocator's counters, and two snapshots to replay."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.gpu.units import NeedsCudaError, Unit

SHARE: Final = 0.25
PACKAGES: Final = ("torch",)

VARYING: Final = {"lengths": [512, 136, 488, 72, 400, 264, 504, 200]}
ALLOCATOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "expandable": "expandable_segments:True",
        "max_split": "max_split_size_mb:128",
        "roundup": "roundup_power2_divisions:8",
        "collecting": "garbage_collection_threshold:0.6",
    }
)
"""Name to the setting, which goes into the environment of the unit."""

CONFIGS: Final[Mapping[str, tuple[int, str, Mapping[str, Any]]]] = MappingProxyType(
    {
        # name: (value, workload, knobs); the sentinels first
        "gpt": (1, "gpt", {"snapshot": True}),
        "cnn": (1, "cnn", {}),
        "gpt_expandable_varying": (1, "gpt", {"allocator": "expandable", "snapshot": True, **VARYING}),
        "mlp": (1, "mlp", {}),
        "gpt_checkpointed": (1, "gpt", {"activation_checkpointing": "full"}),
        "gpt_bf16": (1, "gpt", {"precision": "bf16"}),
        "gpt_varying": (1, "gpt", VARYING),
        "gpt_batch_16": (2, "gpt", {"batch_size": 16}),
        "gpt_batch_32": (2, "gpt", {"batch_size": 32}),
        "cnn_batch_128": (2, "cnn", {"batch_size": 128}),
        "cnn_batch_256": (2, "cnn", {"batch_size": 256}),
        "mlp_batch_4096": (2, "mlp", {"batch_size": 4096}),
        "gpt_eager_attention": (2, "gpt", {"attention": "eager"}),
        "gpt_pure_bf16": (2, "gpt", {"precision": "pure_bf16"}),
        "cnn_bf16": (2, "cnn", {"precision": "bf16"}),
        "cnn_channels_last": (2, "cnn", {"memory_format": "channels_last"}),
        "cnn_checkpointed": (2, "cnn", {"activation_checkpointing": "full"}),
        "gpt_fused": (2, "gpt", {"optimizer_implementation": "fused"}),
        "gpt_loop": (2, "gpt", {"optimizer_implementation": "loop"}),
        "gpt_sgd": (2, "gpt", {"optimizer": "sgd"}),
        "gpt_momentum": (2, "gpt", {"optimizer": "momentum"}),
        "gpt_zeroed": (2, "gpt", {"zero_grad_set_to_none": False}),
        "gpt_expandable": (2, "gpt", {"allocator": "expandable"}),
        "gpt_max_split_varying": (2, "gpt", {"allocator": "max_split", **VARYING}),
        "gpt_roundup_varying": (2, "gpt", {"allocator": "roundup", **VARYING}),
        "gpt_collecting_varying": (2, "gpt", {"allocator": "collecting", "memory_fraction": 0.9, **VARYING}),
        "gpt_max_split": (3, "gpt", {"allocator": "max_split"}),
        "gpt_roundup": (3, "gpt", {"allocator": "roundup"}),
        "gpt_emptied_cache": (3, "gpt", {"empty_cache_every_n_steps": 1}),
        "mlp_cuda_graphs": (3, "mlp", {"cuda_graphs": True}),
        "cnn_sgd": (3, "cnn", {"optimizer": "sgd"}),
        "mlp_kept_graphs": (3, "mlp", {"extra_loss": True, "keep_graphs": True}),
    }
)
REHEARSED: Final = ("gpt", "gpt_expandable_varying", "cnn")
SNAPSHOT_COLUMNS: Final = ("action", "addr", "size", "stream")
"""What is kept of each event of the allocator's history: no frames, no names, no times."""

STEPS: Final = 4
_MOST_EVENTS: Final = 200_000


def units(*, rehearse: bool) -> list[Unit]:
    """One per configuration, with the allocator's setting in its environment."""
    made = []
    for name, (value, workload, knobs) in CONFIGS.items():
        if rehearse and name not in REHEARSED:
            continue
        setting = ALLOCATOR.get(str(knobs.get("allocator")), "")
        # the second name is that of torch from 2.9 on; older ones do not know it
        environment = {"PYTORCH_CUDA_ALLOC_CONF": setting, "PYTORCH_ALLOC_CONF": setting} if setting else {}
        made.append(Unit("memory", name, value, 4.0, 25.0, {"workload": workload, "knobs": dict(knobs)}, environment))
    return made


def run(unit: Unit, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    """Peaks per phase over a few steps, the counters at the end, and where asked for a snapshot."""
    import torch  # noqa: PLC0415 - only in the unit's process

    from benchmarks.gpu.timing import cost_us  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import Training, described  # noqa: PLC0415 - as above
    from benchmarks.gpu.workloads import config_of  # noqa: PLC0415 - as above

    knobs = dict(unit.settings["knobs"])
    allocator, takes_snapshot = knobs.pop("allocator", "default"), knobs.pop("snapshot", False)
    fraction = knobs.pop("memory_fraction", None)
    if rehearse and "lengths" in knobs:
        knobs["lengths"] = [16, 8, 12]
    config = config_of(unit.settings["workload"], "rehearse" if rehearse else "measure", **knobs)
    told: dict[str, Any] = {
        "config": config,
        "allocator": allocator,
        "allocator_setting": ALLOCATOR.get(allocator, ""),
        "memory_fraction": fraction,
        "environment": described(),
    }
    on_device = torch.cuda.is_available()
    if on_device and fraction:
        torch.cuda.set_per_process_memory_fraction(fraction)
    if on_device and takes_snapshot:
        _record_history()
    training = Training(config)
    told["parameters"] = sum(parameter.numel() for parameter in training.parameters)
    peaks = Peaks(on_device=on_device)
    for step in range(STEPS):
        peaks.step = step
        training.step(peaks.mark)
        peaks.mark("end")
    told["phases"] = peaks.rows
    if not on_device:
        message = "the caching allocator"
        raise NeedsCudaError(message, told)
    torch.cuda.synchronize()
    if takes_snapshot:
        snapshot = torch.cuda.memory._snapshot()  # noqa: SLF001 - torch has no public name for it
        told["snapshot"] = _write_snapshot(snapshot, folder / f"{unit.name}.snapshot.json.gz")
        _stop_history()
    told |= {
        "memory_stats": dict(torch.cuda.memory_stats()),
        "mem_get_info": list(torch.cuda.mem_get_info()),
        "memory_stats_cost": cost_us(torch.cuda.memory_stats, calls=50),
        "nvml": _driver(),
    }
    peak = told["memory_stats"].get("reserved_bytes.all.peak", 0)
    held = told["memory_stats"].get("allocated_bytes.all.peak", 0)
    said = f"{held / 2**20:.0f} MiB allocated at most, {peak / 2**20:.0f} reserved"
    return {"said": said, **told}


class Peaks:
    """Peaks between the marks of a step.

    Attributes
    ----------
    step
        The present one.
    rows
        Lists of step, phase, peak allocated, peak reserved, allocated at its end (bytes; None without a device).
    """

    def __init__(self, *, on_device: bool) -> None:
        self.step = 0
        self.rows: list[list[Any]] = []
        self._on_device = on_device
        self._phase = ""

    def mark(self, phase: str) -> None:
        """The phase before ends, this one begins; the allocator counts on the host, so nothing is waited for."""
        import torch  # noqa: PLC0415 - only in the unit's process

        if self._phase and self._phase != "end":
            held = torch.cuda if self._on_device else None
            peaks = [held.max_memory_allocated(), held.max_memory_reserved(), held.memory_allocated()] if held else [None] * 3
            self.rows.append([self.step, self._phase, *peaks])
        if self._on_device:
            torch.cuda.reset_peak_memory_stats()
        self._phase = phase


def frameless(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What a replay of the allocator needs of a snapshot, as JSON: segments with their blocks, events, settings.

    Returns
    -------
    dict
        `segments`: those of the snapshot, with address, total_size, stream, segment_type, is_expandable and `blocks` as lists of
        address, size, requested_size, state. `events`: of each device a list of `event_columns`, which are `SNAPSHOT_COLUMNS`
        and, where memory ran out, device_free. `allocator_settings`.
    """
    kept = ("device", "address", "total_size", "stream", "segment_type", "is_expandable", "segment_pool_id")
    segments = []
    for segment in snapshot.get("segments", []):
        address, blocks = segment["address"], []
        for block in segment["blocks"]:
            at = block.get("address", address)
            blocks.append([at, block["size"], block.get("requested_size"), block["state"]])
            address = at + block["size"]
        segments.append({name: segment[name] for name in kept if name in segment} | {"blocks": blocks})
    traces = snapshot.get("device_traces", [])
    ran_out = any(event.get("action") == "oom" for trace in traces for event in trace)
    columns = [*SNAPSHOT_COLUMNS, *(("device_free",) if ran_out else ())]  # what the device had free, of each failure
    events = [[[event.get(name) for name in columns] for event in trace] for trace in traces]
    return {"segments": segments, "event_columns": columns, "events": events,
            "allocator_settings": dict(snapshot.get("allocator_settings", {}))}  # fmt: skip


def _write_snapshot(snapshot: Mapping[str, Any], path: Path) -> dict[str, Any]:
    slim = frameless(snapshot)
    content = gzip.compress(json.dumps(slim, separators=(",", ":"), default=str).encode(), 9, mtime=0)
    path.write_bytes(content)
    counts = [len(events) for events in slim["events"]]
    return {"file": path.name, "bytes": len(content), "segments": len(slim["segments"]), "events": counts}


def _record_history() -> None:
    import torch  # noqa: PLC0415 - only in the unit's process

    record = torch.cuda.memory._record_memory_history  # noqa: SLF001 - torch has no public name for it
    record(enabled="all", context=None, stacks="python", max_entries=_MOST_EVENTS)


def _stop_history() -> None:
    import torch  # noqa: PLC0415 - only in the unit's process

    torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001 - torch has no public name for it


def _driver() -> dict[str, Any]:
    """What the driver says of the device's memory, and whether it lists this process by its own number."""
    try:
        import pynvml  # noqa: PLC0415 - the stage goes without it

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        first, second = pynvml.nvmlDeviceGetMemoryInfo(handle), pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
        listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return {
            "version_1": {name: getattr(first, name) for name in ("total", "free", "used")},
            "version_2": {name: getattr(second, name) for name in ("total", "reserved", "free", "used")},
            "processes": [process.usedGpuMemory for process in listed],
            "lists_this_process": os.getpid() in [process.pid for process in listed],
        }
    except Exception as error:  # noqa: BLE001 - whatever the driver refuses is the answer
        return {"error": f"{type(error).__name__}: {error}"}
