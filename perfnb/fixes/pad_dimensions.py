"""Fix: make widths multiples of 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix

_MULTIPLE: Final = 8  # elements of 16 bits: NVIDIA, Matrix Multiplication Background User's Guide


@fix(
    knobs=("pad_to_multiple_of",),
    answers=("misaligned_shapes",),
    reason="tensor cores load dimensions that are multiples of 8 elements in whole pieces",
    source="NVIDIA, Matrix Multiplication Background User's Guide; Hugging Face pads to multiples of 8 for the same reason",
    caution="only a model that is not trained yet, or whose vocabulary can be resized; not validated on a GPU",
    examples=(
        FixExample("not padded", {"pad_to_multiple_of": 1}, {"pad_to_multiple_of": 8}),
        FixExample("none stated", {"pad_to_multiple_of": None}, {"pad_to_multiple_of": 8}),
        FixExample("to 64 already", {"pad_to_multiple_of": 64}, None, "64 already"),
        FixExample("not a number", {"pad_to_multiple_of": "yes"}, None, "'yes'"),
    ),
)
def pad_dimensions(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Pad vocabulary and widths to a multiple of 8."""
    now = value_of(config, "pad_to_multiple_of")
    if now is not None and type(now) is not int:
        return f"pad_to_multiple_of is {now!r}, not a number"
    if now is not None and now > 0 and now % _MULTIPLE == 0:
        return f"pad_to_multiple_of is {now} already"
    return {"pad_to_multiple_of": _MULTIPLE}
