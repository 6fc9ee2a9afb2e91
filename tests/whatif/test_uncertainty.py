"""Spread and intervals: quadrature, the floor, and the track record worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.prediction import Prediction
from perfnb.whatif.uncertainty import Calibration, Pair, draw_rows, draws_half_width, spread


def record(count: int, *, workloads: int = 3, knob: str = "num_workers", first: float = -2.0) -> Calibration:
    return Calibration(
        tuple(
            Pair("loader_queue", knob, f"job {number % workloads}", number // (5 * workloads), first + number)
            for number in range(count)
        )
    )


def test_ten_pairs_give_the_lowest_and_the_highest_ratio() -> None:
    found = record(10).interval(100.0, 0.1, 0.1, model="loader_queue", knob="num_workers")

    assert found.low == pytest.approx(81.9, abs=0.05)  # 100 exp(.1 * -2)
    assert found.high == pytest.approx(201.4, abs=0.05)  # 100 exp(.1 * 7)
    assert found.after == 100.0
    assert found.basis.startswith("calibrated on 10 pairs (3 workloads")


def test_nine_pairs_are_too_few() -> None:
    found = record(9).interval(100.0, 0.1, 0.2, model="loader_queue", knob="num_workers")

    assert found.basis == "prior"
    assert (found.low, found.high) == (100.0 * math.exp(-0.1), 100.0 * math.exp(0.2))


def test_pairs_of_one_job_count_five_times_at_most() -> None:
    calibration = Calibration(tuple(Pair("loader_queue", "num_workers", "job", 1, 0.0) for _ in range(40)))

    assert calibration.interval(1.0, 0.1, 0.1, model="loader_queue", knob="num_workers").basis == "prior"


def test_pairs_of_another_knob_serve_where_there_are_none_of_this() -> None:
    found = record(12, knob="prefetch_factor").interval(1.0, 0.1, 0.1, model="loader_queue", knob="num_workers")

    assert found.basis == "calibrated on 12 pairs (3 workloads, 0 here; loader_queue, all knobs)"


def test_the_users_own_pairs_are_named() -> None:
    pairs = tuple(Pair("m", "k", f"job {number % 3}", number, 0.0, is_own=number < 4) for number in range(10))

    found = Calibration(pairs).interval(1.0, 0.1, 0.1, model="m", knob="k")

    assert found.basis == "calibrated on 10 pairs (3 workloads, 4 here; m, k)"


def test_ten_pairs_of_two_workloads_are_too_few() -> None:
    assert record(10, workloads=2).interval(1.0, 0.1, 0.1, model="loader_queue", knob="num_workers").basis == "prior"


def test_pairs_of_another_model_never_serve() -> None:
    assert record(30, workloads=6).interval(1.0, 0.1, 0.1, model="trace_replay", knob="num_workers").basis == "prior"


def test_a_bias_puts_the_interval_beside_the_value() -> None:
    found = record(10, first=2.0).interval(100.0, 0.1, 0.1, model="loader_queue", knob="num_workers")

    assert (found.after, found.low, found.high) == pytest.approx((100.0, 100 * math.exp(0.2), 100 * math.exp(1.1)))


@settings(max_examples=25)
@given(st.integers(10, 60), st.sampled_from(["normal", "lognormal", "cauchy", "biased"]), st.integers(0, 2**32 - 1))
def test_exchangeable_ratios_are_covered_in_four_fifths_of_cases(count: int, kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    draw = {
        "normal": random.standard_normal,
        "lognormal": lambda size: random.lognormal(size=size),
        "cauchy": random.standard_cauchy,
        "biased": lambda size: 3.0 + random.standard_normal(size),
    }[kind]
    rounds = 300
    ratios = np.clip(draw((rounds, count + 1)), -50.0, 50.0)
    held = 0
    for row in ratios:
        pairs = tuple(Pair("m", "k", f"job {number // 4}", 1, float(ratio)) for number, ratio in enumerate(row[:-1]))
        found = Calibration(pairs).interval(1.0, 0.1, 0.1, model="m", knob="k")
        held += found.low <= math.exp(0.1 * row[-1]) <= found.high

    # each side misses at most a tenth: 80 % at the least, less four standard errors of 300 trials
    assert held / rounds >= 0.8 - 4 * math.sqrt(0.8 * 0.2 / rounds)


def test_from_thirty_pairs_on_the_middle_moves_too() -> None:
    found = record(30, workloads=6, first=0.0).interval(100.0, 0.1, 0.1, model="loader_queue", knob="num_workers")

    assert found.after == pytest.approx(100.0 * math.exp(0.1 * 14.5))  # the median of 0 ... 29


def test_intervals_from_a_track_record_hold_four_fifths_of_what_comes() -> None:
    random = np.random.default_rng(3)
    held = []
    for _ in range(400):
        ratios = random.lognormal(sigma=1.0, size=21)
        pairs = tuple(Pair("m", "k", f"job {number % 5}", number, ratio) for number, ratio in enumerate(ratios[:20]))
        found = Calibration(pairs).interval(1.0, 0.1, 0.1, model="m", knob="k")
        held.append(found.low <= math.exp(0.1 * ratios[20]) <= found.high)

    assert np.mean(held) >= 0.8 - 0.03  # 1 - 2 x floor(.1 x 21) / 21 = .81, less chance


def test_independent_half_widths_add_in_quadrature_down_to_a_floor() -> None:
    assert spread(0.06, 0.08) == pytest.approx(0.1)
    assert spread(0.001, 0.0) == 0.01


def test_draws_are_the_same_for_every_change() -> None:
    assert (draw_rows(30, 5, ahead=2) == draw_rows(30, 5, ahead=2)).all()


def test_draws_keep_neighbours_together_as_far_as_the_loader_reaches() -> None:
    rows = draw_rows(60, 3, ahead=8)

    # blocks of 2 x 8 = 16: at most 4 of them, so at most 3 places where a row does not follow the one before
    assert ((np.diff(rows, axis=1) % 60 != 1).sum(axis=1) <= 3).all()


def test_blocks_are_no_longer_than_a_third_of_the_steps() -> None:
    rows = draw_rows(9, 20, ahead=8)

    assert ((np.diff(rows, axis=1) % 9 != 1).sum(axis=1) > 0).any()  # blocks of 3, so that draws differ
    assert draws_half_width([1.0]) == 0.0


def test_a_track_record_of_misses_outweighs_the_value_itself() -> None:
    # simulated at 100, but all that was measured so far was 1.2 to 1.6 times what was simulated
    biased = Prediction("step_us", before=110.0, after=100.0, low=120.0, high=160.0, basis="calibrated on 10 pairs")

    assert biased.verdict == "slower"
    assert biased.chance_of() < 0.1
