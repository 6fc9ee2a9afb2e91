"""Buckets are torch's, and an exchange ends when its calls, one after another, have found their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.whatif.collective import (
    MIB,
    Gradient,
    bucket_bytes,
    bucket_limits,
    buckets,
    ends_us,
    exposed_us,
    ready_us,
    ring_factor,
    update_us,
)

# Gradients of 8 x .5, 30 and 4 x .5 MiB in the order in which their parameters are defined; they arrive the other way round.
ARRIVING = [Gradient(int(size * MIB)) for size in (*[0.5] * 4, 30, *[0.5] * 8)]


def sizes(cap: float | Sequence[float] | None, *, is_rebuilt: bool = True) -> list[float]:
    return [size / MIB for size in bucket_bytes(ARRIVING, buckets(ARRIVING, bucket_limits(cap), is_rebuilt=is_rebuilt))]


@pytest.mark.parametrize(
    ("cap", "expected"),
    [(None, [1, 31, 4]), (25, [32, 4]), (1, [1, 1, 30, 1, 1, 1, 1]), ([1, 2, 4], [1, 31, 4])],
)
def test_buckets_are_filled_in_the_order_in_which_gradients_arrive(
    cap: float | Sequence[float] | None, expected: list[float]
) -> None:
    assert sizes(cap) == expected


@pytest.mark.parametrize(("cap", "expected"), [(None, [2, 33, 1]), (2, [2, 30, 2, 2])])
def test_buckets_that_are_never_rebuilt_are_filled_as_parameters_are_defined(cap: float | None, expected: list[float]) -> None:
    assert sizes(cap, is_rebuilt=False) == expected


def test_sparse_gradients_go_alone_and_kinds_do_not_mix() -> None:
    gradients = [Gradient(1), Gradient(2, is_sparse=True), Gradient(3, dtype="float16"), Gradient(4)]

    assert buckets(gradients, (5,)) == ((1,), (0, 3), (2,))


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=40),
    st.lists(st.integers(1, 200), min_size=1, max_size=3),
    st.sampled_from(["rebuilt", "as defined"]),
)
def test_every_gradient_is_in_one_bucket_and_all_but_the_last_reach_their_limit(
    gradient_bytes: list[int], limits: list[int], order: str
) -> None:
    gradients = [Gradient(size) for size in gradient_bytes]

    is_rebuilt = order == "rebuilt"
    layout = buckets(gradients, limits, is_rebuilt=is_rebuilt)

    assert sorted(number for bucket in layout for number in bucket) == list(range(len(gradients)))
    filled = bucket_bytes(gradients, layout)
    in_order_of_filling = filled if is_rebuilt else filled[::-1]
    for number, size in enumerate(in_order_of_filling[:-1]):
        assert size >= limits[min(number, len(limits) - 1)]


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=20), st.floats(0, 1e6))
def test_an_exchange_is_exposed_for_at_least_its_last_call_and_at_most_all_of_them(
    calls: list[tuple[float, float]], backward_us: float
) -> None:
    arrivals = sorted(min(moment, backward_us) for moment, _ in calls)
    durations = [length for _, length in calls]
    ready = ready_us([*arrivals[:-1], backward_us], [(number,) for number in range(len(calls))])

    exposed = exposed_us(backward_us, ready, durations)

    assert durations[-1] - 1e-6 <= exposed <= sum(durations) + 1e-6
    assert (ends_us(ready * 4, [4 * each for each in durations]) == 4 * ends_us(ready, durations)).all()


def test_nothing_to_exchange_is_never_exposed() -> None:
    assert exposed_us(100.0, [], []) == 0.0


def test_gradients_of_all_but_the_last_micro_batch_are_not_exchanged() -> None:
    # ready at 40 and 100, calls of 50 and 30: they end at 90 and 130, 30 after backward
    times = (50.0, 100.0, 10.0, [40.0, 100.0], [50.0, 30.0])

    assert update_us(*times) == 190.0
    assert update_us(*times, micro_batches=4) == 4 * 150 + 30 + 10
    assert update_us(*times, micro_batches=4, syncs_each=True) == 4 * 180 + 10


@pytest.mark.parametrize(
    ("collective", "factor"), [("all_reduce", 1.5), ("all_gather", 0.75), ("reduce_scatter", 0.75), ("broadcast", 1.0)]
)
def test_bytes_that_cross_a_link_are_counted_as_bus_bandwidth_counts_them(collective: str, factor: float) -> None:
    assert ring_factor(collective, 4) == factor
