"""Effect, z and probability of a paired probe, by hand; and what may not be claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import ProbeRefused
from perfnb.prediction import Change
from perfnb.training.confidence import calibration, chance_of_better
from perfnb.training.probe_arms import Arm, arms_of
from perfnb.training.probe_effect import claim_of, factor_range, is_hopeless, last_mean, paired_effect, paired_z
from perfnb.training.probe_result import Branch, ProbeResult, result_of


def branch(name: str, factor: float, losses: object, ended: str = "") -> Branch:
    told = np.asarray(losses, dtype=np.float64)
    return Branch(Arm(name, factor), told, np.full(len(told), 0.1 * factor), np.full(len(told), 0.01), ended)  # type: ignore[arg-type]


def result(*branches: Branch, planned: int | None = 200, first: float = 2.0, knob: str = "learning_rate") -> ProbeResult:
    return result_of(branches, knob=knob, planned_steps=planned, first_loss=first, batches=())


def noisy(mean: float, scatter: float = 0.05, count: int = 20) -> np.ndarray:
    return mean + scatter * np.where(np.arange(count) % 2, 1.0, -1.0)


def test_effect_is_the_difference_over_the_last_fifth_as_a_share_of_the_drop() -> None:
    base, other = np.full(20, 1.0), np.full(20, 0.5)

    effect, z = paired_effect(base, other, 2.0)

    assert effect == pytest.approx((1.0 - 0.5) / (2.0 - 0.5))
    assert z == 0.0  # no scatter to hold it against


def test_z_is_the_mean_log_ratio_over_its_widened_error() -> None:
    base = np.ones(8)
    logs = np.array([0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.1, 0.3])

    z = paired_z(base, np.exp(logs))

    error = 1.5 * np.std([0.1, 0.3, 0.1, 0.3], ddof=1) / math.sqrt(4)
    assert z == pytest.approx(0.2 / error)
    assert paired_z(base, base) == 0.0


def test_losses_below_zero_are_shifted_together() -> None:
    base, other = noisy(-1.0), noisy(-2.0)

    effect, z = paired_effect(base, other, 1.0)

    assert effect == pytest.approx(1.0 / 3.0)
    assert z < -2.0


def test_a_branch_that_is_not_finite_has_the_worst_effect() -> None:
    assert paired_effect(np.ones(10), np.array([1.0] * 9 + [math.nan]), 2.0) == (-1.0, math.inf)


def test_without_a_drop_there_is_no_effect_but_a_z() -> None:
    effect, z = paired_effect(noisy(1.0), noisy(2.0), 0.5)

    assert math.isnan(effect)
    assert z > 2.0
    assert math.isnan(paired_effect(noisy(1.0), noisy(0.5), math.nan)[0])


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_probability_rises_with_the_effect(one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert chance_of_better(low) <= chance_of_better(high)


@given(st.lists(st.floats(0.01, 100), min_size=10, max_size=40), st.floats(0.01, 100))
def test_an_effect_is_never_outside_of_one(losses: list[float], first: float) -> None:
    base = np.array(losses)

    effect, _ = paired_effect(base, base[::-1].copy(), first)

    assert math.isnan(effect) or -1.0 <= effect <= 1.0


@pytest.mark.parametrize(
    ("factors", "steps", "planned", "cap", "why"),
    [
        ((0.4, 0.4), 40, 400, 0.90, "10 % of the run probed"),
        ((0.4, 0.4), 28, 400, 0.80, "7.0 % of the run probed"),
        ((0.4, 0.4), 39, 200, 0.80, "39 steps, fewer than the 40"),
        ((0.4, 0.4), 5, 200, 0.70, "a screening"),
        ((0.4, 0.4), 100, 200, 0.70, "more than the 33 %"),
        ((0.4, 0.4), 20, None, 0.70, "the length of the run is not known"),
        ((0.05, 0.05), 20, 200, 0.70, "a factor outside of 0.1 to 10"),
        ((0.4, 20.0), 20, 200, 0.70, "a factor outside of 0.1 to 10"),
    ],
)
def test_a_probability_is_capped_by_what_was_probed(
    factors: tuple[float, float], steps: int, planned: int | None, cap: float, why: str
) -> None:
    claim = claim_of(0.95, factors, steps, planned)

    assert claim.chance == cap
    assert why in claim.cap_reason
    assert claim_of(0.0, factors, steps, planned).cap_reason == ""


def test_a_clear_effect_without_a_clear_z_is_undecided() -> None:
    told = result(branch("x1", 1.0, noisy(1.0, 0.7)), branch("x0.4", 0.4, noisy(0.5, 0.0)))

    row = told.effects.iloc[1]
    assert row["chance"] > 0.5
    assert -2.0 < row["z"] < 0.0
    assert row["verdict"] == "undecided"
    assert told.winner is None


def test_the_lowest_of_the_better_branches_is_suggested() -> None:
    told = result(
        branch("x1", 1.0, noisy(1.0, 0.01)),
        branch("x0.4", 0.4, noisy(0.7, 0.02)),
        branch("x2.5", 2.5, noisy(0.6, 0.02)),
        branch("x10", 10.0, noisy(3.0, 0.02)[:10], "clearly worse"),
    )

    assert told.effects["verdict"].tolist() == ["present", "better", "better", "worse"]
    assert told.winner is not None
    assert told.winner["change"] == "x2.5"
    assert told.sentences[-1] == "Worth a change: learning_rate x2.5"
    assert "Better by over 1 % in the end: 0." in told.sentences[1]
    assert "(10 % of the run)" in told.sentences[1]
    assert "clearly worse" in told.sentences[2]


def test_a_branch_less_than_five_percent_lower_is_not_suggested() -> None:
    told = result(branch("x1", 1.0, noisy(1.0, 0.001)), branch("x0.4", 0.4, noisy(0.96, 0.002)), first=1.01)

    assert told.effects.iloc[1]["verdict"] == "better"
    assert told.winner is None
    assert str(told).endswith("Keep learning_rate")


def test_where_the_present_setting_is_not_finite_the_largest_factor_that_stays_finite_is_suggested() -> None:
    gone = [1.0, 5.0, math.nan]
    told = result(
        branch("x1", 1.0, gone, "not finite"),
        branch("x0.1", 0.1, noisy(0.8)),
        branch("x0.01", 0.01, noisy(1.2)),
        branch("x0.4", 0.4, noisy(1e9)),
        branch("x0.5", 0.5, gone, "not finite"),
    )

    assert told.effects["chance"].isna().all()
    assert told.winner is not None
    assert told.winner["change"] == "x0.1"
    assert "nothing is paired" in told.sentences[0]
    assert "not finite" in told.sentences[3]


def test_where_nothing_stays_finite_the_present_setting_is_not_called_one_to_keep() -> None:
    gone = [1.0, math.nan]
    told = result(branch("x1", 1.0, gone, "not finite"), branch("x0.4", 0.4, gone, "not finite"))

    assert told.winner is None
    assert told.sentences[-1].startswith("No learning_rate to keep: the loss of the present one is not finite")
    assert "x0.01" in str(told)


def test_of_other_knobs_no_probability_is_stated() -> None:
    told = result(branch("x1", 1.0, noisy(1.0, 0.01)), branch("x0.1", 0.1, noisy(0.5, 0.02)), knob="weight_decay")

    assert math.isnan(told.effects.iloc[1]["chance"])
    assert told.effects.iloc[1]["verdict"] == "better"
    assert "nothing was fitted on weight_decay" in told.sentences[0]


def test_without_a_first_loss_z_alone_is_shown() -> None:
    told = result(branch("x1", 1.0, noisy(1.0)), branch("x0.4", 0.4, noisy(0.5)), first=math.nan, planned=None)

    assert "is not known without the first loss" in told.sentences[0]
    assert "length of the run is not known" in told.horizon


def test_of_losses_that_did_not_fall_it_is_not_said_that_the_first_one_is_missing() -> None:
    told = result(branch("x1", 1.0, noisy(3.0)), branch("x0.4", 0.4, noisy(2.5)), first=2.0)

    assert "neither ends below the first loss, 2" in told.sentences[0]


def test_a_branch_is_hopeless_only_from_ten_steps_on() -> None:
    base, worse = noisy(1.0, 0.01), noisy(2.0, 0.05)

    assert not is_hopeless(base[:9], worse[:9], 3.0)
    assert is_hopeless(base[:10], worse[:10], 3.0)
    assert not is_hopeless(worse[:10], base[:10], 3.0)
    assert not is_hopeless(base[:10], worse[:10], math.nan)
    assert not is_hopeless(base[:10], 1.05 * base[:10] + 0.01 * worse[:10], 3.0)  # z is far above 4, the effect small


def test_the_last_mean_is_of_three_steps_at_least() -> None:
    assert last_mean(np.arange(10.0)) == 8.0
    assert last_mean(np.arange(100.0)) == 89.5
    assert factor_range(lambda step: 0.5 + step, 3) == (0.5, 2.5)


def test_changes_become_factors() -> None:
    def warmup(step: int) -> float:
        return (step + 1) / 10

    arms = arms_of([1, 0.4, warmup, Change("learning_rate", 0.1, 0.25), Arm("mine", 3.0)], "learning_rate", 10)

    assert [arm.name for arm in arms] == ["x1", "x0.4", "warmup", "x2.5", "mine"]
    assert arms[2].at(4) == 0.5
    assert arms[3].at(4) == 2.5


@pytest.mark.parametrize(
    ("changes", "knob", "why"),
    [
        ([1.0], "learning_rate", "nothing to compare"),
        ([], "learning_rate", "nothing to compare"),
        ([-1.0], "learning_rate", "factors are numbers above zero"),
        ([math.inf], "learning_rate", "factors are numbers above zero"),
        ([lambda step: 5.0 - step], "learning_rate", "factors are numbers above zero"),
        ([0.4, 0.4], "learning_rate", "the same name"),
        (["0.4"], "learning_rate", "is no change"),
        ([True], "learning_rate", "is no change"),
        ([Change("batch_size", 1, 2)], "learning_rate", "is no factor of learning_rate"),
        ([Change("learning_rate", 0, 2)], "learning_rate", "is no factor"),
        ([0.4], "batch_size", "a probe changes learning_rate"),
    ],
)
def test_what_is_no_factor_is_refused(changes: list[object], knob: str, why: str) -> None:
    with pytest.raises(ProbeRefused, match=why):
        arms_of(changes, knob, 10)


def test_the_shipped_calibration_holds_what_the_probe_reads() -> None:
    told = calibration()["probe"]

    assert told["gate_z"] < 0 < told["slope"]
    assert [band["from"] for band in told["gain_bands"]] == sorted(band["from"] for band in told["gain_bands"])
