"""Detectors of the host and of what changes over time: what their examples do not show."""

from __future__ import annotations

import dataclasses
import gc

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.analyses.contention_free import contention_free, run_queue_time
from perfnb.catalogue import detectors
from perfnb.detector import Detector, Unmeasured, example
from perfnb.diagnose import diagnose
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text

DETECTORS: dict[str, Detector] = {each.name: each for each in detectors()}
ONE_STEP = "rank step start_us duration_us\n0 1 0 100"


def series(own_us: np.ndarray, *, runqueue_us: np.ndarray | None = None, phase: str = "other") -> Run:
    """Steps of so much CPU time in one phase, beside 1 ms of forward."""
    waiting = np.zeros_like(own_us) if runqueue_us is None else runqueue_us
    length = 1000 + own_us + waiting
    steps = {"rank": 0, "step": np.arange(len(own_us)), "start_us": np.cumsum(length) - length, "duration_us": length}
    rows = [
        pd.DataFrame({"rank": 0, "step": steps["step"], "phase": name, "cpu_us": cpu, "runqueue_us": wait, "blocked_us": 0.0})
        for name, cpu, wait in (("forward", 1000.0, 0.0), (phase, own_us, waiting))
    ]
    phases = pd.concat(rows).assign(wall_us=lambda each: each["cpu_us"] + each["runqueue_us"])
    return Run(
        steps=conform("steps", pd.DataFrame(steps)),
        phases=conform("phases", phases),
        signals=frozenset({"steps", "phases", "schedstat", "gc"}),
    )


def found(run: Run) -> dict[str, float]:
    return {each.detector: each.severity for each in diagnose(run).found}


def test_pauses_are_taken_from_python_code_before_python_overhead_sees_it() -> None:
    run = series(np.full(20, 1000.0))
    pauses = run.steps.assign(category="gc", name="generation2", start_us=run.steps["start_us"] + 1000, duration_us=900.0)
    host_ops = conform("host_ops", pauses[["rank", "category", "name", "start_us", "duration_us"]])
    paused = dataclasses.replace(run, host_ops=host_ops, signals=run.signals | {"host_ops"})

    assert found(run) == {"python_overhead": pytest.approx(0.5)}
    assert found(paused) == {"garbage_collection_pauses": pytest.approx(0.45)}


def test_steps_that_grow_are_one_finding_not_python_overhead_too() -> None:
    noise = np.random.default_rng(0).normal(scale=20.0, size=320)

    assert list(found(series(np.linspace(50.0, 1500.0, 320) + noise))) == ["growing_step_time"]


def test_a_level_of_python_code_stays_when_the_rest_grows() -> None:
    answer = found(series(np.linspace(1000.0, 3000.0, 320)))

    assert answer["python_overhead"] == pytest.approx(1000 / 3000, abs=0.01)
    assert answer["growing_step_time"] == pytest.approx(1000 / 3000, abs=0.01)


def test_a_walk_of_neighbours_is_no_growth() -> None:
    alarms = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=320)
        drift = np.convolve(noise, 0.97 ** np.arange(200))[:320]  # AR(1), a standard deviation of 8 %
        run = series(200 + 12 * (drift - drift.min()))
        alarms += len(DETECTORS["growing_step_time"].evidence(run)) > 0

    assert alarms <= 1


def test_a_recording_in_which_no_collection_ran_says_so() -> None:
    gc.disable()
    try:
        with perfnb.record(hooks=False) as recorder:
            for _ in recorder.steps(range(5)):
                pass
    finally:
        gc.enable()

    assert "gc" in recorder.run.signals
    assert DETECTORS["garbage_collection_pauses"].evidence(recorder.run).empty


def test_no_earlier_run_is_not_measured_and_says_how_to_give_one() -> None:
    with pytest.raises(Unmeasured, match=r"diagnose\(run, earlier="):
        DETECTORS["regressed_step_time"].evidence(series(np.full(30, 100.0)))


def test_earlier_runs_of_another_machine_do_not_compare() -> None:
    earlier = dataclasses.replace(series(np.full(30, 100.0)), machine=Machine(cpu_capacity=64))
    run = dataclasses.replace(series(np.full(30, 900.0)), machine=Machine(cpu_capacity=2), earlier=(earlier,))

    with pytest.raises(Unmeasured, match="none of 1 earlier run compares"):
        DETECTORS["regressed_step_time"].evidence(run)


