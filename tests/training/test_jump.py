"""Jumps at the start against scatter, by hand; and made healthy curves, which raise no alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.catalogue import training_detectors
from perfnb.detector import Unmeasured
from perfnb.findings import Finding
from perfnb.training.diagnosis import measure_training
from perfnb.training.examples import curve_run, decay
from perfnb.training.jump import LARGEST_RATIO, SCATTERS, jump


def test_losses_that_alternate_need_a_larger_jump() -> None:
    # logs alternate by 0.2: differences are 0.2 and -0.2, their robust sigma 1.4826 * 0.2, the scatter that over sqrt(2)
    losses = np.exp(0.2 * (np.arange(41) % 2))

    found = jump(losses)

    assert found is not None
    assert found.threshold == pytest.approx(math.exp(SCATTERS * 1.4826 * 0.2 / math.sqrt(2) * math.sqrt(4 / 3)), rel=1e-6)
    assert found.ratio == pytest.approx(math.exp(0.2) / ((2 + math.exp(0.2)) / 3))
    assert not found.is_one


def test_losses_without_scatter_need_a_third_more() -> None:
    losses = np.ones(20)
    losses[9] = 1.36

    found = jump(losses)

    assert found is not None
    assert (found.place, found.threshold, found.is_one) == (9, LARGEST_RATIO, True)


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [], [-1.0] * 9, [math.nan] * 9, [1.0, 1.0, 1.0, math.nan, math.inf]])
def test_no_start_or_nothing_after_it_is_no_jump_and_no_ratio(losses: list[float]) -> None:
    assert jump(losses) is None


@given(st.floats(1e-3, 1e3), st.integers(0, 50))
def test_the_scale_of_a_loss_changes_nothing(scale: float, seed: int) -> None:
    losses = decay(60, noise=0.2, seed=seed)
    found, scaled = jump(losses), jump(scale * losses)

    assert found is not None
    assert scaled is not None
    assert scaled.ratio == pytest.approx(found.ratio)
    assert scaled.threshold == pytest.approx(found.threshold)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_healthy_curves_of_any_scatter_raise_no_alarm(noise: float) -> None:
    alarms = 0
    for seed in range(30):
        run = curve_run(np.abs(decay(600, noise=noise, seed=seed)), config={"planned_steps": 600})
        for found in training_detectors():
            if found.name in ("non_finite_loss", "rising_loss", "early_instability", "loss_spikes"):
                try:
                    alarms += isinstance(measure_training(found, run), Finding)
                except Unmeasured:
                    continue

    assert alarms == 0
