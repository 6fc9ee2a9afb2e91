"""Apply, then undo, for every home and every knob that it holds: an equal object, or the same bytes."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from perfnb.apply import apply, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.file_home import FileHome
from perfnb.config.home import Home
from perfnb.config.mapping import value_of
from perfnb.config.snippets import SNIPPETS
from perfnb.errors import ConfigError, NoPlaceError
from perfnb.prediction import Change

PLAIN = {
    "seed": 1,
    "data": {"num_workers": 0, "prefetch_factor": None, "pin_memory": False, "in_order": True, "batch_size": 8},
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "betas": [0.9, 0.99],
    "precision": "fp32",
    "bucket_cap_mb": 2.5,
    "compile_dynamic": None,
    "pipeline_split": [4, 4],
    "zero_stage": 0,
}
ALIASES = {
    "lr": 0.1,
    "workers": 2,
    "per_device_train_batch_size": 4,
    "accum_steps": 1,
    "log_interval": 10,
    "bf16": False,
    "fp16": True,
}
HUGGINGFACE = {
    "output_dir": "out",
    "per_device_train_batch_size": 8,
    "dataloader_num_workers": 2,
    "dataloader_prefetch_factor": 2,
    "dataloader_persistent_workers": False,
    "ddp_bucket_cap_mb": 25,
    "optim": "adamw_torch",
    "bf16": False,
    "fp16": False,
    "tf32": None,
    "torch_compile": False,
    "torch_compile_mode": "max-autotune",
    "gradient_checkpointing": False,
    "train_sampling_strategy": "random",
    "lr_scheduler_type": "cosine",
    "logging_steps": 500,
    "accelerator_config": {"non_blocking": False, "gradient_accumulation_kwargs": {"sync_each_batch": True}},
    "deepspeed": {"zero_optimization": {"stage": 1}},
}
LIGHTNING = {
    "accelerator": "gpu",
    "devices": 2,
    "strategy": "ddp",
    "precision": "bf16-true",
    "gradient_clip_val": 1.0,
    "max_epochs": 3,
}
LIGHTNING_CLI = {
    "trainer": {
        "accelerator": "gpu",
        "devices": 2,
        "strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"bucket_cap_mb": 25}},
        "accumulate_grad_batches": 1,
    },
    "model": {"class_path": "mine.Model", "init_args": {"learning_rate": 0.1}},
    "data": {"init_args": {"num_workers": 4, "batch_size": 32}},
}
DEEPSPEED = {
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 2,
    "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "betas": [0.9, 0.95], "weight_decay": 0.01}},
    "zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu", "pin_memory": True}},
    "fp16": {"enabled": True, "loss_scale": 0},
    "gradient_clipping": 1.0,
}
ACCELERATE_FILE = {
    "compute_environment": "LOCAL_MACHINE",
    "deepspeed_config": {"gradient_accumulation_steps": 1, "gradient_clipping": 1.0, "zero_stage": 2},
    "distributed_type": "DEEPSPEED",
    "downcast_bf16": "no",
    "dynamo_config": {"dynamo_backend": "INDUCTOR", "dynamo_use_dynamic": False},
    "fsdp_config": {"fsdp_activation_checkpointing": False},
    "mixed_precision": "no",
    "num_processes": 8,
}
ACCELERATOR = {"mixed_precision": "no", "dynamo_backend": None, "dataloader_config": {"non_blocking": False}}
MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": PLAIN,
    "aliases": ALIASES,
    "Hugging Face": HUGGINGFACE,
    "Lightning": LIGHTNING,
    "Lightning CLI": LIGHTNING_CLI,
    "DeepSpeed": DEEPSPEED,
    "Accelerate": ACCELERATE_FILE,
    "Accelerator": ACCELERATOR,
}
WORDS = {
    "precision": ("bf16", "fp16", "fp32"),
    "optimizer": ("adamw_8bit", "adamw", "sgd"),
    "optimizer_implementation": ("fused", "foreach"),
    "matmul_precision": ("high", "highest"),
    "schedule": ("linear", "cosine"),
    "activation_checkpointing": ("full", "none"),
    "zero_stage": (2, 0, 1),
    "max_steps": (7, 8),
}


@dataclasses.dataclass(frozen=True)
class Loader:
    num_workers: int = 0
    prefetch_factor: int | None = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    loader: Loader = dataclasses.field(default_factory=Loader)
    lr: float = 0.1
    precision: str = "fp32"
    extra: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"compile": False})


@dataclasses.dataclass
class Mutable:
    batch_size: int = 8
    in_order: bool = True
    inner: Frozen = dataclasses.field(default_factory=Frozen)


OBJECTS: Mapping[str, Callable[[], Any]] = {
    "frozen dataclass": Frozen,
    "dataclass": Mutable,
    "Namespace": lambda: argparse.Namespace(**copy.deepcopy(ALIASES), loader=argparse.Namespace(in_order=True)),
    "SimpleNamespace": lambda: SimpleNamespace(num_workers=0, inner=SimpleNamespace(compile=False)),
    "read-only mapping": lambda: MappingProxyType(copy.deepcopy(PLAIN)),
    "mapping with a dataclass": lambda: {"loader": Loader(), "opt": argparse.Namespace(lr=0.1)},
}


def others(knob: str, value: Any) -> list[Any]:
    """Values of a knob other than the one it has."""
    if knob in WORDS:
        return [word for word in WORDS[knob] if word != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value * 2 + 1, value + 1]
    if isinstance(value, list):
        return [[each + 1 for each in value]]
    return [{"compile_dynamic": True}.get(knob, 4)]


def knobs_of(home: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Canonical knobs anywhere in a home, with their values."""
    for name, value in home.items():
        if isinstance(value, Mapping):
            yield from knobs_of(value)
        elif name in SNIPPETS:
            yield name, value


