"""suggest(run, config) and plan(run, config): the fixes that apply, with what each is predicted to gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from perfnb.catalogue import fixes
from perfnb.config.as_config import as_config
from perfnb.config.mapping import value_of
from perfnb.diagnose import diagnose, mean_parts
from perfnb.errors import NoStepsError
from perfnb.findings import Diagnosis
from perfnb.fix import Fix, NotApplicable, OneOf, StepParts, Suggestion
from perfnb.ground import Ground
from perfnb.outcomes.calibrate import own_calibration
from perfnb.prediction import Change, Prediction
from perfnb.run import Run
from perfnb.whatif.plan import PlanStep, best_value, order
from perfnb.whatif.step_model import predict
from perfnb.whatif.uncertainty import Calibration

_known: Final[WeakKeyDictionary[Run, StepParts]] = WeakKeyDictionary()


def suggest(
    run: Run,
    config: Mapping[str, Any] | None = None,
    diagnosis: Diagnosis | None = None,
    *,
    calibration: Calibration | None = None,
) -> tuple[Suggestion, ...]:
    """Changes of a config that answer what a run suffers from, best first.

    Ranked by the low end of the predicted gain times the probability that it helps; those without a prediction come last.

    Parameters
    ----------
    run
        The run.
    config
        The training's config, any home of one as in `perfnb.as_config`; the run's own by default.
    diagnosis
        `diagnose(run)`, if it was made already.
    calibration
        Track record for the intervals; by default what perfnb ships with the user's own outcomes.

    Returns
    -------
    tuple of Suggestion
        One per fix that applies. Fixes that do not apply, with their reasons: `not_applicable`.

    Examples
    --------
    >>> import perfnb
    >>> perfnb.suggest(perfnb.read_trace("data/samples/healthy"), {"num_workers": 0})
    ()
    """
    config = run.config if config is None else as_config(config)
    diagnosis = diagnosis or diagnose(run)
    calibration = own_calibration() if calibration is None else calibration
    made = [
        _suggestion(run, config, fix, answer, diagnosis, calibration)
        for fix, answer in _proposals(run, config, diagnosis)
        if not isinstance(answer, NotApplicable)
    ]
    return tuple(sorted(made, key=_rank))


def not_applicable(
    run: Run, config: Mapping[str, Any] | None = None, diagnosis: Diagnosis | None = None
) -> tuple[NotApplicable, ...]:
    """Fixes that would answer a finding of this run, but do not apply to the config, and why."""
    config = run.config if config is None else as_config(config)
    answers = _proposals(run, config, diagnosis or diagnose(run))
    return tuple(answer for _, answer in answers if isinstance(answer, NotApplicable))


def plan(
    run: Run,
    config: Mapping[str, Any] | None = None,
    suggestions: Sequence[Suggestion] | None = None,
    *,
    budget: int | None = None,
    calibration: Calibration | None = None,
) -> tuple[PlanStep, ...]:
    """Which suggestions to apply, in which order, with what each adds to those before it.

    Gains do not add up, so each step of the plan is one joint simulation of all changes so far.

    Parameters
    ----------
    run
        The run.
    config
        The training's config, as in `suggest`; the run's own by default.
    suggestions
        `suggest(run, config)` by default.
    budget
        Most suggestions to apply; as many as are worth it by default.
    calibration
        Track record for the intervals; by default what perfnb ships with the user's own outcomes.

    Returns
    -------
    tuple of PlanStep
        In the order in which to apply them.

    Raises
    ------
    MixedCurrency
        If some suggestions are judged by time and others by the loss.
    """
    config = run.config if config is None else as_config(config)
    calibration = own_calibration() if calibration is None else calibration
    given = suggest(run, config, calibration=calibration) if suggestions is None else suggestions
    return order(run, given, config, budget=budget, calibration=calibration)


def _proposals(run: Run, config: Mapping[str, Any], diagnosis: Diagnosis) -> list[tuple[Fix, Mapping[str, Any] | NotApplicable]]:
    detected = {finding.detector for finding in (*diagnosis.found, *diagnosis.possible)}
    wanted = [fix for fix in fixes() if detected & set(fix.answers)]
    if not wanted:
        return []
    try:
        parts = step_parts(run)
    except NoStepsError as error:  # memory, or a trace that is judged as a whole: no fix is sized without steps
        return [(fix, NotApplicable(fix.name, str(error))) for fix in wanted]
    return [(fix, fix.proposal(config, parts, run.machine, run.world_size, run)) for fix in wanted]


def step_parts(run: Run) -> StepParts:
    """Mean microseconds per used step of each ledger part, of the step, and of the host inside the DataLoader.

    Kept for as long as the run lives: a panel asks for its suggestions each time it is opened.
    """
    if run not in _known:
        _known[run] = _step_parts(run)
    return dict(_known[run])


def _step_parts(run: Run) -> StepParts:
    ground = Ground.of(run)
    parts = mean_parts(ground)
    data = run.phases[run.phases["phase"].eq("data")].merge(ground.steps[["rank", "step"]], on=["rank", "step"])
    loader = float(data["wall_us"].mean()) if len(data) else 0.0
    return dict(zip(parts["part"], parts["time_us"], strict=True)) | {"step": float(ground.durations.mean()), "loader": loader}


def _suggestion(
    run: Run, config: Mapping[str, Any], fix: Fix, values: Mapping[str, Any], diagnosis: Diagnosis, calibration: Calibration
) -> Suggestion:
    chosen = {knob: _chosen(run, config, knob, value) for knob, value in values.items()}
    changes = tuple(Change(knob, value_of(config, knob), after) for knob, after in chosen.items())
    prediction = predict(run, changes, config, calibration=calibration)
    detected = {finding.detector for finding in (*diagnosis.found, *diagnosis.possible)}
    return Suggestion(
        fix=fix.name,
        changes=changes,
        answers=tuple(name for name in fix.answers if name in detected),
        reason=fix.reason,
        prediction=prediction,
        confidence=prediction.chance_of() if isinstance(prediction, Prediction) else None,
        caution=fix.caution,
    )


def _chosen(run: Run, config: Mapping[str, Any], knob: str, value: Any) -> Any:
    if not isinstance(value, OneOf):
        return value
    best = best_value(run, config, knob, value.values)
    return value.values[0] if best is None else best


def _rank(suggestion: Suggestion) -> tuple[float, str]:
    prediction = suggestion.prediction
    if not isinstance(prediction, Prediction):
        return (1.0, suggestion.fix)
    low_gain = 1.0 - prediction.high / prediction.before
    return (-low_gain * (suggestion.confidence or 0.0) if low_gain > 0 else -low_gain, suggestion.fix)
