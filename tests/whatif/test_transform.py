"""The edits are found by their decorator, and each states what it rests on."""

from __future__ import annotations

from perfnb.whatif.transform import transforms
from perfnb.whatif.unmodelled import NEEDS

MODELLED = {"num_workers", "prefetch_factor", "persistent_workers", "cache_samples", "log_every_n_steps", "balance_batches"}


def test_every_edit_of_the_folder_is_found() -> None:
    assert set(transforms()) >= MODELLED


def test_a_knob_is_modelled_or_needs_something_never_both() -> None:
    assert not set(transforms()) & set(NEEDS)


def test_every_edit_names_its_model_its_error_and_what_it_does() -> None:
    for knob, edit in transforms().items():
        assert edit.knob == knob
        assert 0.0 < edit.error <= 0.25
        assert edit.model
        assert edit.function.__doc__
