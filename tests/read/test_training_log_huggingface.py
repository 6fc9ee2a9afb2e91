"""The log of a real Hugging Face Trainer becomes a Run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import LogFormatError
from perfnb.read.training_log import read_training_log
from perfnb.run import Run


def state(folder: Path, steps: int, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    history = [{"step": step, "epoch": step / 10, "loss": 1.0 / step, "learning_rate": 1e-3} for step in range(2, steps + 1, 2)]
    (folder / "trainer_state.json").write_text(
        json.dumps({"best_metric": None, "global_step": steps, "max_steps": 20, "log_history": history, **more}), encoding="utf-8"
    )
    return folder / "trainer_state.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf") / "out"

    class Tiny(torch.nn.Module):  # type: ignore[misc, name-defined] # torch may be absent
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            found = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

    data = [{"x": torch.randn(4), "labels": torch.randn(1)} for _ in range(32)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=6,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=3,
            save_strategy="steps",
            save_steps=3,
            per_device_train_batch_size=4,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model=Tiny(), args=arguments, train_dataset=data, eval_dataset=data[:8])
        trainer.train()
        trainer.save_state()
    return folder


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    return read_training_log(trained)


@pytest.mark.torch
@pytest.mark.slow  # importing transformers takes ten seconds
def test_a_real_trainer_is_read_from_its_output_folder(run: Run) -> None:
    training = run.training.set_index("step")

    assert training["loss"].dropna().index.to_list() == [2, 4, 6]
    assert training["validation_loss"].dropna().index.to_list() == [3, 6]
    assert training["learning_rate"].notna().sum() == 3
    assert training["gradient_norm"].notna().sum() == 3
    assert run.config["planned_steps"] == 6
    assert run.config["train_batch_size"] == 4


@pytest.mark.torch
@pytest.mark.slow
def test_the_mean_of_all_steps_is_a_metric_and_no_table_of_steps_is_made_up(run: Run) -> None:
    values = run.metrics.set_index("name")["value"]

    assert run.steps.empty
    assert "no time of each step" in run.missing["steps"]
    assert values["mean_step_us"] == pytest.approx(1e6 * values["train_runtime_s_total"] / 6)
    assert {"train_loss_mean", "samples_per_s", "epoch"} <= set(values.index)
    assert any("mean_step_us is train_runtime / global_step" in note for note in run.notes)
    assert run.training["loss"].notna().sum() == 3  # the mean of the whole is no loss of a step


@pytest.mark.torch
@pytest.mark.slow
def test_a_checkpoint_is_read_as_its_folder_or_its_file(trained: Path) -> None:
    folder = read_training_log(trained / "checkpoint-3")
    file = read_training_log(trained / "checkpoint-3" / "trainer_state.json")

    assert folder.training.equals(file.training)
    assert folder.training["step"].max() == 3
    assert any("training_args.bin is a pickle" in note for note in folder.notes)


def test_of_several_checkpoints_the_newest_is_read(tmp_path: Path) -> None:
    for steps in (8, 10, 6):
        state(tmp_path / f"checkpoint-{steps}", steps)

    run = read_training_log(tmp_path)

    assert run.training["step"].max() == 10
    assert "checkpoint-10/trainer_state.json, the newest of 3" in run.notes[0]


def test_losses_that_are_nan_or_infinite_are_kept(tmp_path: Path) -> None:
    file = state(tmp_path, 2)
    text = file.read_text(encoding="utf-8").replace('"loss": 0.5', '"loss": NaN, "grad_norm": Infinity')
    file.write_text(text, encoding="utf-8")

    run = read_training_log(file)

    assert run.training["finite"].to_list() == [False]


def test_a_state_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    file = state(tmp_path, 4, stateful_callbacks={"note": "x" * 5000}).rename(tmp_path / "renamed.txt")

    assert read_training_log(file).training["step"].to_list() == [2, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"log_history": []}', "its log_history is empty"),
        ('{"log_history": 3}', "no log_history"),
        ('{"log_history": [', "is no JSON"),
    ],
)
def test_a_state_without_entries_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(content, encoding="utf-8")

    with pytest.raises(LogFormatError, match=said):
        read_training_log(tmp_path)
