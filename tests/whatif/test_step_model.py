"""Predictions from runs small enough to work out by hand, and every answer that is no number. Times are in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from perfnb.errors import ConflictingChanges
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform
from perfnb.whatif.step_model import predict
from perfnb.whatif.uncertainty import Calibration, Pair

MS = 1000.0
CONFIG: dict[str, Any] = {
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "cache_samples": "none",
    "log_every_n_steps": 1,
    "balance_batches": False,
    "torch_num_threads": 1,
    "pin_memory": False,
    "gc_freeze": False,
    "compile_dynamic": None,
    "checkpoint_every_n_steps": 2,
    "async_checkpoint": False,
}

Phases = Mapping[str, tuple[float, ...]]
"""Phase to its (cpu, blocked) or (cpu, blocked, run queue), or to its wall time alone."""


def recorded(*ranks: Phases, steps: int = 12, cores: float | None = None, world_size: int | None = None, **more: Any) -> Run:
    """A run whose steps are all alike, with the phases of each rank."""
    step_rows, rows = [], []
    for rank, phases in enumerate(ranks):
        length = sum(sum(times) for times in phases.values())
        for step in range(steps):
            step_rows.append((rank, step, step * length * MS, length * MS))
            for phase, times in phases.items():
                cpu, blocked, queue = (*times, 0.0)[:3] if len(times) > 1 else (math.nan,) * 3
                rows.append((rank, step, phase, sum(times) * MS, cpu * MS, queue * MS, blocked * MS))
    return Run(
        steps=conform("steps", pd.DataFrame(step_rows, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform(
            "phases", pd.DataFrame(rows, columns=["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"])
        ),
        machine=Machine(cpu_capacity=cores),
        world_size=world_size or len(ranks),
        signals=frozenset({"steps", "phases"}),
        **more,
    )


def traced(*ranks: Phases, worker: str = "_SingleProcessDataLoaderIter", **options: Any) -> Run:
    """The same with the host rows of a trace: the loader's range at the start of each step, two collate operators at its end."""
    rows = []
    for rank, phases in enumerate(ranks):
        length, data = sum(sum(times) for times in phases.values()), sum(phases["data"])
        for step in range(options.get("steps", 12)):
            start = step * length * MS
            name = f"enumerate(DataLoader)#{worker}.__next__"
            rows.append((rank, "1", "1", "annotation", name, start, data * MS))
            rows += [(rank, "1", "1", "operator", "aten::sort", start + at * MS, MS) for at in (0.0, data - 4.0)]
            rows += [(rank, "1", "1", "operator", "aten::stack", start + (data - at) * MS, MS) for at in (2.0, 1.0)]
    columns = ["rank", "process", "thread", "category", "name", "start_us", "duration_us"]
    host = conform("host_ops", pd.DataFrame(rows, columns=columns))
    return recorded(*ranks, host_ops=host, **options)


WAITING = {"data": (0.0, 60.0), "forward": (40.0, 0.0)}


def predicted(answer: Prediction | Unknown) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


def after_ms(answer: Prediction | Unknown) -> float:
    return predicted(answer).after / MS


@pytest.mark.parametrize(("workers", "expected"), [(1, 60), (2, 40), (4, 40)])
def test_workers_hide_loading_behind_the_step(workers: int, expected: float) -> None:
    answer = predict(recorded(WAITING), {"num_workers": workers}, CONFIG)

    assert predicted(answer).before == 100 * MS
    assert after_ms(answer) == pytest.approx(expected)


def test_the_interval_is_the_models_error_where_nothing_varies_and_2_ms_for_taking_a_batch() -> None:
    answer = predicted(predict(recorded(WAITING), {"num_workers": 2}, CONFIG))

    assert answer.low == pytest.approx(40 * MS * math.exp(-0.1))
    assert answer.high == pytest.approx(40 * MS * math.exp(math.hypot(0.1, math.log(42 / 40))))
    assert (answer.basis, answer.model) == ("prior", "loader_queue_unprobed 1")


@pytest.mark.parametrize(("cores", "expected"), [(1, 100), (2, 60), (4, 40)])
def test_workers_that_compute_need_cores(cores: int, expected: float) -> None:
    computing = {"data": (60.0, 0.0), "forward": (40.0, 0.0)}

    answer = predict(recorded(computing, cores=cores), {"num_workers": 2 if cores > 1 else 4}, CONFIG)

    # one core: 60 + 40; two cores, three actors: (60 + 40) / 2 = 50; four: the loop's 40
    assert after_ms(answer) == pytest.approx(expected if cores != 2 else 50, rel=0.01)


