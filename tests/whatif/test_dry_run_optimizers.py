"""Dry runs of optimizers that torch does not have or that read values, real steps in their place, and how a prediction reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run import MeasuredPeak, MemoryEstimate, MemoryModel, predict_memory

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own calls
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def linear(results: int) -> Callable[[], Any]:
    """A layer of two inputs."""
    return lambda: torch.nn.Linear(2, results)


def rows(batch_size: int) -> Any:
    return torch.randn(batch_size, 2)


def mean(model: Any, batch: Any) -> Any:
    return model(batch).mean()


def reads(model: Any, batch: Any) -> Any:
    loss = mean(model, batch)
    return loss * 2 if loss > 3 else loss


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.1)


def reading_sgd(parameters: Any) -> Any:
    """An optimizer whose step looks at a gradient."""
    optimizer = sgd(parameters)
    step = optimizer.step
    optimizer.step = lambda: step() if parameters[0].grad.sum().item() > 0 else None
    return optimizer


def model_of(make: Any = None, *, batch: Any = rows, loss: Any = mean, optimizer: Any = sgd, **how: Any) -> MemoryModel:
    how.setdefault("target", "cpu")
    return MemoryModel(make or linear(3), batch, loss, optimizer, config={"batch_size": 4}, **how)


def known(found: MemoryEstimate | Unknown) -> MemoryEstimate:
    assert isinstance(found, MemoryEstimate), found
    return found


def state_bytes(found: MemoryEstimate) -> int:
    return int(found.held.loc[found.held["category"].eq("optimizer_state"), "bytes"].sum())


def test_the_state_of_an_8_bit_optimizer_is_worked_by_hand_and_said_to_be_unmeasured() -> None:
    few = known(model_of().estimate({"optimizer": "adamw_8bit"}))
    many = known(model_of(linear(4096)).estimate({"optimizer": "adam_8bit"}))

    # below 4,096 elements 4 bytes each for two moments; 6 weights, 3 of the bias
    assert state_bytes(few) == 2 * 4 * (6 + 3)
    # else a byte per element, a scale of 4 bytes per 256, and two tables of 256 numbers of 4 bytes for all
    assert state_bytes(many) == 2 * (8192 + 4096) + 2 * 4 * (32 + 16) + 2 * 4 * 256
    assert (many.level, many.unmodelled) == ("D", ("optimizer adam_8bit",))
    assert any("bitsandbytes" in sentence for sentence in many.assumptions)
    assert "not seen whole: optimizer adam_8bit" in repr(many)


def test_on_cuda_an_8_bit_optimizer_holds_about_a_quarter_of_the_state() -> None:
    model = model_of(linear(1 << 18), target="cuda")

    before, after = (state_bytes(known(model.estimate({"optimizer": name}))) for name in ("adamw", "adamw_8bit"))

    elements = 3 << 18
    assert before == 2 * 4 * elements  # its count of steps is a number on the host
    assert after == 2 * elements + 2 * 4 * elements // 256 + 2 * 1024


def test_an_optimizer_that_reads_values_in_its_step_is_refused_by_name() -> None:
    found = model_of(optimizer=reading_sgd).estimate()

    assert isinstance(found, Unknown)
    assert "the optimizer SGD cannot be stepped" in found.reason
    assert "another optimizer_fn" in found.needs


def test_real_small_steps_stand_in_where_nothing_else_answers() -> None:
    recurrent = model_of(
        lambda: torch.nn.LSTM(2, 3, batch_first=True),
        batch=lambda batch_size: torch.randn(batch_size, 5, 2),
        loss=lambda model, batch: model(batch)[0].mean(),
        allow_real_run=True,
    )
    reading = model_of(loss=reads, measured=[MeasuredPeak(4, 5000)], allow_real_run=True)
    refused = model_of(loss=lambda *_: None, allow_real_run=True).estimate()

    assert known(recurrent.estimate({"batch_size": 8})).basis.startswith("dry run, 2 measured points on the CPU")
    assert "pairs of real steps on the CPU" in known(reading.estimate()).basis
    assert isinstance(refused, Unknown)
    assert "loss_fn returned NoneType" in refused.reason


def test_a_prediction_reads_as_its_peak_its_interval_and_its_level() -> None:
    alone = repr(predict_memory(linear(3), rows, mean, sgd, config={"batch_size": 4}, target="cpu"))
    changed = repr(predict_memory(linear(3), rows, mean, sgd, {"batch_size": 8}, config={"batch_size": 4}, target="cpu"))

    assert alone.startswith("MemoryPrediction(now MemoryEstimate(")
    assert "allocated at the peak, in " in alone
    assert "level C: dry run: every operator is modelled" in alone
    assert "with batch_size=8 MemoryEstimate(" in changed
