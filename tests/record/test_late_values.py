"""Values of a device are copied without waiting; those of the CPU are read at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from perfnb.record.late_values import BACKWARD_LOSS, LateValues, Versioned, as_given
from perfnb.record.phases import Late


def test_numbers_are_known_at_once() -> None:
    values = LateValues()

    rows = values.rows([Late(3, 10, "learning_rate", 0.5)])

    assert rows == [(3, 10, "learning_rate", 0.5)]


def test_the_losses_of_micro_batches_are_added_up_when_their_step_is_over() -> None:
    values = LateValues()

    first = values.rows([Late(0, 1, BACKWARD_LOSS, 1.0), Late(0, 2, BACKWARD_LOSS, 2.0)])
    second = values.rows([Late(1, 3, BACKWARD_LOSS, 4.0)])

    assert first == []
    assert second == [(0, 2, BACKWARD_LOSS, 3.0)]
    assert values.rest() == [(1, 3, BACKWARD_LOSS, 4.0)]
    assert values.rest() == []


def test_what_is_no_number_is_lost_and_counted() -> None:
    values = LateValues()

    rows = values.rows([Late(0, 1, "clip_norm", "big"), Late(1, 2, "clip_norm", "big")])

    assert rows == []
    assert values.lost == {("clip_norm", "it is no single number"): 2}


@dataclass(eq=False)
class _Scalar:
    """A tensor of a device as far as it is looked at before it is copied."""

    _version: int = 0
    device: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(type="cuda"))

    def detach(self) -> _Scalar:
        return self


def test_a_tensor_of_a_device_waits_to_be_copied() -> None:
    values = LateValues()

    rows = values.rows([Late(0, 1, "loss", _Scalar())])

    assert rows == []
    assert values.has_waiting


def test_a_tensor_of_a_device_is_kept_with_its_version() -> None:
    assert as_given(_Scalar(_version=7)).version == 7


@pytest.mark.torch
def test_a_tensor_changed_in_place_before_it_was_copied_is_lost() -> None:
    torch = pytest.importorskip("torch")
    values = LateValues()
    tensor = torch.ones(())
    values._waiting = [Late(0, 1, "loss", Versioned(tensor, tensor._version))]
    tensor.add_(1)

    values.start_copy()

    assert values.lost == {("loss", "the tensor was changed in place before it was read"): 1}


@pytest.mark.torch
def test_a_tensor_of_the_cpu_is_taken_as_it_is_now() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.full((1,), 2.0)

    given = as_given(tensor)
    tensor.add_(1)

    assert given == 2.0


@pytest.mark.torch
def test_a_tensor_of_several_numbers_is_no_value() -> None:
    torch = pytest.importorskip("torch")

    assert as_given(torch.ones(2)) is None
