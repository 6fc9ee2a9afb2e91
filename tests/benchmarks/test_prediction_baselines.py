"""Baselines of the prediction benchmark on runs whose phases are worked out by hand."""

import math
from typing import Any

import pandas as pd
import pytest

from benchmarks.prediction.baselines import baselines
from benchmarks.prediction.case import PairCase
from benchmarks.prediction.stored import StoredPair
from benchmarks.prediction.workloads import WORKLOADS
from perfnb.run import Machine, Run
from perfnb.tables import conform

# of a step of 100 us: loading 40 (of it 10 on a core), forward 20, backward 25, optimizer 10, other 5
PARTS = {"data": (40.0, 10.0), "forward": (20.0, 20.0), "backward": (25.0, 25.0), "optimizer": (10.0, 10.0), "other": (5.0, 5.0)}


def run(scale: float = 1.0) -> Run:
    steps = pd.DataFrame({"rank": 0, "step": range(20), "start_us": [100.0 * scale * step for step in range(20)]})
    steps = steps.assign(duration_us=100.0 * scale)
    phases = pd.DataFrame(
        [
            {"rank": 0, "step": step, "phase": name, "wall_us": wall * scale, "cpu_us": cpu * scale}
            for step in range(20)
            for name, (wall, cpu) in PARTS.items()
        ]
    )
    tables = {"steps": conform("steps", steps), "phases": conform("phases", phases)}
    return Run(**tables, machine=Machine(cpu_capacity=2.0))


def pair(changes: dict[str, Any], start: dict[str, Any] | None = None, earlier: dict[int, Run] | None = None) -> StoredPair:
    case = PairCase("mlp", "waits", "development", changes, start or {})
    made = StoredPair(case, {"config": WORKLOADS["mlp"].config(case), "earlier": {str(size): [] for size in earlier or {}}})
    own = run()
    made.__dict__["run"] = Run(steps=own.steps, phases=own.phases, machine=own.machine, earlier=tuple((earlier or {}).values()))
    return made


@pytest.mark.parametrize(
    ("changes", "start", "expected"),
    [
        ({"num_workers": 2}, {}, 60.0),  # no loading
        ({"cache_samples": "memory"}, {}, 60.0),
        ({"log_every_n_steps": 10}, {"log_every_n_steps": 1}, 95.5),  # 9/10 of other
        ({"async_checkpoint": True}, {}, 95.0),
        ({"precision": "bf16"}, {}, 77.5),  # half of forward and backward
        ({"optimizer_implementation": "fused"}, {}, 90.0),
        ({"torch_num_threads": 2}, {}, 72.5),  # half of what computes
        ({"torch_num_threads": 4}, {"torch_num_threads": 2}, 100.0),  # there are two cores
        ({"batch_size": 30}, {}, 150.0),
        ({"gradient_accumulation_steps": 2}, {}, 200.0),
        ({"num_workers": 2, "log_every_n_steps": 10}, {"log_every_n_steps": 1}, 55.5),  # shares are added
    ],
)
def test_naive_subtraction_takes_off_the_span(changes: dict[str, Any], start: dict[str, Any], expected: float) -> None:
    assert baselines(pair(changes, start))["naive"] == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"compile": True}, {"memory_format": "channels_last"}])
def test_naive_subtraction_has_no_answer_where_no_span_goes(changes: dict[str, Any]) -> None:
    assert math.isnan(baselines(pair(changes))["naive"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_workers": 1}, 60.0),  # the consumer's 60, loading 40 beside it
        ({"num_workers": 4}, 60.0),
        ({"cache_samples": "memory"}, 60.0),
    ],
)
def test_the_bound_is_the_largest_of_loading_consumer_and_cores(changes: dict[str, Any], expected: float) -> None:
    assert baselines(pair(changes))["bound"] == pytest.approx(expected)


def test_the_bound_says_nothing_of_other_knobs() -> None:
    assert math.isnan(baselines(pair({"precision": "bf16"}))["bound"])


def test_the_bound_needs_a_batch_that_was_timed_where_workers_loaded() -> None:
    assert math.isnan(baselines(pair({"num_workers": 2}, {"num_workers": 1}))["bound"])


def test_a_line_goes_through_the_steps_of_three_sizes() -> None:
    # 10 samples take 60 us, 15 take 80, 20 take 100: 20 us and 4 us a sample
    found = baselines(pair({"batch_size": 30}, earlier={10: run(0.6), 15: run(0.8)}))

    assert found["line"] == pytest.approx(140.0)


def test_no_line_without_three_sizes() -> None:
    assert math.isnan(baselines(pair({"batch_size": 30}))["line"])
    assert math.isnan(baselines(pair({"num_workers": 2}))["line"])


def test_fixed_gains_are_shares_of_the_step() -> None:
    found = baselines(pair({"num_workers": 2}))

    assert [found[name] for name in ("no_change", "fixed_15", "fixed_20", "fixed_25")] == pytest.approx([100.0, 85.0, 80.0, 75.0])
