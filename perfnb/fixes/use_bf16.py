"""Fix: compute in bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.allocator_settings import device_kind
from perfnb.analyses.reached_rates import COMPUTE_CAPABILITY
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine

_SINCE: Final = 8.0  # compute capability of Ampere, the first with bfloat16 on tensor cores
_MI: Final = ("Instinct",)  # AMD's matrix cores compute in bfloat16 since MI100
_FULL: Final = ("fp32", "float32", "fp64", "float64", "double", "32", "32-true", None)
_AMPERE: Final = Machine(devices=("NVIDIA A100",), constants={COMPUTE_CAPABILITY: 8.0})
_VOLTA: Final = Machine(devices=("Tesla V100",), constants={COMPUTE_CAPABILITY: 7.0})
_KNOWN_CPU: Final = Machine(constants={"cpu.has_bfloat16": 1.0})


@fix(
    knobs=("precision",),
    answers=("full_precision_math", "memory_pressure"),
    reason="products in 16 bits run on tensor cores, and activations take half the memory",
    source="PyTorch documentation, torch.autocast(dtype=torch.bfloat16); NVIDIA A100 whitepaper",
    caution="check the loss curve; float64 may be there for a reason; not validated on a GPU",
    examples=(
        FixExample("an A100", {"precision": "fp32"}, {"precision": "bf16"}, machine=_AMPERE),
        FixExample("from float64", {"precision": "fp64"}, {"precision": "bf16"}, machine=_AMPERE),
        FixExample("in 16 bits already", {"precision": "fp16"}, None, "fp16 already", machine=_AMPERE),
        FixExample("a V100 has none", {"precision": "fp32"}, None, "no bfloat16", machine=_VOLTA),
        FixExample("a CPU that has it", {"precision": "fp32", "device": "cpu"}, {"precision": "bf16"}, machine=_KNOWN_CPU),
        FixExample(
            "what the CPU beside a V100 has does not count",
            {"precision": "fp32"},
            None,
            "no bfloat16",
            machine=Machine(devices=("Tesla V100",), constants={COMPUTE_CAPABILITY: 7.0, "cpu.has_bfloat16": 1.0}),
        ),
        FixExample(
            "a device without a name",
            {"precision": "fp32"},
            None,
            "no bfloat16",
            machine=Machine(constants={COMPUTE_CAPABILITY: 7.0}),
        ),
        FixExample("a CPU beside an A100", {"precision": "fp32", "device": "cpu"}, None, "the CPU", machine=_AMPERE),
        FixExample("not known", {"precision": "fp32"}, None, "not known"),
    ),
)
def use_bf16(config: Mapping[str, Any], machine: Machine) -> Mapping[str, Any] | str:
    """Train under autocast to bfloat16, where the device computes in it.

    A CPU counts if the machine's constants state cpu.has_bfloat16: most compute it slower than float32.
    """
    now = value_of(config, "precision")
    if now not in _FULL:
        return f"precision is {now} already"
    kind = device_kind(config)
    if kind == "cpu" or (kind is None and not machine.devices):
        if machine.constants.get("cpu.has_bfloat16"):
            return {"precision": "bf16"}
        if kind == "cpu":
            return "whether the CPU computes in bfloat16 is not known: give cpu.has_bfloat16 as the machine's constant"
    if any(name in each for each in machine.devices for name in _MI):
        return {"precision": "bf16"}
    capability = machine.constants.get(COMPUTE_CAPABILITY)
    if capability is None:
        return "whether the device computes in bfloat16 is not known: its compute capability was not recorded"
    name = machine.devices[0] if machine.devices else "the device"
    return {"precision": "bf16"} if capability >= _SINCE else f"{name} has no bfloat16 on tensor cores"