def apply_and_undo(config: Any, knob: str, before: Any, value: Any) -> tuple[Any, Any] | None:
    """The config with the change, and with it undone; None where it has no place for this value, which code is said for."""
    change = Change(knob, before, value)
    try:
        after = apply(change, config)
    except NoPlaceError as error:
        code = error.snippets
        after = None
    if after is None:
        assert code, knob
        return None
    assert value_of(as_config(after), knob) == value
    return after, undo(change, after)


@pytest.mark.parametrize("name", MAPPINGS)
def test_mappings_come_back_equal_and_the_given_one_is_not_touched(name: str) -> None:
    knobs = list(knobs_of(as_config(MAPPINGS[name])))
    done = 0

    for knob, before in knobs:
        for value in others(knob, before):
            config = copy.deepcopy(dict(MAPPINGS[name]))
            both = apply_and_undo(config, knob, before, value)
            done += both is not None
            if both is not None:
                assert both[1] == config == MAPPINGS[name], (knob, value)
                assert list(both[1]) == list(config)
                assert both[0] != config

    assert done >= len(knobs) >= 3


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_come_back_equal_and_the_given_one_is_not_touched(name: str) -> None:
    make = OBJECTS[name]
    knobs = list(knobs_of(as_config(make())))

    for knob, before in knobs:
        config = make()
        both = apply_and_undo(config, knob, before, others(knob, before)[0])
        assert both is not None, knob
        assert type(both[0]) is (type(config) if not isinstance(config, MappingProxyType) else dict)
        assert both[1] == config == make(), knob
        assert both[0] != config

    assert len(knobs) >= 2


def _as_toml(config: Mapping[str, Any]) -> str:
    tomlkit = pytest.importorskip("tomlkit")

    def without_none(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: without_none(inner) for name, inner in value.items() if inner is not None}
        return value

    return str(tomlkit.dumps(without_none(config)))


def _as_yaml(config: Mapping[str, Any]) -> str:
    return str(pytest.importorskip("yaml").safe_dump(dict(config), sort_keys=False))


TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "json": lambda config: json.dumps(config, indent=2),
    "yaml": _as_yaml,
    "toml": _as_toml,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("ending", TEXTS)
@pytest.mark.parametrize(("line_end", "mark"), [("\n", b""), ("\r\n", b"\xef\xbb\xbf")], ids=["plain", "Windows"])
@pytest.mark.parametrize("name", MAPPINGS)
def test_files_come_back_to_the_byte(tmp_path: Path, name: str, ending: str, line_end: str, mark: bytes) -> None:
    if ending == "yaml":
        pytest.importorskip("ruamel.yaml")
    path = tmp_path / f"config.{ending}"
    content = mark + TEXTS[ending](MAPPINGS[name]).replace("\n", line_end).encode()
    path.write_bytes(content)
    path.chmod(0o640)
    knobs = list(knobs_of(as_config(path)))
    done = 0

    for knob, before in knobs:
        for value in others(knob, before):
            both = apply_and_undo(path, knob, before, value) if _can_take(path, knob, before, value) else None
            done += both is not None
            assert path.read_bytes() == content, (knob, value)
            assert path.stat().st_mode & 0o777 == 0o640

    assert done >= len(knobs) - 1 >= 2
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def _can_take(path: Path, knob: str, before: Any, value: Any) -> bool:
    """Whether the format has a text for what would be written; what is shown keeps the ends of lines and the mark."""
    change = Change(knob, before, value)
    if path.suffix == ".toml" and _writes_none(as_config(path), change):
        with pytest.raises(ConfigError, match="TOML has no null"):
            preview(change, path)
        return False
    shown = preview(change, path)
    old, new = (home.content for home in (shown.before, shown.after) if isinstance(home, FileHome))
    assert new.count(b"\r") == (new.count(b"\n") if b"\r" in old else 0)
    assert new.startswith(b"\xef\xbb\xbf") == old.startswith(b"\xef\xbb\xbf")
    return True


def _writes_none(home: Home, change: Change) -> bool:
    try:
        return None in home.edits(change.knob, change.after).values()
    except NoPlaceError:
        return False
