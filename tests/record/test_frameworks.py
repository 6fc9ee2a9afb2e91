"""Trainers and Accelerate, the real ones: their trainings are recorded whole, once, and with their own settings and values."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.record.frameworks.knobs import attempted
from perfnb.record.recorder import active
from perfnb.run import Run

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # of the trainers' own use of other libraries
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning"),
]

ALL = {"data", "forward", "backward", "optimizer", "other"}


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    yield
    left = active()
    if left is not None:
        left.finish()


def _rows(count: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 8, generator=generator)
    return inputs, inputs[:, :1].clone()


def _phases(run: Run, step: int) -> dict[str, float]:
    rows = run.phases[run.phases["step"] == step]
    return dict(zip(rows["phase"], rows["wall_us"], strict=True))


def _assert_sums(run: Run) -> None:
    spent = run.phases.groupby("step")["wall_us"].sum()
    assert (spent - run.steps.set_index("step")["duration_us"]).abs().max() < 1e-3


def _metric(run: Run, name: str) -> list[float]:
    return run.metrics.loc[run.metrics["name"] == name, "value"].to_list()


def _annotated_steps(run: Run) -> int:
    return int(run.host_ops["name"].str.startswith("ProfilerStep").sum())


class TestHuggingFace:
    @pytest.fixture
    def transformers(self) -> Any:
        return pytest.importorskip("transformers")

    def _trainer(self, transformers: Any, folder: Path, callbacks: list[Any], model: Any = None, **arguments: Any) -> Any:
        class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
            def __init__(self, count: int) -> None:
                self.inputs, self.labels = _rows(count)

            def __len__(self) -> int:
                return len(self.inputs)

            def __getitem__(self, index: int) -> Any:
                return {"inputs": self.inputs[index], "labels": self.labels[index]}

        class Model(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(8, 1)

            def forward(self, inputs: Any, labels: Any) -> Any:
                output = self.layer(inputs)
                return {"loss": torch.nn.functional.mse_loss(output, labels), "logits": output}

        settings = {
            "per_device_train_batch_size": 4,
            "max_steps": 8,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
        }
        return transformers.Trainer(
            model=model or Model(),
            args=transformers.TrainingArguments(output_dir=str(folder), **(settings | arguments)),
            train_dataset=Rows(64),
            eval_dataset=Rows(16),
            callbacks=callbacks,
        )

    def _callback(self, *arguments: Any, **options: Any) -> Any:
        from perfnb.record.frameworks.huggingface import RecordCallback  # noqa: PLC0415 - it loads transformers

        return RecordCallback(*arguments, **options)

    def test_every_step_has_its_phases_its_batch_and_what_the_trainer_logged(self, transformers: Any, tmp_path: Path) -> None:
        callback = self._callback()

        trainer = self._trainer(transformers, tmp_path, [callback], gradient_accumulation_steps=2, warmup_steps=2)
        trainer.train()
        run = callback.recorder.run

        assert active() is None
        assert len(run.steps) == 8
        assert all(set(_phases(run, step)) - {"inference"} == ALL for step in range(8))
        _assert_sums(run)
        assert run.steps["micro_batches"].to_list() == [2] * 8
        training = run.training.set_index("step")
        assert training["batch_size"].to_list() == [8.0] * 8
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert _metric(run, "global_step")[:8] == [entry["step"] for entry in logged]
        assert training["loss"].to_list() == pytest.approx([entry["loss"] for entry in logged], rel=1e-3)
        assert training["learning_rate"].to_list() == pytest.approx([entry["learning_rate"] for entry in logged])
        assert training["gradient_norm"].to_list() == pytest.approx([entry["grad_norm"] for entry in logged], rel=1e-4)
        assert run.recordings[0].state == "finished"

    def test_its_arguments_are_knobs(self, transformers: Any, tmp_path: Path) -> None:
        callback = self._callback(config={"seed": 3})

        self._trainer(
            transformers,
            tmp_path,
            [callback],
            gradient_accumulation_steps=2,
            warmup_steps=3,
            lr_scheduler_type="cosine",
            dataloader_num_workers=1,
            dataloader_prefetch_factor=3,
            dataloader_pin_memory=False,
            bf16=True,
            ddp_bucket_cap_mb=10,
            optim="sgd",
        ).train()

        config = callback.recorder.run.config
        expected = {
            "seed": 3,
            "batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_workers": 1,
            "prefetch_factor": 3,
            "pin_memory": False,
            "persistent_workers": False,
            "precision": "bf16",
            "optimizer": "sgd",
            "compile": False,
            "planned_steps": 8,
            "warmup_steps": 3,
            "schedule": "cosine",
            "group_by_length": False,
            "bucket_cap_mb": 10,
            "clip_norm": 1.0,
        }
        assert {knob: config.get(knob) for knob in expected} == expected

    def test_evaluation_inside_is_neither_data_nor_a_forward_pass(self, transformers: Any, tmp_path: Path) -> None:
        class SlowToEvaluate(torch.utils.data.Dataset):  # type: ignore[misc]
            def __len__(self) -> int:
                return 8

            def __getitem__(self, index: int) -> Any:
                time.sleep(0.005)
                return {"inputs": torch.zeros(8), "labels": torch.zeros(1)}

        callback = self._callback()
        trainer = self._trainer(transformers, tmp_path, [callback], eval_strategy="steps", eval_steps=3)
        trainer.eval_dataset = SlowToEvaluate()

        trainer.train()
        run = callback.recorder.run

        assert len(run.steps) == 8
        for step in (3, 6):  # it runs after the step's end, so at the beginning of the next
            spent = _phases(run, step)
            assert spent["data"] < 0.3 * spent["inference"]
            assert spent["inference"] > 8 * 5000
        training = run.training.set_index("step")
        assert training["batch_size"].to_list() == [4.0] * 8
        assert training["validation_loss"].dropna().index.to_list() == [2, 5, 7]  # and at the end
        assert run.steps["epoch"].to_list() == [0] * 8
        assert run.config["dataset_size"] == 64

    def test_a_recording_round_it_takes_its_values_and_goes_on(self, transformers: Any, tmp_path: Path) -> None:
        callback = self._callback(tmp_path / "not used")

        with perfnb.record() as recorder:
            self._trainer(transformers, tmp_path, [callback]).train()
            went_on = recorder.is_recording

        assert went_on
        assert callback.recorder is recorder
        assert not (tmp_path / "not used").exists()
        assert len(recorder.run.steps) == 8
        assert recorder.run.config["planned_steps"] == 8
        assert len(_metric(recorder.run, "global_step")) >= 8

    def test_a_profiler_window_is_taken_inside_it(self, transformers: Any, tmp_path: Path) -> None:
        callback = self._callback(tmp_path / "exp1", trace=2)

        self._trainer(transformers, tmp_path, [callback], max_steps=20).train()

        assert _annotated_steps(callback.recorder.run) == 2

    def test_a_recording_without_the_callback_sees_steps_and_batches(self, transformers: Any, tmp_path: Path) -> None:
        trainer = self._trainer(transformers, tmp_path, [], eval_strategy="steps", eval_steps=3)

        with perfnb.record() as recorder:
            trainer.train()

        run = recorder.run
        assert len(run.steps) == 8
        assert all(set(_phases(run, step)) - {"inference"} == ALL for step in range(8))
        assert run.training["batch_size"].to_list() == [4.0] * 8
        assert run.training["learning_rate"].notna().all()

    def test_a_training_that_raises_is_failed_once_the_next_begins(self, transformers: Any, tmp_path: Path) -> None:
        class Fails(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(8, 1)
                self.calls = 0

            def forward(self, inputs: Any, labels: Any) -> Any:
                self.calls += 1
                if self.calls == 4:
                    message = "of the model's own"
                    raise ValueError(message)
                return {"loss": torch.nn.functional.mse_loss(self.layer(inputs), labels)}

        callback = self._callback(tmp_path / "runs" / "exp1")
        trainer = self._trainer(transformers, tmp_path, [callback], Fails())

        with pytest.raises(ValueError, match="of the model's own"):
            trainer.train()
        first = callback.recorder
        trainer.train()

        failed, whole = perfnb.read_run(tmp_path / "runs" / "exp1"), perfnb.read_run(tmp_path / "runs" / "exp1-2")
        assert not first.is_recording
        assert (failed.recordings[0].state, len(failed.steps)) == ("failed", 3)
        assert (whole.recordings[0].state, len(whole.steps)) == ("finished", 8)

    def test_a_later_recording_ends_that_of_a_training_that_raised(self, transformers: Any, tmp_path: Path) -> None:
        class Fails(torch.nn.Module):  # type: ignore[misc]
            def forward(self, **_: Any) -> Any:
                raise ValueError

        callback = self._callback()
        model = Fails()
        model.layer = torch.nn.Linear(1, 1)
        with pytest.raises(ValueError):  # noqa: PT011 - the model's own, without a text
            self._trainer(transformers, tmp_path, [callback], model).train()

        with perfnb.record(hooks=False) as later:
            pass

        assert not callback.recorder.is_recording
        assert later.run.recordings[0].state == "finished"


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers which may be a bottleneck:UserWarning")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`:UserWarning")
@pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning")
@pytest.mark.filterwarnings("ignore:`IterableDataset` has `__len__` defined:UserWarning")
class TestLightning:
    @pytest.fixture
    def lightning(self) -> Any:
        return pytest.importorskip("lightning.pytorch")

    def _module(self, lightning: Any, fails_at: int = -1) -> Any:
        class Module(lightning.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(8, 1)

            def training_step(self, batch: Any, index: int) -> Any:
                if index == fails_at:
                    message = "of the module's own"
                    raise ValueError(message)
                loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
                self.log("train_loss", loss)
                self.log("rows", float(len(batch[0])))
                return loss

            def validation_step(self, batch: Any, _index: int) -> None:
                time.sleep(0.02)
                self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

            def configure_optimizers(self) -> Any:
                optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
                return [optimizer], [{"scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8), "interval": "step"}]

        return Module()

    def _loader(self, rows: int = 32, dataset: Any = None) -> Any:
        return torch.utils.data.DataLoader(dataset or torch.utils.data.TensorDataset(*_rows(rows)), batch_size=4)

    def _trainer(self, lightning: Any, folder: Path, callbacks: list[Any], **options: Any) -> Any:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        settings = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(folder), "log_every_n_steps": 1}
        return lightning.Trainer(**(settings | quiet | options), callbacks=callbacks)

    def _callback(self, *arguments: Any, **options: Any) -> Any:
        from perfnb.record.frameworks.lightning import RecordCallback  # noqa: PLC0415 - it loads lightning

        return RecordCallback(*arguments, **options)

    def test_every_step_has_its_phases_its_batch_and_what_the_module_logged(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback()

        trainer = self._trainer(lightning, tmp_path, [callback], max_epochs=2, accumulate_grad_batches=2)
        trainer.fit(self._module(lightning), self._loader())
        run = callback.recorder.run

        assert active() is None
        assert len(run.steps) == 8
        assert all(set(_phases(run, step)) - {"inference"} == ALL for step in range(8))
        _assert_sums(run)
        assert run.steps["micro_batches"].to_list() == [2] * 8
        assert run.steps["epoch"].to_list() == [0] * 4 + [1] * 4
        training = run.training.set_index("step")
        assert training["batch_size"].to_list() == [8.0] * 8
        assert training["loss"].notna().all()
        rates = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
        assert training["learning_rate"].to_list() == pytest.approx(rates)
        assert set(_metric(run, "rows")) == {4.0}
        assert run.recordings[0].state == "finished"

    def test_its_settings_are_knobs(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback()

        self._trainer(
            lightning,
            tmp_path,
            [callback],
            max_epochs=-1,
            max_steps=6,
            precision="bf16-mixed",
            accumulate_grad_batches=2,
            gradient_clip_val=0.5,
        ).fit(self._module(lightning), self._loader())

        run = callback.recorder.run
        expected = {
            "gradient_accumulation_steps": 2,
            "precision": "bf16",
            "max_steps": 6,
            "planned_steps": 6,
            "strategy": "SingleDeviceStrategy",
            "clip_norm": 0.5,
            "schedule": "cosine",
            "optimizer": "sgd",
            "batch_size": 4,
        }
        assert {knob: run.config.get(knob) for knob in expected} == expected
        assert run.training["gradient_norm"].notna().all()

    def test_validation_inside_is_neither_data_nor_a_forward_pass(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback()

        self._trainer(lightning, tmp_path, [callback], val_check_interval=4).fit(
            self._module(lightning), self._loader(), self._loader(16)
        )
        run = callback.recorder.run

        assert len(run.steps) == 8
        spent = _phases(run, 4)
        assert spent["other"] > 4 * 20_000
        assert spent["data"] + spent["forward"] < 20_000
        training = run.training.set_index("step")
        assert training["batch_size"].to_list() == [4.0] * 8
        assert training["validation_loss"].dropna().index.to_list() == [3, 7]
        assert run.config["dataset_size"] == 32

    def test_batches_fetched_ahead_count_in_the_step_that_gets_them(self, lightning: Any, tmp_path: Path) -> None:
        class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
            def __iter__(self) -> Any:
                return iter(zip(*_rows(18), strict=True))

        callback = self._callback()

        self._trainer(lightning, tmp_path, [callback]).fit(self._module(lightning), self._loader(dataset=Stream()))

        assert callback.recorder.run.training["batch_size"].to_list() == [4.0, 4.0, 4.0, 4.0, 2.0]

    def test_a_training_that_raises_is_failed_with_its_reason(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback(tmp_path / "exp1")

        with pytest.raises(ValueError, match="of the module's own"):
            self._trainer(lightning, tmp_path, [callback]).fit(self._module(lightning, fails_at=5), self._loader())

        run = perfnb.read_run(tmp_path / "exp1")
        assert active() is None
        assert (run.recordings[0].state, run.recordings[0].reason) == ("failed", "ValueError: of the module's own")
        assert len(run.steps) == 5

    def test_a_recording_round_it_takes_its_values_and_goes_on(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback()

        with perfnb.record() as recorder:
            self._trainer(lightning, tmp_path, [callback]).fit(self._module(lightning), self._loader())
            went_on = recorder.is_recording

        assert went_on
        assert callback.recorder is recorder
        assert recorder.run.training["loss"].notna().sum() == 8
        assert recorder.run.config["strategy"] == "SingleDeviceStrategy"

    def test_a_profiler_window_is_taken_inside_it(self, lightning: Any, tmp_path: Path) -> None:
        callback = self._callback(trace=2)

        self._trainer(lightning, tmp_path, [callback]).fit(self._module(lightning), self._loader(80))

        assert _annotated_steps(callback.recorder.run) == 2

    def test_a_recording_without_the_callback_sees_steps_and_batches(self, lightning: Any, tmp_path: Path) -> None:
        with perfnb.record() as recorder:
            self._trainer(lightning, tmp_path, []).fit(self._module(lightning), self._loader(), self._loader(16))

        assert all(set(_phases(recorder.run, step)) - {"inference"} == ALL for step in range(8))
        assert recorder.run.training["batch_size"].to_list() == [4.0] * 8


class TestAccelerate:
    @pytest.fixture
    def accelerate(self) -> Any:
        accelerate = pytest.importorskip("accelerate")
        yield accelerate
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()

    def test_a_loop_with_accumulation_clipping_and_evaluation(self, accelerate: Any) -> None:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = torch.nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*_rows(30)), batch_size=4)
        held_out = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*_rows(12)), batch_size=3)
        model, optimizer, loader, held_out, schedule = accelerator.prepare(model, optimizer, loader, held_out, schedule)

        with perfnb.record() as recorder:
            for _ in range(2):
                for inputs, targets in loader:
                    with accelerator.accumulate(model):
                        loss = torch.nn.functional.mse_loss(model(inputs), targets)
                        accelerator.backward(loss)
                        if accelerator.sync_gradients:
                            accelerator.clip_grad_norm_(model.parameters(), 1.5)
                        optimizer.step()
                        schedule.step()
                        optimizer.zero_grad()
                for inputs, _ in held_out:
                    time.sleep(0.005)
                    with torch.no_grad():
                        model(inputs)

        run = recorder.run
        assert len(run.steps) == 8
        assert all(set(_phases(run, step)) - {"inference"} == ALL for step in range(8))
        _assert_sums(run)
        assert run.steps["micro_batches"].to_list() == [2] * 8
        assert run.steps["epoch"].to_list() == [0] * 4 + [1] * 4
        training = run.training.set_index("step")
        assert training["batch_size"].to_list() == [8.0, 8.0, 8.0, 6.0] * 2
        assert training["learning_rate"].to_list() == pytest.approx([0.1 * 0.5**step for step in range(8)])
        assert training["gradient_norm"].notna().all()
        assert training["clip_norm"].to_list() == [1.5] * 8
        assert run.config["batch_size"] == 4

    def test_a_loop_in_half_precision(self, accelerate: Any) -> None:
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        model = torch.nn.Linear(8, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*_rows(24)), batch_size=4, num_workers=1)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

        with perfnb.record() as recorder:
            for inputs, targets in loader:
                loss = torch.nn.functional.mse_loss(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()

        run = recorder.run
        assert all(set(_phases(run, step)) - {"inference"} == ALL for step in range(6))
        assert run.training["batch_size"].to_list() == [4.0] * 6
        assert run.config["num_workers"] == 1


def test_what_a_library_no_longer_tells_is_left_out() -> None:
    def tell() -> dict[str, Any]:
        raise AttributeError

    assert attempted(tell) == {}
