"""A knob without a model says what would make it known."""

from __future__ import annotations

from perfnb.catalogue import fixes
from perfnb.prediction import Change
from perfnb.whatif.transform import transforms
from perfnb.whatif.unmodelled import NEEDS, unmodelled


def test_every_knob_that_a_fix_changes_is_modelled_or_says_what_it_needs() -> None:
    knobs = {knob for fix in fixes() for knob in fix.knobs}

    assert knobs <= set(transforms()) | set(NEEDS)


def test_any_other_knob_asks_for_a_run_with_it() -> None:
    found = unmodelled(Change("no_such_knob", 1, 2))

    assert not found
    assert found.reason.startswith("no_such_knob: 1 -> 2: there is no model")
    assert found.needs == "a run with the change, compared by verify"
