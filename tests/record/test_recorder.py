"""record(): what a loop gets for one line, and how a recording begins and ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.errors import RecordingError
from perfnb.record.recorder import Recorder, active


def _loop(recorder: Recorder, steps: int = 5) -> None:
    for number in recorder.steps(range(steps)):
        with recorder.phase("forward"):
            sum(range(2000))
        recorder.log(loss=1.0 / (number + 1), reward=number)


def _train_and_raise(recorder: Recorder, error: BaseException) -> None:
    with recorder:
        _loop(recorder, 3)
        raise error


def test_steps_and_phases_marked_by_hand_become_tables() -> None:
    with perfnb.record(hooks=False) as recorder:
        _loop(recorder)

    run = recorder.run
    assert run.steps["step"].to_list() == [0, 1, 2, 3, 4]
    walls = run.phases.pivot_table(index="step", columns="phase", values="wall_us", observed=True)
    assert set(walls.columns) == {"data", "forward", "other"}
    assert walls.sum(axis=1).to_numpy() == pytest.approx(run.steps["duration_us"].to_numpy(), abs=1e-3)


def test_logged_values_go_to_their_columns_or_keep_their_name() -> None:
    with perfnb.record(hooks=False) as recorder:
        _loop(recorder, 3)

    run = recorder.run
    assert run.training["loss"].to_list() == [1.0, 0.5, 1 / 3]
    assert run.metrics.loc[run.metrics["name"].eq("reward"), "value"].to_list() == [0.0, 1.0, 2.0]


def test_a_value_that_is_no_number_is_refused_with_its_name() -> None:
    with perfnb.record(hooks=False) as recorder, pytest.raises(RecordingError, match="note: no single number"):
        recorder.log(note="good")


def test_a_phase_needs_a_name_that_is_one() -> None:
    with perfnb.record(hooks=False) as recorder, pytest.raises(RecordingError, match="no name of a phase"), recorder.phase("<b>"):
        pass


def test_a_second_recording_is_refused_and_the_first_goes_on() -> None:
    with perfnb.record(hooks=False) as recorder:
        with pytest.raises(RecordingError, match="another recording is under way"), perfnb.record(hooks=False):
            pass
        _loop(recorder, 2)

    assert len(recorder.run.steps) == 2


def test_a_recording_of_the_users_own_ends_one_that_yields() -> None:
    outer = Recorder(hooks=False, yields=True).start()

    with perfnb.record(hooks=False) as inner:
        _loop(inner, 2)

    assert outer.successor is inner
    assert not outer.is_recording
    assert len(inner.run.steps) == 2
    assert outer.run.steps.empty


def test_after_an_exception_the_run_says_so_and_nothing_is_active(tmp_path: Path) -> None:
    recorder = perfnb.record(tmp_path / "run", hooks=False)

    with pytest.raises(ZeroDivisionError):
        _train_and_raise(recorder, ZeroDivisionError())

    assert active() is None
    assert (recorder.run.recordings[0].state, recorder.run.recordings[0].reason) == ("failed", "ZeroDivisionError")
    assert len(recorder.run.steps) == 3
    assert not [thread for thread in threading.enumerate() if "perfnb" in thread.name]


def test_an_interrupt_is_kept_as_the_reason() -> None:
    recorder = perfnb.record(hooks=False)

    with pytest.raises(KeyboardInterrupt):
        _train_and_raise(recorder, KeyboardInterrupt())

    assert recorder.run.recordings[0].reason == "KeyboardInterrupt"


def test_a_recorder_records_once() -> None:
    recorder = perfnb.record(hooks=False)
    with recorder:
        pass

    with pytest.raises(RecordingError, match="make a new one"):
        recorder.start()


def test_a_recorder_that_never_began_says_so() -> None:
    with pytest.raises(RecordingError, match="nothing was recorded yet"):
        _ = perfnb.record(hooks=False).run


def test_a_loop_runs_the_same_when_nothing_is_recorded() -> None:
    recorder = perfnb.record(hooks=False)

    with recorder.phase("forward"):
        seen = list(recorder.steps("abc"))
    recorder.log(loss=1.0)
    recorder.step()
    perfnb.step()

    assert seen == ["a", "b", "c"]


def test_the_run_so_far_can_be_read_while_it_goes_on(tmp_path: Path) -> None:
    with perfnb.record(tmp_path / "run", hooks=False) as recorder:
        _loop(recorder, 4)
        so_far = recorder.run
        _loop(recorder, 2)

    assert len(so_far.steps) == 4
    assert so_far.recordings[0].state == "running"
    assert len(recorder.stop().steps) == 6


def test_steps_ended_by_hand_count_without_an_optimizer() -> None:
    with perfnb.record(hooks=False) as recorder:
        for _ in range(3):
            with recorder.phase("forward"):
                pass
            perfnb.step()

    assert recorder.run.steps["step"].to_list() == [0, 1, 2]


def test_a_loop_left_early_keeps_the_steps_before() -> None:
    with perfnb.record(hooks=False) as recorder:
        for number in recorder.steps(range(10)):
            if number == 4:
                break

    assert len(recorder.run.steps) == 4


def test_settings_given_come_before_those_seen() -> None:
    with perfnb.record(hooks=False, config={"batch_size": 8}) as recorder:
        recorder.note_config(batch_size=4, epochs=2)
        _loop(recorder, 2)

    assert recorder.run.config["batch_size"] == 8
    assert recorder.run.config["epochs"] == 2


def test_what_perfnb_cost_is_said() -> None:
    with perfnb.record(hooks=False) as recorder:
        _loop(recorder, 50)

    told = recorder.run.recordings[0]
    assert 0 < (told.hook_us_per_step or 0) < 1000
    assert 0 < (told.sampler_cpu_share or 0) < 1


def _script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_process_that_just_ends_leaves_a_finished_run(tmp_path: Path) -> None:
    ended = _script(
        """
        import sys, perfnb
        recorder = perfnb.record(sys.argv[1], hooks=False).start()
        for _ in recorder.steps(range(3)):
            pass
        """,
        str(tmp_path / "run"),
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    run = perfnb.read_run(tmp_path / "run")
    assert run.recordings[0].state == "finished"
    assert len(run.steps) == 3


def test_recording_loads_neither_pandas_nor_torch() -> None:
    ended = _script(
        """
        import sys, perfnb
        with perfnb.record() as recorder:
            for _ in recorder.steps(range(3)):
                pass
        print([name for name in ("pandas", "torch", "altair", "ipywidgets") if name in sys.modules])
        print(recorder.run.notes)
        """
    )

    assert ended.stdout.splitlines()[0] == "[]", ended.stderr
    assert "torch was not imported" in ended.stdout


@pytest.mark.torch
def test_a_plain_torch_loop_is_recorded_by_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(60, 8)), batch_size=4)

    with perfnb.record(tmp_path / "run") as recorder:
        for (inputs,) in loader:
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    run = recorder.run
    assert len(run.steps) == 15
    assert set(run.phases["phase"].astype(str)) == {"data", "forward", "backward", "optimizer", "other"}
    assert run.config["batch_size"] == 4
    assert run.config["optimizer"] == "adamw"
    assert run.training["learning_rate"].eq(0.01).all()
    assert run.training["loss"].notna().all()
    assert any("backward()" in note for note in run.notes)


@pytest.mark.torch
def test_a_loss_logged_by_the_user_comes_before_that_of_backward() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    with perfnb.record() as recorder:
        for _ in range(4):
            loss = model(torch.ones(2, 8)).square().mean()
            (loss / 2).backward()
            optimizer.step()
            recorder.log(loss=loss)

    told: Any = recorder.run
    parts = told.metrics.loc[told.metrics["name"].eq("backward_loss"), "value"].to_numpy()
    assert told.training["loss"].to_numpy() == pytest.approx(2 * parts)


def test_no_step_of_an_optimizer_is_said_with_the_forward_passes_seen() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(8, 1)

    with perfnb.record() as recorder:
        for _ in range(3):
            model(torch.ones(2, 8)).mean().backward()

    assert recorder.run.steps.empty
    assert any("3 forward passes" in note for note in recorder.run.notes)
