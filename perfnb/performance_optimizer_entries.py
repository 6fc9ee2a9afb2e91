"""Findings and suggestions as the plain dicts that scripts store, sort and send."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from perfnb import text
from perfnb.catalogue import fixes
from perfnb.findings import Diagnosis, Finding
from perfnb.fix import Suggestion
from perfnb.prediction import Prediction, Unknown
from perfnb.report_content import Shown
from perfnb.training.suggest import HyperparameterSuggestion
from perfnb.whatif.plan import PlanStep
from perfnb.wording import changed, predicted

_EVIDENCE_ROWS: Final = 20
_INTERVAL: Final = 0.8


def bottlenecks(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Found and possible bottlenecks, largest severity first.

    Severity is the share of step time, or of memory (`unit` says which), that goes lost; `status` is "possible" where the steps
    are too few to be sure or the device may hide any part of it.
    """
    entries = [
        *(_bottleneck(item, "found") for item in diagnosis.found),
        *(_bottleneck(item, "possible") for item in diagnosis.possible),
    ]
    return sorted(entries, key=lambda entry: (-entry["severity"], entry["status"], entry["bottleneck"]))


def recommendation(item: Suggestion, shown: Shown, priority: int, diagnosis: Diagnosis) -> dict[str, Any]:
    """One suggestion: what to change, what that is predicted to bring, and how sure the finding is that it answers."""
    surest = max(
        (each for each in (*diagnosis.found, *diagnosis.possible) if each.detector in item.answers),
        key=lambda finding: -1.0 if math.isnan(finding.confidence) else finding.confidence,
        default=None,
    )
    return {
        "strategy": item.fix,
        "description": f"{changed(item.changes)}: {item.reason}",
        "expected_improvement": improvement(item.prediction),
        "expected_improvement_text": predicted(item.prediction),
        "confidence": None if surest is None else _number(surest.confidence),
        "confidence_basis": "" if surest is None else f"{surest.detector}: {surest.record}",
        "chance_of_3_percent_gain": item.confidence,
        "priority": priority,
        "answers": list(item.answers),
        "config_change": [{"knob": each.knob, "before": each.before, "after": each.after} for each in item.changes],
        "diff": "\n".join(shown.diff),
        "paste": list(shown.snippets),
        "why_no_diff": shown.reason,
        "caution": item.caution,
    }


def improvement(answer: Prediction | Unknown) -> dict[str, Any]:
    """A prediction with its 80 % interval, or `unknown` with the reason and what is needed; never a number without basis.

    Examples
    --------
    >>> improvement(Unknown("no steps were recorded", "a trace"))
    {'unknown': 'no steps were recorded', 'needs': 'a trace'}
    >>> improvement(Prediction("step_us", 80.0, 40.0, 32.0, 50.0, "prior"))["speedup"]
    2.0
    """
    if isinstance(answer, Unknown):
        return {"unknown": answer.reason, "needs": answer.needs}
    return {
        "metric": answer.metric,
        "before": answer.before,
        "after": answer.after,
        "low": answer.low,
        "high": answer.high,
        "interval_share": _INTERVAL,
        "speedup": answer.speedup,
        "gain_share": answer.gain_share,
        "verdict": answer.verdict,
        "basis": answer.basis,
        "assumptions": list(answer.assumptions),
        "memory": None if answer.memory is None else answer.memory.words,
    }


def together(step: PlanStep) -> dict[str, Any]:
    """One step of the plan: what its strategy adds to those before it, by simulating them together."""
    return {
        "strategy": step.suggestion.fix,
        "gain_us": step.gain_us,
        "gain_alone_us": step.gain_alone_us,
        "expected_improvement": improvement(step.prediction),
    }


def hyperparameters(items: Iterable[HyperparameterSuggestion]) -> list[dict[str, Any]]:
    """One entry per parameter that the training's curve gives reason to try; what it brings is unknown until a probe."""
    knobs = {fix.name: fix.knobs for fix in fixes()}
    entries = []
    for item in items:
        named = [(each.knob, each.before, each.after) for each in item.changes] or [
            (knob, None, None) for knob in knobs.get(item.fix, (item.fix,))[:1]
        ]
        entries += [
            {
                "parameter_name": knob,
                "current_value": before,
                "suggested_value": after,
                "reasoning": item.sentence,
                "confidence": _number(item.confidence),
                "confidence_basis": item.record,
                "expected_impact": {"unknown": "a curve alone does not tell what a change brings", "needs": item.verify},
                "answers": item.answers,
                "strategy": item.fix,
                "horizon": item.horizon,
                "probe_factors": list(item.probe_factors),
                "caution": item.caution,
                "why_no_value": item.why_no_change,
            }
            for knob, before, after in named
        ]
    return entries


def _bottleneck(item: Finding, status: str) -> dict[str, Any]:
    return {
        "bottleneck": item.detector,
        "category": item.category,
        "status": status,
        "severity": item.severity,
        "severity_low": _number(item.low),
        "severity_high": _number(item.high),
        "unit": item.unit,
        "lost_us": _number(item.lost_us) if item.unit == "time" else None,
        "lost_bytes": _number(item.lost_bytes),
        "is_upper_bound": item.upper_bound,
        "confidence": _number(item.confidence),
        "confidence_basis": item.record,
        "tier": item.tier,
        "ranks": list(item.ranks),
        "steps": text.numbers(item.steps),
        "description": item.summary,
        "evidence": item.evidence.head(_EVIDENCE_ROWS).to_dict(orient="records"),
        "evidence_rows": len(item.evidence),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
