"""What was predicted beside what was measured: inside, outside, void."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import NoStepsError
from perfnb.fix import Suggestion
from perfnb.outcomes.step_means import step_durations
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.verify import Outcome, outcome_frame, verify

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


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (run_of(60.0, config=CHANGED, machine=Machine(cpu_capacity=2.0)), "another machine: 4 cores before, 2 after"),
        (run_of(60.0, config=CHANGED, machine=Machine(torch_version="2.9")), "another torch: 2.13 before, 2.9 after"),
        (
            run_of(60.0, config=CHANGED, host_samples=table_from_text("host_samples", "rank host time_us\n0 b 0")),
            "the hosts have other names",
        ),
        (run_of(60.0, config={"batch_size": 8, "num_workers": 4, "data": {"seed": 2}}), "the configs also differ in data"),
    ],
)
def test_what_else_differs_makes_an_outcome_void(after: Run, why: str) -> None:
    samples = table_from_text("host_samples", "rank host time_us\n0 a 0")
    before = run_of(100.0, config=CONFIG, machine=Machine(cpu_capacity=4.0, torch_version="2.13"), host_samples=samples)

    assert why in verify(suggestion(), before, after).void


def test_knobs_of_a_nested_config_are_told_apart() -> None:
    before, after = {"data": {"num_workers": 0, "seed": 1}}, {"data": {"num_workers": 4, "seed": 1}}

    outcome = verify(PREDICTION, run_of(100.0, config=before), run_of(62.0, config=after))

    assert (outcome.changes, outcome.void) == ((Change("num_workers", 0, 4),), "")


def test_configs_that_were_read_again_are_the_same() -> None:
    before, after = {**CONFIG, "betas": (0.9, 0.99), "amp": None}, {**CHANGED, "betas": [0.9, 0.99]}

    assert verify(suggestion(), run_of(100.0, config=before), run_of(62.0, config=after)).void == ""


@pytest.mark.parametrize(("prefetch", "void"), [(2, ""), (4, "the configs also differ in prefetch_factor")])
def test_a_prefetch_factor_that_comes_with_workers_is_no_other_change(prefetch: int, void: str) -> None:
    before, after = {**CONFIG, "prefetch_factor": None}, {**CHANGED, "prefetch_factor": prefetch}

    assert verify(suggestion(), run_of(100.0, config=before), run_of(62.0, config=after)).void == void


def test_configs_of_traces_can_be_given() -> None:
    outcome = verify(suggestion(), run_of(100.0), run_of(62.0), configs=(CONFIG, {**CHANGED, "batch_size": 9}))

    assert outcome.void == "the configs also differ in batch_size"


def varying(mean_us: float, spread_us: float, seed: int, count: int = 60) -> Run:
    run = run_of(mean_us, count, config=CONFIG if mean_us > 80 else CHANGED)
    duration = mean_us + spread_us * np.random.default_rng(seed).standard_normal(count)
    return dataclasses.replace(run, steps=run.steps.assign(start_us=run.steps["start_us"] * 2, duration_us=duration))


def test_both_sides_vary_in_the_interval_of_the_speedup() -> None:
    one = verify(suggestion(), run_of(100.0, 60, config=CONFIG), varying(60.0, 6.0, 1))
    both = verify(suggestion(), varying(100.0, 10.0, 2), varying(60.0, 6.0, 1))

    # 55 steps: the standard error of log(before / after) is .1 / sqrt(55), on both sides sqrt(2) of it; 80 % is 2 x 1.28 of it
    assert one.speedup_high - one.speedup_low == pytest.approx(2.56 * 0.1 / 55**0.5 * one.speedup, rel=0.35)
    assert both.speedup_high - both.speedup_low > 1.15 * (one.speedup_high - one.speedup_low)


def test_runs_that_differ_from_run_to_run_widen_the_interval() -> None:
    alike = verify(suggestion(), run_of(100.0, config=CONFIG), [run_of(60.0, config=CHANGED)] * 3)
    apart = verify(suggestion(), run_of(100.0, config=CONFIG), [run_of(each, config=CHANGED) for each in (55.0, 60.0, 65.0)])

    assert (alike.after, alike.after_low, alike.after_high, alike.steps_after) == (60.0, 60.0, 60.0, 102)
    assert apart.after == 60.0
    assert apart.after_high - apart.after_low > 4.0


def test_drift_that_meets_interleaved_runs_alike_cancels_where_they_are_pairs() -> None:
    before = [run_of(each, config=CONFIG) for each in (100.0, 110.0, 120.0)]
    after = [run_of(each, config=CHANGED) for each in (50.0, 55.0, 60.0)]

    paired = verify(suggestion(), before, after, paired=True)
    apart = verify(suggestion(), before, after)

    assert paired.speedup_low == pytest.approx(2.0)
    assert paired.speedup_high == pytest.approx(2.0)
    assert apart.speedup_high - apart.speedup_low > 0.1
    assert (paired.paired, apart.paired) == (True, False)


def test_a_miss_by_less_than_the_noise_is_a_miss_and_says_so() -> None:
    after = varying(67.0, 6.0, 1)
    measured = verify(suggestion(), run_of(100.0, 60, config=CONFIG), after)
    near = dataclasses.replace(PREDICTION, high=measured.after - 0.01)

    outcome = verify(suggestion(near), run_of(100.0, 60, config=CONFIG), after)

    assert outcome.inside is False
    assert outcome.verdict.endswith("outside the interval, by less than the noise of the measurement")


def test_no_change_where_one_was_measured_has_the_wrong_sign() -> None:
    nothing = dataclasses.replace(PREDICTION, after=100.0, low=95.0, high=105.0)

    assert verify(suggestion(nothing), run_of(100.0), run_of(60.0)).sign_ok is False


def phased(own_us: list[float], loading_us: float = 40.0) -> Run:
    rows, steps, start = [], [], 0.0
    for step, own in enumerate(own_us):
        steps.append((0, step, start, own + loading_us))
        rows += [(0, step, "data", loading_us, 0.0, 0.0, loading_us), (0, step, "forward", own, own, 0.0, 0.0)]
        start += own + loading_us
    columns = ["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"]
    return Run(
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform("phases", pd.DataFrame(rows, columns=columns)),
        signals=frozenset({"steps", "phases"}),
        config=CONFIG,
    )


def test_steps_that_vary_for_other_reasons_than_loading_are_not_scored() -> None:
    uneven = [60.0] * 40
    uneven[20] = uneven[30] = 600.0

    outcome = verify(suggestion(), phased(uneven), run_of(60.0, config=CHANGED))

    assert outcome.void == ""
    assert outcome.unscored.startswith("steps before vary by ")
    assert "(steps 20, 30 stand out)" in outcome.unscored


def test_steps_that_vary_by_known_pauses_are_scored() -> None:
    uneven = phased([60.0 + 540.0 * (step % 10 == 5) for step in range(60)])
    starts = uneven.steps.loc[uneven.steps["step"] % 10 == 5, "start_us"].to_numpy()
    pauses = pd.DataFrame(
        {"rank": 0, "process": "1", "thread": "1", "category": "gc", "name": "generation2"}, index=range(len(starts))
    )
    events = conform("host_ops", pauses.assign(start_us=starts + 50.0, duration_us=540.0))
    uneven = dataclasses.replace(uneven, host_ops=events, signals=uneven.signals | {"gc"})

    assert verify(suggestion(), uneven, run_of(60.0, config=CHANGED)).unscored == ""


def test_a_missing_rank_is_not_scored() -> None:
    before, after = run_of(100.0, config=CONFIG, world_size=2), run_of(60.0, config=CHANGED, world_size=2)

    assert verify(suggestion(), before, after).unscored == "1 of 2 ranks were read before; 1 of 2 ranks were read after"


def test_pressure_on_the_cores_is_told_where_it_was_sampled() -> None:
    samples = table_from_text("host_samples", "rank time_us pressure_cpu_share\n0 900 0.1\n0 1500 0.3\n0 99999 0.9")

    outcome = verify(suggestion(), run_of(100.0, host_samples=samples), run_of(60.0))

    assert (outcome.pressure_before, outcome.pressure_after) == (pytest.approx(0.2), None)


def test_no_run_at_all_is_an_error() -> None:
    with pytest.raises(NoStepsError, match="no run is given"):
        verify(suggestion(), [], run_of(60.0))
