"""The training itself beside time and memory: on the card, in plain text and in JSON, in every state."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from perfnb import json_output, terminal
from perfnb.findings import Cleared, Diagnosis, Finding, NotMeasured
from perfnb.fix import Suggestion
from perfnb.prediction import Change, MemoryPart, Prediction, Unknown
from perfnb.report import card, face
from perfnb.wording import memory_line, side_by_side, suggestion_blocks
from perfnb.wording_training import training_line

REASON = "nothing was told of the training itself"
ABSENT = Diagnosis((), (), (), tuple(NotMeasured(name, "training", REASON) for name in ("loss_spikes", "overfitting")))


def symptom(name: str, confidence: float, record: str) -> Finding:
    return Finding(
        detector=name,
        category="training",
        severity=math.nan,
        low=math.nan,
        high=math.nan,
        lost_us=math.nan,
        confidence=confidence,
        record=record,
        tier="observed",
        ranks=(0,),
        steps=tuple(range(0, 4000, 2)),
        evidence=pd.DataFrame({"step": [3], "fires": [True]}),
        summary=f"{name} was seen",
        unit="training",
    )


FOUND = Diagnosis(
    (symptom("non_finite_loss", 0.63, "in 4 of 4 comparable curves"), symptom("missing_decay", math.nan, "unvalidated rule")),
    (),
    (Cleared("overfitting", "training", math.nan, 1.0, "validation loss still falls"),),
    (NotMeasured("loss_spikes", "training", "80 losses are needed"),),
)
QUIET = Diagnosis((), (), FOUND.cleared, FOUND.unmeasured)
STALL = Finding("data_stall", "data", 0.5, 0.4, 0.6, 10.0, 0.5, "", 1, (0,), (1, 2, 3), pd.DataFrame(), "data takes 50 %")
STATES = {"found": FOUND, "quiet": QUIET, "not measured": ABSENT}
LINES = {
    "found": "curve   [!] non_finite_loss was seen | 1 more",
    "quiet": "curve   no symptom on its curve: 1 looked for, 1 not measured",
    "not measured": "also    curve not measured",
}


def beside(training: Diagnosis | None, *found: Finding) -> Diagnosis:
    return Diagnosis(found, (), (), (), step_us=None if not found else 20.0, training=training)


@pytest.mark.parametrize("state", STATES)
def test_the_card_says_it_in_one_line_and_time_leads(state: str) -> None:
    lines = card(beside(STATES[state], STALL)).plain.splitlines()

    assert lines[0].startswith("perfnb  [!] data takes 50 %")
    assert LINES[state] in lines


def test_where_nothing_else_was_judged_the_curve_leads() -> None:
    shown = card(beside(FOUND)).plain

    assert shown.startswith(
        "perfnb  [!] The training itself: non_finite_loss was seen    non_finite_loss, seen on the curve, not probed"
    )
    assert card(beside(QUIET)).plain.startswith("perfnb  [?] Nothing to judge")


def test_what_rests_on_no_counts_has_no_confidence_and_no_rank() -> None:
    shown = card(beside(FOUND, STALL))

    for text in (shown.plain, shown.html, shown.markdown):
        assert "no confidence (unvalidated rule)" in text
        assert "confidence 0.63 (in 4 of 4 comparable curves)" in text
        assert "only a probe tells" in text
        assert "nan" not in text.lower().replace("finance", "")
    assert "The training itself, by its curve (2 findings)" in shown.plain


def test_a_report_has_the_reason_why_the_curve_was_not_measured() -> None:
    assert [line.plain() for line in training_line(beside(ABSENT))] == [f"curve   not measured: {REASON}"]
    assert training_line(beside(None)) == training_line(beside(Diagnosis((), (), (), ()))) == ()


def test_what_was_not_looked_at_is_not_spoken_of() -> None:
    assert "curve" not in card(beside(None, STALL)).plain
    assert "by its curve" not in card(beside(ABSENT, STALL)).plain


def test_very_many_steps_are_cut_in_the_middle() -> None:
    basis = face(FOUND.found[0]).plain.splitlines()[1]

    assert len(basis) < 200
    assert "…" in basis


def test_plain_text_of_the_command_line_has_it_as_a_section_of_its_own() -> None:
    shown = terminal.analysis(beside(FOUND, STALL), ())
    own = shown.partition("The training itself, by its curve\n")[2]

    assert "non_finite_loss" in own
    assert "not seen: validation loss still falls" in own
    assert "80 losses are needed:" in own
    assert f"not measured  {REASON}" in terminal.analysis(beside(ABSENT, STALL), ())
    assert "by its curve" not in terminal.analysis(beside(None, STALL), ())


def test_json_has_it_without_a_severity() -> None:
    told = json_output.analysis(beside(FOUND, STALL), ())["training"]

    assert [each["detector"] for each in told["findings"]] == ["non_finite_loss", "missing_decay"]
    assert "severity" not in told["findings"][0]
    assert '"confidence": null' in json_output.as_json(told)
    assert told["not_seen"] == [{"detector": "overfitting", "summary": "validation loss still falls"}]
    assert told["not_measured"] == [{"detector": "loss_spikes", "reason": "80 losses are needed"}]
    assert json_output.training(None) == {"findings": [], "not_seen": [], "not_measured": []}


def test_a_step_and_a_sample_are_not_drawn_side_by_side_and_memory_stands_beside_the_time() -> None:
    memory = MemoryPart("allocated", 1 << 30, 2 << 30, 1 << 30, 3 << 30, 8 << 30, "D", "a bound")
    step, sample = (Prediction(metric, 100.0, 50.0, 40.0, 60.0, "prior", memory=memory) for metric in ("step_us", "sample_us"))
    made = [
        Suggestion(name, (Change(name, 0, 1),), (), "why", answer)
        for name, answer in (("a", step), ("b", sample), ("c", Unknown("no", "yes")))
    ]

    assert list(side_by_side(made)) == ["a 0 -> 1", "c 0 -> 1"]
    assert "memory  peak allocated 1.00 GiB -> 2.00 GiB" in "\n".join(each.plain() for each in suggestion_blocks(made[0]))
    assert memory_line(made[2].prediction) == ()
