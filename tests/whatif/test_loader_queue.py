"""The simulated DataLoader against cases worked out by hand, and against laws that hold for every loader."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.whatif.loader_queue import merged, simulate, steady_step_us
from perfnb.whatif.loader_terms import NEXT, Phases
from perfnb.whatif.shared_cores import Actor


def waits(*amounts: float) -> list[Phases]:
    return [(("wait", amount),) for amount in amounts]


def cpu(*amounts: float) -> list[Phases]:
    return [(("cpu", amount),) for amount in amounts]


def test_without_workers_the_loop_reads_every_sample_itself() -> None:
    batch = (("wait", 10.0),) * 4

    step = steady_step_us([batch], waits(30), workers=0)

    assert step == 4 * 10 + 30


@pytest.mark.parametrize(
    ("consumer", "workers", "prefetch", "expected"),
    [
        (30, 1, 1, 40),  # one worker brings a batch each 40
        (30, 2, 2, 30),  # two bring one each 20: the loop is slower
        (15, 2, 2, 20),
        (15, 4, 2, 15),
        (5, 2, 1, 20),  # 40 / 2
        (5, 4, 1, 10),  # 40 / 4
    ],
)
def test_the_slower_of_loop_and_workers_sets_the_step(consumer: float, workers: int, prefetch: int, expected: float) -> None:
    step = steady_step_us(waits(40), waits(consumer), workers=workers, prefetch=prefetch)
    first = simulate(waits(40, 40), waits(consumer), workers=workers, prefetch=prefetch).delivered_us[0]

    assert step == expected
    assert first == 40


@pytest.mark.parametrize(("workers", "expected"), [(1, 32), (2, 16), (4, 16), (8, 16)])
def test_two_cores_compute_two_batches_at_a_time_however_many_workers(workers: int, expected: float) -> None:
    step = steady_step_us(cpu(32), waits(12), workers=workers, cores=2)

    assert step == expected


@pytest.mark.parametrize(("workers", "expected"), [(1, 32), (2, 28), (4, 28), (8, 28)])
def test_a_loop_that_computes_takes_its_share_of_the_cores(workers: int, expected: float) -> None:
    step = steady_step_us(cpu(32), cpu(24), workers=workers, cores=2)

    assert step == pytest.approx(expected, rel=1e-12)  # (32 + 24) / 2 = 28


def test_three_workers_share_two_cores_evenly() -> None:
    found = simulate(cpu(*[10] * 6), [()], workers=3, prefetch=1, cores=2)

    assert found.delivered_us == [15, 15, 15, 30, 30, 30]  # each at 2/3 of a core


def test_foreign_threads_take_their_share_of_the_cores() -> None:
    found = simulate(cpu(*[10] * 4), waits(5), workers=2, prefetch=2, cores=2, foreign=2)

    assert found.delivered_us == [20, 25, 40, 45]  # two workers and two strangers: each at half a core


def test_threads_of_the_loop_compete_as_that_many() -> None:
    found = simulate(cpu(12, 12), cpu(6), workers=1, prefetch=2, cores=2, threads=2)

    # batch 0 alone until 12; then worker and two threads of the loop at 2/3: the loop is done at 21, with 6 of batch 1
    # made, which is made at 27; the loop then has two cores: 33
    assert found.delivered_us == [12, 27]
    assert found.end_us == [21, 33]


BURSTS = waits(60, 10, 10, 10, 60, 10, 10, 10)


def test_in_order_a_slow_batch_holds_up_the_finished_ones() -> None:
    found = simulate(BURSTS, waits(20), workers=2, prefetch=1)

    assert found.delivered_us == [60, 80, 100, 120, 160, 180, 200, 220]  # batch 4 starts at 100, when batch 2 is taken
    assert found.wait_us == [60, 0, 0, 0, 20, 0, 0, 0]


def test_out_of_order_the_first_finished_batch_is_taken() -> None:
    found = simulate(BURSTS, waits(20), workers=2, prefetch=1, in_order=False)

    assert found.delivered_us == [10, 30, 50, 70, 90, 110, 130, 150]


def test_prefetching_hides_a_slow_batch() -> None:
    two_workers = simulate(BURSTS, waits(20), workers=2, prefetch=2)
    one_worker = simulate(BURSTS, waits(20), workers=1, prefetch=4)

    assert two_workers.delivered_us == [60, 80, 100, 120, 140, 160, 180, 200]
    assert one_worker.delivered_us == [60, 80, 100, 120, 150, 170, 190, 210]  # batch 4 is made from 90 to 150


def test_a_third_worker_can_be_slower_when_the_slow_batches_meet_it() -> None:
    batches = waits(60, 10, 10, 60, 10, 10)

    two = simulate(batches, waits(10), workers=2, prefetch=2)
    three = simulate(batches, waits(10), workers=3, prefetch=2)

    assert two.end_us[-1] == 120
    assert three.end_us[-1] == 150  # batches 0 and 3 are both worker 0's


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"fork_us": 3, "init_us": 7}, [20, 25, 30, 35]),  # indices go out at 6; worker 0 is up at 10, worker 1 at 13
        ({"get_us": 2}, [12, 19, 26, 33]),  # 10 + 2; then 5 of loop and 2 of get each
        ({"pin_us": 2}, [12, 17, 22, 27]),  # the thread pins 10-12, 12-14, 20-22, 22-24
    ],
)
def test_starting_taking_and_pinning_cost_time(costs: dict[str, float], expected: list[float]) -> None:
    found = simulate(waits(10, 10, 10, 10), waits(5), workers=2, prefetch=2, **costs)

    assert found.delivered_us == expected


def test_a_loop_that_is_a_generator_is_sent_the_clock() -> None:
    def loop() -> Actor:
        yield NEXT
        while True:
            now = yield "cpu", 3.0
            yield "until", now + 4.0
            yield NEXT

    found = simulate(waits(10, 10, 10, 10), loop, workers=2)

    assert found.delivered_us == [10, 17, 24, 31]  # 3 of work, 4 until a device is done
    assert found.end_us == [17, 24, 31, 38]


def test_the_pinning_thread_takes_batches_as_they_arrive() -> None:
    found = simulate(waits(60, 10, 10, 10), waits(5), workers=2, prefetch=1, in_order=False, pin_us=2)

    # worker 1 makes batches 1, 2 and 3, each put when the one before is taken: 10-12, 22-24, 34-36; batch 0 comes at 60-62
    assert found.delivered_us == [12, 24, 36, 62]


def test_workers_that_start_make_their_batches_side_by_side_and_the_loop_takes_them_in_turn() -> None:
    found = simulate(waits(*[10] * 6), [()], workers=2, prefetch=1, get_us=3, fork_us=2, in_order=False)

    # indices go out at 4, both batches are made at 14; each takes 3 to take, and its worker begins the next one then
    assert found.delivered_us == [17, 20, 30, 33, 43, 46]


def test_merged_phases_keep_waits_and_cpu_apart() -> None:
    batch = (("wait", 5.0), ("cpu", 1.0)) * 16 + (("cpu", 2.0),)

    full = steady_step_us([batch] * 4, cpu(20), workers=2, cores=3)
    quick = steady_step_us([merged(batch)] * 4, cpu(20), workers=2, cores=3)

    assert merged(batch) == (("wait", 80.0), ("cpu", 18.0))
    assert quick == full == 49  # (80 + 18) / 2: with a core for each it makes no difference


AMOUNTS = st.integers(1, 30).map(float)
ANY_PHASES = st.lists(st.tuples(st.sampled_from(["wait", "cpu"]), AMOUNTS), min_size=1, max_size=3)
WAITS = st.lists(st.tuples(st.just("wait"), AMOUNTS), min_size=1, max_size=3)
SIZES = {"workers": st.integers(1, 4), "prefetch": st.integers(1, 3)}


def total(phases: Phases, kind: str = "") -> float:
    return sum(amount for found, amount in phases if kind in ("", found))


@given(
    st.lists(ANY_PHASES, min_size=1, max_size=10), ANY_PHASES, st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.fixed_dictionaries(SIZES)
)
def test_no_loader_beats_its_work_its_loop_or_its_cores(
    batches: list[Phases], consumer: Phases, cores: float, sizes: dict[str, int]
) -> None:
    end = simulate(batches, [consumer], cores=cores, **sizes).end_us[-1]

    work = sum(total(batch) for batch in batches)
    used = sum(total(batch, "cpu") for batch in batches) + len(batches) * total(consumer, "cpu")
    assert end >= max(work / sizes["workers"], len(batches) * total(consumer), used / cores) * (1 - 1e-9)


@given(st.lists(ANY_PHASES, min_size=1, max_size=10), ANY_PHASES, st.sampled_from([1.0, 1.5, 3.0]), st.fixed_dictionaries(SIZES))
def test_four_times_all_times_is_exactly_four_times_as_late(
    batches: list[Phases], consumer: Phases, cores: float, sizes: dict[str, int]
) -> None:
    def longer(phases: Phases) -> Phases:
        return [(kind, 4.0 * amount) for kind, amount in phases]

    once = simulate(batches, [consumer], cores=cores, **sizes).end_us
    four_times = simulate([longer(batch) for batch in batches], [longer(consumer)], cores=cores, **sizes).end_us

    assert four_times == [4.0 * end for end in once]


@given(st.lists(ANY_PHASES, min_size=1, max_size=10), ANY_PHASES, st.sampled_from([1.0, 1.5, 2.0]), st.fixed_dictionaries(SIZES))
def test_a_core_for_everybody_is_never_later(
    batches: list[Phases], consumer: Phases, cores: float, sizes: dict[str, int]
) -> None:
    few = simulate(batches, [consumer], cores=cores, **sizes).end_us
    enough = simulate(batches, [consumer], cores=math.inf, **sizes).end_us

    assert all(fast <= slow * (1 + 1e-9) for fast, slow in zip(enough, few, strict=True))


@given(st.integers(0, 2**32 - 1))
def test_with_a_core_for_everybody_the_short_cut_gives_what_the_events_give(seed: int) -> None:
    random = np.random.default_rng(seed)  # drawn, not chosen: where times are equal the order of arrivals is a matter of taste

    def phases() -> Phases:
        return [(str(random.choice(["wait", "cpu"])), float(random.uniform(1, 30))) for _ in range(random.integers(1, 4))]

    batches, consumer = ([phases() for _ in range(random.integers(1, 12))] for _ in range(2))
    options: dict[str, Any] = {
        name: random.choice([0.0, random.uniform(1, 9)]) for name in ("fork_us", "init_us", "get_us", "foreign")
    }
    options |= {"workers": int(random.integers(0, 5)), "prefetch": int(random.integers(1, 4)), "threads": random.uniform(1, 3)}
    options["pin_us"] = random.uniform(1, 9) if options["workers"] and random.random() < 0.5 else None
    needed = options["foreign"] + options["workers"] + (options["pin_us"] is not None) + options["threads"]

    short = simulate(batches, consumer, cores=needed, **options)
    events = simulate(batches, consumer, cores=needed * (1 - 1e-13), **options)

    for cut, full in zip(short, events, strict=True):
        assert cut == pytest.approx(full, rel=1e-9, abs=1e-6)


def test_a_little_more_core_can_be_later() -> None:
    batches = [[("wait", 7.0)], [("cpu", 11.0)], [("wait", 11.0), ("cpu", 6.0), ("wait", 10.0)]]
    consumer = [[("cpu", 4.0), ("wait", 8.0)], [("cpu", 7.0)], [("cpu", 28.0)]]

    one_core = simulate(batches, consumer, workers=2, prefetch=1, cores=1).end_us[-1]
    more = simulate(batches, consumer, workers=2, prefetch=1, cores=1.3).end_us[-1]

    assert one_core == 63  # with 1.3 cores batch 1 is made sooner, so the loop meets batch 2's computing and slows it
    assert more == pytest.approx(63.5325, abs=1e-4)


@given(
    st.lists(ANY_PHASES, min_size=1, max_size=10),
    ANY_PHASES,
    st.fixed_dictionaries(
        SIZES
        | {
            "in_order": st.booleans(),
            "cores": st.sampled_from([1.0, 2.5]),
            "foreign": st.sampled_from([0.0, 0.5, 3.0]),
            "pin_us": st.sampled_from([None, 2.0]),
            "get_us": st.sampled_from([0.0, 3.0]),
            "fork_us": st.sampled_from([0.0, 5.0]),
            "init_us": st.sampled_from([0.0, 7.0]),
        }
    ),
)
def test_every_batch_is_delivered_once_and_no_wait_is_negative(
    batches: list[Phases], consumer: Phases, options: dict[str, Any]
) -> None:
    found = simulate(batches, [consumer], **options)

    assert len(found.delivered_us) == len(found.end_us) == len(batches)
    assert found.delivered_us == sorted(found.delivered_us)
    assert all(wait >= 0.0 for wait in found.wait_us)
    assert all(taken <= end for taken, end in zip(found.delivered_us, found.end_us, strict=True))


@given(st.lists(WAITS, min_size=1, max_size=10), WAITS, st.integers(0, 9), st.fixed_dictionaries(SIZES))
def test_a_longer_wait_never_ends_it_earlier(batches: list[Phases], consumer: Phases, which: int, sizes: dict[str, int]) -> None:
    before = simulate(batches, [consumer], **sizes).end_us
    longer = [[*batch, ("wait", 5.0)] if number == which else batch for number, batch in enumerate(batches)]

    after = simulate(longer, [consumer], **sizes).end_us

    assert all(late >= early for early, late in zip(before, after, strict=True))


@given(st.lists(WAITS, min_size=1, max_size=10), WAITS, st.fixed_dictionaries(SIZES))
def test_of_waits_alone_a_larger_prefetch_is_never_later(batches: list[Phases], consumer: Phases, sizes: dict[str, int]) -> None:
    before = simulate(batches, [consumer], **sizes).end_us

    after = simulate(batches, [consumer], workers=sizes["workers"], prefetch=sizes["prefetch"] + 1).end_us

    assert all(late <= early for early, late in zip(before, after, strict=True))
