"""Hugging Face `transformers.TrainingArguments`: the object, and files or mappings that hold its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.rules import Names, Rule, chosen, flags, plain, word_of
from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError

_NUMBER: Final = (int, float)
_OWN: Final = frozenset({"per_device_train_batch_size", "dataloader_num_workers", "torch_compile", "ddp_bucket_cap_mb", "optim"})
_OPTIMIZERS: Final = {
    "adamw_torch": ("adamw", "foreach"),
    "adamw_torch_fused": ("adamw", "fused"),
    "adamw_8bit": ("adamw_8bit", None),
    "adamw_bnb_8bit": ("adamw_8bit", None),
    "sgd": ("sgd", "foreach"),
    "adafactor": ("adafactor", None),
    "lion_32bit": ("lion", None),
    "rmsprop": ("rmsprop", "foreach"),
}
"""Value of `optim` to optimizer and its implementation; torch picks foreach by itself where the tensors are on a GPU."""


def _matches(names: Mapping[Any, Any]) -> bool:
    return bool(names.keys() & _OWN) and bool(names.keys() & {"output_dir", "num_train_epochs", "max_steps", "seed"})


def _optimizer(node: Names) -> tuple[Any, Any]:
    return _OPTIMIZERS.get(str(word_of(at(node, ("optim",)))), (ABSENT, None))


def _write_optimizer(value: Any, _node: Names) -> Mapping[Path, Any]:
    found = [name for name, (kind, _) in _OPTIMIZERS.items() if kind == value]
    if not found:
        message = f"optim has no word for {value!r} here"
        raise ConfigError(message)
    return {("optim",): found[0]}


def _write_implementation(value: Any, node: Names) -> Mapping[Path, Any]:
    kind = _optimizer(node)[0]
    found = [name for name, pair in _OPTIMIZERS.items() if pair == (kind, value)]
    if not found or value is None:
        message = f"optim has no {value!r} implementation of {kind!r}"
        raise ConfigError(message)
    return {("optim",): found[0]}


def _read_implementation(node: Names) -> Any:
    found = _optimizer(node)[1]
    return ABSENT if found is None else found


def _write_tf32(value: Any, node: Names) -> Mapping[Path, Any]:
    words = {"high": True, "highest": None if at(node, ("tf32",)) is None else False}
    if value not in words:
        message = f"tf32 is on or off: there is no {value!r}"
        raise ConfigError(message)
    return {("tf32",): words[value]}


def _read_compile(node: Names) -> Any:
    value = at(node, ("torch_compile",))
    return value if isinstance(value, bool) else ABSENT


def _write_compile(value: Any, node: Names) -> Mapping[Path, Any]:
    if not isinstance(value, bool):
        message = f"torch_compile takes no {value!r}"
        raise ConfigError(message)
    # TrainingArguments fills the backend in when it compiles, and compiles whenever a backend or mode is given
    others = ("torch_compile_backend", "torch_compile_mode")
    cleared = {} if value else {(name,): None for name in others if at(node, (name,)) not in (ABSENT, None)}
    return {("torch_compile",): value, **cleared}


def _every(knob: str, strategy: str, steps: str) -> Rule:
    """A number of steps, which counts only where the strategy is to count steps."""

    def read(node: Names) -> Any:
        value = at(node, (steps,))
        counts = at(node, (strategy,))
        if counts is not ABSENT and word_of(counts) != "steps":
            return ABSENT
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else ABSENT

    def write(value: Any, _node: Names) -> Mapping[Path, Any]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            message = f"{steps} takes a whole number of steps from 1, not {value!r}"
            raise ConfigError(message)
        return {(steps,): value}

    return Rule(knob, ((steps,), (strategy,)), read, write)


def _first_of(knob: str, *rules: Rule) -> Rule:
    """The first of several rules that a node answers to: fields that were renamed between releases."""

    def read(node: Names) -> Any:
        return next((value for rule in rules if (value := rule.read(node)) is not ABSENT), ABSENT)

    def write(value: Any, node: Names) -> Mapping[Path, Any]:
        for rule in rules:
            if rule.read(node) is not ABSENT:
                return rule.write(value, node)
        message = f"there is none of {', '.join('.'.join(path) for rule in rules for path in rule.paths)}"
        raise ConfigError(message)

    return Rule(knob, tuple(path for rule in rules for path in rule.paths), read, write)


RULES: Final = (
    plain("batch_size", "per_device_train_batch_size", takes=int),
    plain("gradient_accumulation_steps", takes=int),
    plain("num_workers", "dataloader_num_workers", takes=int),
    plain("prefetch_factor", "dataloader_prefetch_factor", takes=(int, type(None))),
    plain("pin_memory", "dataloader_pin_memory", takes=bool),
    plain("persistent_workers", "dataloader_persistent_workers", takes=bool),
    plain("in_order", "dataloader_in_order", takes=bool),
    plain("drop_last", "dataloader_drop_last", takes=bool),
    plain("non_blocking", "accelerator_config", "non_blocking", takes=bool),
    plain("sync_every_micro_batch", "accelerator_config", "gradient_accumulation_kwargs", "sync_each_batch", takes=bool),
    plain("learning_rate", takes=_NUMBER),
    plain("weight_decay", takes=_NUMBER),
    plain("clip_norm", "max_grad_norm", takes=_NUMBER),
    plain("warmup_steps", takes=int),
    plain("max_steps", takes=int),
    plain("bucket_cap_mb", "ddp_bucket_cap_mb", takes=(int, type(None))),
    plain("find_unused_parameters", "ddp_find_unused_parameters", takes=bool),
    chosen("backend", ("ddp_backend",), {"nccl": "nccl", "gloo": "gloo", "mpi": "mpi", "ccl": "ccl"}),
    flags("precision", {"bf16": ("bf16",), "fp16": ("fp16",)}, "fp32", fixed=True),
    Rule(
        "matmul_precision",
        (("tf32",),),
        chosen("", ("tf32",), {"high": True, "highest": None}, also={False: "highest"}).read,
        _write_tf32,
    ),
    Rule("compile", (("torch_compile",), ("torch_compile_backend",), ("torch_compile_mode",)), _read_compile, _write_compile),
    Rule("optimizer", (("optim",),), lambda node: _optimizer(node)[0], _write_optimizer),
    Rule("optimizer_implementation", (("optim",),), _read_implementation, _write_implementation),
    chosen(
        "schedule",
        ("lr_scheduler_type",),
        {"constant": "constant", "linear": "linear", "cosine": "cosine", "restarts": "cosine_with_restarts"},
        also={"constant_with_warmup": "constant", "cosine_with_min_lr": "cosine"},
    ),
    _first_of(
        "group_by_length",
        chosen("", ("train_sampling_strategy",), {False: "random", True: "group_by_length"}),
        plain("", "group_by_length", takes=bool),
    ),
    _first_of(
        "activation_checkpointing",
        chosen("", ("activation_checkpointing",), {"none": False, "full": True}, also={None: "none"}),
        chosen("", ("gradient_checkpointing",), {"none": False, "full": True}),
    ),
    chosen("empty_cache_every_n_steps", ("torch_empty_cache_steps",), {0: None}),
    _every("log_every_n_steps", "logging_strategy", "logging_steps"),
    _every("checkpoint_every_n_steps", "save_strategy", "save_steps"),
)

HUGGINGFACE: Final = Dialect("Hugging Face", RULES, _matches, "TrainingArguments", sections=None)
"""Arguments that a file or mapping leaves out are the library's to choose, and differ between releases: they hold nothing."""