def test_a_split_that_the_trace_does_not_tell_widens_the_interval_where_cores_are_short() -> None:
    run = {"data": (60.0,), "forward": (40.0,)}

    crowded = predicted(predict(traced(run, cores=2), {"num_workers": 2}, CONFIG))
    roomy = predicted(predict(traced(run, cores=8), {"num_workers": 2}, CONFIG))

    assert roomy.after == pytest.approx(40 * MS)
    assert crowded.low <= 40 * MS  # all of loading is waiting
    assert crowded.high >= 50 * MS  # all of it is computing
    assert crowded.spread > roomy.spread


def test_cores_that_nobody_stated_are_assumed_and_said() -> None:
    answer = predicted(predict(recorded(WAITING), {"num_workers": 2}, CONFIG))

    assert any("a core for each worker" in text for text in answer.assumptions)


def test_cached_samples_leave_the_collating() -> None:
    run = traced({"data": (60.0,), "forward": (40.0,)})

    answer = predicted(predict(run, {"cache_samples": "memory"}, CONFIG))

    # the last sample operator ends 3 before the span does; of those 3 the two collate operators take 2
    assert answer.after / MS == pytest.approx(43)
    assert answer.low / MS <= 43 * math.exp(-0.1)


def test_cached_samples_without_a_collate_operator_are_unknown() -> None:
    run = traced({"data": (60.0,), "forward": (40.0,)})
    run = Run(
        steps=run.steps, phases=run.phases, host_ops=run.host_ops[run.host_ops["name"] != "aten::stack"], signals=run.signals
    )

    answer = predict(run, {"cache_samples": "memory"}, CONFIG)

    assert isinstance(answer, Unknown)
    assert "aten::stack" in answer.reason


def test_logging_at_every_fiftieth_step_leaves_a_fiftieth_of_it() -> None:
    run = recorded({"forward": (60.0, 0.0), "other": (25.0, 0.0)})

    answer = predict(run, {"log_every_n_steps": 50}, CONFIG)

    assert after_ms(answer) == pytest.approx(85 - 25 * (1 - 1 / 50))


def test_equal_work_ends_with_the_mean() -> None:
    run = recorded(
        {"forward": (30.0, 0.0), "communication": (0.0, 65.0)},
        {"forward": (90.0, 0.0), "communication": (0.0, 5.0)},
    )

    answer = predict(run, {"balance_batches": True}, CONFIG)

    assert after_ms(answer) == pytest.approx(95 - (90 - 60))
    assert predicted(answer).low == pytest.approx(65 * MS * math.exp(-0.05))


def test_the_step_ends_with_the_slowest_rank() -> None:
    run = recorded(
        {"data": (0.0, 60.0), "forward": (30.0, 0.0), "communication": (0.0, 10.0)},
        {"data": (0.0, 20.0), "forward": (35.0, 0.0), "communication": (0.0, 45.0)},
    )

    answer = predict(run, {"num_workers": 4}, CONFIG)

    assert after_ms(answer) == pytest.approx(35 + 10)


def test_a_device_job_without_a_trace_gains_seven_tenths_of_the_simulated() -> None:
    run = recorded(WAITING)
    run = Run(steps=run.steps, phases=run.phases, machine=Machine(devices=("a GPU",)), signals=run.signals)

    answer = predicted(predict(run, {"num_workers": 2}, CONFIG))

    assert answer.after / MS == pytest.approx(100 - 0.7 * 60)
    assert answer.low / MS < 40  # a gain of 1.0 is in the interval
    assert answer.high / MS > 70  # one of .5 too


def test_several_changes_are_one_simulation() -> None:
    run = traced({"data": (60.0,), "forward": (40.0,), "other": (20.0,)})
    both = {"num_workers": 2, "log_every_n_steps": 50}

    apart = [predicted(predict(run, {knob: value}, CONFIG)) for knob, value in both.items()]
    together = predicted(predict(run, both, CONFIG))

    assert together.after / MS == pytest.approx(40 + 20 / 50)
    assert together.before - together.after <= sum(each.before - each.after for each in apart) + 1e-6


VALUES: Mapping[str, Any] = {
    "num_workers": 2,
    "prefetch_factor": 4,
    "persistent_workers": True,
    "cache_samples": "memory",
    "log_every_n_steps": 50,
    "balance_batches": True,
    "torch_num_threads": 2,
    "gc_freeze": True,
    "compile_dynamic": True,
    "checkpoint_every_n_steps": 20,
    "async_checkpoint": True,
}


