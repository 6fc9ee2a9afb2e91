"""Faults that need a GPU, each beside the same training without it: timed in turns, traced and recorded; and healthy controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.gpu.units import NeedsCudaError, Unit

SHARE: Final = 0.20
PACKAGES: Final = ("torch", "pandas", "msgspec", "isal", "tqdm", "psutil", "pynvml")

LOADER: Final = {"data": "loader", "num_workers": 4, "prefetch_factor": 2, "persistent_workers": True}
VARYING: Final = {"lengths": [512, 136, 488, 72, 400, 264]}
FAULTS: Final[Mapping[str, tuple[str, str | None, Mapping[str, Any], Mapping[str, Any]]]] = MappingProxyType(
    {
        # name: (workload, detector that has to find it, knobs of the run with the fault, what takes the cause away)
        "synchronize_every_operator": (
            "mlp",
            "host_sync",
            {"synchronize_every_operator": True},
            {"synchronize_every_operator": False},
        ),
        "item_every_step": ("mlp", "host_sync", {"log_every_n_steps": 1}, {"log_every_n_steps": 50}),
        "pageable_copies": ("cnn", "exposed_transfer", {**LOADER, "batch_size": 256}, {"pin_memory": True, "non_blocking": True}),
        "launch_bound": ("mlp", "launch_overhead", {}, {"cuda_graphs": True}),
        "alternating_lengths": ("gpt", "memory_fragmentation", VARYING, {"lengths": None}),
        "kept_graphs": ("mlp", "memory_leak", {"extra_loss": True, "keep_graphs": True}, {"keep_graphs": False}),
        "emptied_cache": ("gpt", "allocator_churn", {"empty_cache_every_n_steps": 1}, {"empty_cache_every_n_steps": 0}),
        "fp32_without_tf32": ("gpt", "full_precision_math", {"matmul_precision": "highest"}, {"matmul_precision": "high"}),
    }
)
CONTROLS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        # name: (workload, knobs of a training that has nothing to cure)
        "healthy_gpt": ("gpt", {"precision": "bf16", "batch_size": 32, "optimizer_implementation": "fused"}),
        "healthy_cnn": (
            "cnn",
            {"precision": "bf16", "batch_size": 256, "memory_format": "channels_last", "optimizer_implementation": "fused"},
        ),
        "healthy_mlp": ("mlp", {"cuda_graphs": True}),
    }
)
OF_MEMORY: Final = ("alternating_lengths", "kept_graphs")
"""Faults whose truth is bytes, not time."""


def units(*, rehearse: bool) -> list[Unit]:
    """One per fault and control; a rehearsal takes some of each."""
    rehearsed = ("synchronize_every_operator", "launch_bound", "kept_graphs", "healthy_gpt")
    names = [name for name in (*FAULTS, *CONTROLS) if not rehearse or name in rehearsed]
    first = (*FAULTS, "healthy_gpt")
    return [Unit("faults", name, 1 if name in first else 2, 10.0, 45.0, {"name": name}) for name in names]


def run(unit: Unit, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    """Truth, and the recorded runs of both sides with a profiler's window in each."""
    from benchmarks.gpu.recorded_run import record_run  # noqa: PLC0415 - imports torch and pandas
    from benchmarks.gpu.timing import interleaved  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import Training, described  # noqa: PLC0415 - as above

    name, mode = unit.settings["name"], "rehearse" if rehearse else "measure"
    configs, detector = _configs(name, mode)
    told: dict[str, Any] = {"name": name, "detector": detector, "configs": configs, "environment": described()}
    sides: dict[str, Any] = {}
    for side, config in configs.items():
        try:
            sides[side] = Training(config)
        except NeedsCudaError as reason:
            told["without"] = f"{side} needs CUDA: {reason}"
    for training in sides.values():
        training.activate()
        for _ in range(2 if rehearse else 6):
            training.step()
    if len(sides) == len(configs):
        steps = 4 if rehearse else 20
        told["times"] = interleaved(sides, steps=steps, turns=2 if rehearse else 6, seconds=0.5 if rehearse else 2.5)
        told["truth"] = _bytes_lost(sides, steps) if name in OF_MEMORY else _time_lost(name, told["times"])
    # a profiler's window comes after 10 steps, one thrown away and one without; then what it needs for FEWEST_STEPS to be used
    told["runs"] = {
        side: record_run(_afresh(training), folder / name / side, steps=22 if rehearse else 60, trace=5)
        for side, training in sides.items()
    }
    truth = told.get("truth", {})
    shown = f"{truth['share']:.3f} of the {truth['of']}" if truth.get("share") is not None else "no truth"
    if "without" in told:
        raise NeedsCudaError(told.pop("without"), told)
    return {"said": f"{detector or 'nothing to find'}: {shown}", **told}


def _configs(name: str, mode: str) -> tuple[dict[str, dict[str, Any]], str | None]:
    from benchmarks.gpu.workloads import BATCHES, config_of  # noqa: PLC0415 - imports torch

    if name in CONTROLS:
        workload, knobs = CONTROLS[name]
        tiny = {"batch_size": BATCHES[mode][workload]} if mode == "rehearse" else {}
        return {"healthy": config_of(workload, mode, **knobs | tiny)}, None
    workload, detector, knobs, cure = FAULTS[name]
    if mode == "rehearse":
        knobs = {knob: value for knob, value in knobs.items() if knob not in ("batch_size", "lengths")}
    faulty = config_of(workload, mode, **knobs)
    return {"faulty": faulty, "clean": {**faulty, **cure}}, detector


def _time_lost(name: str, times: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Share of the step that the fault costs."""
    if name in CONTROLS:
        return {"of": "step", "share": None}
    clock = "median_device_us" if times["faulty"]["median_device_us"] else "median_wall_us"
    return {
        "of": "step",
        "clock": clock,
        "share": 1.0 - times["clean"][clock] / times["faulty"][clock],
        "wall_share": 1.0 - times["clean"]["median_wall_us"] / times["faulty"]["median_wall_us"],
    }


def _bytes_lost(sides: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """What each side holds at the ends of its steps, from an empty cache on, and the share of the reserved peak that is lost."""
    import torch  # noqa: PLC0415 - only in the unit's process

    held: dict[str, list[tuple[int, int]]] = {}
    for side in ("clean", "faulty"):
        _afresh(sides[side])
        held[side] = []
        for _ in range(steps):
            sides[side].step()
            held[side].append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    peaks = {side: max(reserved for _, reserved in each) for side, each in held.items()}
    grown = {side: (each[-1][0] - each[0][0]) / (steps - 1) for side, each in held.items()}
    share = 1.0 - peaks["clean"] / peaks["faulty"] if peaks["faulty"] else None
    return {"of": "reserved memory", "share": share, "grown_bytes_per_step": grown, "allocated_and_reserved_bytes": held}


def _afresh(training: Any) -> Any:
    """The training, once nothing of what ran before is kept and cached."""
    import gc  # noqa: PLC0415 - beside what needs it

    import torch  # noqa: PLC0415 - only in the unit's process

    training.kept.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    training.activate()
    return training
