"""Edits of what forward and backward work on: padding that goes, activations that are computed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from perfnb.analyses.batch_fit import LARGEST_ERROR
from perfnb.prediction import Change, Unknown
from perfnb.whatif.batch_line import FIXED_SHARE
from perfnb.whatif.phase_work import COMPUTE, PhaseEdit, factor_of, phase_times, phases_us
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

PADDING_ERROR: Final = 0.10  # a prior (whatif contract, section 7)
CHECKPOINTING_ERROR: Final = 0.10  # a prior (whatif contract, section 7)
GROUPED_AWAY: Final = Estimate(0.8, 0.5, 1.0)
"""Share of the padding that goes when sequences of like length share a batch: a prior, not validated."""

PACKED_AWAY: Final = Estimate(0.95, 0.85, 1.0)
"""The same when sequences fill one another's room: what the packing leaves empty stays; a prior, not validated."""

RECOMPUTED: Final = {"full": Estimate(1.0, 0.8, 1.0), "selective": Estimate(0.5, 0.1, 1.0)}
"""Share of forward that backward computes again: priors, not validated, for which modules are wrapped is not recorded."""

_OFF: Final = ("none", None, False)
_LEAST_DIFFERENT: Final = 1.2  # largest over smallest padded batch from which a line through them is drawn; a choice
_LENGTHS: Final = "tokens and padded_tokens of each step in the training's metrics"


@transform("group_by_length", model="batch_size", error=PADDING_ERROR, needs=("phases",))
def group_by_length(model: StepModel, change: Change) -> StepModel | Unknown:
    """Sequences of like length in one batch: most of the padding goes, real tokens stay."""
    return _without_padding(model, change, GROUPED_AWAY)


@transform("pack_sequences", model="batch_size", error=PADDING_ERROR, needs=("phases",))
def pack_sequences(model: StepModel, change: Change) -> StepModel | Unknown:
    """Short sequences in the room of long ones: nearly all of the padding goes; a step is taken to hold the same sequences."""
    return _without_padding(model, change, PACKED_AWAY)


@transform("activation_checkpointing", model="checkpointing", error=CHECKPOINTING_ERROR, needs=("phases",))
def activation_checkpointing(model: StepModel, change: Change) -> StepModel | Unknown:
    """Backward runs the forward of the wrapped modules once more, or no longer."""
    before, after = (_recomputed(value) for value in (change.before, change.after))
    if before is None or after is None:
        return Unknown(f"{change.before!r} -> {change.after!r}: none, selective and full are modelled", "one of these")
    if model.measured.is_device_job:
        reason = "which kernels belong to the wrapped modules' forward is not known"
        return Unknown(reason, "times of the wrapped modules on the device")
    forward = phases_us(model, *COMPUTE)
    if isinstance(forward, Unknown):
        return forward
    share = Estimate(after.value - before.value, after.low - before.high, after.high - before.low)
    if before.is_exact:
        share = Estimate(after.value, after.low, after.high)
    elif after.is_exact:
        share = Estimate(-before.value, -before.high, -before.low)
    text = (
        f"backward computes {abs(share.value):.0%} of forward {'again' if share.value > 0 else 'no longer'}: a prior, for which "
        "modules are wrapped was not recorded"
    )
    edit = PhaseEdit(("backward",), factor_of(change.knob), added="forward")
    edited = model.with_phase_edit(change.knob, edit, share)
    return edited.with_error("checkpointing", CHECKPOINTING_ERROR, text, "memory is not checked")


def _recomputed(value: object) -> Estimate | None:
    if value in _OFF:
        return Estimate.exactly(0.0)
    return RECOMPUTED.get("full" if value is True else str(value))


def _without_padding(model: StepModel, change: Change, away: Estimate) -> StepModel | Unknown:
    if change.after is not True:
        return Unknown("how much padding there would be is not known", f"a run with {change.knob}={change.after}")
    if model.measured.is_device_job:
        reason = "which part of the device's work grows with the tokens is not known"
        return Unknown(reason, "steps of two or more lengths on the host's clock, or a run with it, compared by verify")
    if len(model.measured.ranks) > 1:
        return Unknown("how the lengths of the ranks' batches go together is not known", "lengths of all ranks' samples")
    tokens = _tokens(model)
    if isinstance(tokens, Unknown):
        return tokens
    spent = phases_us(model, *COMPUTE)
    if isinstance(spent, Unknown):
        return spent
    fixed = _fixed_share(model, tokens)
    if isinstance(fixed, Unknown):
        return fixed
    share, told = fixed
    waste = 1.0 - tokens.real / tokens.padded
    gone = Estimate(away.value * waste, away.low * waste, away.high * waste)
    factor = Estimate(
        1.0 - (1.0 - share.value) * gone.value,
        1.0 - (1.0 - share.low) * gone.high,
        1.0 - (1.0 - share.high) * gone.low,
    )
    texts = (
        f"{waste:.0%} of the tokens are padding, of which {away.value:.0%} ({away.low:.0%} to {away.high:.0%}; a prior) go",
        told,
        "batches are as random as training needs",
    )
    edit = PhaseEdit(COMPUTE, factor_of("padding"))
    known = model.estimates.get(factor_of("padding"))
    if known is not None:  # two cures of one cause share its gain: the better one holds
        factor = min(factor, known, key=lambda each: each.value)
        edited = model.with_estimates(**{factor_of("padding"): factor})
    else:
        edited = model.with_phase_edit("padding", edit, factor)
    return edited.with_error("batch_size", PADDING_ERROR, *texts)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Of the steady steps: mean tokens with and without padding, and each step's with padding."""

    real: float
    padded: float
    each: pd.Series


def _tokens(model: StepModel) -> _Tokens | Unknown:
    training = model.run.training
    rows = training[training["step"].isin(model.measured.numbers)].groupby("step")[["tokens", "padded_tokens"]].mean()
    rows = rows.reindex(list(model.measured.numbers)).dropna()
    if rows.empty or not float(rows["padded_tokens"].sum()) > 0.0:
        return Unknown("how many tokens of each batch are padding is not known", _LENGTHS)
    return _Tokens(float(rows["tokens"].mean()), float(rows["padded_tokens"].mean()), rows["padded_tokens"])


def _fixed_share(model: StepModel, tokens: _Tokens) -> tuple[Estimate, str] | Unknown:
    """Share of forward and backward that does not grow with the tokens: by a line through the steps where they differ."""
    times = phase_times(model.run, model.measured.numbers).total_us(COMPUTE)
    times = times[np.isin(model.measured.numbers, tokens.each.index)]
    x = tokens.each.to_numpy(dtype=np.float64)
    if len(x) < 3 or x.max() < _LEAST_DIFFERENT * x.min():  # noqa: PLR2004 - a line and its error
        share = FIXED_SHARE
        told = f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}; a prior) of the work does not grow with the tokens"
        return share, told
    slope, start = (float(value) for value in np.polyfit(x, times, 1))
    error = float(np.abs(times - start - slope * x).mean() / times.mean())
    if error > LARGEST_ERROR or slope < 0.0:
        reason = f"forward and backward do not follow the padded tokens of a batch ({error:.0%} off a line)"
        return Unknown(reason, "a quieter run, or steps of more different lengths")
    fixed = min(max(start / float(times.mean()), 0.0), 1.0)
    return (
        Estimate(fixed, max(fixed - error, 0.0), min(fixed + error, 1.0)),
        f"{1.0 - fixed:.0%} of forward and backward grow with the padded tokens, by a line {error:.1%} off the steps",
    )
