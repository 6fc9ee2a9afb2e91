"""Fix: update all parameters in one kernel per group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix

_FUSED: Final = ("adam", "adamw", "sgd", "adagrad")  # torch 2.13: those whose constructor takes fused=True
_NOT_FUSED: Final = ("loop", "foreach", "for_loop", "forloop", None)
_CUDA: Final = {"device": "cuda", "optimizer": "adamw"}


@fix(
    knobs=("optimizer_implementation",),
    answers=("launch_overhead",),
    reason="a fused optimizer launches a few kernels in place of several per parameter",
    source="PyTorch documentation, torch.optim: fused=True of Adam, AdamW, SGD and Adagrad",
    caution="a gradient scaler and hooks on single gradients need care; not validated on a GPU",
    examples=(
        FixExample("in a loop", {**_CUDA, "optimizer_implementation": "loop"}, {"optimizer_implementation": "fused"}),
        FixExample("foreach", {**_CUDA, "optimizer_implementation": "foreach"}, {"optimizer_implementation": "fused"}),
        FixExample("fused already", {**_CUDA, "optimizer_implementation": "fused"}, None, "fused already"),
        FixExample(
            "none for LBFGS", {"device": "cuda", "optimizer": "lbfgs", "optimizer_implementation": "loop"}, None, "no fused"
        ),
        FixExample(
            "tensors on the CPU", {"device": "cpu", "optimizer": "adam", "optimizer_implementation": "loop"}, None, "the CPU"
        ),
    ),
)
def fuse_optimizer(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `fused=True`, where torch has it for this optimizer."""
    now = value_of(config, "optimizer_implementation")
    if now not in _NOT_FUSED:
        return f"optimizer_implementation is {now} already"
    if has_knob(config, "device") and value_of(config, "device") == "cpu":
        return "the parameters are on the CPU, where launches cost nothing"
    kind = str(value_of(config, "optimizer")).lower() if has_knob(config, "optimizer") else None
    if kind is not None and kind not in _FUSED:
        return f"torch has no fused {kind}"
    return {"optimizer_implementation": "fused"}
