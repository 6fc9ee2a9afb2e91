"""Fix: collect unused blocks before the device is full, instead of all of them when it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.allocator_settings import OFF, why_not_caching
from perfnb.analyses.device_memory import device_memory
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_FRACTION: Final = 0.9  # of the device: the rest stays for the driver and other processes
_THRESHOLD: Final = 0.8  # of that: the example of torch's documentation
_OFF: Final = {"memory_fraction": None, "garbage_collection_threshold": None}
_GPU: Final = Machine(device_memory_bytes=(1000,))


def _seeing(retries: int, peak: int) -> Run:
    rows = f"0 0 0 0 {peak}\n0 10 0 0 {peak}\n0 11 0 {retries} {peak}"
    return Run(allocator=table_from_text("allocator", f"rank step device retries peak_allocated_bytes\n{rows}"))


@fix(
    knobs=("memory_fraction", "garbage_collection_threshold"),
    answers=("allocator_retries",),
    reason="blocks that were long unused go back one by one, before the device is full and all have to go",
    source="PyTorch documentation, CUDA memory management: garbage_collection_threshold, set_per_process_memory_fraction",
    caution="the threshold alone has no effect; the training runs out of memory where it needs more than the fraction",
    examples=(
        FixExample(
            "retries, and 700 of 1000 bytes in use",
            _OFF,
            {"memory_fraction": _FRACTION, "garbage_collection_threshold": _THRESHOLD},
            machine=_GPU,
            make_run=lambda: _seeing(2, 700),
        ),
        FixExample("no retries", _OFF, None, "no retry", machine=_GPU, make_run=lambda: _seeing(0, 700)),
        FixExample(
            "tensors take more than would be left", _OFF, None, "more than", machine=_GPU, make_run=lambda: _seeing(2, 950)
        ),
        FixExample("size not known", _OFF, None, "not known", make_run=lambda: _seeing(2, 700)),
        FixExample("nothing recorded", _OFF, None, "not recorded", machine=_GPU),
        FixExample(
            "a fraction of one's own",
            {"memory_fraction": 0.5, "garbage_collection_threshold": None},
            {"memory_fraction": 0.5, "garbage_collection_threshold": _THRESHOLD},
            machine=_GPU,
            make_run=lambda: _seeing(2, 400),
        ),
        FixExample("no fraction to set", {"garbage_collection_threshold": None}, None, "no memory_fraction"),
        FixExample("a CPU", {**_OFF, "device": "cpu"}, None, "runs on cpu"),
    ),
)
def cap_and_collect(config: Mapping[str, Any], run: Run, machine: Machine) -> Mapping[str, Any] | str:
    """Set a memory fraction and a collection threshold together, where allocations had to be asked for again."""
    if reason := why_not_caching(config):
        return reason
    if run.allocator.empty:
        return "whether allocations were asked for again is not recorded"
    found = device_memory(run.allocator, machine, {})
    if not found["retries"].gt(0).any():
        return "no retry was seen after warm-up"
    now = value_of(config, "memory_fraction")
    fraction = now if isinstance(now, float) and 0 < now < 1 else _FRACTION
    shares = found["allocated_peak_bytes"] / found["capacity_bytes"]
    if shares.isna().all():
        return "the size of the device's memory, or what its tensors take, is not known"
    if shares.max() > fraction:
        return f"tensors take more than {fraction:.0%} of the device at their peak"
    threshold = value_of(config, "garbage_collection_threshold")
    kept = threshold if threshold not in OFF and threshold != 0 else _THRESHOLD
    return {"memory_fraction": fraction, "garbage_collection_threshold": kept}
