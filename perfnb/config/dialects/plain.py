"""A config of the user's own: canonical names, and the usual other names of the same knobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.rules import Names, Rule, flags
from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "num_workers": ("workers", "n_workers", "num_loader_workers", "dataloader_num_workers", "loader_workers"),
    "prefetch_factor": ("dataloader_prefetch_factor",),
    "pin_memory": ("pin_mem", "dataloader_pin_memory"),
    "persistent_workers": ("dataloader_persistent_workers",),
    "drop_last": ("dataloader_drop_last",),
    "batch_size": ("per_device_train_batch_size", "per_device_batch_size", "micro_batch_size"),
    "learning_rate": ("lr",),
    "weight_decay": ("wd",),
    "gradient_accumulation_steps": ("grad_accum_steps", "accum_steps", "grad_accumulation_steps", "accumulate_grad_batches"),
    "log_every_n_steps": ("log_interval", "logging_steps", "log_every", "print_freq"),
    "checkpoint_every_n_steps": ("save_interval", "save_steps", "checkpoint_interval"),
    "clip_norm": ("max_grad_norm", "grad_clip", "clip_grad_norm", "gradient_clip_val"),
    "bucket_cap_mb": ("ddp_bucket_cap_mb",),
    "find_unused_parameters": ("ddp_find_unused_parameters",),
    "compile": ("torch_compile", "use_compile"),
}
"""Knob to the other names under which configs hold it with the same values; one that is spelled canonically wins."""


def _alias(knob: str, names: tuple[str, ...]) -> Rule:
    """The one other name that a node holds; none where it holds several, since one of them would be left behind."""

    def place(node: Names) -> Path | None:
        held = [name for name in names if at(node, (name,)) is not ABSENT]
        return (held[0],) if len(held) == 1 and at(node, (knob,)) is ABSENT else None

    def read(node: Names) -> Any:
        path = place(node)
        return ABSENT if path is None else at(node, path)

    def write(value: Any, node: Names) -> Mapping[Path, Any]:
        path = place(node)
        if path is None:
            message = f"there is none of {', '.join(names)}"
            raise ConfigError(message)
        return {path: value}

    return Rule(knob, tuple((name,) for name in names), read, write)


_PRECISION: Final = flags("precision", {"bf16": ("bf16",), "fp16": ("fp16",)}, "fp32", fixed=True)

PLAIN: Final = Dialect(
    "plain names",
    (*(_alias(knob, names) for knob, names in ALIASES.items()), _PRECISION),
    lambda _names: True,
    sections=None,
)
"""What a config is where no library is recognised: each nested one is looked at on its own."""
