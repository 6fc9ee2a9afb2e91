"""suggest_hyperparameters(run): what the curve of a training gives reason to try, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from perfnb import text
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import Detector, Unmeasured
from perfnb.findings import Finding, NotMeasured
from perfnb.fix import Fix, NotApplicable
from perfnb.fixes.add_warmup import add_warmup
from perfnb.fixes.clip_gradients import clip_gradients
from perfnb.fixes.decay_learning_rate import decay_learning_rate
from perfnb.fixes.grow_batch import grow_batch
from perfnb.fixes.lower_learning_rate import lower_learning_rate
from perfnb.fixes.raise_learning_rate import raise_learning_rate
from perfnb.fixes.stop_early import stop_early
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.training.confidence import HIGHEST_WITHOUT_PLAN
from perfnb.training.curve import curve_of
from perfnb.training.diagnoses.batch_off_noise_scale import batch_off_noise_scale
from perfnb.training.diagnoses.clipping_misfit import clipping_misfit
from perfnb.training.diagnoses.early_instability import early_instability
from perfnb.training.diagnoses.learning_rate_too_low import learning_rate_too_low
from perfnb.training.diagnoses.loss_oscillation import loss_oscillation
from perfnb.training.diagnoses.loss_plateau import loss_plateau
from perfnb.training.diagnoses.loss_spikes import loss_spikes
from perfnb.training.diagnoses.missing_decay import missing_decay
from perfnb.training.diagnoses.non_finite_loss import non_finite_loss
from perfnb.training.diagnoses.overfitting import overfitting
from perfnb.training.diagnoses.rising_loss import rising_loss
from perfnb.training.diagnosis import in_precedence, measure_training
from perfnb.training.rates import last_recorded_rate

_DETECTORS: Final[tuple[Detector, ...]] = (
    non_finite_loss,
    rising_loss,
    early_instability,
    loss_spikes,
    loss_oscillation,
    loss_plateau,
    overfitting,
    learning_rate_too_low,
    batch_off_noise_scale,
    clipping_misfit,
    missing_decay,
)

_ANSWERS: Final[Mapping[str, tuple[Fix, ...]]] = MappingProxyType(
    {
        "non_finite_loss": (lower_learning_rate,),
        "rising_loss": (lower_learning_rate,),
        "early_instability": (add_warmup, lower_learning_rate),
        "loss_spikes": (clip_gradients,),
        "loss_plateau": (decay_learning_rate,),
        "overfitting": (stop_early,),
        "learning_rate_too_low": (raise_learning_rate,),
        "batch_off_noise_scale": (grow_batch,),
        "clipping_misfit": (clip_gradients,),
        "missing_decay": (decay_learning_rate,),
    }
)

_PROBED: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "non_finite_loss": (0.01, 0.1),
        "rising_loss": (0.1, 0.4, 1.0),
        "early_instability": (0.4, 1.0),
        "loss_plateau": (0.25, 1.0, 4.0),
        "learning_rate_too_low": (1.0, 2.5, 10.0),
    }
)
"""Factors of the learning rate that a probe should compare, by symptom (training.md 3)."""

_NEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "non_finite_loss": "Rule out a bad batch and the number format, go back to the last good checkpoint, then probe",
        "rising_loss": "Worth a probe, unless the data changed there",
        "early_instability": "Worth a probe of both: 5 % warm-up at the same rate, and a lower rate",
        "loss_spikes": "Worth a fork from before a spike on the same batches, with clipping and without",
        "loss_plateau": "Worth a probe: if the lower rate wins decay now, if the higher one wins the rate was too low, else stop",
        "overfitting": "Stop there, or probe weight decay or augmentation to go on; a lower rate is no cure",
        "learning_rate_too_low": "Worth a probe",
        "batch_off_noise_scale": "Batch and rate together, to be probed at the new batch: suggestive on two tasks, no more",
        "clipping_misfit": "An unvalidated rule: worth a fork with the other threshold",
        "missing_decay": "An unvalidated rule: worth a fork with a decay and without, both to the end",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class HyperparameterSuggestion:
    """A change of the training itself that its curve gives reason to try.

    Attributes
    ----------
    fix
        Name of the fix.
    answers
        Training finding that it answers.
    changes
        What to try; empty where `why_no_change` says why nothing can be named.
    tier
        "observed": the curve alone speaks, so that the change is worth a probe and not more.
    symptom
        What was seen, with its statistic and steps.
    p_value
        Chance of the symptom in a run without it, over all looks; NaN where the statistic has none.
    confidence
        Lower end of what counts of comparable curves allow for the cause, at most 0.70; NaN where nothing was counted.
    record
        Those counts in words.
    horizon
        Which part of the run was seen.
    verify
        What to do next, and what shows whether the change helps.
    probe_factors
        Factors of the learning rate that a probe should compare; empty where the change is of something else.
    caution
        What to check first.
    why_no_change
        Why the config has no place or no value for the change; empty where `changes` has it.
    prediction
        Of a probed one the gain, of the metric `attainable_drop_share`; None of an observed one, which states none.
    """

    fix: str
    answers: str
    changes: tuple[Change, ...]
    tier: Literal["observed", "probed"]
    symptom: str
    p_value: float
    confidence: float
    record: str
    horizon: str
    verify: str
    probe_factors: tuple[float, ...]
    caution: str
    why_no_change: str = ""
    prediction: Prediction | Unknown | None = None

    @property
    def sentence(self) -> str:
        """All of it in a few sentences for people."""
        counted = "" if math.isnan(self.confidence) else f" {self.record[:1].upper()}{self.record[1:]}."
        changed = ", ".join(str(change) for change in self.changes)
        what = f" To try: {changed}." if changed else f" No value to try: {self.why_no_change}."
        return f"{self.symptom}.{counted} {self.verify}.{what} Seen: {self.horizon}."


def suggest_hyperparameters(run: Run, config: Mapping[str, Any] | None = None) -> tuple[HyperparameterSuggestion, ...]:
    """Changes of learning rate, warm-up, clipping, schedule or length that the curve of a run gives reason to try.

    From a curve alone: each states the symptom, how often the cause was that on comparable curves, and what probe would settle
    it. No suggestion says what a change brings, and a curve without symptoms gets none. Neither does one that could not be looked
    at: `perfnb.diagnose(run).training` names each detector that was silent and, of those that lacked something, what.

    Parameters
    ----------
    run
        A run whose table `training` holds losses, of `read_training_log`, `read_run` or `record`.
    config
        The training's config, any home of one as in `perfnb.as_config`; the run's own by default.

    Returns
    -------
    tuple of HyperparameterSuggestion
        Surest first: what is certain about the curve, then by confidence, then what rests on no counts.

    Examples
    --------
    >>> from perfnb.training.examples import curve_run
    >>> run = curve_run([2.0, 1.5, float("nan"), float("nan")], config={"learning_rate": 0.1})
    >>> [(each.fix, str(each.changes[0]), round(each.confidence, 2)) for each in suggest_hyperparameters(run)]
    [('lower_learning_rate', 'learning_rate: 0.1 -> 0.01', 0.63)]
    """
    given = run.config if config is None else as_config(config)
    found = [each for each in in_precedence(_answer(each, run) for each in _DETECTORS) if isinstance(each, Finding)]
    return tuple(_suggestion(run, given, finding, fix) for finding in found for fix in _fixes_of(finding))


def _fixes_of(finding: Finding) -> tuple[Fix, ...]:
    """Fixes that answer a finding; a batch that is too large has none yet."""
    if "is_small" in finding.evidence and not finding.evidence["is_small"].any():
        return ()
    return _ANSWERS.get(finding.detector, ())


def _answer(detector: Detector, run: Run) -> Any:
    try:
        return measure_training(detector, run)
    except Unmeasured as reason:
        return NotMeasured(detector.name, detector.family, str(reason))


def _suggestion(run: Run, config: Mapping[str, Any], finding: Finding, fix: Fix) -> HyperparameterSuggestion:
    proposed = _proposal(run, config, fix)
    changes = (
        ()
        if isinstance(proposed, NotApplicable)
        else tuple(Change(knob, value_of(_with_rate(run, config), knob), after) for knob, after in proposed.items())
    )
    curve = curve_of(run.training, run.config)
    capped = finding.confidence if curve.planned_steps else min(finding.confidence, HIGHEST_WITHOUT_PLAN)
    at = finding.steps[0]
    p_value = finding.evidence.loc[finding.evidence["fires"], "p_value"].iloc[0] if "p_value" in finding.evidence else math.nan
    return HyperparameterSuggestion(
        fix=fix.name,
        answers=finding.detector,
        changes=changes,
        tier="observed",
        symptom=finding.summary,
        p_value=float(p_value),
        confidence=capped,
        record=finding.record,
        horizon=_horizon(at - int(curve.steps[0]) + 1, at, curve.planned_steps),
        verify=_NEXT[finding.detector],
        probe_factors=_PROBED.get(finding.detector, ()),
        caution=fix.caution,
        why_no_change=_why_none(proposed, fix, _with_rate(run, config)),
    )


def _why_none(proposed: Mapping[str, Any] | NotApplicable, fix: Fix, config: Mapping[str, Any]) -> str:
    if not isinstance(proposed, NotApplicable):
        return ""
    is_absent = not all(has_knob(config, knob) for knob in fix.knobs)
    return f"{proposed.reason}; name it there, with the value in use" if is_absent else proposed.reason


def _proposal(run: Run, config: Mapping[str, Any], fix: Fix) -> Mapping[str, Any] | NotApplicable:
    return fix.proposal(_with_rate(run, config), {}, run.machine, run.world_size, run)


def _with_rate(run: Run, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config, with the rate that was recorded last where it names none."""
    rate = last_recorded_rate(run)
    return config if rate is None or has_knob(config, "learning_rate") else {**config, "learning_rate": rate}


def _horizon(done: int, step: int, planned: int | None) -> str:
    if planned is None:
        return f"up to step {step}; the length of the run is not known, so its share is not either"
    return f"up to step {step}, {text.share(min(done / planned, 1.0))} of the planned {planned:,} steps"
