"""Accelerate: the file that `accelerate config` writes, and the arguments of `Accelerator` as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.rules import chosen, plain

_PRECISIONS: Final = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_UNQUOTED_NO: Final = {False: "fp32", None: "fp32"}
"""What YAML makes of a `no` without quotes, and what `Accelerator` assumes."""


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _matches_file(names: Mapping[Any, Any]) -> bool:
    return "compute_environment" in names or {"distributed_type", "num_processes"} <= names.keys()


def _matches_arguments(names: Mapping[Any, Any]) -> bool:
    return "mixed_precision" in names or bool(names.keys() & {"dataloader_config", "dynamo_backend", "kwargs_handlers"})


FILE: Final = Dialect(
    "Accelerate",
    (
        chosen("precision", ("mixed_precision",), _PRECISIONS, also=_UNQUOTED_NO, otherwise="fp32"),
        plain("gradient_accumulation_steps", "deepspeed_config", "gradient_accumulation_steps", takes=int),
        plain("clip_norm", "deepspeed_config", "gradient_clipping", takes=(int, float)),
        plain("zero_stage", "deepspeed_config", "zero_stage", takes=int),
        chosen(
            "compile",
            ("dynamo_config", "dynamo_backend"),
            {False: "NO", True: "INDUCTOR"},
            otherwise=False,
            spelled=_upper,
        ),
        plain("compile_dynamic", "dynamo_config", "dynamo_use_dynamic", takes=bool),
        chosen(
            "activation_checkpointing",
            ("fsdp_config", "fsdp_activation_checkpointing"),
            {"none": False, "full": True},
        ),
    ),
    _matches_file,
    "config file",
)
"""A section that is not there (DeepSpeed's, FSDP's) is not in use: its knobs have no place then."""

ARGUMENTS: Final = Dialect(
    "Accelerate",
    (
        chosen("precision", ("mixed_precision",), _PRECISIONS, also=_UNQUOTED_NO, otherwise="fp32"),
        plain("gradient_accumulation_steps", otherwise=1, takes=int),
        plain("non_blocking", "dataloader_config", "non_blocking", takes=bool),
        chosen(
            "compile", ("dynamo_backend",), {False: "no", True: "inductor"}, also={None: False}, otherwise=False, spelled=_upper
        ),
    ),
    _matches_arguments,
    "Accelerator arguments",
    sections=None,
)
"""What `Accelerator` assumes for an argument that is left out stands in the rules (accelerate/accelerator.py)."""
