"""Every training detector, checked by what stands in its own file; precedence, and what a diagnosis says of the training."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest

from perfnb.catalogue import detectors, fixes, training_detectors
from perfnb.detector import Detector, DetectorExample, Unmeasured
from perfnb.diagnose import diagnose
from perfnb.findings import Cleared, Finding
from perfnb.run import Run
from perfnb.training.diagnosis import measure_training
from perfnb.training.examples import curve_run, decay

CASES = [pytest.param(each, case, id=f"{each.name}: {case.title}") for each in training_detectors() for case in each.examples]
ALL = [pytest.param(each, id=each.name) for each in training_detectors()]


def by_name(name: str) -> Detector:
    return next(each for each in training_detectors() if each.name == name)


@pytest.mark.parametrize(("found", "case"), CASES)
def test_an_example_fires_or_not_as_it_says(found: Detector, case: DetectorExample) -> None:
    if case.fires is None:
        with pytest.raises(Unmeasured):
            measure_training(found, case.run)
    else:
        said = measure_training(found, case.run)

        assert isinstance(said, Finding if case.fires else Cleared), said.summary


@pytest.mark.parametrize("found", ALL)
def test_evidence_has_the_columns_of_the_contract(found: Detector) -> None:
    for case in found.examples:
        if case.fires is not None:
            rows = found.evidence(case.run)

            assert list(rows.columns[:5]) == ["rank", "step", "statistic", "threshold", "fires"]
            assert rows["symptom"].str.len().gt(20).all()


@pytest.mark.parametrize("found", ALL)
def test_a_detector_states_its_source_and_what_it_cannot_see(found: Detector) -> None:
    told = " ".join(found.doc.split())

    assert (found.family, found.unit) == ("training", "training")
    assert len(found.source) > 20
    assert found.injected_by
    assert "matters because" in told
    assert "cannot" in told


@pytest.mark.parametrize("found", ALL)
def test_a_run_without_a_training_table_is_not_measured(found: Detector) -> None:
    with pytest.raises(Unmeasured, match="no loss was logged"):
        found.evidence(Run(missing={"training": "no loss was logged"}))


@pytest.mark.parametrize("found", ALL)
def test_hostile_curves_raise_nothing_but_unmeasured(found: Detector) -> None:
    random = np.random.default_rng(0)
    config = {"planned_steps": 300, "schedule": "constant", "optimizer": "<script>", "clip_norm": "x"}
    curves = (
        np.full(300, math.nan),
        np.full(300, math.inf),
        np.full(300, -math.inf),
        np.zeros(300),
        -np.ones(300),
        random.normal(size=300),
        np.where(random.random(300) < 0.5, np.nan, 1e300),
        np.array([1e-300]),
        np.array([]),
    )
    for losses in curves:
        extra = dict.fromkeys(("validation_loss", "gradient_norm", "clip_norm", "learning_rate", "batch_size"), losses)
        for columns in ({}, extra):
            with contextlib.suppress(Unmeasured):
                assert isinstance(measure_training(found, curve_run(losses, config=config, **columns)), Finding | Cleared)


def test_names_of_training_detectors_and_all_others_differ() -> None:
    names = [each.name for each in (*detectors(), *training_detectors())]

    assert len(names) == len(set(names))


def test_a_diagnosis_tells_of_the_training_apart_and_without_a_severity() -> None:
    run = by_name("early_instability").examples[0].run

    made = diagnose(run)

    assert made.training is not None
    assert [each.detector for each in made.training.found] == ["early_instability"]
    finding = made["early_instability"]
    assert finding.unit == "training"
    assert finding.tier == "observed"
    assert all(math.isnan(value) for value in (finding.severity, finding.low, finding.high, finding.lost_us))
    assert "early_instability" not in set(made.findings["detector"])


@pytest.mark.no_cover
def test_every_training_detector_ends_in_exactly_one_list() -> None:
    for each in training_detectors():
        for case in each.examples:
            made = diagnose(case.run).training
            assert made is not None
            named = [item.detector for item in (*made.found, *made.cleared, *made.unmeasured)]

            assert sorted(named) == sorted(other.name for other in training_detectors())
            assert not [item for item in made.unmeasured if item.reason.startswith("failed")]


def test_a_divergence_silences_what_led_to_it() -> None:
    losses = [*np.linspace(2.0, 1.0, 20), *np.linspace(1.0, 90.0, 60), math.nan, math.nan]
    made = diagnose(curve_run(losses, config={"planned_steps": 100})).training

    assert made is not None
    assert [each.detector for each in made.found] == ["non_finite_loss"]
    assert "not judged beside non_finite_loss" in {each.detector: each.reason for each in made.unmeasured}["early_instability"]


def test_a_run_that_went_back_to_a_checkpoint_says_so() -> None:
    steps = [*range(30), *range(20, 40)]

    made = measure_training(by_name("early_instability"), curve_run(decay(50), steps=steps))

    assert "the steps went back" in made.summary


def test_a_log_without_any_training_values_leaves_every_other_finding_as_it_was() -> None:
    stall = next(each for each in detectors() if each.name == "data_stall")

    made = diagnose(stall.examples[0].run)

    assert [finding.detector for finding in made.possible] == ["data_stall"]
    assert made.training is not None
    assert len(made.training.unmeasured) == len(training_detectors())
    assert dataclasses.is_dataclass(made)
    assert fixes()
