"""Fix: launch a whole step at once, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, StepParts, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_LARGEST_SYNC_SHARE: Final = 0.01  # of the step: what rounding and the loader's own waits leave; a choice
_STEADY: Final = Run(training=table_from_text("training", "rank step batch_size\n0 1 8\n0 2 8"), signals=frozenset({"training"}))
_CHANGING: Final = Run(
    training=table_from_text("training", "rank step batch_size\n0 1 8\n0 2 6"), signals=frozenset({"training"})
)


@fix(
    knobs=("cuda_graphs",),
    answers=("launch_overhead",),
    reason="one launch replays all kernels of a step, so that the host cannot be too slow for the device",
    source="PyTorch documentation, CUDA graphs: static shapes and addresses, no synchronisation, no host logic inside",
    caution="inputs are copied into fixed buffers; shapes and control flow must be the same in each step; not validated on a GPU",
    examples=(
        FixExample(
            "static shapes, no sync",
            {"cuda_graphs": False},
            {"cuda_graphs": True},
            parts={"step": 100.0},
            make_run=lambda: _STEADY,
        ),
        FixExample("captured already", {"cuda_graphs": True}, None, "already", parts={"step": 100.0}),
        FixExample(
            "a sync in the step", {"cuda_graphs": False}, None, "waits for the device", parts={"step": 100.0, "idle.sync": 2.0}
        ),
        FixExample(
            "batches change",
            {"cuda_graphs": False},
            None,
            "batch_size changes",
            parts={"step": 100.0},
            make_run=lambda: _CHANGING,
        ),
    ),
)
def capture_cuda_graph(config: Mapping[str, Any], parts: StepParts, run: Run) -> Mapping[str, Any] | str:
    """Capture the step as a graph, where nothing that was recorded speaks against it."""
    if value_of(config, "cuda_graphs"):
        return "cuda_graphs is on already"
    if parts.get("idle.sync", 0.0) > _LARGEST_SYNC_SHARE * parts["step"]:
        return "the host waits for the device inside the step, which a graph cannot hold"
    for name in ("batch_size", "tokens", "padded_tokens"):
        if run.training.groupby("rank")[name].nunique().gt(1).any():
            return f"{name} changes from step to step, a graph holds one shape"
    return {"cuda_graphs": True}
