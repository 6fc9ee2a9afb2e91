"""Fix: round sizes of allocations, so that tensors of nearly the same size reuse one another's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.allocator_settings import is_on, why_not_caching
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.whatif.memory_settings import why_not_setting

_DIVISIONS: Final = 8  # steps between powers of two: an allocation grows by an eighth at most
_ONE_OF_33: Final = f"""rank device sequence action address bytes     requested_bytes stream pool  allocated_bytes reserved_bytes
                        0    0      0        alloc  1       {33 << 20} {33 << 20}       0      large {33 << 20}      {34 << 20}"""
_OFF: Final = {"roundup_power2_divisions": "none"}


def _seeing(lengths: tuple[int, ...], holes: tuple[int, ...]) -> Run:
    training = "\n".join(["rank step tokens", *(f"0 {step} {length}" for step, length in enumerate(lengths))])
    allocator = "\n".join(["rank step device inactive_split_bytes", *(f"0 {step} 0 {size}" for step, size in enumerate(holes))])
    return Run(training=table_from_text("training", training), allocator=table_from_text("allocator", allocator))


@fix(
    knobs=("roundup_power2_divisions",),
    answers=("memory_fragmentation",),
    reason="lengths change from step to step, so that each tensor leaves a hole that the next one does not fit",
    source="PyTorch documentation, CUDA memory management: PYTORCH_CUDA_ALLOC_CONF=roundup_power2_divisions:8",
    caution="each allocation takes up to 12.5 % more; set it before the first CUDA allocation: restart the kernel",
    examples=(
        FixExample(
            "lengths vary and holes grow",
            _OFF,
            {"roundup_power2_divisions": _DIVISIONS},
            make_run=lambda: _seeing((64, 128, 96, 72, 120, 100), (10, 12, 30, 45, 60, 80)),
        ),
        FixExample(
            "every step is as long", _OFF, None, "same length", make_run=lambda: _seeing((64,) * 6, (10, 12, 30, 45, 60, 80))
        ),
        FixExample(
            "holes stay as they are", _OFF, None, "do not grow", make_run=lambda: _seeing((64, 128, 96, 72, 120, 100), (50,) * 6)
        ),
        FixExample("lengths not known", _OFF, None, "tokens", make_run=lambda: _seeing((), (10, 12, 30, 45, 60, 80))),
        FixExample("holes not known", _OFF, None, "holes", make_run=lambda: _seeing((64, 128, 96), ())),
        FixExample(
            "a replay says that it takes more: 33 MiB become 36",
            _OFF,
            None,
            "takes 2.00 MiB more",
            make_run=lambda: Run(allocations=table_from_text("allocations", _ONE_OF_33)),
        ),
        FixExample("rounded already", {"roundup_power2_divisions": 8}, None, "already"),
        FixExample("a CPU", {**_OFF, "device": "cpu"}, None, "runs on cpu"),
    ),
)
def round_allocation_sizes(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Round allocations to eighths between powers of two, where lengths vary and holes were seen to grow."""
    if reason := why_not_caching(config):
        return reason
    if is_on(config, "roundup_power2_divisions"):
        return f"sizes are rounded already (roundup_power2_divisions is {value_of(config, 'roundup_power2_divisions')!r})"
    if reason := why_not_setting(run, {"roundup_power2_divisions": _DIVISIONS}):
        return reason
    length = run.training[["tokens", "padded_tokens"]].bfill(axis=1).iloc[:, 0].dropna()
    if length.empty:
        return "whether lengths vary is not known: log the tokens of each step (recorder.log(tokens=...))"
    if bool(length.eq(length.iloc[0]).all()):
        return "every step has the same length, so that sizes repeat"
    holes = run.allocator["inactive_split_bytes"].dropna().astype("float64")
    if len(holes) < 3:  # noqa: PLR2004 - the first third against the last
        return "whether holes grow is not known: the allocator was not recorded often enough"
    return {"roundup_power2_divisions": _DIVISIONS} if _grow(holes) else "holes between tensors do not grow"


def _grow(holes: pd.Series) -> bool:
    """Whether the last third of the looks has larger holes than the first."""
    third = len(holes) // 3
    return bool(holes.iloc[-third:].median() > holes.iloc[:third].median())
