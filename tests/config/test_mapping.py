"""Configs that are mappings: knobs found wherever they stand, nothing changed in place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.apply import apply, config_diff, undo
from perfnb.config.mapping import has_knob, value_of, with_values
from perfnb.errors import ConfigError, StaleChange
from perfnb.prediction import Change

CONFIG = {"seed": 1, "data": {"num_workers": 0, "pin_memory": False}, "names": ["a"]}


def test_a_change_gives_a_new_config_and_leaves_the_old_one() -> None:
    after = apply(Change("num_workers", 0, 4), CONFIG)

    assert after == {"seed": 1, "data": {"num_workers": 4, "pin_memory": False}, "names": ["a"]}
    assert CONFIG["data"] == {"num_workers": 0, "pin_memory": False}
    assert list(after) == list(CONFIG)


def test_undo_gives_back_an_equal_config() -> None:
    changes = (Change("num_workers", 0, 4), Change("pin_memory", before=False, after=True))

    assert undo(changes, apply(changes, CONFIG)) == CONFIG


@pytest.mark.parametrize("now", [2, False, None, "0"])
def test_a_config_that_moved_on_is_refused_with_both_values(now: object) -> None:
    with pytest.raises(StaleChange, match=r"num_workers is .*, but the change starts from 0"):
        apply(Change("num_workers", 0, 4), {"num_workers": now})


def test_of_several_changes_one_stale_one_applies_none() -> None:
    with pytest.raises(StaleChange):
        apply((Change("num_workers", 0, 4), Change("pin_memory", before=True, after=False)), CONFIG)


def test_a_missing_and_an_ambiguous_knob_are_refused() -> None:
    with pytest.raises(ConfigError, match="no prefetch_factor: it has seed, data, names"):
        value_of(CONFIG, "prefetch_factor")
    with pytest.raises(ConfigError, match=r"at train\.num_workers and valid\.num_workers"):
        value_of({"train": {"num_workers": 1}, "valid": {"num_workers": 2}}, "num_workers")


def test_the_knob_nearest_to_the_top_counts() -> None:
    assert value_of({"num_workers": 1, "valid": {"num_workers": 2}}, "num_workers") == 1


def test_a_diff_shows_only_what_changed() -> None:
    diff = config_diff(CONFIG, apply(Change("num_workers", 0, 4), CONFIG))

    assert [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        '-    "num_workers": 0,',
        '+    "num_workers": 4,',
    ]
    assert config_diff(CONFIG, CONFIG) == ""


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
CONFIGS = st.recursive(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=3), inner | VALUES, max_size=4),
    max_leaves=10,
)


@given(CONFIGS, VALUES, VALUES)
def test_any_config_takes_a_value_and_gives_it_back(config: dict[str, object], before: object, after: object) -> None:
    held = {**config, "the_knob": before}

    changed = with_values(held, {"the_knob": after})

    assert has_knob(changed, "the_knob")
    assert value_of(changed, "the_knob") == after
    assert with_values(changed, {"the_knob": before}) == held
