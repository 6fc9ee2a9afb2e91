"""Every fix, checked by what stands in its own file."""

from __future__ import annotations

import dataclasses

import pytest

from perfnb.catalogue import detectors, fixes, training_detectors
from perfnb.config.mapping import value_of
from perfnb.fix import Fix, FixExample, NotApplicable, fix

CASES = [pytest.param(each, case, id=f"{each.name}: {case.title}") for each in fixes() for case in each.examples]


@pytest.mark.parametrize(("found", "case"), CASES)
def test_an_example_gives_its_change_or_its_reason(found: Fix, case: FixExample) -> None:
    answer = found.proposal(case.config, case.parts, case.machine, case.world_size, case.run)

    if case.after is None:
        assert isinstance(answer, NotApplicable)
        assert case.reason in answer.reason
    else:
        assert answer == case.after


@pytest.mark.parametrize("found", fixes(), ids=lambda each: each.name)
def test_a_fix_refuses_a_config_without_its_knob(found: Fix) -> None:
    answer = found.proposal({"seed": 1}, {"step": 1.0, "loader": 0.0})

    assert isinstance(answer, NotApplicable)
    assert f"no {found.knobs[0]}" in answer.reason


@pytest.mark.parametrize("found", fixes(), ids=lambda each: each.name)
def test_a_fix_answers_detectors_that_exist_and_has_both_kinds_of_examples(found: Fix) -> None:
    assert set(found.answers) <= {each.name for each in (*detectors(), *training_detectors())}
    assert {case.after is None for case in found.examples} == {True, False}
    assert found.source
    assert found.reason


def test_a_knob_that_has_the_value_already_is_refused() -> None:
    @fix(knobs=("gc_freeze",), answers=(), reason="x", source="x", examples=())
    def freeze() -> dict[str, bool]:
        return {"gc_freeze": True}

    assert isinstance(freeze.proposal({"gc_freeze": True}, {}), NotApplicable)
    assert freeze.proposal({"gc_freeze": False}, {}) == {"gc_freeze": True}


def test_a_parameter_that_names_nothing_is_refused() -> None:
    decorate = fix(knobs=("x",), answers=(), reason="x", source="x", examples=())

    with pytest.raises(TypeError, match="reads moon: there are config, parts"):
        decorate(lambda moon: moon)


def test_nested_configs_keep_their_shape() -> None:
    found = next(each for each in fixes() if each.name == "cache_samples")

    answer = found.proposal({"data": {"cache_samples": "none"}}, {})

    assert answer == {"cache_samples": "memory"}
    assert value_of({"data": {"cache_samples": "none"}}, "cache_samples") == "none"
    assert dataclasses.is_dataclass(found)


def test_a_knob_at_two_places_is_a_reason_not_to_apply_and_no_error() -> None:
    found = next(each for each in fixes() if each.name == "grow_batch")

    answer = found.proposal({"train": {"batch_size": 8}, "evaluate": {"batch_size": 8}}, {"step": 1.0, "loader": 0.0})

    assert isinstance(answer, NotApplicable)
    assert "batch_size at" in answer.reason
