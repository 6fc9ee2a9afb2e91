"""Fix: keep Python's garbage collector from going through what lives on anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.leak_test import growing_memories
from perfnb.analyses.own_memory import own_memory_by_step
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_LEAK_SHARE: Final = 0.05  # of the memory limit over the steps that are left, as host_memory_leak has it


def _growing(bytes_per_step: int) -> Run:
    """A process that holds 1 MB of 100 and grows in each of 210 steps."""
    steps = "\n".join(f"0 {step} {step} 1" for step in range(210))
    samples = "\n".join(f"0 {step + 0.9} {1_000_000 + bytes_per_step * step} 100000000" for step in range(210))
    return Run(
        steps=table_from_text("steps", f"rank step start_us duration_us\n{steps}"),
        host_samples=table_from_text("host_samples", f"rank time_us own_memory_bytes memory_limit_bytes\n{samples}"),
    )


@fix(
    knobs=("gc_freeze",),
    answers=("garbage_collection_pauses",),
    reason="collections are long because they go through all objects that live on; frozen ones are left out",
    source="Python documentation, gc.freeze; Instagram, dismissing Python garbage collection (2017)",
    caution="call gc.freeze() once, after the model and the data are built; cycles that are frozen are never freed, and a loop "
    "that calls gc.collect() itself has to stop",
    examples=(
        FixExample("frozen after the start", {"gc_freeze": False}, {"gc_freeze": True}),
        FixExample("memory stays as it is", {"gc_freeze": False}, {"gc_freeze": True}, make_run=lambda: _growing(0)),
        FixExample("memory leaks", {"gc_freeze": False}, None, "memory grows", make_run=lambda: _growing(10_000)),
        FixExample("frozen already", {"gc_freeze": True}, None, "already"),
        FixExample("not said", {"gc_freeze": "sometimes"}, None, "'sometimes'"),
    ),
)
def freeze_garbage_collection(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Freeze what was made before the first step, where the process's memory does not leak: cycles would then stay for good."""
    now = value_of(config, "gc_freeze")
    if type(now) is not bool and now is not None:
        return f"gc_freeze is {now!r}, neither on nor off"
    if now:
        return "gc_freeze is on already"
    samples = run.host_samples[run.host_samples["own_memory_bytes"].notna()]
    found = growing_memories(own_memory_by_step(samples, run.steps), config, within_steps=True)
    if (found["verdict"].eq("leak") & found["bytes"].ge(_LEAK_SHARE * found["capacity_bytes"])).any():
        return "the process's memory grows from step to step: find what keeps it first, frozen objects hide among it"
    return {"gc_freeze": True}
