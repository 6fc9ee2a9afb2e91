"""Fix: keep the optimizer's state in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.allocator_settings import device_kind
from perfnb.analyses.held_memory import why_not_states
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_IN_8_BIT: Final = {"adam": "adam_8bit", "adamw": "adamw_8bit"}


def _holding(kept: int, peak: int) -> Run:
    rows = f"rank step device allocated_bytes peak_allocated_bytes\n0 9 0 {kept} {peak}"
    return Run(allocator=table_from_text("allocator", rows), signals=frozenset({"allocator"}))


@fix(
    knobs=("optimizer",),
    answers=("memory_pressure",),
    reason="Adam keeps 8 bytes of state per fp32 parameter, in 8 bits 2",
    source="Dettmers et al. (2022), 8-bit Optimizers via Block-wise Quantization; bitsandbytes.optim.AdamW8bit",
    caution="try the other remedies first: it needs bitsandbytes and a CUDA device, and rounds what the optimizer remembers",
    examples=(
        FixExample(
            "800 bytes stay, 200 come and go",
            {"optimizer": "adamw"},
            {"optimizer": "adamw_8bit"},
            make_run=lambda: _holding(800, 1000),
        ),
        FixExample(
            "most comes and goes", {"optimizer": "adamw"}, None, "70% of it comes and goes", make_run=lambda: _holding(300, 1000)
        ),
        FixExample("an optimizer without such a form", {"optimizer": "sgd"}, None, "'sgd'", make_run=lambda: _holding(800, 1000)),
        FixExample("in 8 bits already", {"optimizer": "adamw_8bit"}, None, "'adamw_8bit'", make_run=lambda: _holding(800, 1000)),
        FixExample("categories not known", {"optimizer": "adamw"}, None, "what holds the memory"),
        FixExample(
            "one CUDA device of several",
            {"optimizer": "adamw", "device": "cuda:1"},
            {"optimizer": "adamw_8bit"},
            make_run=lambda: _holding(800, 1000),
        ),
        FixExample("a CPU", {"optimizer": "adamw", "device": "cpu"}, None, "CUDA", make_run=lambda: _holding(800, 1000)),
    ),
)
def use_8bit_optimizer(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Take the 8-bit form of Adam or AdamW, where the optimizer's state is known to be the largest part of the peak."""
    now = value_of(config, "optimizer")
    if not isinstance(now, str) or now not in _IN_8_BIT:
        return f"optimizer is {now!r}: there are 8-bit forms of {' and '.join(_IN_8_BIT)}"
    if device_kind(config) not in (None, "cuda"):
        return "the 8-bit optimizers run on CUDA devices"
    return why_not_states(run, config) or {"optimizer": _IN_8_BIT[now]}
