"""Waiting for data, and what whoever loads did meanwhile."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from perfnb.analyses.loader_causes import loader_causes
from perfnb.analyses.loader_stall import LoaderStall, held_up_by_one_another, loader_stall, usable_cores, worker_count
from perfnb.ledger import step_ledger
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

STEPS = "rank step start_us duration_us\n0 7 0 100\n0 8 100 100"
PHASES = """rank step phase   wall_us cpu_us runqueue_us blocked_us
            0    7    data    60      20     10          30
            0    7    forward 40      40     0           0
            0    8    data    50      10     0           40
            0    8    forward 50      50     0           0"""
SAMPLES = """rank time_us workers worker_cpu_cores worker_runqueue_share worker_blocked_share
             0    0       2       -                -                     -
             0    100     2       1.0              0.25                  0.25
             0    200     2       0.4              0.0                   0.8"""


def stall_of(config: dict[str, Any], samples: str = "", phases: str = PHASES) -> LoaderStall:
    run = Run(steps=table_from_text("steps", STEPS), phases=table_from_text("phases", phases))
    host = table_from_text("host_samples", samples) if samples else None
    return loader_stall(step_ledger(run), run.steps, config, host, run.phases)


def values(stall: LoaderStall, column: str) -> list[float]:
    found: list[float] = stall.rows[column].to_list()
    return found


def test_without_workers_the_training_thread_tells_and_the_run_queue_is_left_out() -> None:
    stall = stall_of({"num_workers": 0})

    assert values(stall, "stall_us") == [50.0, 50.0]
    assert values(stall, "cpu_us") == pytest.approx([20.0, 10.0])
    assert values(stall, "blocked_us") == pytest.approx([30.0, 40.0])


def test_with_workers_what_they_did_during_the_step_divides_the_time_that_training_stands_still() -> None:
    stall = stall_of({"num_workers": 2}, SAMPLES)

    assert values(stall, "cpu_us") == pytest.approx([0.5 * 30, 0.2 * 40])
    assert values(stall, "runqueue_us") == pytest.approx([0.25 * 30, 0.0])
    assert values(stall, "blocked_us") == pytest.approx([0.25 * 30, 0.8 * 40])


def test_a_step_without_samples_has_the_mean_of_the_others() -> None:
    stall = stall_of({"num_workers": 2}, "\n".join(SAMPLES.splitlines()[:3]))

    assert values(stall, "cpu_us") == pytest.approx([15.0, 20.0])


def test_samples_while_no_worker_lives_tell_nothing() -> None:
    dead = SAMPLES.replace("200     2       0.4              0.0                   0.8", "200 0 0.0 - -")

    assert values(stall_of({"num_workers": 2}, dead), "cpu_us") == pytest.approx([15.0, 20.0])


def test_workers_that_no_sample_tells_of_are_not_known_and_neither_is_what_they_did() -> None:
    assert "workers did was not recorded" in stall_of({"num_workers": 2}).reason
    assert "no sample tells" in stall_of({"num_workers": 2}, SAMPLES.splitlines()[0] + "\n0 0 2 - - -").reason
    assert "whether the loader has workers" in stall_of({}).reason


def test_a_phase_of_which_only_the_wall_time_is_known_is_not_split() -> None:
    phases = "rank step phase wall_us\n0 7 data 60\n0 7 forward 40\n0 8 data 50\n0 8 forward 50"

    assert "CPU time inside the loader was not recorded" in stall_of({"num_workers": 0}, phases=phases).reason


def test_steps_without_a_split_are_left_out_up_to_a_fifth_of_the_stall() -> None:
    few = PHASES.replace("8    data    50      10     0           40", "8 data 10 - - -").replace(
        "8    forward 50      50", "8 forward 90 90"
    )
    many = PHASES.replace("8    data    50      10     0           40", "8 data 50 - - -")

    assert stall_of({"num_workers": 0}, phases=few).reason == ""
    assert stall_of({"num_workers": 0}, phases=many).reason != ""


def test_the_config_says_how_many_workers_else_the_samples() -> None:
    samples = table_from_text("host_samples", SAMPLES)

    assert worker_count({"num_workers": 4}, samples) == 4
    assert worker_count({"num_workers": "auto"}, samples) == 2
    assert worker_count({"a": {"num_workers": 1}, "b": {"num_workers": 2}}) is None
    assert worker_count({}, table_from_text("host_samples", "rank time_us\n0 0")) is None


def test_cores_are_the_machines_else_the_smallest_limit_sampled() -> None:
    limited = table_from_text("host_samples", "rank time_us cgroup_cpu_limit\n0 0 4\n0 1 2")

    assert usable_cores(Machine(cpu_capacity=8), limited) == 8
    assert usable_cores(Machine(), limited) == 2
    assert usable_cores(Machine()) is None


def test_workers_hold_up_one_another_only_where_they_are_more_than_cores() -> None:
    queueing = SAMPLES.replace("0.4              0.0                   0.8", "0.4 0.5 0.3")
    stall = stall_of({"num_workers": 2}, queueing)

    assert held_up_by_one_another(stall, 1).to_list() == pytest.approx([7.5, 20.0])
    assert held_up_by_one_another(stall, 2).to_list() == [0.0, 0.0]
    assert held_up_by_one_another(stall, None).to_list() == [0.0, 0.0]


def test_on_a_device_job_idle_time_is_divided_as_the_phase_on_the_host() -> None:
    ledger = pd.DataFrame(
        {
            "rank": 0,
            "step": [7, 7, 8, 8],
            "clock": "device",
            "device": [0, 1, 0, 1],
            "part": "idle.data",
            "time_us": [10.0, 30.0, 0.0, 10.0],
        }
    )
    steps, phases = table_from_text("steps", STEPS), table_from_text("phases", PHASES)

    stall = loader_stall(ledger, steps, {"num_workers": 0}, None, phases)

    assert values(stall, "stall_us") == [20.0, 5.0]
    assert values(stall, "cpu_us") == pytest.approx([8.0, 1.0])


def test_what_workers_queue_for_one_another_is_taken_off_before_reading_and_making_are_compared() -> None:
    run = Run(steps=table_from_text("steps", STEPS), phases=table_from_text("phases", PHASES))
    samples = table_from_text("host_samples", "\n".join(SAMPLES.splitlines()[:2]) + "\n0 200 2 0.4 0.5 0.3")
    given = step_ledger(run), run.steps, {"num_workers": 2}, samples, run.phases

    crowded = loader_causes(*given, Machine(cpu_capacity=1)).rows
    roomy = loader_causes(*given, Machine(cpu_capacity=2)).rows

    assert crowded["making_us"].to_list() == pytest.approx([6.0, 8.0])
    assert roomy["making_us"].to_list() == pytest.approx([21.0, 28.0])
    assert not crowded["is_making"].any()
    assert not roomy["is_making"].any()  # others may take the cores: waiting for one decides nothing
