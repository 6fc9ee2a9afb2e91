"""ProbeResult: what the branches of a probe did, what may be said of each, and what follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.training.probe_arms import BASE, Arm
from perfnb.training.probe_effect import LIKELY, MARGIN, NO_CLAIM, claim_of, factor_range, gate_z, last_mean, paired_effect
from perfnb.training.statistics import Floats

Ended = Literal["", "not finite", "clearly worse"]

EFFECT_COLUMNS: Final = (
    "change",
    "factor_low",
    "factor_high",
    "steps",
    "ended",
    "loss",
    "effect",
    "z",
    "verdict",
    "chance",
    "gain_low",
    "gain",
    "gain_high",
    "cap_reason",
)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One branch as it ran.

    Attributes
    ----------
    arm
        What was set.
    losses, rates, seconds
        Per step; rates are those of the first parameter group when the step began.
    ended
        Why it ended early; empty where it did not.
    """

    arm: Arm
    losses: Floats
    rates: Floats
    seconds: Floats
    ended: Ended = ""

    @property
    def is_finite(self) -> bool:
        """Whether every loss was finite."""
        return bool(np.isfinite(self.losses).all())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ProbeResult:
    """What a probe showed.

    Attributes
    ----------
    steps
        One row per (change, step): change, factor, step (from 0), loss, setting (value of the first parameter group when the step
        began), finite, seconds. Rows end with the first loss that is not finite, or where the branch was clearly worse.
    effects
        One row per branch: change, factor_low and factor_high, steps, ended, loss (mean of the last fifth), effect (share of the
        drop so far, above zero where better), z (below zero where better), verdict (present, better, worse, undecided, not
        finite, unknown), chance of more than 1 % of the attainable drop better, capped; gain_low, gain and gain_high (10, 50 and
        90 %); cap_reason.
    knob
        What was changed.
    planned_steps
        Length of the whole run; None where it is not known.
    first_loss
        What the run began with; NaN where it is not known.
    batches
        The batches of the probe, in order: train on them next, so that none is lost.
    not_run
        Changes that the budget left no time for.
    seconds
        What the probe took in all.
    own_seconds
        What of it was not spent in steps: keeping, putting back and comparing the state.
    snapshot_bytes
        Memory that the kept state took.
    """

    steps: pd.DataFrame
    effects: pd.DataFrame
    knob: str
    planned_steps: int | None
    first_loss: float
    batches: tuple[Any, ...]
    not_run: tuple[str, ...] = ()
    seconds: float = math.nan
    own_seconds: float = math.nan
    snapshot_bytes: int = 0

    @property
    def horizon(self) -> str:
        """Which part of the run the probe saw, in words."""
        count = int(self.effects["steps"].max())
        if self.planned_steps is None:
            return f"{count} paired steps; the length of the run is not known, so their share is not either"
        return f"{count} paired steps ({text.share(count / self.planned_steps)} of the run)"

    @property
    def winner(self) -> pd.Series | None:
        """Row of `effects` that the policy of training.md 9 suggests; None where the present setting is to be kept.

        The better branch with the largest effect, if its loss is at least 5 % below that of the present setting; where the
        present setting is not finite, the largest factor that stays finite.
        """
        base, others = self.effects.iloc[0], self.effects.iloc[1:]
        if base["verdict"] == "not finite":
            stayed = others[others["verdict"].ne("not finite") & others["factor_high"].lt(1.0)]
            stayed = stayed[~stayed["loss"].gt(self.first_loss)]
            return None if stayed.empty else stayed.iloc[int(stayed["factor_high"].argmax())]
        clear = others[others["verdict"].eq("better") & (base["loss"] - others["loss"]).ge(MARGIN * abs(base["loss"]))]
        return None if clear.empty else clear.iloc[int(clear["loss"].argmin())]

    def __repr__(self) -> str:
        """What the probe says, in a few sentences."""
        return "\n".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """A line per branch, and what follows."""
        lines = [_sentence(row, self) for _, row in self.effects.iloc[1:].iterrows()]
        if self.not_run:
            lines.append(f"Not run, for the budget was used up: {', '.join(self.not_run)}")
        best = self.winner
        if best is not None:
            lines.append(f"Worth a change: {self.knob} {best['change']}")
        elif self.effects["verdict"].iloc[0] == "not finite":
            lines.append(
                f"No {self.knob} to keep: the loss of the present one is not finite, and no lower one that was run does better. "
                "Rule out a bad batch and the number format, go back to the last good checkpoint, then probe lower ones, x0.01"
            )
        else:
            lines.append(f"Keep {self.knob}")
        return tuple(lines)


