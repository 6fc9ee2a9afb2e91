"""DeepSpeed's config, as a JSON file or a mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.rules import Names, Rule, chosen, flags, plain
from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError

_MICRO: Final = ("train_micro_batch_size_per_gpu",)
_STEPS: Final = ("gradient_accumulation_steps",)
_WHOLE: Final = ("train_batch_size",)
_NUMBER: Final = (int, float)
_OWN: Final = frozenset({"train_micro_batch_size_per_gpu", "zero_optimization", "zero_allow_untested_optimizer"})


def _matches(names: Mapping[Any, Any]) -> bool:
    return bool(names.keys() & _OWN) or {"train_batch_size", "gradient_accumulation_steps", "steps_per_print"} <= names.keys()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _factor(knob: str, place: Path) -> Rule:
    """A factor of `train_batch_size`, which moves along.

    DeepSpeed's docs/_pages/config-json.md, "Batch Size Related Parameters": it must equal micro batch x accumulation x ranks.
    """

    def read(node: Names) -> Any:
        value = at(node, place)
        return value if _whole(value) else ABSENT

    def write(value: Any, node: Names) -> Mapping[Path, Any]:
        if not _whole(value):
            message = f"{place[0]} takes a whole number from 1, not {value!r}"
            raise ConfigError(message)
        whole, now = at(node, _WHOLE), at(node, place)
        if not _whole(whole) or not _whole(now):
            return {place: value}
        if whole % now:
            message = f"train_batch_size is {whole}, no multiple of {place[0]}, {now}: DeepSpeed refuses that already"
            raise ConfigError(message)
        return {place: value, _WHOLE: whole // now * value}

    return Rule(knob, (place, _WHOLE), read, write)


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _precision() -> Rule:
    switches = flags("precision", {"bf16": ("bf16", "enabled"), "fp16": ("fp16", "enabled")}, "fp32", fixed=False)
    read: Callable[[Names], Any] = switches.read
    return Rule("precision", (("bf16",), ("fp16",)), read, switches.write)


RULES: Final = (
    _factor("batch_size", _MICRO),
    _factor("gradient_accumulation_steps", _STEPS),
    plain("zero_stage", "zero_optimization", "stage", otherwise=0, takes=int),
    _precision(),
    chosen(
        "optimizer",
        ("optimizer", "type"),
        {"adamw": "AdamW", "adam": "Adam", "lamb": "Lamb", "lion": "Lion", "sgd": "SGD", "adagrad": "Adagrad"},
        spelled=_lowered,
    ),
    plain("learning_rate", "optimizer", "params", "lr", takes=_NUMBER),
    plain("weight_decay", "optimizer", "params", "weight_decay", takes=_NUMBER),
    plain("betas", "optimizer", "params", "betas", takes=(list, tuple)),
    plain("clip_norm", "gradient_clipping", takes=_NUMBER),
)

DEEPSPEED: Final = Dialect("DeepSpeed", RULES, _matches, "config")
"""A value "auto" is filled in by the Trainer from its own arguments: the knob's place is there, not here."""
