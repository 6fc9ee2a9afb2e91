"""Benchmark of training advice: its arithmetic by hand, and what is shipped against what the corpus gives."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.training import alarms, data, policy
from benchmarks.training.baselines import halving_alarms, halving_rule
from benchmarks.training.fit_calibration import fitted, rate_prior
from benchmarks.training.fits import area_under_curve, calibration_error, logistic, sigmoid
from perfnb.training.probe_effect import paired_effect

PLACE = Path(__file__).resolve().parents[2] / "perfnb" / "training"


@pytest.fixture
def curves(corpus: Path) -> Path:
    if not (corpus / "training").is_dir():
        pytest.skip("the corpus has no training curves")
    return corpus


def test_a_regret_is_the_share_of_the_drop_that_is_missed() -> None:
    assert data.regret(1.5, 1.0, 3.0) == 0.25
    assert data.regret(9.0, 1.0, 3.0) == 1.0
    assert data.regret(math.inf, 1.0, 3.0) == 1.0


def test_an_effect_is_the_difference_as_a_share_of_the_drop() -> None:
    base, branch = np.full(20, 2.0), np.full(20, 1.0)

    effect, z = paired_effect(base, branch, 5.0)

    assert effect == 0.25  # (2 - 1) / (5 - 1)
    assert z == 0.0  # no scatter to hold it against
    assert paired_effect(base, np.full(20, np.nan), 5.0)[0] == -1.0
    assert math.isnan(paired_effect(base, branch, 0.5)[0])


def test_the_fixed_rule_fires_on_rises_alone() -> None:
    assert halving_rule(np.array([1.0, 2.0, 3.0, 4.0]))
    assert not halving_rule(np.array([4.0, 1.0, 2.0, 3.0]))  # a third of the changes fall
    assert halving_alarms(np.arange(10.0), 5) == (2, 2)


def test_an_area_under_a_curve_counts_ties_as_halves() -> None:
    assert area_under_curve(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])) == 0.875


def test_a_calibration_error_is_the_mean_gap_of_its_bins() -> None:
    chance, truth = np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True])

    assert calibration_error(chance, truth) == pytest.approx((0.45 * 2 + 0.05 * 2) / 4)


def test_a_logistic_fit_finds_the_line_that_made_the_data() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=20_000)
    truth = (random.random(20_000) < sigmoid(2.0 * x - 1.0)).astype(np.float64)

    slope, intercept = logistic(x[:, None], truth)

    assert (slope, intercept) == (pytest.approx(2.0, abs=0.1), pytest.approx(-1.0, abs=0.1))


@pytest.mark.corpus
def test_the_sweep_is_the_one_of_the_design_note(curves: Path) -> None:
    near = [run.regret for run in data.deepobs() if run.is_near]
    far = [run.regret for run in data.deepobs() if not run.is_near]

    assert (len(near), len(far)) == (190, 458)
    assert (np.mean(near), np.mean(far)) == (pytest.approx(0.106, abs=5e-4), pytest.approx(0.712, abs=5e-4))


@pytest.mark.corpus
@pytest.mark.no_cover
def test_the_policy_beats_every_baseline_near_and_far(curves: Path) -> None:
    told = policy.replay(policy.ladder(0.02, 0.1, with_prior=True))
    others = [policy.replay(each) for each in (policy.nothing, policy.fixed_rule, policy.others_median)] + [policy.random_moves()]

    for is_near, most in ((True, 0.021), (False, 0.076)):
        own, *rest = (np.mean([each.regret for each in made if each.run.is_near == is_near]) for made in (told, *others))
        assert own < most
        assert all(own < other for other in rest)
    worse = [each.worse for each in told if each.run.is_near]
    assert np.mean(worse) == pytest.approx(0.068, abs=5e-4)


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.slow
def test_no_overfitting_is_answered_by_a_lower_rate_and_every_divergence_is_named(curves: Path) -> None:
    cuts, overfitted = alarms.rate_cuts_for_overfitting()
    named, diverged = alarms.named_divergences()

    assert (cuts, overfitted) == (0, 156)
    assert named == diverged > 200


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.slow
def test_what_is_shipped_is_what_the_corpus_gives(curves: Path) -> None:
    for name, made in (("calibration.json", fitted()), ("learning_rate_prior.json", rate_prior())):
        shipped = dict(leaves(json.loads((PLACE / name).read_text(encoding="utf-8"))))
        again = dict(leaves(made))

        assert shipped.keys() == again.keys()
        for path, value in shipped.items():
            if isinstance(value, float):
                assert again[path] == pytest.approx(value, abs=1e-3), path
            else:
                assert again[path] == value, path


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested one, with where it stands."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from leaves(each, f"{path}[{place}]")
    else:
        yield path, value