def result_of(
    branches: Sequence[Branch], *, knob: str, planned_steps: int | None, first_loss: float, batches: tuple[Any, ...], **rest: Any
) -> ProbeResult:
    """Result of branches, the present setting first.

    Parameters
    ----------
    branches
        As they ran.
    knob, planned_steps, first_loss, batches
        See `ProbeResult`.
    **rest
        Its other attributes.
    """
    base = branches[0]
    rows = [_row(base, each, knob, planned_steps, first_loss) for each in branches]
    return ProbeResult(
        steps=pd.concat([_steps(each) for each in branches], ignore_index=True),
        effects=pd.DataFrame(rows, columns=list(EFFECT_COLUMNS)),
        knob=knob,
        planned_steps=planned_steps,
        first_loss=first_loss,
        batches=batches,
        **rest,
    )


def _steps(branch: Branch) -> pd.DataFrame:
    count = len(branch.losses)
    return pd.DataFrame(
        {
            "change": branch.arm.name,
            "factor": [branch.arm.at(step) for step in range(count)],
            "step": np.arange(count),
            "loss": branch.losses,
            "setting": branch.rates[:count],
            "finite": np.isfinite(branch.losses),
            "seconds": branch.seconds[:count],
        }
    )


def _row(base: Branch, branch: Branch, knob: str, planned_steps: int | None, first_loss: float) -> tuple[Any, ...]:
    count = len(branch.losses)
    factors = factor_range(branch.arm.factor, max(count, 1))
    loss = last_mean(branch.losses) if branch.is_finite else math.nan
    effect, z, claim = math.nan, math.nan, NO_CLAIM
    if branch.is_finite and branch.arm != BASE and base.is_finite:
        effect, z = paired_effect(base.losses[:count], branch.losses, first_loss)
    if not branch.is_finite and base.is_finite:
        effect = -1.0
    if branch.arm != BASE and base.is_finite and knob == "learning_rate":
        claim = claim_of(effect, factors, count, planned_steps)
    verdict = _verdict(base, branch, effect, z, claim.chance)
    told = (branch.arm.name, *factors, count, branch.ended, loss, effect, z, verdict)
    return (*told, claim.chance, *claim.gain, claim.cap_reason)


def _verdict(base: Branch, branch: Branch, effect: float, z: float, chance: float) -> str:
    if not branch.is_finite:
        return "not finite"
    if branch.arm == BASE:
        return "present"
    if not base.is_finite or math.isnan(z):
        return "unknown"
    if branch.ended or z > -gate_z():
        return "worse"
    is_likely = effect > 0 if math.isnan(chance) else chance > LIKELY
    return "better" if z < gate_z() and is_likely else "undecided"


def _sentence(row: pd.Series, result: ProbeResult) -> str:
    name, count = row["change"], int(row["steps"])
    after = f"{text.name(str(name))} after {count} paired steps"
    if result.planned_steps is not None:
        after += f" ({text.share(count / result.planned_steps)} of the run)"
    if row["verdict"] == "not finite":
        return f"{after}: the loss is not finite"
    if row["verdict"] == "unknown":
        return f"{after}: finite, its loss {row['loss']:.4g}; the present setting is not finite, so nothing is paired"
    if row["ended"]:
        return f"{after}: clearly worse (z {row['z']:.1f}), not run on"
    if math.isnan(row["effect"]):
        why = (
            "is not known without the first loss"
            if math.isnan(result.first_loss)
            else f"cannot be said: neither ends below the first loss, {result.first_loss:.4g}"
        )
        return f"{after}: {row['verdict']} (z {row['z']:.1f}); how much of the drop that is, {why}"
    side = "lower" if row["effect"] > 0 else "higher"
    said = (
        f"{after}: the loss is {side} by {text.share(abs(row['effect']))} of the drop so far (z {row['z']:.1f}), {row['verdict']}"
    )
    if math.isnan(row["chance"]):
        return f"{said}; no probability, for nothing was fitted on {result.knob}"
    capped = f", capped: {row['cap_reason']}" if row["cap_reason"] else ""
    return (
        f"{said}. Better by over 1 % in the end: {row['chance']:.2f}{capped}; gain {row['gain']:.2f} "
        f"({row['gain_low']:.2f} to {row['gain_high']:.2f}) of the attainable drop"
    )
