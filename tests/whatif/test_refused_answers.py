"""A prediction that was refused is shown as refused on every face, never as no change; one per sample says so."""

from __future__ import annotations

import math

import pytest

from perfnb import facts, terminal, wording
from perfnb.fix import Suggestion
from perfnb.json_output import answer as as_json
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.report import face
from perfnb.whatif.plan import PlanStep

REFUSED = Unknown("one batch size was seen", "steps at a second size")
CHANGE = Change("batch_size", 8, 16)
PER_SAMPLE = Prediction("sample_us", 1000.0, 500.0, 400.0, 600.0, "prior")


def suggestion(prediction: Prediction | Unknown, confidence: float | None = None) -> Suggestion:
    return Suggestion("grow_batch", (CHANGE,), ("undersized_batch",), "fixed costs come less often", prediction, confidence)


def faces_of_refusal() -> dict[str, str]:
    return {
        "command line": terminal.prediction({"batch_size": 16}, {"batch_size": 8}, REFUSED),
        "card": str(face(REFUSED)),
        "suggestion": str(face(suggestion(REFUSED))),
        "one line": wording.predicted(REFUSED),
    }


@pytest.mark.parametrize("name", list(faces_of_refusal()))
def test_a_refusal_says_why_and_what_would_answer(name: str) -> None:
    shown = faces_of_refusal()[name]

    assert "one batch size was seen" in " ".join(shown.split())
    assert "steps at a second size" in " ".join(shown.split())


@pytest.mark.parametrize("name", list(faces_of_refusal()))
def test_a_refusal_shows_no_number_that_reads_as_no_change(name: str) -> None:
    shown = faces_of_refusal()[name]

    for number in ("0 %", "0%", "1.00x", "no effect", "nan"):
        assert number not in shown


def test_a_refusal_has_no_number_in_tables_and_in_json() -> None:
    (row,) = facts.impact({"batch_size 8 -> 16": REFUSED}).to_dict("records")

    assert row.pop("label") == "batch_size 8 -> 16"
    assert row.pop("verdict") == "unknown"
    assert all(math.isnan(value) for value in row.values())
    assert as_json(REFUSED) == {"unknown": {"reason": REFUSED.reason, "needs": REFUSED.needs}}


def test_a_refusal_has_no_truth_and_no_number() -> None:
    assert not REFUSED
    assert not hasattr(REFUSED, "after")


def test_a_prediction_per_sample_says_so() -> None:
    step = PlanStep(suggestion(PER_SAMPLE), PER_SAMPLE, 100.0, 100.0, 100.0)

    assert wording.predicted(PER_SAMPLE).startswith("1.00 -> 0.50 ms per sample")
    assert "Predicted time per sample" in terminal.prediction({"batch_size": 16}, {"batch_size": 8}, PER_SAMPLE)
    assert "that the time per sample gets at least 3 % shorter" in str(face(suggestion(PER_SAMPLE, 0.9)))
    assert "per sample" in str(wording.plan_blocks([step]))
