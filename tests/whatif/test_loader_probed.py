"""Predictions that rest on a probe of the dataset, and every case in which they are refused. Times are in milliseconds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import pytest

from perfnb.prediction import Prediction, Unknown
from perfnb.record.loader_probe_result import LoaderProbe
from perfnb.run import Machine, Run
from perfnb.tables import conform
from perfnb.whatif import step_model
from perfnb.whatif.loader_foreign import Foreign, foreign_load
from perfnb.whatif.loader_probed import ProbedLoader, probed_loader
from perfnb.whatif.loader_sources import LOADER_ERROR

predict, shadow = (partial(answer, draws=4) for answer in (step_model.predict, step_model.shadow))

MS = 1000.0
QUIET = {"pressure_cpu_share": 0.0, "foreign_cores": 0.0}
FREE = {"get_us": 0.0, "put_us": 0.0, "fork_us": 0.0, "init_us": 0.0}
CONFIG: dict[str, Any] = {
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "in_order": True,
    "cache_samples": "none",
    "data_root": "/share",
    "pin_memory": False,
    "torch_num_threads": 1,
}


def recorded(
    data: float, loop: float, *, steps: int = 24, cores: float | None = None, epoch: int = 0, ranks: int = 1, **more: Any
) -> Run:
    """A run of equal steps that wait `data` for their batch, then compute for `loop`; `epoch` steps are one epoch."""
    rows, phases = [], []
    for rank, step in itertools.product(range(ranks), range(steps)):
        rows.append((rank, step, step * (data + loop) * MS, (data + loop) * MS, step // epoch if epoch else pd.NA))
        phases += [
            (rank, step, "data", data * MS, 0.0, 0.0, data * MS),
            (rank, step, "forward", loop * MS, loop * MS, 0.0, 0.0),
        ]
    config = {**CONFIG, **more.pop("config", {})}
    return Run(
        steps=conform("steps", pd.DataFrame(rows, columns=["rank", "step", "start_us", "duration_us", "epoch"])),
        phases=conform(
            "phases", pd.DataFrame(phases, columns=["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"])
        ),
        machine=Machine(cpu_capacity=cores),
        world_size=ranks,
        config=config,
        signals=frozenset({"steps", "phases"}),
        **more,
    )


def probe(batches: Sequence[float], *, collate: float = 0.0, cpu: float = 0.0, **constants: float) -> LoaderProbe:
    """A probe of batches of one sample each that wait, all but a share `cpu` of their time; then they are collated."""
    rows = []
    for number, time in enumerate(batches):
        rows.append((0, 2 * number, number, "sample", time * MS, cpu * time * MS, 8, "probe"))
        rows.append((0, 2 * number + 1, number, "collate", collate * MS, collate * MS, 8, "probe"))
    columns = ["rank", "position", "batch", "part", "wall_us", "cpu_us", "bytes", "source"]
    values = {f"loader.{name}": value for name, value in {**QUIET, **FREE, **constants}.items()}
    mean = sum(batches) / len(batches) + collate
    return LoaderProbe(conform("loader_samples", pd.DataFrame(rows, columns=columns)), values, mean * MS, 0.0, "one epoch")


def after_ms(answer: Prediction | Unknown) -> float:
    assert isinstance(answer, Prediction), answer
    return answer.after / MS


def with_workers(workers: int, data: float, loop: float, **more: Any) -> Run:
    return recorded(data, loop, config={"num_workers": workers, "prefetch_factor": 2, **more.pop("config", {})}, **more)


@pytest.mark.parametrize(("constants", "expected"), [({}, 40), ({"get_us": 5 * MS}, 45), ({"put_us": 30 * MS}, 45)])
def test_handing_over_costs_the_loop_and_the_workers_what_the_probe_found(constants: dict[str, float], expected: float) -> None:
    run = probe([60.0] * 24, **constants).attach(recorded(60, 40))

    # a loop of 40, and 5 to take a batch; or two workers that make and hand over a batch in 90 ms
    assert after_ms(predict(run, {"num_workers": 2})) == pytest.approx(expected)


def test_big_batches_of_trivial_samples_are_slower_with_workers() -> None:
    run = probe([3.0] * 24, get_us=12 * MS, put_us=17 * MS).attach(recorded(3, 10))

    answer = predict(run, {"num_workers": 2})

    assert after_ms(answer) == pytest.approx(22)  # 10 + 12
    assert isinstance(answer, Prediction)
    assert answer.verdict == "slower"


def test_workers_that_were_there_are_known_from_the_probe() -> None:
    run = probe([60.0] * 24).attach(with_workers(1, data=20, loop=40))

    answers = [predict(run, {"num_workers": workers}) for workers in (0, 2, 4)]

    assert [after_ms(answer) for answer in answers] == pytest.approx([100, 40, 40])


def test_a_probe_that_does_not_explain_the_run_with_workers_is_refused() -> None:
    run = probe([90.0] * 24).attach(with_workers(1, data=20, loop=40))  # a step of 60, where one worker would take 90

    answer = predict(run, {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert "90.0 ms for the unchanged step of 60.0 ms" in answer.reason


def test_the_mean_is_the_runs_where_it_has_no_workers() -> None:
    run = probe([55.0] * 48, put_us=1.0).attach(recorded(60, 10))

    # 60 / 55 = 1.09: the probe's batches, of which there are more, are taken for 60 each
    assert after_ms(predict(run, {"num_workers": 1})) == pytest.approx(60, abs=0.01)


def test_batches_that_took_longer_in_the_run_than_in_the_probe_widen_the_interval_as_much() -> None:
    answer = predict(probe([50.0] * 24).attach(recorded(60, 40)), {"num_workers": 2})

    assert isinstance(answer, Prediction)
    assert answer.after / MS == pytest.approx(40)
    assert answer.high / answer.after == pytest.approx(math.exp(math.hypot(LOADER_ERROR, math.log(60 / 50))), rel=1e-6)
    assert any("1.20 times as long in the run" in text for text in answer.assumptions)


COLD = {"after_wait_ratio": 1.1, "after_wait_us": 20 * MS}


@pytest.mark.parametrize(
    ("changes", "loop", "expected"),
    [
        ({"num_workers": 2}, 22, 20),  # nobody waits any more, so what took 22 after each wait takes 22 / 1.1
        ({"num_workers": 1}, 11, 20),  # a worker needs 20, which the loop, of 10.5 after a wait of 10, still waits for
        ({"cache_samples": "memory"}, 22, 20),
    ],
)
def test_work_after_a_wait_is_faster_where_the_wait_goes(changes: dict[str, Any], loop: float, expected: float) -> None:
    run = probe([20.0] * 24, is_random=0.0, set_bytes=8.0, **COLD).attach(recorded(20, loop))

    answer = predict(run, changes)

    assert after_ms(answer) == pytest.approx(expected, rel=0.01)
    assert isinstance(answer, Prediction)
    assert any("right after a wait for data takes 1.10 times as long" in text for text in answer.assumptions)


def test_work_is_slower_where_a_wait_comes() -> None:
    run = probe([40.0] * 24, **{**COLD, "after_wait_us": 30 * MS}).attach(with_workers(2, data=0.001, loop=20))

    answers = [predict(run, {"num_workers": workers}) for workers in (1, 0)]

    # one worker delivers every 40, whatever the loop takes; without any it waits 40 and then works for 22
    assert [after_ms(answer) for answer in answers] == pytest.approx([40, 62], rel=1e-3)


def test_work_that_does_not_slow_down_after_waits_is_as_recorded() -> None:
    run = probe([20.0] * 24, after_wait_ratio=0.97, after_wait_us=20 * MS).attach(recorded(20, 22))

    assert after_ms(predict(run, {"num_workers": 2})) == pytest.approx(22)


@pytest.mark.parametrize("batch", [44.0, 81.0])
def test_a_probe_of_other_batches_than_the_runs_is_refused(batch: float) -> None:
    answer = predict(probe([batch] * 24).attach(recorded(60, 40)), {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert "does not look like the run" in answer.reason
    assert isinstance(shadow(probe([batch] * 24).attach(recorded(60, 40)), {"num_workers": 2}), Prediction)


def test_batches_of_another_size_are_another_probe() -> None:
    run = probe([60.0] * 24, batch_size=32.0).attach(recorded(60, 40, config={"batch_size": 64}))

    answer = predict(run, {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert "batches of 64 samples, the probe loaded 32" in answer.reason


@pytest.mark.parametrize(
    ("load", "said"),
    [({"pressure_cpu_share": 0.5}, "CPU pressure 50%"), ({"foreign_cores": 0.4}, "other processes on 0.40 cores")],
)
def test_a_probe_of_a_busy_machine_is_refused_but_scored_in_the_shadow(load: dict[str, float], said: str) -> None:
    run = probe([60.0] * 24, **load).attach(recorded(60, 40))

    answer = predict(run, {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert said in answer.reason
    assert after_ms(shadow(run, {"num_workers": 2})) == pytest.approx(40)


def test_workers_without_a_probe_are_unknown_unless_nothing_waits_for_them() -> None:
    limited = predict(with_workers(2, data=20, loop=40), {"num_workers": 4})
    idle = predict(with_workers(2, data=0.2, loop=40), {"num_workers": 4})
    fewer = predict(with_workers(2, data=0.2, loop=40), {"num_workers": 1})

    assert isinstance(limited, Unknown)
    assert "probe_dataset" in limited.needs
    assert isinstance(idle, Prediction)
    assert idle.after == idle.before
    assert any("the loader does not limit the step" in text for text in idle.assumptions)
    assert isinstance(fewer, Unknown)


def test_why_a_dataset_could_not_be_probed_is_said() -> None:
    run = dataclasses.replace(with_workers(2, 20, 40), missing={"loader_samples": "the machine stayed busy"})

    answer = predict(run, {"num_workers": 4})

    assert isinstance(answer, Unknown)
    assert "the machine stayed busy" in answer.reason


BURSTS = [60.0, 10.0, 10.0, 10.0] * 6


def test_out_of_order_a_slow_batch_holds_up_nobody() -> None:
    run = probe(BURSTS).attach(recorded(22.5, 23))

    ordered = predict(run, {"num_workers": 2, "prefetch_factor": 1})
    free = predict(run, {"num_workers": 2, "prefetch_factor": 1, "in_order": False})

    assert after_ms(free) < after_ms(ordered)
    assert isinstance(free, Prediction)
    assert any("order of batches may differ" in text for text in free.assumptions)


def test_the_order_of_a_run_with_workers_needs_the_spread_of_its_batches() -> None:
    run = with_workers(2, data=8.5, loop=20)  # in order, two workers, prefetch 2

    without = predict(run, {"in_order": False})
    single = predict(probe([30.0]).attach(with_workers(1, 10, 20)), {"in_order": False})
    known = predict(probe(BURSTS).attach(with_workers(2, 0, 23)), {"in_order": False})
    idle = predict(with_workers(2, data=0.1, loop=40), {"in_order": False})

    assert isinstance(without, Unknown)
    assert isinstance(single, Unknown)
    assert "a single batch" in single.reason
    assert after_ms(known) == pytest.approx(23, rel=0.01)
    assert after_ms(idle) == pytest.approx(40.1)


def test_a_larger_prefetch_hides_bursts_of_a_run_with_workers() -> None:
    waits = [100.0, *[5.0] * 11] * 2  # a mean of 12.9 and one batch of 100
    run = probe(waits).attach(with_workers(1, data=4.9, loop=13, config={"prefetch_factor": 2}))

    answer = predict(run, {"prefetch_factor": 12})

    assert after_ms(answer) < 17.9
    assert after_ms(predict(run, {"prefetch_factor": None})) == pytest.approx(17.9, rel=0.1)  # None is torch's 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_workers": 2, "in_order": "yes"}, "neither True nor False"),
        ({"num_workers": 2, "prefetch_factor": 0}, "no prefetch factor"),
        ({"num_workers": -1}, "no number of workers"),
        ({"num_workers": 1000}, "128"),
        ({"pin_memory": 1}, "neither True nor False"),
        ({"pin_memory": True}, "no GPU"),
        ({"cache_samples": "disk"}, "'disk'"),
        ({"data_root": "/scratch"}, "not known"),
    ],
)
def test_values_without_a_meaning_or_a_measurement_are_unknown(changes: dict[str, Any], said: str) -> None:
    answer = predict(recorded(60, 40), changes)

    assert isinstance(answer, Unknown)
    assert said in answer.reason


def test_cached_samples_leave_the_collating_that_the_probe_timed() -> None:
    run = probe([57.0] * 24, collate=3.0).attach(recorded(60, 40))

    assert after_ms(predict(run, {"cache_samples": "memory"})) == pytest.approx(43)
    assert after_ms(predict(run, {"cache_samples": "memory", "num_workers": 1})) == pytest.approx(40)


@pytest.mark.parametrize(
    ("constants", "said"),
    [({"is_random": 1.0}, "randomness"), ({"set_bytes": 3 * 2.0**30, "memory_bytes": 2.0**30}, "3.0 GiB, and 1.0 GiB are free")],
)
def test_samples_that_cannot_be_kept_are_not_cached(constants: dict[str, float], said: str) -> None:
    answer = predict(probe([60.0] * 24, **constants).attach(recorded(60, 40)), {"cache_samples": "memory"})

    assert isinstance(answer, Unknown)
    assert said in answer.reason


def test_another_place_costs_what_its_own_probe_found() -> None:
    run = probe([60.0] * 24).attach(recorded(60, 40))
    run = probe([10.0] * 24).attach(run, data_root="/scratch")

    assert after_ms(predict(run, {"data_root": "/scratch"})) == pytest.approx(50)
    assert after_ms(predict(run, {"data_root": "/scratch", "num_workers": 1})) == pytest.approx(40)
    elsewhere = predict(run, {"data_root": "/nowhere"})
    assert isinstance(elsewhere, Unknown)
    assert "attach(run, data_root='/nowhere')" in elsewhere.needs


def test_another_place_of_a_run_with_workers() -> None:
    run = probe([20.0] * 24).attach(with_workers(1, data=20, loop=40), data_root="/scratch")

    assert after_ms(predict(run, {"data_root": "/scratch"})) == pytest.approx(40)


def test_samples_on_a_disk_are_not_known_to_come_side_by_side() -> None:
    constants = {"batch_bytes": 1e6, "storage_bytes": 1e6}
    run = probe([60.0] * 24, **constants).attach(recorded(60, 40))

    refused = predict(run, {"num_workers": 4})

    assert isinstance(refused, Unknown)
    assert "wait for storage for 100%" in refused.reason
    assert after_ms(predict(run, {"num_workers": 1})) == pytest.approx(60)
    computing = probe([60.0] * 24, cpu=0.9, **constants).attach(recorded(60, 40))
    assert after_ms(predict(computing, {"num_workers": 4})) == pytest.approx(40)


def test_an_iterable_dataset_needs_a_probe_that_says_it_is_sharded() -> None:
    run = recorded(60, 40, config={"dataset_is_iterable": True})

    refused = predict(run, {"num_workers": 2})

    assert isinstance(refused, Unknown)
    assert "sharded=True" in refused.needs
    assert after_ms(predict(probe([60.0] * 24, is_iterable=1.0).attach(run), {"num_workers": 2})) == pytest.approx(40)


def test_a_dataset_on_the_gpu_cannot_be_handed_over() -> None:
    answer = predict(probe([60.0] * 24, on_device=1.0).attach(recorded(60, 40)), {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert "on the GPU" in answer.reason


LIMITS: Mapping[str, tuple[dict[str, float], dict[str, float]]] = {
    "descriptors": ({"tensors": 2.0, "descriptors": 18.0}, {"tensors": 2.0, "descriptors": 15.0}),
    "shared memory": (
        {"batch_bytes": 1.0, "shared_memory_bytes": 12.0},
        {"batch_bytes": 1.0, "shared_memory_bytes": 7.0},
    ),
    "MiB each": ({}, {"worker_bytes": 10.0, "memory_bytes": 39.0}),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_what_the_machine_lacks_is_said_and_refused_where_it_cannot_fit(limit: str) -> None:
    tight, short = LIMITS[limit]

    answers = [predict(probe([60.0] * 24, **values).attach(recorded(60, 40)), {"num_workers": 4}) for values in (tight, short)]

    assert isinstance(answers[0], Prediction)  # 4 workers x 2: eight batches wait
    assert any(limit in text for text in answers[0].assumptions) == bool(tight)
    assert isinstance(answers[1], Unknown)
    assert limit in answers[1].reason


def test_a_limit_that_does_not_hold_here_is_no_limit() -> None:
    run = probe([60.0] * 24, tensors=2.0, descriptors=15.0, uses_descriptors=0.0).attach(recorded(60, 40))

    assert isinstance(predict(run, {"num_workers": 4}), Prediction)


STARTS = 3 / 19  # of 25 steps, the steady ones are 6 to 24; 10, 15 and 20 begin an epoch of five


def test_starting_workers_counts_where_epochs_are_short() -> None:
    run = probe([60.0] * 24, fork_us=10 * MS, init_us=30 * MS).attach(recorded(60, 80, steps=25, epoch=5))

    fresh = predict(run, {"num_workers": 2})
    kept = predict(run, {"num_workers": 2, "persistent_workers": True})

    # the first worker is forked until 10 and up at 40, its first batch there at 100; kept workers need the 60 for it alone
    assert after_ms(fresh) == pytest.approx(80 + 100 * STARTS)
    assert after_ms(kept) == pytest.approx(80 + 60 * STARTS)


def test_workers_that_are_kept_save_their_start() -> None:
    costs = {"fork_us": 10 * MS, "init_us": 30 * MS}
    run = probe([60.0] * 24, **costs).attach(with_workers(2, data=100 * STARTS, loop=80, steps=25, epoch=5))

    answer = predict(run, {"persistent_workers": True})

    assert after_ms(answer) == pytest.approx(80 + 60 * STARTS)
    assert isinstance(answer, Prediction)
    assert answer.before / MS == pytest.approx(80 + 100 * STARTS)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (with_workers(2, 22, 80, steps=25, epoch=25), "one epoch"),
        (with_workers(2, 22, 80, steps=25), "no such start"),
        (with_workers(2, 22, 80, steps=25, epoch=5), "no probe of the dataset"),
    ],
)
def test_kept_workers_are_unknown_without_epochs_or_a_probe(run: Run, said: str) -> None:
    answer = predict(run, {"persistent_workers": True})

    assert isinstance(answer, Unknown)
    assert said in answer.reason


def test_kept_workers_are_unknown_where_the_probe_could_start_none() -> None:
    single = probe([60.0] * 24)
    lacking = dataclasses.replace(single, constants={f"loader.{name}": value for name, value in QUIET.items()})

    answer = predict(lacking.attach(with_workers(2, 22, 80, steps=25, epoch=5)), {"persistent_workers": True})

    assert isinstance(answer, Unknown)
    assert "could start no worker" in answer.reason


def test_batches_of_accumulated_steps_are_loaded_one_by_one() -> None:
    run = recorded(60, 40)
    run = dataclasses.replace(run, steps=run.steps.assign(micro_batches=pd.array([2] * len(run.steps), dtype="Int64")))
    run = probe([30.0] * 60).attach(run)

    assert after_ms(predict(run, {"num_workers": 1})) == pytest.approx(60)  # two batches of 30 a step
    assert after_ms(predict(run, {"num_workers": 2})) == pytest.approx(40)


def samples(run: Run, cpu_share: Sequence[float], own: float = 0.5, **columns: Any) -> Run:
    end = float((run.steps["start_us"] + run.steps["duration_us"]).max())
    rows = pd.DataFrame(
        {
            "rank": 0,
            "time_us": [end * (number + 0.5) / len(cpu_share) for number in range(len(cpu_share))],
            "cpu_share": cpu_share,
        }
    ).assign(**{"own_cpu_cores": own, "host": "a"} | columns)
    return dataclasses.replace(run, host_samples=conform("host_samples", rows))


def test_load_by_others_is_what_is_busy_beyond_the_job() -> None:
    run = samples(recorded(60, 40, cores=4), [0.5] * 8, worker_cpu_cores=0.25)

    assert foreign_load(run) == Foreign(4 * 0.5 - 0.5 - 0.25, 0.0)
    assert foreign_load(recorded(60, 40)) is None
    assert foreign_load(samples(recorded(60, 40, cores=4), [0.5] * 2)) is None
    assert foreign_load(samples(recorded(60, 40, cores=4), [0.5] * 8, host=["a", "b"] * 4)) is None


def test_load_by_others_is_modelled_as_threads_with_a_wide_interval() -> None:
    computing = recorded(60, 0.001, cores=2)
    computing = dataclasses.replace(computing, phases=computing.phases.assign(cpu_us=computing.phases["wall_us"], blocked_us=0.0))

    alone = predict(samples(computing, [0.3] * 8), {"num_workers": 2})
    crowded = predict(samples(computing, [1.0] * 8, own=1.0), {"num_workers": 2})

    assert after_ms(alone) == pytest.approx(30, rel=0.01)
    assert after_ms(crowded) == pytest.approx(45, rel=0.01)  # two workers and a stranger on two cores: 60 x 3 / 2 / 2
    assert isinstance(crowded, Prediction)
    assert crowded.spread >= 0.35
    assert any("1.0 threads of others" in text for text in crowded.assumptions)


def test_load_by_others_that_moves_is_refused_but_not_in_the_shadow() -> None:
    run = samples(recorded(60, 40, cores=4), [0.2] * 4 + [0.9] * 4)

    answer = predict(run, {"num_workers": 2})

    assert isinstance(answer, Unknown)
    assert "from its first to its second half" in answer.reason
    assert isinstance(shadow(run, {"num_workers": 2}), Prediction)


def test_pinned_memory_alone_changes_no_step_of_a_gpu() -> None:
    run = dataclasses.replace(recorded(60, 40), machine=Machine(devices=("a GPU",)))

    alone = predict(run, {"pin_memory": True})
    both = predict(run, {"pin_memory": True}, {**run.config, "non_blocking": True})

    assert after_ms(alone) == pytest.approx(100)
    assert isinstance(alone, Prediction)
    assert any("not validated on a GPU" in text for text in alone.assumptions)
    assert isinstance(both, Unknown)


def test_a_probe_keeps_waiting_and_computing_apart() -> None:
    found = probed_loader(probe([10.0], collate=2.0, cpu=0.25).attach(Run()))

    assert isinstance(found, ProbedLoader)
    assert found.times.tolist() == [[7.5 * MS, 2.5 * MS, 0.0, 2.0 * MS]]
    assert found.batch_us == 12 * MS
    assert found.cpu_share == pytest.approx(4.5 / 12)
    assert found.estimate("no such") is None


def test_a_constant_is_known_better_than_its_single_values() -> None:
    costs = {"get_us": 4.0, "get_us.low": 2.0, "get_us.high": 8.0, "get_us.n": 4.0}
    found = probed_loader(probe([10.0], **costs).attach(Run()))

    assert isinstance(found, ProbedLoader)
    estimate = found.estimate("get_us")
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (4.0, 3.0, 6.0)


CHANGES: Mapping[str, Any] = {
    "num_workers": 2,
    "prefetch_factor": 4,
    "persistent_workers": True,
    "in_order": False,
    "cache_samples": "memory",
    "data_root": "/scratch",
}


@pytest.mark.parametrize("pair", list(itertools.combinations(CHANGES, 2)), ids="+".join)
def test_changes_of_the_loader_commute_and_the_same_question_has_the_same_answer(pair: tuple[str, str]) -> None:
    run = probe(BURSTS, collate=1.0, get_us=MS).attach(with_workers(1, data=4, loop=20, steps=30, epoch=6))
    run = probe([8.0] * 24, collate=1.0).attach(run, data_root="/scratch")
    changes = {knob: CHANGES[knob] for knob in pair}

    forth = shadow(run, changes)
    back = shadow(run, dict(reversed(changes.items())))

    assert forth == back
    assert isinstance(forth, Prediction)
    assert math.isfinite(forth.after)
