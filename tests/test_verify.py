"""What was predicted beside what was measured: inside, outside, void."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import NoStepsError
from perfnb.fix import Suggestion
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.verify import Outcome, outcome_frame, step_durations, verify

PREDICTION = Prediction("step_us", before=100.0, after=60.0, low=55.0, high=66.0, basis="prior")


CONFIG = {"num_workers": 0, "batch_size": 8}
CHANGED = {"num_workers": 4, "batch_size": 8}


def run_of(duration_us: float, count: int = 40, **fields: object) -> Run:
    start = np.arange(count) * duration_us
    steps = conform("steps", pd.DataFrame({"rank": 0, "step": range(count), "start_us": start, "duration_us": duration_us}))
    return dataclasses.replace(Run(steps=steps), **fields)  # type: ignore[arg-type]


def suggestion(prediction: Prediction | Unknown = PREDICTION) -> Suggestion:
    return Suggestion("raise_num_workers", (Change("num_workers", 0, 4),), ("data_stall",), "why", prediction)


def test_a_measured_step_inside_the_interval_is_inside() -> None:
    outcome = verify(suggestion(), run_of(100.0, config=CONFIG), run_of(62.0, config=CHANGED))

    assert (outcome.inside, outcome.sign_ok, outcome.void, outcome.caution) == (True, True, "", "")
    assert (outcome.before, outcome.after, outcome.steps_before, outcome.steps_after) == (100.0, 62.0, 34, 34)
    assert outcome.error_share == pytest.approx(60 / 62 - 1)
    assert outcome.verdict == "predicted 1.67x (1.52x to 1.82x), measured 1.61x (1.61x to 1.61x): inside the interval"


def test_a_measured_step_outside_the_interval_is_outside_and_a_slowdown_has_the_wrong_sign() -> None:
    outcome = verify(suggestion(), run_of(100.0), run_of(110.0))

    assert (outcome.inside, outcome.sign_ok) == (False, False)
    assert outcome.verdict.endswith("outside the interval")


def test_a_change_too_small_to_have_a_sign_has_none() -> None:
    assert verify(suggestion(), run_of(100.0), run_of(99.0)).sign_ok is None


def test_without_a_prediction_only_the_measured_gain_is_told() -> None:
    outcome = verify(suggestion(Unknown("no trace of the loader", "a probe")), run_of(100.0), run_of(50.0))

    assert (outcome.inside, outcome.error_share) == (None, None)
    assert outcome.verdict.startswith("no prediction was made (no trace of the loader); measured 2.00x")
    assert outcome_frame(outcome).loc[0].isna().sum() == 5


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (run_of(100.0, 2), run_of(60.0), "2 steady steps before"),
        (run_of(100.0), run_of(60.0, machine=Machine(devices=("H100",))), "another machine"),
        (run_of(100.0, config={"num_workers": 0}), run_of(60.0, config={"num_workers": 2}), "num_workers is 2 after, not 4"),
        (
            run_of(100.0, config={"num_workers": 0, "batch_size": 8}),
            run_of(60.0, config={"num_workers": 4, "batch_size": 16}),
            "the configs also differ in batch_size",
        ),
    ],
)
def test_runs_that_cannot_be_compared_make_the_outcome_void_but_keep_it(before: Run, after: Run, why: str) -> None:
    outcome = verify(suggestion(), before, after)

    assert why in outcome.void
    assert (outcome.inside, outcome.sign_ok) == (None, None)
    assert outcome.after == 60.0
    assert outcome.verdict.startswith("void: ")


def test_few_steps_count_little_and_say_so() -> None:
    assert verify(suggestion(), run_of(100.0), run_of(60.0, 12)).caution.startswith("only 11 steady steps")


def test_runs_without_a_config_say_that_more_may_differ() -> None:
    assert verify(suggestion(), run_of(100.0), run_of(60.0)).caution == (
        "the configs of the runs are not known, so other differences cannot be ruled out"
    )


def test_a_bare_prediction_takes_its_changes_from_the_configs() -> None:
    outcome = verify(PREDICTION, run_of(100.0, config=CONFIG), run_of(62.0, config=CHANGED))

    assert outcome.changes == (Change("num_workers", 0, 4),)
    assert outcome.void == ""


def test_a_run_without_steps_is_an_error() -> None:
    with pytest.raises(NoStepsError):
        verify(suggestion(), run_of(100.0), Run())


def test_of_ranks_that_wait_the_critical_one_is_measured() -> None:
    steps = "rank step start_us duration_us\n0 1 0 100\n1 1 0 104"
    phases = "rank step phase wall_us\n0 1 forward 60\n0 1 communication 40\n1 1 forward 104"

    run = Run(steps=table_from_text("steps", steps), phases=table_from_text("phases", phases))

    assert step_durations(run).tolist() == [104.0]


def test_an_outcome_is_a_value() -> None:
    assert dataclasses.is_dataclass(Outcome)
    assert verify(PREDICTION, run_of(100.0), run_of(62.0)).changes == ()
