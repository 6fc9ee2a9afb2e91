"""Bounds on what a device's memory is needed for: capacity, what others hold, counters, the fullest moment."""

from __future__ import annotations

import math

import pytest

from perfnb.analyses.device_memory import counter_growth, device_memory, fraction_of, fullest_moments
from perfnb.analyses.held_memory import held_memory, state_tensors, why_not_activations, why_not_states
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

ALLOCATOR = table_from_text(
    "allocator",
    """rank step device time_us allocated_bytes reserved_bytes peak_allocated_bytes peak_reserved_bytes
       0    1    0      0       300             500            400                  500
       0    2    0      10      300             600            450                  600""",
)
SAMPLES = "rank gpu time_us memory_used_bytes memory_total_bytes memory_reserved_bytes"


def test_what_others_hold_is_used_memory_less_the_own_reserved_at_that_time() -> None:
    samples = table_from_text("gpu_samples", f"{SAMPLES}\n0 3 5 540 1010 10\n0 3 15 640 1010 10")

    found = device_memory(ALLOCATOR, Machine(), {}, samples).iloc[0]

    assert (found["capacity_bytes"], found["outside_bytes"], found["usable_bytes"]) == (1000.0, 40.0, 960.0)
    assert found["pressure"] == pytest.approx(600 / 960)


def test_of_two_gpus_nobody_knows_which_is_the_ranks_own() -> None:
    samples = table_from_text("gpu_samples", f"{SAMPLES}\n0 3 5 540 1010 10\n0 4 5 640 1010 10")

    found = device_memory(ALLOCATOR, Machine(device_memory_bytes=(2000, 2000)), {}, samples).iloc[0]

    assert math.isnan(found["outside_bytes"])
    assert found["capacity_bytes"] == 2000.0


def test_devices_of_different_size_are_not_told_apart() -> None:
    found = device_memory(ALLOCATOR, Machine(device_memory_bytes=(2000, 1000)), {}).iloc[0]

    assert math.isnan(found["capacity_bytes"])
    assert math.isnan(found["pressure"])


def test_a_memory_fraction_bounds_what_is_usable() -> None:
    found = device_memory(ALLOCATOR, Machine(device_memory_bytes=(1000,)), {"memory_fraction": 0.7}).iloc[0]

    assert found["usable_bytes"] == 700.0
    assert [fraction_of({"memory_fraction": value}) for value in (None, "half", 0, 1.5, 0.5)] == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_counters_grow_after_the_tenth_step_only_and_per_device() -> None:
    rows = table_from_text(
        "allocator",
        """rank step device retries device_allocs
           0    0    0      0       9
           0    9    0      5       20
           0    10   0      5       20
           0    14   0      6       21
           1    0    0      0       9
           1    12   0      0       10""",
    )

    found = counter_growth(rows)

    assert found[["rank", "step", "steps", "retries", "device_allocs"]].to_numpy().tolist() == [[0, 14, 4, 1, 1]]


def test_shares_of_reserved_are_those_of_one_instant_the_one_with_the_most_allocated() -> None:
    rows = table_from_text(
        "allocator",
        """rank step device requested_bytes allocated_bytes active_bytes inactive_split_bytes reserved_bytes
           0    1    0      100             120             120          300                  1000
           0    2    0      560             600             640          100                  800""",
    )

    found = fullest_moments(rows).iloc[0]

    assert found["step"] == 2
    assert found[["requested_share", "rounding_share", "holes_share", "cache_share"]].to_list() == pytest.approx(
        [0.7, 0.1, 0.125, 0.075]
    )


def test_what_stays_is_the_usual_end_of_a_step_after_the_optimizer_made_its_state() -> None:
    rows = table_from_text(
        "allocator",
        "rank step device allocated_bytes peak_allocated_bytes\n0 0 0 100 500\n0 3 0 300 900\n0 4 0 300 900\n1 4 0 300 700",
    )

    held = held_memory(rows)

    assert held is not None
    assert (held.kept_bytes, held.passing_bytes) == (300.0, 600.0)


def run_that_holds(kept: int, peak: int) -> Run:
    rows = f"rank step device allocated_bytes peak_allocated_bytes\n0 9 0 {kept} {peak}"
    return Run(allocator=table_from_text("allocator", rows))


@pytest.mark.parametrize(
    ("config", "passing", "activations", "states"),
    [
        # Adam: of 300 that stay parameters take 75 to 100 and state 150 to 200, gradients may take 100 of what passes
        ({"optimizer": "adamw"}, 301, True, False),
        ({"optimizer": "adamw"}, 299, False, False),
        ({"optimizer": "adamw"}, 149, False, True),
        ({"optimizer": "sgd", "momentum": 0.9}, 301, True, False),
        ({"optimizer": "sgd", "momentum": 0.0}, 601, True, False),
        ({"optimizer": "sgd"}, 599, False, False),
        ({}, 601, True, False),
        ({"optimizer": "mine"}, 100, False, False),
    ],
)
def test_a_category_is_the_largest_only_where_no_other_can_be(
    config: dict[str, object],
    passing: int,
    activations: bool,  # noqa: FBT001 - what is expected of a case
    states: bool,  # noqa: FBT001 - as above
) -> None:
    run = run_that_holds(300, 300 + passing)

    assert (not why_not_activations(run, config)) is activations
    assert (not why_not_states(run, config)) is states


def test_an_optimizer_whose_state_is_not_known_has_none_to_count() -> None:
    assert state_tensors({"optimizer": ["adam"]}) is None
    assert state_tensors({"optimizer": "sgd", "momentum": "high"}) is None
    assert state_tensors({}) is None
