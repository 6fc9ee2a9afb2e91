"""What a machine can do is measured in a bounded time, beside how busy it was, and leaves everything as it was."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest

from perfnb.errors import RecordingError
from perfnb.record.loader_probe_result import NotProbed
from perfnb.record.machine_probe import MachineProbe, probe_machine
from perfnb.record.machine_probe_model import model_constants
from perfnb.record.machine_probe_timing import Constant, alternated, constant, quotient, times_s
from perfnb.run import Machine, Run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4)
    )


@pytest.fixture(scope="module")
def probe(model: Any) -> MachineProbe:
    found = probe_machine(
        model, torch.zeros(4, 3, 8, 8), optimizer="AdamW", longest_s=4.0, quiet_s=0.1, only_when_quiet=False, progress=False
    )
    assert isinstance(found, MachineProbe)
    return found


def test_every_constant_has_its_interval_and_its_count(probe: MachineProbe) -> None:
    names = {name for name in probe.constants if f"{name}.n" in probe.constants}

    assert {
        "machine.gemm.float32.flops_per_s",
        "machine.gemm.bfloat16.speedup",
        "machine.convolution.channels_last.speedup",
        "machine.copy.bytes_per_s",
        "machine.cast.bfloat16.bytes_per_s",
        "machine.threads.1.gemm_speedup",
        "machine.model.fp32.us",
        "machine.model.bf16.ratio",
        "machine.model.channels_last.ratio",
        "machine.model.threads.1.ratio",
        "machine.layers.fp32.us",
        "machine.layers.bf16.ratio",
        "machine.layers.channels_last.ratio",
        "machine.update.loop.us",
        "machine.update.fused.ratio",
    } <= names
    for name in names:
        assert 0.0 < probe.constants[f"{name}.low"] <= probe.constants[name] <= probe.constants[f"{name}.high"], name
        assert probe.constants[f"{name}.n"] >= 3
    assert {"machine.foreign_cores", "machine.measured_at"} <= set(probe.constants)
    assert not probe.notes
    assert "constants, bfloat16 products" in repr(probe)


def test_a_run_takes_the_constants_along(probe: MachineProbe) -> None:
    run = Run(machine=Machine(constants={"mine": 1.0}))

    attached = probe.attach(run)

    assert attached.machine.constants["mine"] == 1.0
    assert attached.machine.constants["machine.gemm.float32.flops_per_s"] > 0.0
    assert dict(run.machine.constants) == {"mine": 1.0}


def test_modes_random_states_and_threads_stay_as_they_were(model: Any) -> None:
    model.train()
    model[2].eval()
    state, threads, mean = torch.get_rng_state(), torch.get_num_threads(), model[1].running_mean.clone()

    probe_machine(model, torch.ones(4, 3, 8, 8), longest_s=0.01, quiet_s=0.1, only_when_quiet=False, progress=False)

    assert (model.training, model[2].training) == (True, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.equal(model[1].running_mean, mean)


def test_a_model_that_refuses_the_batch_is_a_note(model: Any) -> None:
    found = probe_machine(model, torch.ones(4, 9), longest_s=0.01, quiet_s=0.1, only_when_quiet=False, progress=False)

    assert isinstance(found, MachineProbe)
    assert any(note.startswith("layers could not be measured: RuntimeError") for note in found.notes)
    assert found.attach(Run()).notes[0].startswith("probe of the machine: model")
    assert found.attach(Run()).notes[1].startswith("probe of the machine: layers")


class _TwoInputs(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Takes two inputs by name and gives a mapping, as models of libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, left: Any, right: Any) -> dict[str, Any]:
        return {"made": (self.layer(left + right), None), "count": 2}


def test_a_model_of_several_inputs_is_timed_by_name_and_by_place() -> None:
    ones = torch.ones(2, 3)

    for batch in ({"left": ones, "right": ones}, (ones, ones)):
        found = model_constants(torch, _TwoInputs(), batch, 2.0, 0.01)
        assert {"model.fp32.us", "model.bf16.ratio"} <= set(found)


def test_parameters_get_no_gradients_and_the_model_keeps_its_mode_and_layout(model: Any) -> None:
    model.eval()

    found = model_constants(torch, model, torch.ones(4, 3, 8, 8), 2.0, 4.0)

    assert not model.training
    assert all(each.grad is None for each in model.parameters())
    assert model[0].weight.is_contiguous()
    assert {f"model.threads.{count}.ratio" for count in (1, 2, 4)} <= set(found)


def test_a_long_pass_leaves_bfloat16_beside_the_plain_one() -> None:
    assert set(model_constants(torch, torch.nn.Linear(3, 2), torch.ones(1, 3), 2.0, 0.0)) == {"model.fp32.us", "model.bf16.ratio"}


def test_what_cannot_be_timed_as_a_whole_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nothing that a gradient goes through"):
        model_constants(torch, torch.nn.Identity(), torch.ones(1, 3), 2.0, 0.1)
    with pytest.raises(ValueError, match="not on the CPU"):
        model_constants(torch, torch.nn.Linear(3, 2, device="meta"), torch.ones(1, 3), 2.0, 0.1)
    monkeypatch.setattr(importlib.import_module("perfnb.record.machine_probe_model"), "LARGEST_BYTES", 31)
    with pytest.raises(ValueError, match="are copied"):
        model_constants(torch, torch.nn.Linear(3, 2), torch.ones(1, 3), 2.0, 0.1)


def test_arguments_that_make_no_sense_are_refused(model: Any) -> None:
    with pytest.raises(RecordingError, match="no limit"):
        probe_machine(longest_s=0.0)
    with pytest.raises(RecordingError, match="both model and batch"):
        probe_machine(model)
    with pytest.raises(RecordingError, match="how large the parameters are"):
        probe_machine(optimizer="adamw")


def test_a_busy_machine_is_refused_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = importlib.import_module("perfnb.record.loader_probe_quiet")
    monkeypatch.setattr(quiet, "LARGEST_FOREIGN_CORES", -1.0)  # never quiet

    found = probe_machine(quiet_s=0.1, progress=False)

    assert isinstance(found, NotProbed)
    assert "stayed busy" in found.reason


def test_repeats_end_with_the_time_but_not_before_three() -> None:
    ticks = itertools.count()  # a second per look at the clock

    assert times_s(lambda: None, 1.0, clock=lambda: float(next(ticks))) == [1.0, 1.0, 1.0]
    assert len(times_s(lambda: None, 1e9, clock=lambda: float(next(ticks)))) == 10
    assert {name: len(each) for name, each in alternated({"a": int, "b": int}, 1e9).items()} == {"a": 10, "b": 10}
    assert len(alternated({"a": int}, 0.0, clock=lambda: float(next(ticks)))["a"]) == 3


def test_medians_and_quotients_by_hand() -> None:
    assert constant([1.0, 2.0, 3.0], 1.0) == Constant(2.0, pytest.approx(1.2), pytest.approx(2.8), 3)  # type: ignore[arg-type]
    assert quotient([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == Constant(2.0, 2.0, 2.0, 3)
    assert Constant(2.0, 1.0, 4.0, 3).rate_of(8.0) == Constant(4.0, 2.0, 8.0, 3)
