"""Fix: keep samples after their first preparation, in place of preparing them again every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("cache_samples",),
    answers=("slow_sample_read", "slow_transform", "data_stall"),
    reason="samples that are kept need neither be read nor transformed again",
    source="TensorFlow data performance guide, section caching; the same holds for a PyTorch dataset that keeps its samples",
    caution="only a deterministic transform may be cached; the prepared set must fit into memory; the first epoch gains nothing",
    examples=(
        FixExample("kept in memory", {"cache_samples": "none"}, {"cache_samples": "memory"}),
        FixExample("kept already", {"cache_samples": "memory"}, None, "memory already"),
        FixExample("kept on disk", {"cache_samples": "disk"}, None, "disk already"),
    ),
)
def cache_samples(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Keep prepared samples in memory from the first epoch on."""
    now = value_of(config, "cache_samples")
    return {"cache_samples": "memory"} if now in ("none", None, False) else f"cache_samples is {now} already"
