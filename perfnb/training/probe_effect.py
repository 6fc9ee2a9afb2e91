"""What a paired probe shows: effect and z of a branch beside its base, over the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from perfnb import text
from perfnb.training.confidence import HIGHEST_OBSERVED, calibration, chance_of_better, gain_of, highest_probed
from perfnb.training.statistics import Floats

FEWEST_STEPS: Final = 10
"""Steps of a probe at least: nothing was fitted on fewer."""

HOPELESS_Z: Final = 4.0
"""A branch that is so clearly worse is not run to its end, if what it lacks is large too: see `HOPELESS_CHANCE`."""

HOPELESS_CHANCE: Final = 0.05
"""Only where the effect so far leaves no more than this: one under -0.18. On the same batches a lower rate is soon behind by many
standard errors, however little, and may end better: z without an effect ended too many branches of our own tasks."""

MARGIN: Final = 0.05
"""Share of its own loss by which a branch must be below the present setting's to be suggested (training.md 9)."""

LIKELY: Final = 0.5
"""Probability above which a branch counts as better."""

_AUTOCORRELATION: Final = 1.5  # a prior: how much wider the mean of a half is than independent steps make it
_FEWEST_MEANT: Final = 3
_FITTED_STEPS: Final = 40
_HIGHEST_OF_FEW: Final = 0.80
"""Of fewer steps than the line was fitted on: small runs of the corpus, probed for 20 steps, right in 80 % where sure."""

_SHARES: Final = (0.05, 0.33)  # of the run: what the calibration was fitted on is 10 % and 17 %, and held from 5 to 25 %
_FACTORS: Final = (0.1, 10.0)
_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Claim:
    """What may be said of a branch.

    Attributes
    ----------
    chance
        Probability that it ends over 1 % of the attainable drop better, capped; NaN where nothing was fitted.
    gain
        Low end, median and high end of 80 % of the gain, as a share of the attainable drop; NaN likewise.
    cap_reason
        Why the probability could not be higher; empty where the cap did not bind.
    """

    chance: float
    gain: tuple[float, float, float]
    cap_reason: str = ""


NO_CLAIM: Final = Claim(math.nan, (math.nan, math.nan, math.nan))


def paired_effect(base: Floats, branch: Floats, first_loss: float) -> tuple[float, float]:
    """Effect and z of a branch against its base over their common steps (training.md 6).

    z is the mean of ln branch - ln base over the second half, over 1.5 sd/sqrt(count): below zero where the branch is better.
    The effect is the base's mean loss over the last fifth less the branch's, as a share of what the loss had fallen by at the
    lower of the two.

    Parameters
    ----------
    base, branch
        Losses of the same steps.
    first_loss
        Mean of the run's first three losses; NaN where it is not known.

    Returns
    -------
    effect, z
        Effect in [-1, 1], -1 where the branch is not finite; NaN where the loss had not fallen, or it is not known from where.

    Examples
    --------
    >>> base, branch = np.full(20, 1.0), np.linspace(1.0, 0.5, 20)
    >>> effect, z = paired_effect(base, branch, 2.0)
    >>> round(effect, 2), z < -2
    (0.32, True)
    """
    if not np.isfinite(branch).all():
        return -1.0, math.inf
    z = paired_z(base, branch)
    fifth = max(_FEWEST_MEANT, len(base) // 5)
    one, other = float(base[-fifth:].mean()), float(branch[-fifth:].mean())
    drop = first_loss - min(one, other)
    if not drop > 0.0:
        return math.nan, z
    return float(np.clip((one - other) / drop, -1.0, 1.0)), z


def paired_z(base: Floats, branch: Floats) -> float:
    """How many of its standard errors the branch's log loss is above the base's, over the second half; 0 without any scatter."""
    both = np.concatenate([base, branch])
    shift = 1.01 * min(float(both.min()), 0.0)
    logs = np.log(np.maximum(branch - shift, 1e-8)) - np.log(np.maximum(base - shift, 1e-8))
    half = logs[len(logs) // 2 :]
    error = _AUTOCORRELATION * float(half.std(ddof=1)) / math.sqrt(len(half))
    return float(half.mean()) / error if error > 0.0 else 0.0


def last_mean(losses: Floats) -> float:
    """Mean loss over the last fifth, of three steps at least."""
    return float(losses[-max(_FEWEST_MEANT, len(losses) // 5) :].mean())


def claim_of(effect: float, factors: tuple[float, float], steps: int, planned_steps: int | None) -> Claim:
    """Probability and gain of a learning rate's branch, capped by how much of the run the probe saw.

    Parameters
    ----------
    effect
        Of `paired_effect`.
    factors
        Lowest and highest factor of the rate over the branch's steps.
    steps
        Steps that base and branch have in common.
    planned_steps
        Length of the whole run; None where it is not known.

    Examples
    --------
    >>> claim = claim_of(0.9, (0.4, 0.4), 100, 1_000)
    >>> claim.chance, claim_of(0.9, (0.4, 0.4), 20, 1_000).chance
    (0.9, 0.7)
    """
    if math.isnan(effect):
        return NO_CLAIM
    share = None if planned_steps is None else steps / planned_steps
    cap, reason = _cap(share)
    if steps < _FITTED_STEPS and cap > _HIGHEST_OF_FEW:
        cap, reason = _HIGHEST_OF_FEW, f"{steps} steps, fewer than the {_FITTED_STEPS} that anything was fitted on"
    if not (_FACTORS[0] - _SLACK <= factors[0] and factors[1] <= _FACTORS[1] + _SLACK):
        cap, reason = HIGHEST_OBSERVED, f"a factor outside of {_FACTORS[0]:g} to {_FACTORS[1]:g}, which nothing was fitted on"
    chance = chance_of_better(effect)
    capped = min(chance, cap)
    return Claim(capped, gain_of(capped), reason if chance > cap else "")


def gate_z() -> float:
    """The z below which a branch may be called better."""
    return float(calibration()["probe"]["gate_z"])


def is_hopeless(base: Floats, branch: Floats, first_loss: float) -> bool:
    """Whether a branch need not be run on: worse so far, clearly and by much; never where the first loss is not known."""
    if len(branch) < FEWEST_STEPS or not np.isfinite(base).all():
        return False
    effect, z = paired_effect(base, branch, first_loss)
    return z > HOPELESS_Z and not math.isnan(effect) and chance_of_better(effect) <= HOPELESS_CHANCE


FactorRange = Callable[[int], float] | float


def factor_range(factor: FactorRange, steps: int) -> tuple[float, float]:
    """Lowest and highest factor of a branch over its steps."""
    if not callable(factor):
        return float(factor), float(factor)
    told = [float(factor(step)) for step in range(steps)]
    return min(told), max(told)


def _cap(share: float | None) -> tuple[float, str]:
    if share is None:
        return highest_probed(None), "the length of the run is not known, so its share is not either"
    if share > _SHARES[1]:
        return (
            HIGHEST_OBSERVED,
            f"{text.share(share)} of the run probed, more than the {text.share(_SHARES[1])} that anything was fitted on",
        )
    if share < _SHARES[0]:
        return highest_probed(share), f"a screening: {text.share(share)} of the run probed, less than {text.share(_SHARES[0])}"
    return highest_probed(share), f"{text.share(share)} of the run probed"
