"""Fix: put several short sequences into one long one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("pack_sequences",),
    answers=("padding_waste",),
    reason="sequences that fill one another's room need no padding",
    source="Hugging Face TRL documentation, SFTConfig(packing=True); Krell et al., arXiv 2107.02027",
    caution="for causal models only, and attention must keep the documents apart; a batch then holds more tokens",
    examples=(
        FixExample("packed", {"pack_sequences": False}, {"pack_sequences": True}),
        FixExample("packed already", {"pack_sequences": True}, None, "already"),
    ),
)
def pack_sequences(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `pack_sequences` to True."""
    return "pack_sequences is on already" if value_of(config, "pack_sequences") else {"pack_sequences": True}
