"""The libraries themselves: their objects come back equal, and they take what is written for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from perfnb.apply import apply, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError, NoPlaceError
from perfnb.prediction import Change

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries' own use of others
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
]

ARGUMENTS = [
    Change("batch_size", 8, 16),
    Change("gradient_accumulation_steps", 1, 2),
    Change("num_workers", 0, 4),
    Change("persistent_workers", before=False, after=True),
    Change("in_order", before=True, after=False),
    Change("drop_last", before=False, after=True),
    Change("non_blocking", before=False, after=True),
    Change("learning_rate", 5e-5, 1e-4),
    Change("weight_decay", 0.0, 0.1),
    Change("clip_norm", 1.0, 0.5),
    Change("bucket_cap_mb", None, 50),
    Change("precision", "fp32", "bf16"),
    Change("precision", "fp32", "fp16"),
    Change("compile", before=False, after=True),
    Change("optimizer", "adamw", "adamw_8bit"),
    Change("optimizer_implementation", "fused", "foreach"),
    Change("schedule", "linear", "cosine"),
    Change("group_by_length", before=False, after=True),
    Change("activation_checkpointing", "none", "full"),
    Change("log_every_n_steps", 500, 50),
    Change("checkpoint_every_n_steps", 500, 5000),
]


@pytest.fixture
def arguments(tmp_path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, hub_token="hf_secret")  # noqa: S106


@pytest.mark.parametrize("change", ARGUMENTS, ids=str)
def test_training_arguments_give_new_ones_and_come_back_equal(arguments: Any, change: Change) -> None:
    before = dataclasses.asdict(arguments)

    after = apply(change, arguments)
    back = undo(change, after)

    assert type(after) is type(arguments)
    assert value_of(as_config(after), change.knob) == change.after
    assert dataclasses.asdict(arguments) == before == dataclasses.asdict(back)
    assert back == arguments != after


def test_what_training_arguments_refuse_or_set_back_is_said_and_nothing_changes(arguments: Any) -> None:
    with pytest.raises(ConfigError, match=r"TrainingArguments refuses it: .*Ampere"):
        apply(Change("matmul_precision", "highest", "high"), arguments)
    with pytest.raises(ConfigError, match=r"TrainingArguments refuses it: .*prefetch_factor"):
        apply(Change("prefetch_factor", None, 4), arguments)
    with pytest.raises(ConfigError, match="cannot hold pin_memory = True together with the rest"):
        apply(Change("pin_memory", before=False, after=True), arguments)
    with pytest.raises(NoPlaceError, match="no place for zero_stage"):
        apply(Change("zero_stage", 0, 1), arguments)


def test_compile_takes_backend_and_mode_along_and_brings_them_back(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, torch_compile_mode="max-autotune")
    change = Change("compile", before=True, after=False)

    after = apply(change, arguments)

    assert (after.torch_compile, after.torch_compile_backend, after.torch_compile_mode) == (False, None, None)
    assert undo(change, after) == arguments


def test_the_diff_of_training_arguments_shows_no_token(arguments: Any) -> None:
    shown = preview(Change("num_workers", 0, 4), arguments)

    assert '+  "dataloader_num_workers": 4,' in shown.diff
    assert "hf_secret" not in shown.before.text


def test_lightning_takes_the_arguments() -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    config = {"accelerator": "cpu", "max_epochs": 1, **quiet}
    changes = (
        Change("precision", "fp32", "bf16"),
        Change("gradient_accumulation_steps", 1, 4),
        Change("log_every_n_steps", 50, 10),
    )

    trainer = lightning.Trainer(**apply(changes, config))

    assert (trainer.precision, trainer.accumulate_grad_batches, trainer.log_every_n_steps) == ("bf16-mixed", 4, 10)
    with pytest.raises(ConfigError, match="a trainer does not take other arguments once it is made"):
        as_config(trainer)


def test_every_word_for_a_precision_is_one_that_lightning_has() -> None:
    connector = pytest.importorskip("lightning.fabric.connector")
    from perfnb.config.dialects.lightning import LIGHTNING  # noqa: PLC0415 - beside what it is compared with

    rule = LIGHTNING.rule("precision")
    assert rule is not None

    written = [rule.write(value, {})[("precision",)] for value in ("fp32", "fp64", "bf16", "fp16")]

    assert set(written) <= set(connector._PRECISION_INPUT_STR.__args__)
    for alias, full in connector._PRECISION_INPUT_STR_ALIAS_CONVERSION.items():
        assert rule.read({"precision": alias}) == rule.read({"precision": full})


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_accelerate_takes_the_arguments_and_the_file(tmp_path: Path, ending: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("ruamel.yaml")
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    default = pytest.importorskip("accelerate.commands.config.default")
    path = tmp_path / f"default.{ending}"
    default.write_basic_config(save_location=str(path))  # JSON, which is YAML too
    if ending == "yaml":
        config_args.load_config_from_file(str(path.rename(tmp_path / "d.json"))).to_yaml_file(str(path))
    changes = (Change("precision", "fp32", "bf16"), Change("compile", before=False, after=True))
    before = path.read_bytes()

    apply(changes, path)
    loaded = config_args.load_config_from_file(str(path))

    assert loaded.mixed_precision == "bf16"
    assert loaded.dynamo_config == {"dynamo_backend": "INDUCTOR"}
    undo(changes, path)
    assert path.read_bytes() == before

    try:
        accelerator = accelerate.Accelerator(**apply(changes, {"mixed_precision": "no", "cpu": True}))
        assert accelerator.mixed_precision == "bf16"
        with pytest.raises(ConfigError, match="an Accelerator does not take other arguments"):
            as_config(accelerator)
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()


@pytest.fixture
def omegaconf() -> Any:
    return pytest.importorskip("omegaconf")


def test_omegaconf_keeps_interpolations_flags_and_order(omegaconf: Any) -> None:
    config = omegaconf.OmegaConf.create(
        {"base": 2, "data": {"num_workers": 0, "prefetch_factor": "${base}", "path": "${oc.env:HOME}"}}
    )
    omegaconf.OmegaConf.set_struct(config, True)  # noqa: FBT003 - OmegaConf's own
    omegaconf.OmegaConf.set_readonly(config, True)  # noqa: FBT003 - as above
    text = omegaconf.OmegaConf.to_yaml(config)
    change = Change("num_workers", 0, 4)

    after = apply(change, config)

    assert omegaconf.OmegaConf.to_yaml(after) == text.replace("num_workers: 0", "num_workers: 4")
    assert omegaconf.OmegaConf.is_struct(after)
    assert omegaconf.OmegaConf.is_readonly(after)
    assert omegaconf.OmegaConf.to_yaml(config) == text == omegaconf.OmegaConf.to_yaml(undo(change, after))
    assert not has_knob(as_config(config), "prefetch_factor")
    assert "oc.env" not in as_config(config).text


def test_omegaconf_types_are_held(omegaconf: Any) -> None:
    @dataclasses.dataclass
    class Loader:
        num_workers: int = 0

    config = omegaconf.OmegaConf.structured(Loader)

    assert apply(Change("num_workers", 0, 4), config).num_workers == 4
    with pytest.raises(ConfigError, match=r"the OmegaConf config refuses it: .*'many'"):
        apply(Change("num_workers", 0, "many"), config)


def test_omegaconf_in_the_words_of_a_library(omegaconf: Any) -> None:
    config = omegaconf.OmegaConf.create({"trainer": {"accelerator": "gpu", "devices": 2}, "seed": 1})
    change = Change("precision", "fp32", "bf16")

    after = apply(change, config)

    assert after == {"trainer": {"accelerator": "gpu", "devices": 2, "precision": "bf16-mixed"}, "seed": 1}
    assert undo(change, after) == config


def test_a_deepspeed_file_with_comments_is_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    text = '{\n  // per GPU\n  "train_micro_batch_size_per_gpu": 4,\n  "zero_optimization": {"stage": 1}\n}\n'
    path.write_text(text, encoding="utf-8")

    home = apply((Change("batch_size", 4, 8), Change("zero_stage", 1, 2)), path)

    assert home["zero_stage"] == 2
    assert path.read_text(encoding="utf-8") == text.replace(": 4", ": 8").replace('"stage": 1', '"stage": 2')
    assert json.loads(path.read_text(encoding="utf-8").replace("  // per GPU\n", "")) == {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": 2},
    }
