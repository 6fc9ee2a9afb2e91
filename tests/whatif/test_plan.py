"""Plans: joint gains that sum, causes that are shared, and an order that the input's order does not change."""

from __future__ import annotations

import dataclasses
import time
from itertools import permutations
from typing import Any

import pandas as pd
import pytest

from perfnb.errors import MixedCurrency, PerfnbError
from perfnb.fix import Suggestion
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.tables import conform
from perfnb.whatif.plan import PlanStep, best_value, order
from perfnb.whatif.step_model import StepModel, edited
from perfnb.whatif.step_simulation import simulated_step_us

MS = 1000.0
CONFIG: dict[str, Any] = {
    "num_workers": 0,
    "prefetch_factor": None,
    "cache_samples": "none",
    "log_every_n_steps": 1,
    "pin_memory": False,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
}


def run_of(
    data_ms: float = 60.0, forward_ms: float = 40.0, other_ms: float = 20.0, steps: int = 30, optimizer_ms: float | None = None
) -> Run:
    length = data_ms + forward_ms + other_ms + (optimizer_ms or 0.0)
    phases = {"data": data_ms, "forward": forward_ms, "other": other_ms}
    if optimizer_ms is not None:
        phases |= {"forward": 0.0, "backward": forward_ms, "optimizer": optimizer_ms + other_ms, "other": 0.0}
    host = [
        row
        for step in range(steps)
        for row in (
            (
                0,
                "1",
                "1",
                "annotation",
                "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",
                step * length * MS,
                data_ms * MS,
            ),
            (0, "1", "1", "operator", "aten::stack", (step * length + data_ms - 2) * MS, 2 * MS),
        )
    ]
    return Run(
        steps=conform(
            "steps",
            pd.DataFrame(
                {
                    "rank": 0,
                    "step": range(steps),
                    "start_us": [step * length * MS for step in range(steps)],
                    "duration_us": length * MS,
                }
            ),
        ),
        phases=conform(
            "phases",
            pd.DataFrame(
                [(0, step, phase, time * MS) for step in range(steps) for phase, time in phases.items()],
                columns=["rank", "step", "phase", "wall_us"],
            ),
        ),
        host_ops=conform(
            "host_ops", pd.DataFrame(host, columns=["rank", "process", "thread", "category", "name", "start_us", "duration_us"])
        ),
        signals=frozenset({"steps", "phases", "host_ops"}),
    )


def suggestion(fix: str, **values: Any) -> Suggestion:
    changes = tuple(Change(knob, CONFIG[knob], after) for knob, after in values.items())
    return Suggestion(fix, changes, (), "", Unknown("", ""))


WORKERS = suggestion("raise_num_workers", num_workers=2)
CACHE = suggestion("cache_samples", cache_samples="memory")
LOGGING = suggestion("read_metrics_less_often", log_every_n_steps=50)
PINNING = suggestion("pin_memory", pin_memory=True)


def fixes(steps: tuple[PlanStep, ...]) -> list[str]:
    return [step.suggestion.fix for step in steps]


def test_the_largest_gain_comes_first() -> None:
    steps = order(run_of(), [LOGGING, WORKERS], CONFIG)

    assert fixes(steps) == ["raise_num_workers", "read_metrics_less_often"]
    assert [step.gain_us / MS for step in steps] == pytest.approx([60, 20 * (1 - 1 / 50)])


def test_marginal_gains_sum_to_the_whole_gain_and_never_pass_the_step() -> None:
    steps = order(run_of(), [LOGGING, WORKERS, CACHE], CONFIG)

    total = sum(step.gain_us for step in steps)
    assert total == pytest.approx(steps[0].prediction.before - steps[-1].prediction.after)
    assert total < steps[0].prediction.before


def test_two_cures_of_one_cause_share_its_gain() -> None:
    steps = order(run_of(), [WORKERS, CACHE], CONFIG)

    assert fixes(steps) == ["raise_num_workers"]  # caching saves 58 of the 60 that the workers hide altogether
    assert steps[0].gain_us / MS == pytest.approx(60)


