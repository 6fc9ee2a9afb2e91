"""Fix: write checkpoints in the background, from a copy in the host's memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_LARGEST_USE: Final = 0.5  # of the memory: a copy of the whole state has to fit beside what is there; a prior


def _with_memory(used: int, limit: int) -> Run:
    samples = f"rank time_us memory_bytes memory_limit_bytes\n0 0 {used} {limit}"
    return Run(host_samples=table_from_text("host_samples", samples), signals=frozenset({"host_samples"}))


@fix(
    knobs=("async_checkpoint",),
    answers=("checkpoint_stall",),
    reason="training goes on from the copy's end on, while another thread or process writes it",
    source="PyTorch documentation, torch.distributed.checkpoint.async_save; CheckFreq (FAST 2021)",
    caution="wait for the save before the next one, and before the end; the copy takes as much host memory as the state",
    examples=(
        FixExample(
            "half a host free", {"async_checkpoint": False}, {"async_checkpoint": True}, make_run=lambda: _with_memory(40, 100)
        ),
        FixExample("little memory left", {"async_checkpoint": False}, None, "60 %", make_run=lambda: _with_memory(60, 100)),
        FixExample("memory not known", {"async_checkpoint": False}, None, "not known"),
        FixExample(
            "in the background already", {"async_checkpoint": True}, None, "already", make_run=lambda: _with_memory(40, 100)
        ),
        FixExample(
            "one written by pickle alone",
            {"async_checkpoint": False, "checkpoint_backend": "torch.save"},
            None,
            "torch.save",
            make_run=lambda: _with_memory(40, 100),
        ),
    ),
)
def save_asynchronously(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Save with a backend that copies first and writes later."""
    if value_of(config, "async_checkpoint"):
        return "async_checkpoint is on already"
    if has_knob(config, "checkpoint_backend") and value_of(config, "checkpoint_backend") == "torch.save":
        return "torch.save writes before it returns: use torch.distributed.checkpoint, or a thread of your own"
    samples = run.host_samples[["memory_bytes", "memory_limit_bytes"]].dropna()
    if samples.empty:
        return "the host's memory is not known: a copy of the state has to fit"
    used = float((samples["memory_bytes"].astype("float64") / samples["memory_limit_bytes"].astype("float64")).max())
    if used > _LARGEST_USE:
        return f"{used:.0%} of the host's memory is in use: a copy of the state may not fit".replace("%", " %")
    return {"async_checkpoint": True}
