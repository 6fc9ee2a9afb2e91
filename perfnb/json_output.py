"""JSON faces of what the command line prints: plain dicts and lists, and no number that JSON lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from perfnb.prediction import Unknown

if TYPE_CHECKING:
    import pandas as pd

    from perfnb import Change, Diagnosis, Prediction, Suggestion

_FINDING: Final = ("detector", "category", "severity", "low", "high", "lost_us", "confidence", "ranks", "summary")
_ON_THE_CURVE: Final = ("detector", "tier", "confidence", "record", "ranks", "steps", "summary")
_CLEARED: Final = ("detector", "category", "severity", "flag_above", "summary")
_UNMEASURED: Final = ("detector", "category", "reason")
_MEMORY: Final = ("what", "before_bytes", "after_bytes", "low_bytes", "high_bytes", "usable_bytes", "level", "verdict", "basis")
_PREDICTION: Final = ("metric", "before", "after", "low", "high", "basis")


def as_json(value: Any) -> str:
    r"""JSON text of a value; a number that JSON lacks (NaN, infinity) and a missing one become null.

    Parameters
    ----------
    value
        Mappings, sequences, numbers (numpy's too) and text, nested as they like; anything else is written as its text.

    Returns
    -------
    str
        One JSON document, indented by two.

    Examples
    --------
    >>> as_json({"low": float("nan"), "ranks": (0, 1)})
    '{\n  "low": null,\n  "ranks": [\n    0,\n    1\n  ]\n}'
    """
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def analysis(diagnosis: Diagnosis, suggestions: Iterable[Suggestion]) -> dict[str, Any]:
    """What `perfnb analyze --json` prints.

    Parameters
    ----------
    diagnosis
        The answer of every detector.
    suggestions
        The fixes that apply.

    Returns
    -------
    dict
        findings, possible, suggestions, not_limiting and not_measured: one entry per thing; training: the same of the training
        itself, by its curve; and the step that the others are shares of.
    """
    return {
        "findings": [_picked(finding, _FINDING) for finding in diagnosis.found],
        "possible": [_picked(finding, _FINDING) for finding in diagnosis.possible],
        "suggestions": [_suggestion(suggestion) for suggestion in suggestions],
        "not_limiting": [_picked(cleared, _CLEARED) for cleared in diagnosis.cleared],
        "not_measured": [_picked(item, _UNMEASURED) for item in diagnosis.unmeasured],
        "training": training(diagnosis.training),
        "step": _picked(diagnosis, ("step_us", "low_us", "high_us", "steps_used")),
        "notes": list(diagnosis.notes),
    }


def training(told: Diagnosis | None) -> dict[str, Any]:
    """What was found on the training's own curve, looked for and not measured; empty lists where it was not looked at.

    Parameters
    ----------
    told
        `Diagnosis.training`.

    Returns
    -------
    dict
        findings, not_seen, not_measured: one entry per thing. A finding has no severity: what it costs, only a probe tells.
    """
    found, cleared, unmeasured = (told.found, told.cleared, told.unmeasured) if told else ((), (), ())
    return {
        "findings": [_picked(finding, _ON_THE_CURVE) for finding in found],
        "not_seen": [_picked(item, ("detector", "summary")) for item in cleared],
        "not_measured": [_picked(item, ("detector", "reason")) for item in unmeasured],
    }


def answer(prediction: Prediction | Unknown) -> dict[str, Any]:
    """A prediction under `prediction`, or why there is none under `unknown`.

    Parameters
    ----------
    prediction
        What a what-if model answered.

    Returns
    -------
    dict
        One key.

    Examples
    --------
    >>> from perfnb import Unknown
    >>> answer(Unknown("no steps", "a trace with steps"))
    {'unknown': {'reason': 'no steps', 'needs': 'a trace with steps'}}
    """
    if isinstance(prediction, Unknown):
        return {"unknown": _picked(prediction, ("reason", "needs"))}
    picked = _picked(prediction, (*_PREDICTION, "assumptions"))
    if prediction.memory is not None:
        picked["memory"] = _picked(prediction.memory, _MEMORY)
    return {"prediction": picked}


def rows(frame: pd.DataFrame, missing: str = "") -> dict[str, Any]:
    """The rows of a table, one dict per row, under `rows`; and why there are none under `missing`.

    Parameters
    ----------
    frame
        A table; its index is left out.
    missing
        Why it has no rows; left out where empty.

    Returns
    -------
    dict
        One or two keys.
    """
    return {"rows": frame.to_dict(orient="records")} | ({"missing": missing} if missing else {})


def _suggestion(suggestion: Suggestion) -> dict[str, Any]:
    """The first change stands at the top too: most fixes have one only."""
    changes = [_change(change) for change in suggestion.changes]
    answered = answer(suggestion.prediction)
    if "prediction" in answered:
        answered["prediction"] = _picked(suggestion.prediction, _PREDICTION)
    return {
        "fix": suggestion.fix,
        **(changes[0] if changes else {}),
        "changes": changes,
        "answers": suggestion.answers,
        "reason": suggestion.reason,
        "confidence": suggestion.confidence,
        "caution": suggestion.caution,
        **answered,
    }


def _change(change: Change) -> dict[str, Any]:
    return _picked(change, ("knob", "before", "after"))


def _picked(item: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)
