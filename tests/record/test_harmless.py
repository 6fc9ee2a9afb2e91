"""Whatever a training holds, recording raises nothing into it, changes nothing of it and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils import clip_grad_norm_  # noqa: E402 - torch decides whether there is anything to test

import perfnb  # noqa: E402
from perfnb.errors import RecordingError  # noqa: E402
from perfnb.record.late_values import LateValues  # noqa: E402
from perfnb.record.module_hooks import ModuleHooks  # noqa: E402
from perfnb.record.recorder import active  # noqa: E402
from perfnb.record.sampler import Sampler  # noqa: E402

pytestmark = pytest.mark.torch


def _train(model: Any, steps: int = 8, optimizer: Any = None) -> None:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_model_is_trained_and_its_forward_passes_seen() -> None:
    with perfnb.record() as recorder:
        _train(torch.jit.script(torch.nn.Linear(4, 1)), 12)

    assert len(recorder.run.steps) == 12
    assert recorder.run.phases["phase"].eq("forward").sum() == 12


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_model_can_be_scripted_copied_and_saved_while_it_is_recorded() -> None:
    model = torch.nn.Linear(4, 1)

    with perfnb.record() as recorder:
        _train(model)
        scripted = torch.jit.script(model)
        copied = copy.deepcopy(model)
        saved = io.BytesIO()
        torch.save(model, saved)
        _train(model)

    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)  # what was written two lines above
    assert len(recorder.run.steps) == 16
    assert [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in (copied, loaded, model)] == [0, 0, 0]
    assert scripted(torch.ones(1, 4)).shape == (1, 1)


class _Rateless(torch.optim.Optimizer):
    """An optimizer whose groups have no learning rate."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"rate": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002 - torch's signature
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(0.1 * parameter.grad)


def test_an_optimizer_without_a_learning_rate_does_no_harm() -> None:
    model = torch.nn.Linear(4, 1)

    with perfnb.record() as recorder:
        _train(model, optimizer=_Rateless(model.parameters()))

    assert len(recorder.run.steps) == 8
    assert recorder.run.training["learning_rate"].isna().all()


def test_a_loss_on_a_device_that_cannot_be_copied_from_is_a_gap() -> None:
    model = torch.nn.Linear(4, 1)

    with perfnb.record() as recorder:
        for _ in range(60):
            recorder.log(loss=torch.zeros((), device="meta"))
            _train(model, 1)

    gap = recorder.run.gaps[recorder.run.gaps["column"].eq("loss")]
    assert "values on meta are not read" in gap["reason"].iloc[0]
    assert gap["count"].iloc[0] == 60


def test_gradients_clipped_by_a_function_imported_before_are_seen() -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    with perfnb.record() as recorder:
        for _ in range(3):
            model(torch.ones(2, 4)).square().mean().backward()
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()

    assert recorder.run.training["clip_norm"].eq(0.5).all()
    assert recorder.run.training["gradient_norm"].gt(0).all()


def test_a_failure_of_ours_at_the_end_of_a_step_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("odd")  # noqa: EM101 - what stands for any failure

    monkeypatch.setattr(ModuleHooks, "at_edge", broken)

    with perfnb.record() as recorder:
        _train(torch.nn.Linear(4, 1))

    assert len(recorder.run.steps) == 8
    assert "failed: ValueError: odd" in set(recorder.run.gaps["reason"])


def test_an_interrupt_while_a_recording_ends_leaves_nothing_at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_: LateValues) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LateValues, "wait", interrupted)
        recorder = perfnb.record(tmp_path / "run").start()
        _train(torch.nn.Linear(4, 1))
        with pytest.raises(KeyboardInterrupt):
            recorder.finish()
    with perfnb.record() as after:
        _train(torch.nn.Linear(4, 1))

    assert active() is None
    assert not [thread for thread in threading.enumerate() if "perfnb" in thread.name]
    assert perfnb.read_run(tmp_path / "run").recordings[0].state == "finished"
    assert len(after.run.steps) == 8


