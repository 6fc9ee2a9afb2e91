"""What ranks share out, worked by hand on the events of one small step."""

from __future__ import annotations

import pytest

from perfnb.whatif.memory_states import COMMUNICATION, DDP_BUCKET_BYTES, shared_out

# a parameter of 100 bytes, an activation, its gradient, the state of an optimizer, and what its step needs in passing
EVENTS = [
    (0, 100, "init"),
    (1, 40, "forward"),
    (2, 100, "backward"),
    (1, -40, "backward"),
    (3, 200, "optimizer"),
    (4, 60, "optimizer"),
    (4, -60, "optimizer"),
    (2, -100, "optimizer"),
]
KINDS = {0: "parameter", 1: "activation", 2: "gradient", 3: "optimizer_state"}


def shared(
    stage: int, *, view: bool = False, units: tuple[int, ...] = (70, 30)
) -> tuple[list[tuple[int, int, str]], dict[int, str]]:
    return shared_out(EVENTS, KINDS, zero_stage=stage, world_size=4, unit_bytes=units, is_bucket_view=view)


def test_one_rank_shares_nothing() -> None:
    assert shared_out(EVENTS, KINDS, zero_stage=3, world_size=1, unit_bytes=()) == (EVENTS, KINDS)


def test_data_parallelism_keeps_buckets_as_large_as_all_gradients_from_the_start() -> None:
    events, kinds = shared(0)

    assert events == [EVENTS[0], (5, 100, "init"), *EVENTS[1:]]
    assert kinds[5] == COMMUNICATION


def test_gradients_that_are_views_of_the_buckets_take_nothing_more() -> None:
    events, _ = shared(0, view=True)

    assert [number for number, _, _ in events] == [0, 5, 1, 1, 3, 4, 4]


def test_stage_1_parts_the_state_and_what_the_step_works_on() -> None:
    events, _ = shared(1)

    assert (3, 50, "optimizer") in events
    assert (4, 15, "optimizer") in events
    assert (2, 100, "backward") in events


@pytest.mark.parametrize(("units", "bucket"), [((70, 30), 70), ((), DDP_BUCKET_BYTES)])
def test_stage_2_parts_gradients_and_reduces_them_in_a_bucket(units: tuple[int, ...], bucket: int) -> None:
    events, _ = shared(2, units=units)

    assert events[2:6] == [(5, bucket, "backward"), (2, 25, "backward"), (1, -40, "backward"), (5, -bucket, "backward")]


def test_stage_3_parts_parameters_and_gathers_two_units() -> None:
    events, kinds = shared(3)

    assert events[0] == (0, 25, "init")
    assert events[1:3] == [(6, 100, "forward"), (1, 40, "forward")]
    assert (6, -100, "backward") in events
    assert kinds[6] == COMMUNICATION
    assert sum(size for number, size, _ in events if number in (5, 6)) == 0
