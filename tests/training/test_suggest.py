"""Suggestions from curves: worded as what was seen, capped, and never a lower rate against overfitting."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.catalogue import training_detectors
from perfnb.run import Run
from perfnb.training.confidence import HIGHEST_OBSERVED, CurveRecord, chance_of_better, gain_of, lower_bound
from perfnb.training.examples import curve_run, decay
from perfnb.training.suggest import _ANSWERS, _DETECTORS, suggest_hyperparameters

CONFIG = {
    "learning_rate": 0.1,
    "warmup_steps": 0,
    "clip_norm": None,
    "decay_steps": 0,
    "max_steps": None,
    "planned_steps": 600,
    "schedule": "constant",
}


def cases(name: str) -> list[Run]:
    return [case.run for each in training_detectors() if each.name == name for case in each.examples if case.fires]


@pytest.mark.no_cover
def test_every_firing_example_of_a_detector_gets_an_observed_suggestion() -> None:
    for name in set(_ANSWERS) - {"batch_off_noise_scale"}:
        for run in cases(name):
            answers = {each.answers for each in suggest_hyperparameters(run, {**CONFIG, **run.config})}

            assert name in answers


def test_overfitting_is_answered_by_stopping_never_by_a_rate() -> None:
    for run in cases("overfitting"):
        made = suggest_hyperparameters(run, CONFIG)

        assert [each.fix for each in made if each.answers == "overfitting"] == ["stop_early"]
        assert "lower_learning_rate" not in {each.fix for each in made}
        assert "no cure" in made[0].verify


def test_a_divergence_states_its_direction_and_its_counts() -> None:
    run = curve_run([2.0, 1.5, math.nan, math.nan], config={**CONFIG})

    (made,) = suggest_hyperparameters(run)

    assert str(made.changes[0]) == "learning_rate: 0.1 -> 0.01"
    assert made.probe_factors == (0.01, 0.1)
    assert made.confidence == pytest.approx(0.63, abs=0.005)
    assert "In 4 of 4 comparable curves the rate was too high." in made.sentence


def test_a_rate_that_only_the_log_knows_is_what_the_change_starts_from() -> None:
    run = curve_run([2.0, 1.5, math.nan, math.nan], learning_rate=0.02)

    (made,) = suggest_hyperparameters(run)

    assert str(made.changes[0]) == "learning_rate: 0.02 -> 0.002"


def test_without_a_rate_the_symptom_stands_and_says_why_no_value_is_named() -> None:
    (made,) = suggest_hyperparameters(curve_run([2.0, 1.5, math.nan, math.nan]))

    assert made.changes == ()
    assert "no learning_rate" in made.why_no_change
    assert made.why_no_change in made.sentence


def test_a_rule_without_counts_gives_no_number() -> None:
    (made,) = suggest_hyperparameters(curve_run(0.5 + 1.5 * np.exp(-np.arange(550) / 8.0), config=CONFIG, learning_rate=0.1))

    assert (made.answers, made.record) == ("missing_decay", "unvalidated rule")
    assert math.isnan(made.confidence)
    assert str(made.changes[0]) == "decay_steps: 0 -> 50"


def test_a_healthy_curve_and_a_run_without_one_get_no_suggestion() -> None:
    assert suggest_hyperparameters(curve_run(decay(300), config={"planned_steps": 600})) == ()
    assert suggest_hyperparameters(Run()) == ()


def test_a_p_value_counts_all_looks() -> None:
    (run, *_) = cases("rising_loss")

    made = next(each for each in suggest_hyperparameters(run, CONFIG) if each.answers == "rising_loss")

    assert 0.0 < made.p_value < 0.01
    assert "planned 200 steps" in made.horizon


@pytest.mark.no_cover
def test_no_sentence_promises_anything() -> None:
    for name in _ANSWERS:
        for run in cases(name):
            for each in suggest_hyperparameters(run, {**CONFIG, **run.config}):
                assert not re.search(r"\b(optimal|will|guarantee\w*)\b", each.sentence), each.sentence
                assert each.tier == "observed"
                assert not each.confidence > HIGHEST_OBSERVED


def test_every_training_detector_is_asked() -> None:
    assert {each.name for each in training_detectors()} == {each.name for each in _DETECTORS}


def test_a_batch_that_is_too_small_is_answered_one_that_is_too_large_is_not() -> None:
    small, large, _ = cases("batch_off_noise_scale")

    assert [each.fix for each in suggest_hyperparameters(small) if each.answers == "batch_off_noise_scale"] == ["grow_batch"]
    assert "batch_off_noise_scale" not in {each.answers for each in suggest_hyperparameters(large)}


@pytest.mark.no_cover
@given(st.integers(0, 400), st.integers(0, 400))
def test_a_lower_bound_lies_below_the_share_and_rises_with_hits(hits: int, misses: int) -> None:
    bound = lower_bound(hits, misses)

    assert 0.0 < bound < (1 + hits) / (2 + hits + misses)
    assert lower_bound(hits + 1, misses) > bound > lower_bound(hits, misses + 1)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_larger_effect_never_has_a_smaller_probability(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert chance_of_better(low) <= chance_of_better(high)


@given(st.floats(0, 1))
def test_every_probability_has_an_interval_of_gains(chance: float) -> None:
    low, median, high = gain_of(chance)

    assert -1.0 <= low <= median <= high <= 1.0


def test_many_hits_do_not_pass_the_cap() -> None:
    assert CurveRecord(500, 0, "x", "y").confidence == HIGHEST_OBSERVED


@settings(max_examples=25)
@given(st.lists(st.one_of(st.floats(-5, 1e4), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=120))
def test_no_curve_makes_suggestions_fail(losses: list[float]) -> None:
    run = curve_run(losses, config=CONFIG, validation_loss=np.array(losses)[::-1], gradient_norm=np.abs(losses))

    for each in suggest_hyperparameters(run):
        assert each.symptom
