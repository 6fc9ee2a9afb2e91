"""Compilations of torch.compile in a recording: seen where they happen, at no cost and without an import where not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import perfnb
from perfnb.analyses.step_overlap import per_step
from perfnb.record.compile_pauses import CompilePauses


def train(steps: list[int], *, is_compiled: bool) -> perfnb.Run:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    forward = torch.compile(model, backend="eager", dynamic=False) if is_compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with perfnb.record() as recorder:
        for size in steps:
            optimizer.zero_grad()
            forward(torch.ones(size, 4)).sum().backward()
            optimizer.step()
    return recorder.run


@pytest.fixture(autouse=True)
def _import_compiler() -> None:
    import torch._dynamo  # noqa: F401, PLC0415 - here, not at the top: other tests must not find it imported by this file


def test_each_compilation_is_a_row_in_the_step_that_it_holds_up() -> None:
    run = train([2, 2, 3, 3, 5, 5, 5], is_compiled=True)

    rows = run.host_ops[run.host_ops["category"].eq("compile")]
    inside = per_step(rows, run.steps)["step"].to_list()

    assert "compile" in run.signals
    assert {0, 2, 4} <= set(inside)  # and once more where perfnb's own hooks of modules go, at step 5 at the latest
    assert not {1, 3, 6} & set(inside)
    assert rows["duration_us"].gt(0).all()


def test_a_training_that_is_not_compiled_has_the_signal_and_no_row() -> None:
    run = train([2] * 4, is_compiled=False)

    assert "compile" in run.signals
    assert not run.host_ops["category"].eq("compile").any()
    assert not run.is_traced


def test_nothing_listens_any_more_once_the_recording_ended() -> None:
    handler = torch._dynamo.callback.callback_handler
    before = list(handler.start_callbacks), list(handler.end_callbacks)

    train([2] * 3, is_compiled=True)

    assert (handler.start_callbacks, handler.end_callbacks) == before


def test_a_reset_of_the_compiler_that_forgets_its_listeners_is_followed() -> None:
    handler = torch._dynamo.callback.callback_handler
    pauses = CompilePauses()
    pauses.follow()
    handler.clear()

    pauses.follow()

    assert len(handler.start_callbacks) == 1
    pauses.close()
    pauses.close()
    assert not handler.start_callbacks


def test_an_end_without_a_beginning_makes_no_row() -> None:
    pauses = CompilePauses()

    pauses._end(None)

    assert pauses.rows() == []


def test_the_compiler_is_never_imported_for_it() -> None:
    code = (
        "import sys; from perfnb.record.compile_pauses import CompilePauses; pauses = CompilePauses(); pauses.follow(); "
        "pauses.close(); assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_torch_that_does_not_tell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo.callback")

    with pytest.raises(LookupError, match="does not tell"):
        CompilePauses().follow()
