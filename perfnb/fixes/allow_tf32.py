"""Fix: let products of float32 use TF32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.reached_rates import COMPUTE_CAPABILITY
from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine

_SINCE: Final = 8.0  # compute capability of Ampere, the first with TF32
_AMPERE: Final = Machine(devices=("NVIDIA A100",), constants={COMPUTE_CAPABILITY: 8.0})
_VOLTA: Final = Machine(devices=("Tesla V100",), constants={COMPUTE_CAPABILITY: 7.0})
_AMD: Final = Machine(devices=("AMD Instinct MI300X",), constants={COMPUTE_CAPABILITY: 9.4})
_SHORT: Final = ("bf16", "fp16", "fp64", "float64", "double")


@fix(
    knobs=("matmul_precision",),
    answers=("full_precision_math",),
    reason="tensor cores multiply float32 with 10 bits of mantissa several times faster",
    source="PyTorch documentation, torch.set_float32_matmul_precision; NVIDIA A100 whitepaper, TF32",
    caution="results differ in the fourth digit: check the loss curve; not validated on a GPU",
    examples=(
        FixExample("an A100", {"matmul_precision": "highest"}, {"matmul_precision": "high"}, machine=_AMPERE),
        FixExample("on already", {"matmul_precision": "high"}, None, "high already", machine=_AMPERE),
        FixExample("a V100 has none", {"matmul_precision": "highest"}, None, "no TF32", machine=_VOLTA),
        FixExample("another maker's", {"matmul_precision": "highest"}, None, "no TF32", machine=_AMD),
        FixExample("not known which", {"matmul_precision": "highest"}, None, "not known"),
        FixExample("in bf16", {"matmul_precision": "highest", "precision": "bf16"}, None, "bf16", machine=_AMPERE),
    ),
)
def allow_tf32(config: Mapping[str, Any], machine: Machine) -> Mapping[str, Any] | str:
    """Set the precision of float32 products to "high"."""
    now = value_of(config, "matmul_precision")
    if now != "highest":
        return f"matmul_precision is {now} already"
    precision = value_of(config, "precision") if has_knob(config, "precision") else None
    if precision in _SHORT:
        return f"the training runs in {precision}, not in float32"
    capability = machine.constants.get(COMPUTE_CAPABILITY)
    if capability is None:
        return "whether the device has TF32 is not known: its compute capability was not recorded"
    if capability < _SINCE or any(maker in name for name in machine.devices for maker in ("AMD", "Instinct", "Radeon")):
        return f"{machine.devices[0] if machine.devices else 'the device'} has no TF32"
    return {"matmul_precision": "high"}