def test_a_recording_that_cannot_begin_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")  # noqa: EM101 - Python's own words

    callbacks = len(gc.callbacks)
    hooks = len(torch.nn.modules.module._global_forward_hooks)
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "start", broken)
        with pytest.raises(RuntimeError, match="new thread"):
            perfnb.record(tmp_path / "run").start()
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError):
        perfnb.record(tmp_path / "file").start()

    assert len(gc.callbacks) == callbacks
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks
    assert active() is None


def test_a_config_of_any_kind_is_kept_as_far_as_it_goes() -> None:
    class Wordless:
        def __str__(self) -> str:
            raise ValueError

    itself: dict[str, Any] = {"batch_size": 4}
    itself["itself"] = itself

    with perfnb.record(config=itself | {"odd": Wordless(), "tensor": torch.zeros(3)}) as recorder:
        pass

    assert recorder.run.config["batch_size"] == 4
    assert "0." not in str(recorder.run.config["tensor"])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_may_record_for_itself(tmp_path: Path) -> None:
    with perfnb.record(tmp_path / "parent", hooks=False) as recorder:
        child = os.fork()
        if not child:
            code = 1
            try:
                with perfnb.record(tmp_path / "child", hooks=False) as own:
                    for _ in own.steps(range(3)):
                        pass
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        for _ in recorder.steps(range(2)):
            pass

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(perfnb.read_run(tmp_path / "child").steps) == 3
    assert len(recorder.run.steps) == 2


def test_a_warning_of_the_users_is_shown_as_often_as_without_us() -> None:
    def warn() -> None:
        warnings.warn("mine", UserWarning, stacklevel=1)

    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda *told, **_: shown.append(str(told[0]))
        with perfnb.record():
            for _ in range(25):
                _train(torch.nn.Linear(4, 1), 10)
                warn()

    assert shown.count("mine") == 1


def test_the_loss_of_two_models_trained_in_turn_is_no_one_loss() -> None:
    first, second = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (first, second)]

    with perfnb.record() as recorder:
        for _ in range(5):
            for model, optimizer in zip((first, second), optimizers, strict=True):
                model(torch.ones(2, 4)).square().mean().backward()
                optimizer.step()

    run = recorder.run
    assert run.training["loss"].isna().all()
    assert run.steps["micro_batches"].iloc[1:].isna().all()
    assert run.gaps["reason"].astype(str).str.contains("several optimizers").any()


def test_steps_of_one_loop_do_not_hide_those_of_the_next() -> None:
    with perfnb.record() as recorder:
        for _ in recorder.steps(range(3)):
            for _ in recorder.steps(range(2)):  # no steps of their own
                pass
        _train(torch.nn.Linear(4, 1), 4)

    assert len(recorder.run.steps) == 7


def test_evaluation_with_gradients_is_no_training() -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train, validation = (torch.utils.data.DataLoader(torch.ones(rows, 4), batch_size=2) for rows in (12, 10))

    with perfnb.record() as recorder:
        for number, batch in enumerate(train):
            model(batch).square().mean().backward()
            optimizer.step()
            if number == 3:
                for other in validation:
                    model(other)

    assert recorder.run.training["batch_size"].to_list() == [2.0] * 6
    assert recorder.run.steps["epoch"].to_list() == [0] * 6


def test_marks_of_another_thread_are_left_out_and_said() -> None:
    with perfnb.record(hooks=False) as recorder:
        for _ in recorder.steps(range(3)):
            thread = threading.Thread(target=recorder.step)
            thread.start()
            thread.join()

    assert len(recorder.run.steps) == 3
    assert any("another thread" in note for note in recorder.run.notes)


@pytest.mark.parametrize("step", [-5, "a", 10**30, True])
def test_a_value_needs_a_step_that_is_one(step: Any) -> None:
    with perfnb.record(hooks=False) as recorder, pytest.raises(RecordingError, match="no number of a step"):
        recorder.log(step=step, loss=1.0)


@pytest.mark.parametrize("named", [{"trace": -1}, {"host_interval_s": 0.0}, {"gpu_interval_s": float("nan")}])
def test_arguments_that_make_no_sense_are_refused(named: Any) -> None:
    with pytest.raises(RecordingError):
        perfnb.record(**named)