def test_suggestions_on_one_knob_exclude_each_other() -> None:
    other = suggestion("another", num_workers=1)

    assert fixes(order(run_of(), [WORKERS, other], CONFIG)) in (["raise_num_workers"], ["another"])


def test_the_order_of_the_suggestions_is_irrelevant() -> None:
    run, given = run_of(), [WORKERS, CACHE, LOGGING, PINNING]
    expected = order(run, given, CONFIG)

    for turned in permutations(given):
        assert order(run, turned, CONFIG) == expected


def test_what_cannot_be_predicted_is_left_out() -> None:
    assert fixes(order(run_of(), [PINNING, WORKERS], CONFIG)) == ["raise_num_workers"]
    assert order(run_of(), [PINNING], CONFIG) == ()


def test_a_gain_below_two_percent_is_not_planned() -> None:
    assert order(run_of(data_ms=1.0, forward_ms=100.0, other_ms=1.0), [WORKERS, LOGGING], CONFIG) == ()


def test_what_is_lost_without_a_step_is_stated() -> None:
    workers, logging = order(run_of(), [LOGGING, WORKERS], CONFIG)

    assert logging.loss_if_left_out_us == pytest.approx(logging.gain_us)
    assert workers.gain_alone_us == pytest.approx(workers.gain_us)


def test_twelve_candidates_take_less_than_two_seconds() -> None:
    candidates = [suggestion(f"workers {number}", num_workers=number) for number in range(1, 10)] + [CACHE, LOGGING, PINNING]
    run = run_of()
    start = time.process_time()

    order(run, candidates, CONFIG)

    assert time.process_time() - start < 2.0


def test_a_budget_is_the_most_that_is_applied() -> None:
    assert fixes(order(run_of(), [LOGGING, WORKERS], CONFIG, budget=1)) == ["raise_num_workers"]
    assert order(run_of(), [LOGGING, WORKERS], CONFIG, budget=0) == ()
    with pytest.raises(PerfnbError, match="no number of changes"):
        order(run_of(), [LOGGING], CONFIG, budget=-1)


def test_gains_of_another_number_of_samples_are_those_of_as_many() -> None:
    accumulate = suggestion("accumulate", gradient_accumulation_steps=2)

    (step,) = order(run_of(data_ms=0.0, forward_ms=40.0, other_ms=20.0, optimizer_ms=40.0), [accumulate], CONFIG)

    # 40 of computing twice, 60 once and 30 to add gradients: 170 for two micro-batches in place of 200
    assert step.gain_us / MS == pytest.approx(100 - 170 / 2)
    assert step.prediction.metric == "sample_us"


def test_changes_judged_by_the_loss_are_not_mixed_with_those_judged_by_time() -> None:
    timed = dataclasses.replace(WORKERS, prediction=Prediction("step_us", 2.0, 1.0, 1.0, 1.0, "prior"))
    trained = dataclasses.replace(LOGGING, prediction=Prediction("loss", 2.0, 1.0, 1.0, 1.0, "prior"))

    with pytest.raises(MixedCurrency, match="read_metrics_less_often is judged by loss"):
        order(run_of(), [timed, trained], CONFIG)


def test_gains_sum_exactly() -> None:
    steps = order(run_of(), [LOGGING, WORKERS, CACHE], CONFIG)
    model = edited(run_of(), [change for step in steps for change in step.suggestion.changes], CONFIG)

    assert isinstance(model, StepModel)
    rows = range(len(model.measured.step_us))
    whole = simulated_step_us(model.unchanged, rows, {}) - simulated_step_us(model, rows, {})
    assert sum(step.gain_us for step in steps) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("forward_ms", "expected"), [(61.0, 1), (31.0, 2), (21.0, 3)])
def test_the_smallest_value_that_is_as_good_as_the_best_is_offered(forward_ms: float, expected: int) -> None:
    assert best_value(run_of(60.0, forward_ms, 0.0), CONFIG, "num_workers", [8, 4, 3, 2, 1]) == expected


def test_no_value_is_offered_where_none_can_be_predicted() -> None:
    assert best_value(run_of(), CONFIG, "pin_memory", [True]) is None
    assert best_value(run_of(), {}, "num_workers", [2]) is None
