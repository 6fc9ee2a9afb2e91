"""Gradient noise scale and time to the same loss, by hand; and when nothing is said."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.charts import alternative, svg
from perfnb.charts.training_probe import noise_scale_chart
from perfnb.prediction import Prediction, Unknown
from perfnb.training.examples import curve_run, decay
from perfnb.training.noise_scale import (
    NoiseScale,
    gradient_noise_scale,
    known_steps,
    last_windows,
    noise_and_signal,
    noise_scale_of,
    noise_scale_windows,
)
from perfnb.training.time_to_loss import rate_factor, steps_ratio, time_to_loss

SCALE = NoiseScale(400.0, 300.0, 500.0, batch=64.0, steps=100)


def table(scale: float, steps: int, *, batch: float = 64.0, parts: int = 2, scatter: float = 0.1) -> pd.DataFrame:
    """Steps with a squared gradient of 1 and a noise of `scale`, both with some scatter."""
    random = 1.0 + scatter * np.random.default_rng(2).standard_normal(steps)
    return pd.DataFrame(
        {
            "rank": 0,
            "step": np.arange(steps),
            "batch_size": batch,
            "micro_batches": parts,
            "micro_gradient_square": 1.0 + scale * random * parts / batch,
            "gradient_square": 1.0 + scale * random / batch,
        }
    )


def test_noise_and_signal_of_a_step_are_solved_from_the_two_squares() -> None:
    # b = 16, B = 64; |G|^2 = 2, tr S = 96: the squares are 2 + 96/16 = 8 and 2 + 96/64 = 3.5
    noise, signal = noise_and_signal(np.array([64.0]), np.array([4.0]), np.array([8.0]), np.array([3.5]))

    assert noise.tolist() == [96.0]
    assert signal.tolist() == [2.0]


def test_the_scale_is_told_from_the_fewest_steps_that_allow_it() -> None:
    found = gradient_noise_scale(table(50.0, 400))

    assert isinstance(found, NoiseScale)
    assert found.low < 50.0 < found.high
    assert found.steps in (16, 32)  # 20 x 50 samples are 15.6 steps of 64: from eight on the next lengths are 16 and 32
    assert gradient_noise_scale(table(50.0, 400), last=100).steps == 100  # type: ignore[union-attr]


def test_of_many_parts_half_the_samples_suffice() -> None:
    few = table(50.0, 8)

    assert isinstance(noise_scale_of(known_steps(few)), Unknown)
    assert isinstance(noise_scale_of(known_steps(few.assign(parts_seen=8))), NoiseScale)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (table(50.0, 7), "7 steps hold"),
        (table(50.0, 8), "times the scale"),
        (table(50.0, 400).assign(gradient_square=1e-9), "is not told from its noise"),
        (table(5.0, 60, scatter=12.0), "not told from its noise|too wide"),
        (table(50.0, 400).assign(micro_batches=1), "0 steps hold"),
        (table(50.0, 400).assign(skipped=True), "0 steps hold"),
    ],
)
def test_where_nothing_can_be_told_the_reason_is(frame: pd.DataFrame, why: str) -> None:
    found = gradient_noise_scale(frame)

    assert isinstance(found, Unknown)
    assert pytest.importorskip("re").search(why, found.reason)


def test_a_batch_within_a_factor_of_ten_is_not_judged() -> None:
    sides = [NoiseScale(scale, scale / 1.2, scale * 1.2, 64.0, 100).side for scale in (5.0, 60.0, 640.0, 900.0)]

    assert sides == ["clearly too large", "within the band", "within the band", "clearly too small"]
    assert "not validated under Adam" in SCALE.sentence


def test_three_windows_have_to_tell_it() -> None:
    found = last_windows(known_steps(table(50.0, 100)), None)

    assert not isinstance(found, Unknown)
    assert found[1] == 16
    assert isinstance(last_windows(known_steps(table(50.0, 20)), None), Unknown)
    assert isinstance(last_windows(known_steps(table(50.0, 40)), None), Unknown)


def test_the_windows_of_a_run_become_a_chart() -> None:
    columns = {name: values.to_numpy() for name, values in table(50.0, 200).items() if name not in ("rank", "step")}
    windows = noise_scale_windows(curve_run(decay(200), **columns))

    assert windows["step"].is_monotonic_increasing
    assert windows["noise_scale"].between(40.0, 60.0).all()
    chart = noise_scale_chart(windows)
    assert "the batch 64" in alternative(chart)
    assert "<svg" in svg(chart)
    assert "no window" in alternative(noise_scale_chart(windows.head(0)))


def test_the_same_batch_takes_the_same_steps_and_the_limits_hold() -> None:
    assert steps_ratio(123.0, 64.0, 64.0) == 1.0
    assert steps_ratio(1e15, 64.0, 256.0) == pytest.approx(64.0 / 256.0)
    assert steps_ratio(1e-15, 64.0, 256.0) == pytest.approx(1.0)


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e4), st.floats(1.0, 1e4))
def test_steps_fall_with_the_batch_but_never_faster_than_it_grows(critical: float, one: float, other: float) -> None:
    before, after = sorted((one, other))

    assert before / after - 1e-9 <= steps_ratio(critical, before, after) <= 1.0 + 1e-9


def test_time_is_steps_times_step_time_over_the_corners_of_both() -> None:
    step = Prediction("step_us", 100.0, 150.0, 130.0, 180.0, "prior", assumptions=("a",), model="batch_size 1")

    told = time_to_loss(SCALE, 64.0, 128.0, step, left_s=1_000.0)

    steps = [(1 + critical / 128) / (1 + critical / 64) for critical in (30.0, 100.0, 500.0)]
    assert not isinstance(told, Unknown)
    assert (told.steps_low, told.steps, told.steps_high) == pytest.approx((steps[2], steps[1], steps[0]))
    assert isinstance(told.prediction, Prediction)
    assert told.prediction.after == pytest.approx(1_000.0 * steps[1] * 1.5)
    assert told.prediction.low == pytest.approx(1_000.0 * steps[2] * 1.3)
    assert told.prediction.high == pytest.approx(1_000.0 * steps[0] * 1.8)
    assert told.prediction.model == "noise_scale 1 + batch_size 1"
    assert "times the time to the same loss" in told.sentence


def test_a_prediction_per_sample_counts_with_the_samples() -> None:
    told = time_to_loss(SCALE, 64.0, 128.0, Prediction("sample_us", 2.0, 1.5, 1.4, 1.6, "prior"))

    assert not isinstance(told, Unknown)
    assert told.step_time == pytest.approx(2.0 * 0.75)
    same = time_to_loss(SCALE, 64.0, 64.0, Prediction("step_us", 1.0, 1.0, 1.0, 1.0, "prior"))
    assert not isinstance(same, Unknown)
    assert isinstance(same.prediction, Prediction)
    assert same.prediction.after == same.prediction.low == same.prediction.high == 1.0


def test_what_is_not_known_stays_unknown_and_the_step_ratio_is_still_there() -> None:
    told = time_to_loss(SCALE, 64.0, 128.0, Unknown("no model", "a trace"))
    other = time_to_loss(SCALE, 64.0, 128.0, Prediction("peak_bytes", 1.0, 2.0, 2.0, 2.0, "prior"))

    assert not isinstance(told, Unknown)
    assert isinstance(told.prediction, Unknown)
    assert "the time is not known: no model" in told.sentence
    assert math.isnan(told.step_time)
    assert not isinstance(other, Unknown)
    assert isinstance(other.prediction, Unknown)
    assert isinstance(time_to_loss(Unknown("a", "b"), 64.0, 128.0, Unknown("c", "d")), Unknown)
    assert isinstance(time_to_loss(SCALE, 64.0, 0.0, Unknown("c", "d")), Unknown)


def test_the_rate_goes_along_with_the_batch() -> None:
    assert rate_factor("Adam", 64, 16) == 0.5
    assert rate_factor("momentum", 64, 16) == 0.25
    assert rate_factor("shampoo", 64, 16) is None


@pytest.mark.torch
def test_squares_are_taken_from_an_accumulating_loop_as_it_is() -> None:
    torch = pytest.importorskip("torch")
    from perfnb.errors import ProbeRefused  # noqa: PLC0415 - with torch
    from perfnb.training.probe_gradients import GradientSquares  # noqa: PLC0415 - with torch

    # w x with w = 1 and micro-batches x = 1 and x = 3: gradients 2 w x^2 are 2 and 18, that of the batch is their mean, 10
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    logged = []
    squares = GradientSquares(model, optimizer, batch_size=8, log=lambda **values: logged.append(values))
    with pytest.raises(ProbeRefused, match="two micro-batches"):
        squares.frame()
    for _ in range(3):
        optimizer.zero_grad()
        for x in (1.0, 3.0):
            (model(torch.full((4, 1), x)).pow(2).mean() / 2).backward()
        optimizer.step()
    squares.close()
    model(torch.ones(1, 1)).sum().backward()

    frame = squares.frame()
    assert frame["step"].tolist() == [1, 2]  # the first step only counts its micro-batches
    assert frame["micro_batches"].tolist() == [2, 2]
    assert frame["micro_gradient_square"].tolist() == [4.0, 4.0]
    assert frame["gradient_square"].tolist() == [100.0, 100.0]
    assert len(logged) == 2
    with pytest.raises(ProbeRefused, match="not from a int"):
        GradientSquares(3, optimizer, batch_size=8)
