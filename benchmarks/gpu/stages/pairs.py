"""Before/after pairs: one change each, timed in turns without a profiler, and a short trace of each side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.gpu.units import NeedsCudaError, Unit

SHARE: Final = 0.50
PACKAGES: Final = ("torch",)

LOADER: Final = {"data": "loader", "sample_work": 8}
WORKERS: Final = {"num_workers": 4, "prefetch_factor": 2, "persistent_workers": True}
BF16: Final = {"precision": "bf16"}

TRANSFORMS: Final[Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = MappingProxyType(
    {
        # name: (what both sides have beside the workload's own config, what the side after changes)
        "bf16": ({}, BF16),
        "tf32": ({}, {"matmul_precision": "high"}),
        "channels_last": (BF16, {"memory_format": "channels_last"}),
        "compile": ({}, {"compile": True}),
        "cuda_graphs": ({}, {"cuda_graphs": True}),
        "fused_optimizer": ({}, {"optimizer_implementation": "fused"}),
        "foreach_optimizer": ({"optimizer_implementation": "loop"}, {"optimizer_implementation": "foreach"}),
        "batch_x2": ({}, {"batch_size": 2}),  # times
        "checkpointing": ({}, {"activation_checkpointing": "full"}),
        "read_loss_less_often": ({"log_every_n_steps": 1}, {"log_every_n_steps": 50}),
        "set_to_none": ({"zero_grad_set_to_none": False}, {"zero_grad_set_to_none": True}),
        "workers": (LOADER, WORKERS),
        "pinned": ({**LOADER, **WORKERS, "sample_work": 0}, {"pin_memory": True, "non_blocking": True}),
        "sdpa": ({"attention": "eager"}, {"attention": "sdpa"}),
        "bf16_and_compile": ({}, {**BF16, "compile": True}),
    }
)
"""Names of knobs as shared by the fixes of perfnb; a batch size is a factor."""

PLAN: Final[tuple[tuple[str, str, int], ...]] = (
    # transform, workload, value; the natural workload of each transform comes first
    ("bf16", "gpt", 1), ("tf32", "gpt", 1), ("channels_last", "cnn", 1), ("compile", "mlp", 1), ("cuda_graphs", "mlp", 1),
    ("fused_optimizer", "mlp", 1), ("foreach_optimizer", "mlp", 1), ("batch_x2", "cnn", 1), ("checkpointing", "gpt", 1),
    ("read_loss_less_often", "mlp", 1), ("set_to_none", "mlp", 1), ("workers", "cnn", 1), ("pinned", "cnn", 1),
    ("sdpa", "gpt", 1),
    ("bf16", "cnn", 2), ("tf32", "cnn", 2), ("compile", "gpt", 2), ("cuda_graphs", "gpt", 2), ("fused_optimizer", "gpt", 2),
    ("foreach_optimizer", "gpt", 2), ("batch_x2", "gpt", 2), ("batch_x2", "mlp", 2), ("checkpointing", "cnn", 2),
    ("read_loss_less_often", "gpt", 2), ("set_to_none", "cnn", 2), ("workers", "gpt", 2), ("pinned", "mlp", 2),
    ("bf16", "mlp", 2), ("tf32", "mlp", 2), ("fused_optimizer", "cnn", 2), ("cuda_graphs", "cnn", 2),
    ("foreach_optimizer", "cnn", 3), ("read_loss_less_often", "cnn", 3), ("set_to_none", "gpt", 3), ("workers", "mlp", 3),
    ("pinned", "gpt", 3), ("compile", "cnn", 3), ("bf16_and_compile", "gpt", 3), ("checkpointing", "mlp", 3),
)  # fmt: skip

_EXPECTED_S: Final = {"compile": 25.0, "bf16_and_compile": 25.0, "workers": 9.0, "pinned": 9.0}
_LIMIT_S: Final = {"compile": 75.0, "bf16_and_compile": 75.0}


def units(*, rehearse: bool) -> list[Unit]:
    """One per pair; a rehearsal takes each transform once."""
    plan = [row for row in PLAN if not rehearse or row[2] == 1]
    return [
        Unit(
            "pairs",
            f"{transform}_{workload}",
            value,
            _EXPECTED_S.get(transform, 6.0),
            60.0 if rehearse else _LIMIT_S.get(transform, 30.0),
            {"transform": transform, "workload": workload},
        )
        for transform, workload, value in plan
    ]


def configs(transform: str, workload: str, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole configs of the side before and of the side after."""
    from benchmarks.gpu.workloads import config_of  # noqa: PLC0415 - imports torch

    common, changed = TRANSFORMS[transform]
    before = config_of(workload, mode, **common)
    if mode == "rehearse":  # processes cost more than they save where samples are tiny
        before |= {"num_workers": min(before["num_workers"], 1)}
        changed = changed | ({"num_workers": 1} if "num_workers" in changed else {})
    if "batch_size" in changed:
        changed = {**changed, "batch_size": changed["batch_size"] * before["batch_size"]}
    return before, {**before, **changed}


def run(unit: Unit, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    """Times, peaks of memory and traces of both sides."""
    from benchmarks.gpu.timing import interleaved  # noqa: PLC0415 - imports torch
    from benchmarks.gpu.traces import STEPS, record_trace  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import Training, described  # noqa: PLC0415 - as above

    mode = "rehearse" if rehearse else "measure"
    before, after = configs(unit.settings["transform"], unit.settings["workload"], mode)
    changes = {knob: value for knob, value in after.items() if before[knob] != value}
    told = {**unit.settings, "environment": described(), "before": before, "changes": changes}
    sides = {"before": Training(before)}
    try:
        sides["after"] = Training(after)
    except NeedsCudaError as reason:
        sides["before"].step()
        raise NeedsCudaError(str(reason), told) from reason
    for side in sides.values():
        side.activate()
        for _ in range(2 if rehearse else 8):
            side.step()
    times = interleaved(sides, steps=4 if rehearse else 40, turns=2 if rehearse else 6, seconds=0.5 if rehearse else 2.5)
    traces = {
        name: record_trace(side, folder / f"{unit.name}.{name}.json.gz", steps=4 if rehearse else STEPS)
        for name, side in sides.items()
    }
    clock = "median_device_us" if times["before"]["median_device_us"] else "median_wall_us"
    speedup = times["before"][clock] / times["after"][clock]
    said = f"{times['before'][clock] / 1e3:.2f} -> {times['after'][clock] / 1e3:.2f} ms ({speedup:.2f}x)"
    return {"said": said, **told, "times": times, "traces": traces}
