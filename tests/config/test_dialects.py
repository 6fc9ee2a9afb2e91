"""The names and values of the libraries: read as canonical knobs, and written as each library has them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import pytest

from perfnb.apply import apply
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError, NoPlaceError
from perfnb.prediction import Change

HF = {"output_dir": "x", "per_device_train_batch_size": 8}
PL = {"accelerator": "gpu", "max_epochs": 1}
DS = {"train_micro_batch_size_per_gpu": 4}
AF = {"compute_environment": "LOCAL_MACHINE"}
AK = {"mixed_precision": "no"}

READ: list[tuple[Mapping[str, Any], str, Any]] = [
    # plain names of the user's own, and the usual other ones
    ({"num_workers": 2}, "num_workers", 2),
    ({"lr": 0.1}, "learning_rate", 0.1),
    ({"lr": 0.1, "learning_rate": 0.2}, "learning_rate", 0.2),
    ({"data": {"workers": 2}}, "num_workers", 2),
    ({"bf16": True, "fp16": False}, "precision", "bf16"),
    ({"fp16": False}, "precision", "fp32"),
    ({"precision": "fp32", "bf16": True}, "precision", "fp32"),
    # Hugging Face
    (HF, "batch_size", 8),
    (HF | {"dataloader_num_workers": 2}, "num_workers", 2),
    (HF | {"ddp_bucket_cap_mb": 25}, "bucket_cap_mb", 25),
    (HF | {"bf16": True, "fp16": False}, "precision", "bf16"),
    (HF | {"bf16": False}, "precision", "fp32"),
    (HF | {"tf32": True}, "matmul_precision", "high"),
    (HF | {"tf32": False}, "matmul_precision", "highest"),
    (HF | {"optim": "adamw_torch_fused"}, "optimizer_implementation", "fused"),
    (HF | {"optim": "adamw_bnb_8bit"}, "optimizer", "adamw_8bit"),
    (HF | {"lr_scheduler_type": "constant_with_warmup"}, "schedule", "constant"),
    (HF | {"train_sampling_strategy": "group_by_length"}, "group_by_length", True),
    (HF | {"group_by_length": False}, "group_by_length", False),
    (HF | {"gradient_checkpointing": True}, "activation_checkpointing", "full"),
    (HF | {"torch_empty_cache_steps": None}, "empty_cache_every_n_steps", 0),
    (HF | {"logging_steps": 20}, "log_every_n_steps", 20),
    (HF | {"deepspeed": {"zero_optimization": {"stage": 3}}}, "zero_stage", 3),
    # Lightning
    (PL, "precision", "fp32"),
    (PL | {"precision": 16}, "precision", "fp16"),
    (PL | {"precision": "bf16-true"}, "precision", "bf16"),
    (PL | {"precision": "64-true"}, "precision", "fp64"),
    (PL, "gradient_accumulation_steps", 1),
    (PL, "log_every_n_steps", 50),
    (PL | {"strategy": "ddp"}, "find_unused_parameters", False),
    (PL | {"strategy": "ddp_find_unused_parameters_true"}, "find_unused_parameters", True),
    (PL | {"strategy": "deepspeed_stage_2"}, "zero_stage", 2),
    ({"trainer": PL, "data": {"init_args": {"num_workers": 3}}}, "num_workers", 3),
    # DeepSpeed
    (DS, "batch_size", 4),
    (DS, "zero_stage", 0),
    (DS, "precision", "fp32"),
    (DS | {"fp16": {"enabled": True}}, "precision", "fp16"),
    (DS | {"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}}, "optimizer", "adamw"),
    (DS | {"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}}, "learning_rate", 0.1),
    # Accelerate
    (AF, "precision", "fp32"),
    (AF | {"mixed_precision": False}, "precision", "fp32"),  # what YAML makes of a `no` without quotes
    (AF | {"mixed_precision": "bf16"}, "precision", "bf16"),
    (AF | {"deepspeed_config": {"zero_stage": 2}}, "zero_stage", 2),
    (AF | {"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, "compile", True),
    (AK | {"dynamo_backend": "inductor"}, "compile", True),
    (AK, "compile", False),
    (AK, "gradient_accumulation_steps", 1),
    # a script's own names beside those of a library
    (AK | {"dataloader_num_workers": 2, "lr": 0.1}, "num_workers", 2),
    (PL | {"workers": 2}, "num_workers", 2),
    (PL | {"num_workers": 2}, "num_workers", 2),
]


@pytest.mark.parametrize(("config", "knob", "value"), READ)
def test_a_knob_is_found_under_the_names_of_the_library(config: Mapping[str, Any], knob: str, value: Any) -> None:
    home = as_config(config)

    assert value_of(home, knob) == value
    assert type(value_of(home, knob)) is type(value)


NOT_HELD: list[tuple[Mapping[str, Any], str]] = [
    ({"lr": 0.1, "learning": 1, "wd": 0, "workers": 1, "n_workers": 2}, "num_workers"),  # which of two?
    (HF | {"bf16": "auto"}, "precision"),
    (HF | {"bf16": True, "fp16": True}, "precision"),
    (HF | {"logging_steps": 0.1}, "log_every_n_steps"),  # a share of the training
    (HF | {"save_strategy": "epoch", "save_steps": 500}, "checkpoint_every_n_steps"),
    (HF | {"optim": "galore_adamw"}, "optimizer"),
    (HF | {"lr_scheduler_type": "polynomial"}, "schedule"),
    (PL | {"precision": "transformer-engine"}, "precision"),
    (PL | {"strategy": "fsdp"}, "zero_stage"),
    (PL, "num_workers"),
    (DS | {"gradient_accumulation_steps": "auto"}, "gradient_accumulation_steps"),
    (DS | {"bf16": {"enabled": "auto"}}, "precision"),
    (DS | {"zero_optimization": {"stage": 2, "offload_optimizer": {"pin_memory": True}}}, "pin_memory"),  # not the loader's
    (DS | {"activation_checkpointing": {"partition_activations": True}}, "activation_checkpointing"),
    (AF, "zero_stage"),
    (AF | {"mixed_precision": "fp8"}, "precision"),
    (AK | {"dynamo_backend": "eager"}, "compile"),
]


@pytest.mark.parametrize(("config", "knob"), NOT_HELD)
def test_what_no_canonical_value_stands_for_is_no_knob(config: Mapping[str, Any], knob: str) -> None:
    assert not has_knob(as_config(config), knob)


WRITTEN: list[tuple[Mapping[str, Any], Change, Mapping[str, Any]]] = [
    ({"workers": 0}, Change("num_workers", 0, 4), {"workers": 4}),
    ({"bf16": False, "fp16": True}, Change("precision", "fp16", "bf16"), {"bf16": True, "fp16": False}),
    (HF | {"bf16": False, "fp16": True}, Change("precision", "fp16", "bf16"), HF | {"bf16": True, "fp16": False}),
    (HF | {"ddp_bucket_cap_mb": None}, Change("bucket_cap_mb", None, 50), HF | {"ddp_bucket_cap_mb": 50}),
    (HF | {"optim": "adamw_torch"}, Change("optimizer_implementation", "foreach", "fused"), HF | {"optim": "adamw_torch_fused"}),
    (HF | {"tf32": None}, Change("matmul_precision", "highest", "high"), HF | {"tf32": True}),
    (
        HF | {"torch_compile": True, "torch_compile_backend": "inductor"},
        Change("compile", before=True, after=False),
        HF | {"torch_compile": False, "torch_compile_backend": None},
    ),
    (PL, Change("precision", "fp32", "bf16"), PL | {"precision": "bf16-mixed"}),
    (PL, Change("gradient_accumulation_steps", 1, 4), PL | {"accumulate_grad_batches": 4}),
    (PL | {"strategy": "ddp"}, Change("zero_stage", 0, 2), PL | {"strategy": "deepspeed_stage_2"}),
    (
        PL | {"strategy": "ddp_find_unused_parameters_true"},
        Change("find_unused_parameters", before=True, after=False),
        PL | {"strategy": "ddp"},
    ),
    (DS, Change("zero_stage", 0, 1), DS | {"zero_optimization": {"stage": 1}}),
    (DS, Change("precision", "fp32", "bf16"), DS | {"bf16": {"enabled": True}}),
    (
        DS | {"fp16": {"enabled": True, "loss_scale": 0}},
        Change("precision", "fp16", "bf16"),
        DS | {"fp16": {"enabled": False, "loss_scale": 0}, "bf16": {"enabled": True}},
    ),
    # train_batch_size is micro batch x accumulation x ranks, which DeepSpeed asserts: 64 = 4 x 2 x 8
    (
        DS | {"gradient_accumulation_steps": 2, "train_batch_size": 64},
        Change("batch_size", 4, 8),
        {"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 2, "train_batch_size": 128},
    ),
    (
        PL | {"strategy": {"class_path": "DDPStrategy", "init_args": {"find_unused_parameters": True}}},
        Change("find_unused_parameters", before=True, after=False),
        PL | {"strategy": {"class_path": "DDPStrategy", "init_args": {"find_unused_parameters": False}}},
    ),
    (AF, Change("precision", "fp32", "bf16"), AF | {"mixed_precision": "bf16"}),
    (AF, Change("compile", before=False, after=True), AF | {"dynamo_config": {"dynamo_backend": "INDUCTOR"}}),
    (AK, Change("precision", "fp32", "fp16"), {"mixed_precision": "fp16"}),
    (AK | {"workers": 0}, Change("num_workers", 0, 2), AK | {"workers": 2}),
    (PL | {"num_workers": 0}, Change("num_workers", 0, 2), PL | {"num_workers": 2}),
    (AK, Change("compile", before=False, after=True), AK | {"dynamo_backend": "inductor"}),
]


@pytest.mark.parametrize(("config", "change", "after"), WRITTEN)
def test_a_change_is_written_as_the_library_has_it(config: Mapping[str, Any], change: Change, after: Mapping[str, Any]) -> None:
    assert apply(change, config) == after


def test_two_knobs_that_move_one_number_move_it_together() -> None:
    config = DS | {"gradient_accumulation_steps": 2, "train_batch_size": 64}

    after = apply((Change("batch_size", 4, 2), Change("gradient_accumulation_steps", 2, 4)), config)

    assert after == {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "train_batch_size": 64}


REFUSED: list[tuple[Mapping[str, Any], Change, str]] = [
    (HF | {"bf16": False}, Change("precision", "fp32", "fp64"), "there is no switch for 'fp64'"),
    (HF | {"bf16": False}, Change("precision", "fp32", "fp16"), "there is no switch for 'fp16': there are 'fp32', 'bf16'"),
    (HF | {"ddp_bucket_cap_mb": 25}, Change("bucket_cap_mb", 25, 2.5), "ddp_bucket_cap_mb takes no 2.5"),
    (
        HF | {"gradient_checkpointing": False},
        Change("activation_checkpointing", "none", "selective"),
        "has no word for 'selective'",
    ),
    (HF | {"optim": "adamw_torch"}, Change("optimizer", "adamw", "shampoo"), "optim has no word for 'shampoo'"),
    (HF | {"optim": "sgd"}, Change("optimizer_implementation", "foreach", "fused"), "no 'fused' implementation of 'sgd'"),
    (HF | {"tf32": None}, Change("matmul_precision", "highest", "medium"), "tf32 is on or off"),
    (HF | {"torch_compile": False}, Change("compile", before=False, after="max"), "torch_compile takes no 'max'"),
    (HF | {"logging_steps": 20}, Change("log_every_n_steps", 20, 0.5), "takes a whole number of steps from 1, not 0.5"),
    (HF | {"train_sampling_strategy": "random"}, Change("group_by_length", before=False, after=3), "has no word for 3"),
    (PL | {"strategy": "ddp"}, Change("find_unused_parameters", before=False, after=1), "find_unused_parameters takes no 1"),
    (PL | {"strategy": "ddp"}, Change("zero_stage", 0, 4), "no ZeRO stage 4"),
    (DS | {"train_batch_size": 6}, Change("batch_size", 4, 8), "train_batch_size is 6, no multiple"),
    (DS, Change("batch_size", 4, 0), "takes a whole number from 1, not 0"),
    (DS, Change("num_workers", 0, 4), "no place for num_workers = 4; paste into your code"),
    (AF, Change("precision", "fp32", "fp64"), "mixed_precision has no word for 'fp64'"),
]


@pytest.mark.parametrize(("config", "change", "words"), REFUSED)
def test_a_value_that_the_library_has_no_word_for_becomes_code_to_paste(
    config: Mapping[str, Any], change: Change, words: str
) -> None:
    with pytest.raises(NoPlaceError, match=words) as caught:
        apply(change, config)

    assert len(caught.value.snippets) == 1
    assert caught.value.snippets[0] in str(caught.value)


def test_a_namespace_does_not_take_names_that_its_script_never_reads() -> None:
    config = argparse.Namespace(accelerator="gpu", max_epochs=1)

    with pytest.raises(NoPlaceError, match="no place for precision"):
        apply(Change("precision", "fp32", "bf16"), config)


def test_the_dialect_can_be_named_where_the_names_do_not_tell_it() -> None:
    config = {"max_epochs": 3}

    assert not has_knob(as_config(config), "precision")
    home = apply(Change("precision", "fp32", "bf16"), as_config(config, dialect="lightning"))
    assert home.value == {"max_epochs": 3, "precision": "bf16-mixed"}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="there is no dialect 'keras': there are plain, deepspeed"):
        as_config(config, dialect="keras")


def test_a_name_that_perfnb_does_not_know_can_be_told() -> None:
    config = {"io": {"procs": 2, "a.b": 1}, "num_workers": 9}
    names = {"num_workers": "io.procs", "prefetch_factor": ("io", "a.b")}

    home = apply((Change("num_workers", 2, 4), Change("prefetch_factor", 1, 2)), as_config(config, names=names))

    assert home.value == {"io": {"procs": 4, "a.b": 2}, "num_workers": 9}
    with pytest.raises(ConfigError, match=r"names says that num_workers is at io\.threads, but the dict has nothing there"):
        len(as_config(config, names={"num_workers": "io.threads"}))
