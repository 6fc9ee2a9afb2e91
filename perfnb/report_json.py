"""The report as JSON: everything that its page says, with the numbers whole, under a schema that has a version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import perfnb
from perfnb import json_output, text
from perfnb.findings import Finding
from perfnb.report_content import Reported, Shown
from perfnb.report_environment import config_rows, endings, environment, overhead
from perfnb.training.suggest import HyperparameterSuggestion
from perfnb.whatif.plan import PlanStep
from perfnb.wording import verdict

SCHEMA: Final = 1
"""Rises when a key goes or changes its meaning; new keys leave it as it is."""

MOST_EVIDENCE: Final = 200
"""Rows of evidence per finding; `evidence_rows` says how many there are."""

_LONGEST: Final = 10_000


def report_json(told: Reported) -> dict[str, Any]:
    """The report as plain dicts and lists, for `perfnb.json_output.as_json`.

    Parameters
    ----------
    told
        What it tells.

    Returns
    -------
    dict
        `schema`, `kind`, `perfnb`, `written`; `run`, `verdict`, `step`, `parts`; `findings`, `possible`, `suggestions`, `plan`,
        `not_applicable`, `training`, `hints`, `not_limiting`, `not_measured`; `config`, `environment`, `overhead`, `notes`. What
        is not known is null, or stands with its reason under `unknown`; never 0.
    """
    diagnosis = told.diagnosis
    line = verdict(diagnosis)
    answers = json_output.analysis(diagnosis, told.suggestions)
    answers["findings"] = _with_evidence(answers["findings"], diagnosis.found)
    answers["possible"] = _with_evidence(answers["possible"], diagnosis.possible)
    for entry, suggestion, shown in zip(answers["suggestions"], told.suggestions, told.shown, strict=True):
        entry.update(json_output.answer(suggestion.prediction), **_shown(shown))
    pairs = zip(told.hyperparameters, told.shown_hyperparameters, strict=True)
    answers["training"]["suggestions"] = [_hyperparameter(item, shown) for item, shown in pairs]
    return {
        "schema": SCHEMA,
        "kind": "perfnb report",
        "perfnb": perfnb.__version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {
            "line": diagnosis.run_line,
            "source": told.run.source,
            "ranks": told.run.ranks,
            "world_size": told.run.world_size,
            "recorded": sorted(told.run.signals),
            "not_recorded": dict(told.run.missing),
            "ended": dict(endings(told.run)),
        },
        "verdict": {"sign": line.sign, "sentence": line.sentence, "aside": line.aside},
        "parts": diagnosis.parts.to_dict(orient="records"),
        **answers,
        "plan": [_plan_step(step) for step in told.plan],
        "not_applicable": [{"fix": each.fix, "reason": each.reason} for each in told.refused],
        "hints": [{"detector": each.detector, "sentence": each.sentence} for each in diagnosis.hints],
        "config": dict(config_rows(told.config)),
        "environment": dict(environment(told.run)),
        "overhead": dict(overhead(told.run)),
    }


def _with_evidence(entries: list[dict[str, Any]], found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {
            **entry,
            "unit": item.unit,
            "lost_bytes": item.lost_bytes,
            "record": item.record,
            "tier": item.tier,
            "steps": item.steps,
            "upper_bound": item.upper_bound,
            "evidence_rows": len(item.evidence),
            "evidence": _rows(item),
        }
        for entry, item in zip(entries, found, strict=True)
    ]


def _rows(item: Finding) -> list[dict[str, Any]]:
    """The largest rows of the evidence; a name as long as a book is cut."""
    rows = item.evidence.head(MOST_EVIDENCE).to_dict(orient="records")
    return [
        {str(name): text.clean(value, _LONGEST) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]


def _shown(shown: Shown) -> dict[str, Any]:
    return {"diff": shown.diff, "paste": shown.snippets, "why_no_diff": shown.reason}


def _plan_step(step: PlanStep) -> dict[str, Any]:
    return {
        "fix": step.suggestion.fix,
        "changes": [str(change) for change in step.suggestion.changes],
        "gain_us": step.gain_us,
        "gain_alone_us": step.gain_alone_us,
        **json_output.answer(step.prediction),
    }


def _hyperparameter(item: HyperparameterSuggestion, shown: Shown) -> dict[str, Any]:
    return {
        "fix": item.fix,
        "answers": item.answers,
        "changes": [{"knob": each.knob, "before": each.before, "after": each.after} for each in item.changes],
        "tier": item.tier,
        "symptom": item.symptom,
        "p_value": item.p_value,
        "confidence": item.confidence,
        "record": item.record,
        "horizon": item.horizon,
        "verify": item.verify,
        "probe_factors": item.probe_factors,
        "caution": item.caution,
        "why_no_change": item.why_no_change,
        "unknown": {"reason": "a curve alone does not tell what a change brings", "needs": "a probe"},
        **_shown(shown),
    }
