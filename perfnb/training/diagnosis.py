"""What a detector of the training itself finds on a curve, in words and without a severity; and which one silences which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from perfnb.detector import Detector, Unmeasured
from perfnb.findings import Cleared, Finding, Hint, NotMeasured
from perfnb.run import Run
from perfnb.training.confidence import record_of

Answer = Finding | Cleared | NotMeasured | Hint

SILENCED_BY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"non_finite_loss": ("rising_loss", "early_instability", "loss_spikes", "loss_oscillation", "loss_plateau")}
)
"""Finding to the detectors whose answers mean nothing beside it: what comes before a divergence is part of it."""

ADVISES_ONLY_A_LOOK: Final = "unvalidated rule"
"""Stands where a number would, of detectors that no labelled curves were counted for."""


def measure_training(detector: Detector, run: Run) -> Finding | Cleared:
    """Finding of a detector of the training, at the first step at which it fired, or its last number where it did not.

    Severity and interval are NaN: what a change would bring, only a probe tells. Confidence is the lower end of what counts of
    comparable curves allow, NaN where nothing was counted.

    Raises
    ------
    Unmeasured
        If the run lacks what the detector reads, or has too little of it.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a curve may hold any numbers; comparisons with NaN are False
        rows = detector.evidence(run)
    if rows.empty:
        message = "the curve holds nothing that it could be taken from"
        raise Unmeasured(message)
    fired = rows[rows["fires"]]
    shown = (rows.tail(1) if fired.empty else fired.head(1)).to_dict("records")[0]
    again = _again(run)
    if fired.empty:
        summary = f"{shown['symptom']}{again}"
        return Cleared(detector.name, detector.family, math.nan, float(shown["threshold"]), summary)
    record = record_of(detector.name)
    return Finding(
        detector=detector.name,
        category=detector.family,
        severity=math.nan,
        low=math.nan,
        high=math.nan,
        lost_us=math.nan,
        confidence=record.confidence if record else math.nan,
        record=record.words if record else ADVISES_ONLY_A_LOOK,
        tier="observed",
        ranks=tuple(sorted(int(rank) for rank in run.training["rank"].unique())),
        steps=tuple(int(step) for step in fired["step"].unique()),
        evidence=rows,
        summary=f"{shown['symptom']}{again}",
        unit="training",
    )


def in_precedence(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """Answers without those that another one silences, surest findings first.

    Order: non_finite_loss, then by confidence, then what rests on no counts; by name among equals.
    """
    given = tuple(answers)
    found = {each.detector: each for each in given if isinstance(each, Finding)}
    silenced = {name: by for by, names in SILENCED_BY.items() if by in found for name in names}
    told = [
        NotMeasured(each.detector, each.category, f"not judged beside {silenced[each.detector]}: {_why(found, silenced, each)}")
        if each.detector in silenced and not isinstance(each, NotMeasured)
        else each
        for each in given
    ]
    return tuple(sorted(told, key=_order))


def _why(found: Mapping[str, Finding], silenced: Mapping[str, str], answer: Answer) -> str:
    return found[silenced[answer.detector]].summary


def _order(answer: Answer) -> tuple[bool, float, str]:
    if not isinstance(answer, Finding):
        return True, 1.0, answer.detector
    sure = 0.0 if math.isnan(answer.confidence) else answer.confidence
    return answer.detector not in SILENCED_BY, -sure, answer.detector


def _again(run: Run) -> str:
    """Words on steps that were run twice, empty where there are none."""
    steps: pd.Series = run.training.groupby("rank")["step"].diff()
    back = int((steps <= 0).sum())
    return f" ({back} times the steps went back, as after a restart: the later rows count)" if back else ""
