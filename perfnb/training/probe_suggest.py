"""What a probe lets perfnb suggest: probed suggestions, each with its probability, its gain and the horizon it was seen over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.training.confidence import calibration
from perfnb.training.probe_result import ProbeResult
from perfnb.training.rates import current_rate, scaled
from perfnb.training.statistics import upper_tail
from perfnb.training.suggest import HyperparameterSuggestion

METRIC: Final = "attainable_drop_share"
"""The run's end in attainable drops of the loss, counted so that the present setting ends at 1 and a gain of 0.3 at 0.7."""

MODEL: Final = "training_probe 1"

_NOTHING_FITTED: Final = "the present setting is not finite, or only learning rates were fitted"


def probed_suggestions(result: ProbeResult, config: Mapping[str, Any] | None = None) -> tuple[HyperparameterSuggestion, ...]:
    """The change that a probe gives reason for; none where the present setting is to be kept.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.
    config
        The training's config, any home of one as in `perfnb.as_config`; without it the value is that of the optimizer's first
        parameter group when the probe began.

    Returns
    -------
    tuple of HyperparameterSuggestion
        One of the tier "probed", or none.
    """
    best = result.winner
    if best is None:
        return ()
    change = _change(result, best, {} if config is None else as_config(config))
    is_lower = float(best["factor_high"]) < 1.0
    way = "lower" if is_lower else "raise"
    prediction = prediction_of(result, str(best["change"]))
    return (
        HyperparameterSuggestion(
            fix="add_warmup" if best["factor_low"] != best["factor_high"] else f"{way}_{result.knob}",
            answers="probe",
            changes=() if isinstance(change, str) else (change,),
            tier="probed",
            symptom=_symptom(best, result),
            p_value=math.nan if math.isnan(best["z"]) else upper_tail(-float(best["z"])),
            confidence=float(best["chance"]),
            record=_record(prediction, best),
            horizon=result.horizon,
            verify="Verified by both settings run from one state for three times as long, or by two full runs",
            probe_factors=(),
            caution=str(best["cap_reason"]),
            why_no_change=change if isinstance(change, str) else "",
            prediction=prediction,
        ),
    )


def prediction_of(result: ProbeResult, change: str) -> Prediction | Unknown:
    """Gain of a branch as a prediction, for the accuracy ledger: of the metric `attainable_drop_share`.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.
    change
        Name of the branch.

    Returns
    -------
    Prediction or Unknown
        before 1; after, low and high are 1 less the gain's median, high and low end. Its first assumption holds the
        probability, effect, z and horizon. Unknown where no probability is known.
    """
    row = result.effects[result.effects["change"].eq(change)].iloc[0]
    if math.isnan(row["chance"]):
        reason = f"no probability is known of {text.name(change)}: {_NOTHING_FITTED}, or the first loss is not known"
        return Unknown(reason, "first_loss of the run, and a present setting that stays finite")
    line = calibration()["probe"]
    planned = "an unknown number of" if result.planned_steps is None else str(result.planned_steps)
    return Prediction(
        metric=METRIC,
        before=1.0,
        after=1.0 - float(row["gain"]),
        low=1.0 - float(row["gain_high"]),
        high=1.0 - float(row["gain_low"]),
        basis=f"calibrated on {line['pairs']} pairs",
        assumptions=(
            _features(row, line["better_is"], planned),
            *([str(row["cap_reason"])] if row["cap_reason"] else []),
        ),
        model=MODEL,
    )


def _features(row: pd.Series, better_is: float, planned: str) -> str:
    """What the ledger keeps of a branch beside its interval: `perfnb.outcomes.probes` reads the probability from it."""
    told = f"effect {row['effect']:.4f}, z {row['z']:.2f}, {row['steps']} of {planned} steps"
    return f"chance {row['chance']:.4f} of over {better_is:g} better: {told}"


def _change(result: ProbeResult, best: pd.Series, config: Mapping[str, Any]) -> Change | str:
    if best["factor_low"] != best["factor_high"]:
        return "the factor changes with the step: set it in the schedule"
    if has_knob(config, result.knob):
        if result.knob == "learning_rate" and isinstance(now := current_rate(config), str):
            return now
        now = value_of(config, result.knob)
        if not isinstance(now, (int, float)) or isinstance(now, bool):
            return f"{result.knob} is {text.name(repr(now))}, not a number"
    elif config:
        return f"the config has no {result.knob}"
    else:
        now = float(result.steps["setting"].iloc[0])
    return Change(result.knob, now, scaled(float(now), float(best["factor_low"])))


def _symptom(best: pd.Series, result: ProbeResult) -> str:
    name = text.name(str(best["change"]))
    if math.isnan(best["effect"]):
        return f"{name} stays finite for {best['steps']} steps, the present {result.knob} does not"
    return f"The loss at {name} is lower by {text.share(float(best['effect']))} of the drop so far (z {best['z']:.1f})"


def _record(prediction: Prediction | Unknown, best: pd.Series) -> str:
    if isinstance(prediction, Unknown):
        return prediction.reason
    tasks = calibration()["probe"]["tasks"]
    return (
        f"better by over 1 % in the end: {best['chance']:.2f} ({prediction.basis}, {tasks} tasks); gain {best['gain']:.2f} "
        f"({best['gain_low']:.2f} to {best['gain_high']:.2f}) of the attainable drop"
    )
