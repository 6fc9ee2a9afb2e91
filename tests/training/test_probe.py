"""The probe itself: what each branch uses, when it ends early, what it refuses, and several ranks in one."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perfnb.errors import ProbeRefused  # noqa: E402 - torch first: without it nothing here can run
from perfnb.prediction import Change, Prediction, Unknown  # noqa: E402
from perfnb.training import probe_ranks, probe_refusals  # noqa: E402
from perfnb.training.drawing import probe_drawing, probe_table  # noqa: E402
from perfnb.training.probe import probe  # noqa: E402
from perfnb.training.probe_gradients import GradientSquares  # noqa: E402
from perfnb.training.probe_refusals import device_bytes_free, host_bytes_free, is_kept_on_host  # noqa: E402
from perfnb.training.probe_state import TrainingState  # noqa: E402
from perfnb.training.probe_suggest import prediction_of, probed_suggestions  # noqa: E402

pytestmark = pytest.mark.torch


class Quadratic:
    """w -> w - rate w on every step, from w = 1: the loss w^2/2 after n steps with a rate r is (1 - r)^(2n)/2."""

    def __init__(self, rate: Any = 0.1, **more: Any) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.model.weight, 1.0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, **more)
        self.state = TrainingState(self.model, self.optimizer)
        self.batches = [torch.ones(1, 1)] * 20
        self.used: list[float] = []

    def step(self, batch: Any) -> Any:
        self.optimizer.zero_grad()
        loss = 0.5 * self.model(batch).pow(2).sum()
        loss.backward()
        self.used.append(float(self.optimizer.param_groups[0]["lr"]))
        self.optimizer.step()
        return loss


def quiet(training: Quadratic, changes: Any, steps: int | None = None, **more: Any) -> Any:
    return probe(training.step, training.state, changes, steps, training.batches, shows_progress=False, **more)


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_each_branch_uses_its_factor_of_the_rate_from_the_same_weights(rate: Any) -> None:
    told = quiet(Quadratic(rate), [0.5, 2.0], 12, planned_steps=120)

    for name, factor in (("x1", 1.0), ("x0.5", 0.5), ("x2", 2.0)):
        losses = told.steps[told.steps["change"].eq(name)]["loss"].to_numpy()
        expected = 0.5 * (1.0 - 0.1 * factor) ** (2 * np.arange(len(losses)))
        assert losses == pytest.approx(expected, rel=1e-5)
    assert told.first_loss == pytest.approx(told.steps["loss"][:3].mean())
    assert told.horizon == "12 paired steps (10 % of the run)"
    assert 0.0 < told.own_seconds < told.seconds
    assert told.snapshot_bytes >= 4


def test_under_a_schedule_a_branch_is_its_factor_times_what_the_base_had() -> None:
    training = Quadratic(0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.9)
    state = TrainingState(training.model, training.optimizer, schedule)

    def step(batch: Any) -> Any:
        loss = training.step(batch)
        schedule.step()
        return loss

    probe(step, state, [0.5, lambda at: (at + 1) / 10], 10, training.batches, shows_progress=False)

    base = 0.1 * 0.9 ** np.arange(10)
    assert training.used[:10] == pytest.approx(base)
    assert training.used[10:20] == pytest.approx(0.5 * base)
    assert training.used[20:] == pytest.approx(base * (np.arange(10) + 1) / 10)


def test_a_scheduler_that_steps_before_the_optimizer_is_refused() -> None:
    training = Quadratic()
    schedule = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.9)

    def step(batch: Any) -> Any:
        training.optimizer.zero_grad()
        loss = training.model(batch).pow(2).sum()
        loss.backward()
        training.optimizer.param_groups[0]["lr"] *= 0.9
        training.optimizer.step()
        return loss

    state = TrainingState(training.model, training.optimizer, schedule)
    with pytest.raises(ProbeRefused, match=r"began with lr 0\.1, and the optimizer used 0\.09"):
        probe(step, state, [0.5], 10, training.batches, shows_progress=False)
    assert training.optimizer.param_groups[0]["lr"] == 0.1


def test_a_branch_that_diverges_ends_at_its_first_odd_loss() -> None:
    training = Quadratic(1e-3)

    told = quiet(training, [2e9], 20)

    row = told.effects.iloc[1]
    assert row["verdict"] == row["ended"] == "not finite"
    assert row["effect"] == -1.0
    assert not told.steps[told.steps["change"].eq("x2e+09")]["finite"].iloc[-1]
    assert row["steps"] < 20


def test_a_base_that_diverges_runs_to_its_end_and_the_largest_finite_factor_is_offered() -> None:
    told = quiet(Quadratic(3e6), [1e-7, 1e-8], 20)

    assert told.effects["verdict"].tolist() == ["not finite", "unknown", "unknown"]
    (suggestion,) = probed_suggestions(told)
    assert suggestion.changes == (Change("learning_rate", 3e6, 0.3),)
    assert math.isnan(suggestion.confidence)
    assert isinstance(suggestion.prediction, Unknown)
    assert "stays finite" in suggestion.sentence


def test_a_clearly_worse_branch_is_not_run_on() -> None:
    told = quiet(Quadratic(0.1), [1e-3], 20)

    assert told.effects.iloc[1]["ended"] == "clearly worse"
    assert told.effects.iloc[1]["steps"] == 10
    assert told.winner is None
    assert probed_suggestions(told) == ()


def test_a_budget_ends_the_probe_at_a_branch_and_names_the_rest() -> None:
    told = quiet(Quadratic(), [0.5, 2.0], 10, budget_s=0.0)

    assert told.not_run == ("x0.5", "x2")
    assert "Not run" in told.sentences[0]
    assert quiet(Quadratic(), [0.5, 2.0], 10, budget_s=1e6).not_run == ()


def test_a_clear_winner_becomes_a_probed_suggestion_with_its_gain() -> None:
    told = quiet(Quadratic(0.01), [10.0], 20, planned_steps=200)

    (suggestion,) = probed_suggestions(told, {"learning_rate": 0.01})

    assert suggestion.tier == "probed"
    assert suggestion.fix == "raise_learning_rate"
    assert suggestion.changes == (Change("learning_rate", 0.01, 0.1),)
    assert suggestion.confidence == 0.8
    assert isinstance(suggestion.prediction, Prediction)
    assert suggestion.prediction.low < suggestion.prediction.after < suggestion.prediction.high < 1.0
    assert "10 % of the run" in suggestion.horizon
    assert "0.80 (calibrated on" in suggestion.sentence
    assert probed_suggestions(told)[0].changes[0].after == pytest.approx(0.1)
    assert probed_suggestions(told, {"learning_rate": "auto"})[0].why_no_change.startswith("learning_rate is 'auto'")
    assert probed_suggestions(told, {"seed": 1})[0].why_no_change == "the config has no learning_rate"
    table = probe_table(told)
    assert table["verdict"].tolist() == ["present", "better"]
    assert table["chance"].tolist() == ["", "0.80"]
    assert len(probe_drawing(told)) == 40


def test_a_warm_up_that_wins_is_said_to_belong_into_the_schedule() -> None:
    def rising(step: int) -> float:
        return 1.0 + step / 2

    told = quiet(Quadratic(0.01), [rising], 20, planned_steps=200)

    (suggestion,) = probed_suggestions(told)
    assert suggestion.fix == "add_warmup"
    assert "set it in the schedule" in suggestion.why_no_change


def test_another_knob_gets_an_effect_and_no_probability() -> None:
    training = Quadratic(0.1, weight_decay=1e-3)
    told = quiet(training, [1000.0], 20, knob="weight_decay")

    assert told.effects.iloc[1]["verdict"] == "better"
    assert math.isnan(told.effects.iloc[1]["chance"])
    assert isinstance(prediction_of(told, "x1000"), Unknown)
    assert probed_suggestions(told, {"weight_decay": None})[0].why_no_change == "weight_decay is None, not a number"
    del training.optimizer.param_groups[0]["weight_decay"]
    with pytest.raises(ProbeRefused, match="nothing to multiply"):
        quiet(training, [10.0], 10, knob="weight_decay")


def test_a_step_that_never_steps_the_optimizer_is_refused() -> None:
    training = Quadratic()

    with pytest.raises(ProbeRefused, match=r"never called optimizer.step\(\)"):
        probe(float, training.state, [0.5], 10, [1.0] * 10, shows_progress=False)


def test_a_step_that_changes_its_batches_or_gives_no_loss_is_refused() -> None:
    training = Quadratic()

    def scaling(batch: Any) -> Any:
        batch["x"][0].mul_(0.5)
        return training.step(batch["x"][0])

    batches = [{"x": [torch.ones(1, 1)], "name": "a"} for _ in range(10)]
    with pytest.raises(ProbeRefused, match="changes its batches in place"):
        probe(scaling, training.state, [0.5], 10, batches, shows_progress=False)
    with pytest.raises(ProbeRefused, match="returns a NoneType"):
        probe(lambda batch: training.step(batch) and None, training.state, [0.5], 10, training.batches, shows_progress=False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"steps": -1}, "steps is -1: it takes a whole number of steps"),
        ({"steps": 12.5}, "steps is 12.5: it takes"),
        ({"planned_steps": 0}, "planned_steps is 0: it takes"),
        ({"planned_steps": True}, "planned_steps is True: it takes"),
        ({"step_function": "train"}, "step_function is a str: it takes a function"),
        ({"state": "model"}, r"state is a str: it takes a perfnb.TrainingState\("),
        ({"changes": 0.4}, "changes is a float: it takes a list"),
        ({"changes": "0.4"}, "changes is a str: it takes a list"),
        ({"batches": 3}, "batches is a int: it takes a list of batches"),
        ({"keep": "best"}, 'keep is \'best\': it takes "start" or "base"'),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_by_name(given: dict[str, Any], why: str) -> None:
    training = Quadratic()
    asked = {"step_function": training.step, "state": training.state, "changes": [0.4], "steps": 12, "batches": training.batches}

    with pytest.raises(ProbeRefused, match=why):
        probe(**{**asked, **given}, shows_progress=False)

    assert not training.used


def test_a_training_that_is_spread_or_is_none_is_refused_by_name() -> None:
    training = Quadratic()
    sharded = type("FullyShardedDataParallel", (torch.nn.Linear,), {})(1, 1)
    lazy = torch.nn.LazyLinear(1)

    for model, why in ((sharded, "FSDP"), (lazy, "no batch has given a shape"), ("model", "not str"), ([], "not nothing")):
        with pytest.raises(ProbeRefused, match=why):
            probe(training.step, TrainingState(model, training.optimizer), [0.5], 10, training.batches)
    with pytest.raises(ProbeRefused, match="takes an optimizer"):
        probe(training.step, TrainingState(training.model, None), [0.5], 10, training.batches)


def test_without_room_for_the_snapshot_both_figures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Quadratic()
    quiet(training, [0.5], 10)
    assert is_kept_on_host(training.state)
    assert host_bytes_free() > 0
    assert device_bytes_free() is None or device_bytes_free() > 0

    monkeypatch.setattr(probe_refusals, "host_bytes_free", lambda: 3)

    with pytest.raises(ProbeRefused, match=r"needs .* of the host's memory, which has 3 B"):
        quiet(training, [0.5], 10)


def test_on_a_device_the_snapshot_stays_there_where_the_host_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    one = types.SimpleNamespace(type="cuda")
    tensor = types.SimpleNamespace(device=one, numel=lambda: 10, element_size=lambda: 4)
    monkeypatch.setattr(probe_refusals, "_tensors", lambda _: iter([tensor]))
    monkeypatch.setattr(probe_refusals, "host_bytes_free", lambda: 43)

    for free, answer in ((48, False), (47, None)):
        monkeypatch.setattr(probe_refusals, "device_bytes_free", lambda free=free: free)
        if answer is None:
            with pytest.raises(ProbeRefused, match="on the device, which has 47 B free"):
                is_kept_on_host(Quadratic().state)
        else:
            assert is_kept_on_host(Quadratic().state) is answer


def _rank(rank: int, folder: str) -> None:
    import torch.distributed as dist  # noqa: PLC0415 - in the child

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    calls = 0

    def step(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = model(batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss * math.nan if rank == 1 and calls == 15 else loss.detach()

    batches = [torch.ones(3, 2) * (rank + 1)] * 12
    told = probe(step, TrainingState(model, optimizer), [0.5, 2.0], 12, batches, shows_progress=False, budget_s=1e6)
    Path(folder, f"{rank}.txt").write_text(" ".join(told.effects["verdict"].str.replace(" ", "-")), encoding="utf-8")
    _check_squares(rank)
    dist.destroy_process_group()


def _check_squares(rank: int) -> None:
    """Each rank's own gradient and that of all, of w x with x = 1 and 3: gradients 2 w x^2 are 2 and 18, their mean is 10."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.0)
    with GradientSquares(wrapped, optimizer, batch_size=4) as squares:
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(torch.full((4, 1), 1.0 + 2.0 * rank)).pow(2).mean().backward()
            optimizer.step()
    assert model.weight.grad.item() == 10.0
    assert (
        squares.frame()[["batch_size", "micro_batches", "micro_gradient_square", "gradient_square", "parts_seen"]]
        .to_numpy()
        .tolist()
        == [[8.0, 2.0, (2.0**2 + 18.0**2) / 2, 10.0**2, 2.0]] * 2
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo over files")
def test_of_two_ranks_one_that_is_not_finite_ends_the_branch_on_both(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)

    told = {(tmp_path / f"{rank}.txt").read_text(encoding="utf-8").split()[1] for rank in range(2)}

    assert told == {"not-finite"}


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over files")
def test_losses_are_meant_over_the_ranks_of_the_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist  # noqa: PLC0415 - with torch

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    monkeypatch.setattr(probe_ranks, "is_distributed", lambda: True)
    try:
        means = probe_ranks.mean_over_ranks([1.0, math.nan])

        assert means[0] == 1.0
        assert math.isnan(means[1])
        assert probe_ranks.agreed(is_so=True)
        assert not probe_ranks.agreed(is_so=False)
    finally:
        dist.destroy_process_group()