def two_ranks() -> Run:
    return traced(
        {"data": (60.0,), "forward": (30.0,), "other": (10.0,), "communication": (20.0,)},
        {"data": (20.0,), "forward": (40.0,), "other": (10.0,), "communication": (50.0,)},
    )


def test_the_same_question_has_the_same_answer_and_leaves_the_run_alone() -> None:
    first, second = two_ranks(), two_ranks()

    once = predict(first, VALUES, CONFIG)
    again = predict(first, VALUES, CONFIG)
    afresh = predict(second, VALUES, CONFIG)

    assert once == again == afresh
    for table in ("steps", "phases", "host_ops"):
        pd.testing.assert_frame_equal(getattr(first, table), getattr(two_ranks(), table))


def test_nothing_changed_is_the_step_of_now() -> None:
    answer = predicted(predict(recorded(WAITING), {}, CONFIG))

    assert (answer.before, answer.after, answer.low, answer.high) == (100 * MS,) * 4
    assert answer.verdict == "no effect expected"


def test_a_value_that_the_config_has_already_is_named() -> None:
    answer = predicted(predict(recorded(WAITING), {"num_workers": 0}, CONFIG))

    assert "num_workers is 0 already" in answer.assumptions
    assert answer.after == answer.before


def test_a_track_record_moves_the_interval_and_names_itself() -> None:
    pairs = tuple(Pair("loader_queue_unprobed 1", "num_workers", f"job {number % 5}", 1, number - 2.0) for number in range(10))

    answer = predicted(predict(recorded(WAITING), {"num_workers": 2}, CONFIG, calibration=Calibration(pairs)))

    assert answer.basis.startswith("calibrated on 10 pairs")
    # the half-widths below and above, by their mean
    width = (0.1 + math.hypot(0.1, math.log(42 / 40))) / 2
    assert answer.low == pytest.approx(40 * MS * math.exp(-2 * width))
    assert answer.high == pytest.approx(40 * MS * math.exp(7 * width))
    assert answer.simulated is None


def test_thirty_pairs_move_the_value_and_what_the_models_gave_is_kept() -> None:
    pairs = tuple(Pair("loader_queue_unprobed 1", "num_workers", f"job {number % 6}", 1, 1.0) for number in range(30))

    answer = predicted(predict(recorded(WAITING), {"num_workers": 2}, CONFIG, calibration=Calibration(pairs)))

    assert answer.simulated == pytest.approx(40 * MS)
    assert answer.after == pytest.approx(40 * MS * math.exp(answer.spread))


def test_workers_that_hardly_wait_are_not_the_limit() -> None:
    run = recorded({"data": (0.0, 0.5), "forward": (99.5, 0.0)})

    answer = predicted(predict(run, {"num_workers": 4}, {**CONFIG, "num_workers": 2}))

    assert answer.after == answer.before
    assert any("does not limit the step" in text for text in answer.assumptions)


def test_two_changes_of_one_knob_are_refused() -> None:
    with pytest.raises(ConflictingChanges, match="num_workers"):
        predict(recorded(WAITING), [Change("num_workers", 0, 2), Change("num_workers", 0, 4)], CONFIG)


