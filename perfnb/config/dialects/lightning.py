"""Lightning: the arguments of `Trainer` as a mapping, or the `trainer` part of a LightningCLI file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.rules import Names, Rule, chosen, plain
from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError

_NUMBER: Final = (int, float)
_OWN: Final = frozenset(
    {
        "accumulate_grad_batches",
        "check_val_every_n_epoch",
        "enable_checkpointing",
        "enable_progress_bar",
        "gradient_clip_val",
        "limit_train_batches",
        "limit_val_batches",
        "num_sanity_val_steps",
        "val_check_interval",
    }
)
"""Arguments that no other library has."""

_SHARED: Final = frozenset({"devices", "strategy", "precision", "max_epochs", "max_steps", "num_nodes"})
_STAGE: Final = "deepspeed_stage_"
_UNUSED: Final = {"ddp": False, "ddp_find_unused_parameters_false": False, "ddp_find_unused_parameters_true": True}


def _matches(names: Mapping[Any, Any]) -> bool:
    return bool(names.keys() & _OWN) or ("accelerator" in names and bool(names.keys() & _SHARED))


def _strategy(node: Names) -> Any:
    value = at(node, ("strategy",))
    return "auto" if value is ABSENT else value


def _read_unused(node: Names) -> Any:
    value = _strategy(node)
    if isinstance(value, str):
        return _UNUSED.get(value, ABSENT)
    inner = at(node, ("strategy", "init_args", "find_unused_parameters"))
    return inner if isinstance(inner, bool) else ABSENT


def _write_unused(value: Any, node: Names) -> Mapping[Path, Any]:
    if not isinstance(value, bool):
        message = f"find_unused_parameters takes no {value!r}"
        raise ConfigError(message)
    if not isinstance(_strategy(node), str):
        return {("strategy", "init_args", "find_unused_parameters"): value}
    return {("strategy",): "ddp_find_unused_parameters_true" if value else "ddp"}


def _read_stage(node: Names) -> Any:
    value = _strategy(node)
    if not isinstance(value, str):
        return ABSENT
    number = value.removeprefix(_STAGE)
    if value != number:
        return int(number) if number in ("1", "2", "3") else ABSENT
    return 0 if value in _UNUSED else ABSENT


def _write_stage(value: Any, _node: Names) -> Mapping[Path, Any]:
    if isinstance(value, bool) or value not in (0, 1, 2, 3):
        message = f"strategy has no ZeRO stage {value!r}: there are 0, 1, 2, 3"
        raise ConfigError(message)
    return {("strategy",): f"{_STAGE}{value}" if value else "ddp"}


def _spelled(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


RULES: Final = (
    plain("gradient_accumulation_steps", "accumulate_grad_batches", otherwise=1, takes=int),
    chosen(
        "precision",
        ("precision",),
        {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "fp64": "64-true"},
        also={"32": "fp32", "64": "fp64", "16": "fp16", "bf16": "bf16", "bf16-true": "bf16", "16-true": "fp16", None: "fp32"},
        otherwise="fp32",
        spelled=_spelled,
    ),
    plain("log_every_n_steps", otherwise=50, takes=int),
    plain("clip_norm", "gradient_clip_val", takes=_NUMBER),
    plain("max_steps", takes=int),
    plain("bucket_cap_mb", "strategy", "init_args", "bucket_cap_mb", takes=(int, float, type(None))),
    Rule("find_unused_parameters", (("strategy",),), _read_unused, _write_unused),
    Rule("zero_stage", (("strategy",),), _read_stage, _write_stage),
)

LIGHTNING: Final = Dialect("Lightning", RULES, _matches, "Trainer arguments", sections=None)
"""What `Trainer` assumes for an argument that is left out (lightning/pytorch/trainer/trainer.py) stands in the rules."""
