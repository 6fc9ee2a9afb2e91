"""Changes that take a known part out of the step, worked out by hand. Times are in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from perfnb.prediction import Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform
from perfnb.whatif.parts import PART_ERROR
from perfnb.whatif.step_model import predict

MS = 1000.0
Phases = dict[str, tuple[float, float, float]]
"""Phase to its time on a core, waiting for one, and blocked."""


def run_of(
    steps: Sequence[Phases],
    *,
    host: Sequence[tuple[str, float, float]] = (),
    written_per_s: float | None = None,
    signals: Sequence[str] = (),
    **fields: Any,
) -> Run:
    """A CPU job: the phases of each step, host rows (category, start, duration), and how much it writes."""
    step_rows, rows, start = [], [], 0.0
    for number, phases in enumerate(steps):
        length = sum(map(sum, phases.values()))
        step_rows.append((0, number, start * MS, length * MS))
        rows += [
            (0, number, phase, (cpu + queue + blocked) * MS, cpu * MS, queue * MS, blocked * MS)
            for phase, (cpu, queue, blocked) in phases.items()
        ]
        start += length
    columns = ["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"]
    events = [(0, "1", "1", category, category, at * MS, length * MS) for category, at, length in host]
    event_columns = ["rank", "process", "thread", "category", "name", "start_us", "duration_us"]
    tables: dict[str, pd.DataFrame] = {
        "steps": conform("steps", pd.DataFrame(step_rows, columns=["rank", "step", "start_us", "duration_us"])),
        "phases": conform("phases", pd.DataFrame(rows, columns=columns)),
    }
    if events:
        tables["host_ops"] = conform("host_ops", pd.DataFrame(events, columns=event_columns))
    if written_per_s is not None:
        times = [second * 1e6 for second in range(int(start / 1000) + 2)]
        samples = pd.DataFrame({"rank": 0, "time_us": times, "write_bytes_per_s": written_per_s})
        tables["host_samples"] = conform("host_samples", samples)
    return Run(**tables, signals=frozenset({*tables, *signals}), **fields)


def predicted(answer: Prediction | Unknown) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


def reason(answer: Prediction | Unknown) -> str:
    assert isinstance(answer, Unknown), answer
    assert answer.needs
    return answer.reason


PLAIN: Phases = {"forward": (80.0, 0.0, 0.0), "other": (20.0, 0.0, 0.0)}
FREEZE = {"gc_freeze": True}, {"gc_freeze": False}


def collecting(loading: float = 0.0, **fields: Any) -> Run:
    """Twelve steps of 100 ms, 30 of which go to collecting garbage."""
    step: Phases = PLAIN if not loading else {**PLAIN, "data": (0.0, 0.0, loading)}
    length = 100.0 + loading
    host = [("gc", number * length + 60.0, 30.0) for number in range(12)]
    return run_of([step] * 12, host=host, signals=["gc"], **fields)


def test_without_collecting_garbage_the_step_is_shorter_by_its_pauses() -> None:
    answer = predicted(predict(collecting(), *FREEZE))

    assert answer.after / MS == pytest.approx(70.0)
    assert answer.low / MS == pytest.approx(70.0 * math.exp(-PART_ERROR))
    assert (answer.model, answer.basis) == ("part 2", "prior")
    assert "30 ms per step are the part that changes" in answer.assumptions


def test_no_pause_while_pauses_were_listened_for_is_no_effect() -> None:
    answer = predicted(predict(run_of([PLAIN] * 12, signals=["gc"]), *FREEZE))

    assert (answer.after, answer.verdict) == (answer.before, "no effect expected")


def test_pauses_that_nobody_listened_for_are_not_known() -> None:
    assert "were not recorded" in reason(predict(run_of([PLAIN] * 12), *FREEZE))


def test_a_loader_with_workers_may_take_back_what_is_saved() -> None:
    answer = predicted(predict(collecting(loading=50.0), {"gc_freeze": True}, {"gc_freeze": False, "num_workers": 2}))

    assert answer.after / MS == pytest.approx(120.0)
    assert answer.high / MS == pytest.approx(120.0 * math.exp(math.hypot(PART_ERROR, math.log(150 / 120))))


def test_without_compiling_again_its_time_goes() -> None:
    host = [("compile", number * 100.0 + 10.0, 50.0) for number in range(12)]
    run = run_of([PLAIN] * 12, host=host, signals=["compile"])

    answer = predicted(predict(run, {"compile_dynamic": True}, {"compile_dynamic": None}))

    # of the eleven steady steps 1 to 11 those from 6 on are past the warm-up: six times 50 ms
    assert answer.after / MS == pytest.approx(100 - 6 * 50 / 11)


SAVING: Phases = {"forward": (580.0, 0.0, 0.0), "other": (120.0, 0.0, 300.0)}
NOT_SAVING: Phases = {"forward": (980.0, 0.0, 0.0), "other": (20.0, 0.0, 0.0)}
EVERY_OTHER = [SAVING if number % 2 else NOT_SAVING for number in range(12)]
PART = 6 * 400 / 11  # of the steady steps 1 to 11 six save, 400 ms more than the others' 20


def test_saving_at_fewer_steps_leaves_a_share_of_it() -> None:
    run = run_of(EVERY_OTHER, written_per_s=2e6)

    answer = predicted(predict(run, {"checkpoint_every_n_steps": 20}, {"checkpoint_every_n_steps": 2}))

    assert answer.after / MS == pytest.approx(1000 - PART * (1 - 2 / 20))


def test_saving_more_often_costs_more() -> None:
    run = run_of(EVERY_OTHER, written_per_s=2e6)

    answer = predicted(predict(run, {"checkpoint_every_n_steps": 1}, {"checkpoint_every_n_steps": 2}))

    assert answer.after / MS == pytest.approx(1000 + PART)


def test_saving_in_the_background_leaves_between_nothing_and_what_was_computed() -> None:
    run = run_of(EVERY_OTHER, written_per_s=2e6)

    answer = predicted(predict(run, {"async_checkpoint": True}, {"async_checkpoint": False}))

    sure = 300 / 420  # of a saving step's time in other
    after = 1000 - PART * (1 + sure) / 2
    assert answer.after / MS == pytest.approx(after)
    most, least = 1000 - PART, 1000 - PART * sure
    # which steps save is drawn too, which widens either side by half a percent
    assert answer.low / MS == pytest.approx(after * math.exp(-math.hypot(PART_ERROR, math.log(most / after))), rel=0.01)
    assert answer.high / MS == pytest.approx(after * math.exp(math.hypot(PART_ERROR, math.log(least / after))), rel=0.01)


def test_saves_are_no_reason_to_call_a_run_unsteady() -> None:
    long_save: Phases = {"forward": (980.0, 0.0, 0.0), "other": (20.0, 0.0, 2000.0)}
    steps = [long_save if number % 4 == 3 else NOT_SAVING for number in range(12)]
    rarer = {"checkpoint_every_n_steps": 40}, {"checkpoint_every_n_steps": 4}

    known = predicted(predict(run_of(steps, written_per_s=2e6), *rarer))
    unknown = predict(run_of(steps), *rarer)

    # of the steady steps 1 to 11 three save, 2000 ms each
    assert known.before / MS == pytest.approx(1000 + 6000 / 11)
    assert known.after / MS == pytest.approx(1000 + 6000 / 11 / 10)
    assert "steps 3, 7, 11 stand out" in reason(unknown)


CROWDED: Phases = {"forward": (40.0, 30.0, 20.0), "other": (10.0, 0.0, 0.0)}


def crowded(**fields: Any) -> Run:
    return run_of([CROWDED] * 12, signals=["schedstat"], machine=Machine(cpu_capacity=2.0), **fields)


def test_as_many_threads_as_cores_wait_for_none() -> None:
    answer = predicted(predict(crowded(), {"torch_num_threads": 2}, {"torch_num_threads": 32}))

    assert answer.before / MS == pytest.approx(100.0)
    assert answer.after / MS == pytest.approx(50.0)


def device_job() -> Run:
    """The job that collects garbage, with a device that is busy for 90 of each 100 ms."""
    run = collecting()
    rows = [(0, 0, 7, "compute", "gemm", number * 100.0 * MS, 90.0 * MS, number) for number in range(12)]
    columns = ["rank", "device", "stream", "kind", "name", "start_us", "duration_us", "correlation"]
    return Run(
        steps=run.steps,
        phases=run.phases,
        host_ops=run.host_ops,
        device_ops=conform("device_ops", pd.DataFrame(rows, columns=columns)),
        signals=run.signals | {"device_ops"},
    )


def test_of_a_device_job_at_most_the_idle_time_goes_a_range() -> None:
    answer = predicted(predict(device_job(), *FREEZE))

    assert answer.after / MS == pytest.approx(95.0, abs=0.1)  # between 90 and 100: the pause of 30 meets 10 of idle time
    assert answer.low <= 90 * MS
    assert answer.high >= 100 * MS
    assert any("not validated on a GPU" in text for text in answer.assumptions)


THREADS, SAVES = {"torch_num_threads": 32}, {"checkpoint_every_n_steps": 2}

UNKNOWN = (
    ("fewer threads than cores", crowded(), {"torch_num_threads": 1}, THREADS, "how operators scale"),
    ("threads that are not crowded", crowded(), {"torch_num_threads": 1}, {"torch_num_threads": 2}, "how operators scale"),
    ("no number of threads", crowded(), {"torch_num_threads": "auto"}, THREADS, "does not count threads"),
    ("cores that nobody stated", run_of([CROWDED] * 12), {"torch_num_threads": 2}, THREADS, "how many cores"),
    (
        "waiting that is not told apart",
        run_of([PLAIN] * 12, machine=Machine(cpu_capacity=2.0)),
        {"torch_num_threads": 2},
        THREADS,
        "does not tell waiting",
    ),
    ("collecting again", collecting(), {"gc_freeze": False}, {"gc_freeze": True}, "collecting would take"),
    ("compiling that nobody heard of", run_of([PLAIN] * 12), {"compile_dynamic": True}, {"compile_dynamic": None}, "no compile"),
    ("fixed shapes", run_of([PLAIN] * 12), {"compile_dynamic": False}, {"compile_dynamic": True}, "how often"),
    ("saves that are not seen", run_of([PLAIN] * 12), {"checkpoint_every_n_steps": 20}, SAVES, "the host was not sampled"),
    (
        "saves that take nothing",
        run_of([NOT_SAVING] * 12, written_per_s=2e6),
        {"checkpoint_every_n_steps": 20},
        SAVES,
        "no time of saving",
    ),
    (
        "saves rarer than the run is long",
        run_of(EVERY_OTHER, written_per_s=2e6),
        {"checkpoint_every_n_steps": 80},
        {"checkpoint_every_n_steps": 40},
        "holds 11",
    ),
    ("no number of steps", run_of(EVERY_OTHER), {"checkpoint_every_n_steps": 0}, SAVES, "does not count steps"),
    ("waiting for the disk", run_of(EVERY_OTHER), {"async_checkpoint": False}, {"async_checkpoint": True}, "would wait"),
)


@pytest.mark.parametrize("case", UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_what_the_ledger_does_not_hold_is_no_number(case: tuple[str, Run, dict[str, Any], dict[str, Any], str]) -> None:
    _, run, changes, config, words = case

    assert words in reason(predict(run, changes, config))


def test_threads_of_a_device_job_are_not_known() -> None:
    run = device_job()
    run = Run(
        steps=run.steps,
        phases=run.phases,
        device_ops=run.device_ops,
        signals=run.signals,
        machine=Machine(cpu_capacity=2.0),
    )

    assert "waiting inside forward and backward is for the device" in reason(predict(run, {"torch_num_threads": 2}, THREADS))


def test_parts_and_other_changes_are_one_simulation() -> None:
    run = collecting(loading=50.0)
    config = {"gc_freeze": False, "num_workers": 0}

    both = predicted(predict(run, {"gc_freeze": True, "num_workers": 2}, config))

    assert both.before / MS == pytest.approx(150.0)
    assert both.after / MS == pytest.approx(70.0)
    assert both.model == "loader_queue_unprobed 1 + part 2"