UNKNOWN: Sequence[tuple[str, Run, Mapping[str, Any], Mapping[str, Any], str]] = (
    ("workers of unknown speed", recorded(WAITING), {"num_workers": 4}, {"num_workers": 2}, "loaded with 2 workers"),
    (
        "fewer workers",
        recorded({"data": (0.0, 0.5), "forward": (99.5, 0.0)}),
        {"num_workers": 1},
        {"num_workers": 2},
        "does not hold",
    ),
    ("prefetching without workers", recorded(WAITING), {"prefetch_factor": 4}, {}, "ValueError"),
    ("persistence without workers", recorded(WAITING), {"persistent_workers": True}, {}, "ValueError"),
    ("the start of workers", recorded(WAITING), {"persistent_workers": True}, {"num_workers": 2}, "no such start"),
    (
        "a knob without a model",
        recorded(WAITING),
        {"memory_fraction": 0.5},
        {"memory_fraction": 0.9},
        "no model of memory_fraction",
    ),
    ("a knob that the config lacks", recorded(WAITING), {"batch_size": 8}, {}, "no batch_size"),
    ("no number of workers", recorded(WAITING), {"num_workers": "auto"}, {}, "no number of workers"),
    ("cached to disk", traced({"data": (60.0,), "forward": (40.0,)}), {"cache_samples": "disk"}, {}, "not known"),
    ("caching without a trace", recorded(WAITING), {"cache_samples": "memory"}, {}, "aten::stack"),
    ("no loader", recorded({"forward": (40.0, 0.0)}), {"num_workers": 2}, {}, "no time in a DataLoader"),
    ("too few steps", recorded(WAITING, steps=6), {"num_workers": 2}, {}, "5 steady steps, 10 are needed"),
    ("too few traced steps", traced({"data": (60.0,), "forward": (40.0,)}, steps=2), {"num_workers": 2}, {}, "2 steady steps, 3"),
    ("one rank of two", recorded(WAITING, world_size=2), {"num_workers": 2}, {}, "ranks 1 were not read"),
    ("balance of one rank", recorded(WAITING, world_size=2), {"balance_batches": True}, {}, "only rank 0"),
    ("balance without waiting", recorded(WAITING, WAITING), {"balance_batches": True}, {}, "never wait for one another"),
    ("logging rarer than the run is long", recorded(WAITING), {"log_every_n_steps": 80}, {"log_every_n_steps": 40}, "holds 11"),
    (
        "a config of another run",
        traced({"data": (60.0,), "forward": (40.0,)}, worker="_MultiProcessingDataLoaderIter"),
        {"num_workers": 2},
        {},
        "waits for worker processes",
    ),
    (
        "time in the run queue",
        recorded({"data": (0.0, 40.0), "forward": (35.0, 0.0, 25.0)}),
        {"num_workers": 2},
        {},
        "for the unchanged step of 100.0 ms (-25%)",
    ),
)


@pytest.mark.parametrize("case", UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_what_the_run_does_not_tell_is_no_number(case: tuple[str, Run, Mapping[str, Any], Mapping[str, Any], str]) -> None:
    _, run, changes, config, reason = case

    answer = predict(run, changes, {**CONFIG, **config})

    assert isinstance(answer, Unknown)
    assert not answer
    assert reason in answer.reason
    assert answer.needs


def test_a_change_that_starts_from_another_config_is_no_number() -> None:
    answer = predict(recorded(WAITING), [Change("num_workers", 2, 4)], CONFIG)

    assert isinstance(answer, Unknown)
    assert "is 0 in the config" in answer.reason


def test_another_metric_is_no_number() -> None:
    assert isinstance(predict(recorded(WAITING), {"num_workers": 2}, CONFIG, metric="epoch_us"), Unknown)


def test_steps_that_vary_for_other_reasons_are_named() -> None:
    run = recorded(WAITING)
    longer = run.steps["step"].isin([5, 9])
    steps = run.steps.assign(duration_us=run.steps["duration_us"].where(~longer, 300 * MS), start_us=run.steps["start_us"] * 4)
    phases = run.phases.assign(
        **{
            name: run.phases[name].where(~(run.phases["step"].isin([5, 9]) & (run.phases["phase"] == "forward")), 240 * MS)
            for name in ("wall_us", "cpu_us")
        }
    )

    answer = predict(Run(steps=steps, phases=phases, signals=run.signals), {"num_workers": 2}, CONFIG)

    assert isinstance(answer, Unknown)
    assert "steps 5, 9 stand out" in answer.reason


def test_what_the_model_misses_of_the_unchanged_step_stays_in_proportion() -> None:
    run = recorded({"data": (0.0, 40.0), "forward": (50.0, 0.0, 10.0)})  # 10 of 100 in the run queue

    answer = predict(run, {"num_workers": 2}, CONFIG)

    # 50 of the 90 that the model has of the step are left, so 50 / 90 of the recorded 100
    assert isinstance(answer, Prediction)
    assert answer.after / MS == pytest.approx(100 * 50 / 90)
    assert answer.spread > 0.1


def test_handing_over_batches_that_are_quick_to_make_may_cost_what_making_them_does() -> None:
    quick = predict(recorded({"data": (0.0, 4.0), "forward": (6.0, 0.0)}), {"num_workers": 2}, CONFIG)

    # 6 of computing, and in the high end the 4 that a batch takes: so that no gain is promised
    assert isinstance(quick, Prediction)
    assert quick.after / MS == pytest.approx(6)
    assert quick.high / MS > 10
    assert quick.verdict == "no effect expected"
    assert any("or in the high end 4 ms" in text for text in quick.assumptions)
