"""A short window under torch.profiler: written whole, bounded, marked, and never the end of a training."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.run import Run

torch = pytest.importorskip("torch")

from perfnb.record import profiler_window  # noqa: E402 - torch decides whether there is anything to test

pytestmark = pytest.mark.torch


def _train(batches: int, model: Any = None, fails_at: int = -1) -> None:
    model = model or torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.randn(4 * batches, 8)
    for number, (inputs,) in enumerate(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=4)):
        if number == fails_at:
            message = "of the training's own"
            raise ValueError(message)
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def _profiled(run: Run) -> list[int]:
    return run.steps.loc[run.steps["is_profiled"], "step"].to_list()


def _annotated(run: Run) -> set[str]:
    rows = run.host_ops[run.host_ops["name"].str.startswith("ProfilerStep")]
    return set(rows["name"])


def test_a_window_is_written_whole_and_read_with_the_run(tmp_path: Path) -> None:
    with perfnb.record(tmp_path / "run", trace=3) as recorder:
        _train(24)

    run = recorder.run
    assert (tmp_path / "run" / "rank0" / "trace.json.gz").is_file()
    assert perfnb.read_trace(tmp_path / "run" / "rank0" / "trace.json.gz").steps["step"].count() == 3
    assert "host_ops" in run.signals
    assert len(_annotated(run)) == 3
    assert run.host_ops["name"].eq("aten::addmm").sum() == 3 * 2
    # the step that starts the profiler up, the one that goes by, three in the window, the one in which it is stopped
    assert _profiled(run) == [10, 11, 12, 13, 14, 15]
    assert len(run.steps) == 24


def test_events_of_the_trace_stand_where_the_recorder_saw_their_steps(tmp_path: Path) -> None:
    with perfnb.record(tmp_path / "run", trace=3):
        _train(24)

    run = perfnb.read_run(tmp_path / "run")
    forwards = run.host_ops.loc[run.host_ops["name"].eq("aten::addmm"), "start_us"]
    steps = run.steps.set_index("step")
    for number, start in zip([12, 12, 13, 13, 14, 14], sorted(forwards), strict=True):
        begin = steps.loc[number, "start_us"]
        assert begin <= start <= begin + steps.loc[number, "duration_us"]


def test_a_window_of_a_recording_in_memory_is_read_too() -> None:
    with perfnb.record(trace=2) as recorder:
        _train(20)

    assert len(_annotated(recorder.run)) == 2


def test_a_profiler_of_the_users_own_is_left_alone() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as own, perfnb.record(trace=3) as recorder:
        _train(20)

    assert any("profiler of the training's own" in note for note in recorder.run.notes)
    assert _profiled(recorder.run) == []
    assert len([event for event in own.events() if event.name == "aten::addmm"]) == 20 * 2


def test_fewer_steps_are_taken_where_more_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler_window.ProfilerWindow.__init__, "__kwdefaults__", {"most_bytes": 1000})

    with perfnb.record(trace=5) as recorder:
        _train(24)

    assert len(_annotated(recorder.run)) == 1
    assert any(note.startswith("1 of 5 steps are profiled: one has") for note in recorder.run.notes)


def test_a_trace_holds_about_as_many_bytes_as_reckoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 200_000
    monkeypatch.setattr(profiler_window.ProfilerWindow.__init__, "__kwdefaults__", {"most_bytes": most})
    layers = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(10)])

    with perfnb.record(tmp_path / "run", trace=100):
        _train(60, layers)

    import gzip  # noqa: PLC0415 - only one test looks at the bytes

    text = gzip.decompress((tmp_path / "run" / "rank0" / "trace.json.gz").read_bytes())
    assert 0.2 * most < len(text) <= 1.05 * most


def test_a_recording_that_ends_inside_the_window_keeps_the_steps_that_ended() -> None:
    with perfnb.record(trace=50) as recorder:
        _train(16)

    assert len(_annotated(recorder.run)) >= 4
    assert any("the recording ended after 4 of 50 profiled steps" in note for note in recorder.run.notes)


@pytest.mark.parametrize("steps", [3, 11, 12])
def test_a_recording_that_ends_before_the_window_says_so(steps: int) -> None:
    with perfnb.record(trace=3) as recorder:
        _train(steps)

    assert any("the recording ended before the profiler's window" in note for note in recorder.run.notes)
    assert "host_ops" not in recorder.run.signals or not _annotated(recorder.run)


@pytest.mark.parametrize("fails_at", [11, 12, 14])
def test_an_exception_inside_leaves_no_profiler_running(fails_at: int) -> None:
    recorder = perfnb.record(trace=3)

    with pytest.raises(ValueError, match="of the training's own"), recorder:
        _train(20, fails_at=fails_at)

    assert not torch.autograd._profiler_enabled()
    assert len(recorder.run.steps) == fails_at


def test_two_recordings_after_one_another_have_a_window_each() -> None:
    windows = []
    for _ in range(2):
        with perfnb.record(trace=2) as recorder:
            _train(20)
        windows.append(len(_annotated(recorder.run)))

    assert windows == [2, 2]


def test_a_window_waits_until_ranges_of_the_step_before_are_left() -> None:
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = torch.profiler.record_function("spans some steps")

    with perfnb.record(trace=2) as recorder:
        for number in range(24):
            if number == 10:
                outer.__enter__()
            model(torch.zeros(4, 8)).sum().backward()
            optimizer.step()
            if number == 14:
                outer.__exit__(None, None, None)

    run = recorder.run
    inside = run.host_ops[run.host_ops["name"].eq("aten::addmm")]
    steps = run.steps.set_index("step")
    assert len(inside) == 2
    assert inside["start_us"].min() >= steps.loc[16, "start_us"]
    assert torch.autograd.profiler.record_function.__enter__.__module__ == "torch.autograd.profiler"


def test_a_process_that_took_a_window_ends_well() -> None:
    # torch 2.13: a profiler started inside a range that was entered under another one corrupts the heap, seen at exit
    program = (
        "import torch, perfnb\n"
        "layers = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(6)])\n"
        "optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)\n"
        "for _ in range(3):\n"
        "    with perfnb.record(trace=2):\n"
        "        for _ in range(16):\n"
        "            layers(torch.zeros(8, 64)).sum().backward()\n"
        "            optimizer.step()\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]


def test_the_profiler_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as said, perfnb.record(trace=2):
        warnings.simplefilter("always")
        _train(20)

    assert [str(warning.message) for warning in said] == []