def test_what_differs_from_the_earlier_run_is_named() -> None:
    earlier = dataclasses.replace(series(np.full(30, 100.0)), config={"num_workers": 2, "seed": 1})
    run = dataclasses.replace(series(np.full(30, 900.0)), config={"num_workers": 0, "seed": 1}, earlier=(earlier,))

    evidence = DETECTORS["regressed_step_time"].evidence(run)

    assert set(evidence["config_difference"]) == {"num_workers: 2 -> 0"}
    assert evidence["lost_us"].sum() / run.steps["duration_us"].sum() == pytest.approx(1 - 1100 / 1900)


def test_waiting_for_a_core_is_told_as_the_jobs_own_or_of_others() -> None:
    def by(own_cores: float) -> set[str]:
        run = example(
            "x",
            lost_share=0.0,
            signals=("schedstat",),
            machine=Machine(cpu_capacity=2),
            steps=ONE_STEP,
            phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 1 forward 100 50 50 0",
            host_samples=f"rank time_us own_cpu_cores\n0 0 -\n0 100 {own_cores}",
        ).run
        return set(DETECTORS["cpu_contention"].evidence(run)["by"])

    assert by(1.9) == {"this job itself"}
    assert by(0.5) == {"other programs"}


def test_contention_free_steps_leave_out_the_run_queue_and_are_unknown_without_a_split() -> None:
    split = example(
        "x",
        lost_share=0.0,
        steps=ONE_STEP,
        phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 1 data 60 10 20 30\n0 1 other 40 40 0 0",
    ).run
    whole = example("x", lost_share=0.0, steps=ONE_STEP, phases="rank step phase wall_us\n0 1 data 60\n0 1 other 40").run

    assert contention_free(split.steps, perfnb.step_ledger(split), split.phases)["own_us"].to_list() == [80.0]
    assert contention_free(whole.steps, perfnb.step_ledger(whole), whole.phases)["own_us"].isna().all()


def test_the_run_queue_of_a_device_job_counts_while_its_device_idles() -> None:
    run = example(
        "x",
        lost_share=0.0,
        steps=ONE_STEP,
        phases="rank step phase wall_us cpu_us runqueue_us blocked_us\n0 1 forward 100 60 40 0",
        device_ops="rank device stream kind name start_us duration_us\n0 0 7 compute gemm 0 85",
    ).run
    ledger = perfnb.step_ledger(run)

    assert run_queue_time(ledger, run.phases)["runqueue_us"].to_list() == [15.0]
    assert run_queue_time(ledger, None)["runqueue_us"].isna().all()


def test_a_job_without_schedstat_has_no_trend_and_no_outliers() -> None:
    run = series(np.full(320, 100.0))
    phases = run.phases.assign(runqueue_us=np.nan, blocked_us=np.nan)
    without = dataclasses.replace(run, phases=phases, signals=run.signals - {"schedstat"})

    for name in ("growing_step_time", "outlier_steps"):
        with pytest.raises(Unmeasured, match="schedstat absent"):
            DETECTORS[name].evidence(without)


def test_threads_need_their_number_and_that_of_the_cores() -> None:
    case = DETECTORS["thread_oversubscription"].examples[0].run

    with pytest.raises(Unmeasured, match="torch_num_threads"):
        DETECTORS["thread_oversubscription"].evidence(dataclasses.replace(case, config={}))
    with pytest.raises(Unmeasured, match="number of cores"):
        DETECTORS["thread_oversubscription"].evidence(dataclasses.replace(case, machine=Machine()))


def test_a_group_that_was_read_once_tells_nothing_of_its_quota() -> None:
    case = DETECTORS["cpu_quota_throttling"].examples[0].run
    once = table_from_text("host_samples", "rank time_us throttled_us nr_periods nr_throttled\n0 0 5 10 5\n1 0 5 10 5")

    with pytest.raises(Unmeasured, match="read only once"):
        DETECTORS["cpu_quota_throttling"].evidence(dataclasses.replace(case, host_samples=once))


def test_a_forward_pass_that_grows_takes_nothing_off_what_python_code_takes_all_along() -> None:
    steps, phases, start = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"], 0
    for step in range(400):
        forward = 1000 + 3 * step
        steps.append(f"0 {step} {start} {forward + 300}")
        phases += [f"0 {step} forward {forward} {forward} 0 0", f"0 {step} other 300 300 0 0"]
        start += forward + 300
    run = Run(
        steps=table_from_text("steps", "\n".join(steps)),
        phases=table_from_text("phases", "\n".join(phases)),
        signals=frozenset({"steps", "phases", "schedstat"}),
    )

    assert perfnb.diagnose(run)["python_overhead"].severity == pytest.approx(300 / 1900, abs=0.01)
