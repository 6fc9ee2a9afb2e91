"""Numbers of numpy in a config are what they are to Python, and a path may start at the user's home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfnb import Change, apply, as_config, undo
from perfnb.apply import preview
from perfnb.config.mapping import as_text, value_of
from perfnb.config.tree import own, same
from perfnb.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(4), 4),
        (np.float32(0.5), 0.5),
        (np.float64(0.5) > 0, True),
        (np.str_("bf16"), "bf16"),
        (np.array(3), 3),
        ([np.int8(1), 2], [1, 2]),
    ],
)
def test_a_number_of_numpy_becomes_pythons_own(value: Any, plain: Any) -> None:
    assert (own(value), type(own(value))) == (plain, type(plain))
    assert same(value, plain)


def test_other_values_stay_what_they_are() -> None:
    for value in (np.arange(2), np.datetime64("2026-01-01"), [1, 2], "x", None):
        assert own(value) is value
    assert not same(np.int64(0), other=False)
    assert not same(np.float64(1), 1)


def test_a_home_shows_them_under_names_of_a_library_and_in_nested_parts() -> None:
    held = as_config({"zero_optimization": {"stage": np.int64(2)}, "train_micro_batch_size_per_gpu": np.int64(8)})
    nested = {"data": {"workers": np.int64(2)}}

    assert (held["zero_stage"], type(held["zero_stage"])) == (2, int)
    assert type(value_of(as_config(nested), "num_workers")) is int
    assert as_text(nested) == '{\n  "data": {\n    "workers": 2\n  }\n}\n'


def test_a_change_of_one_is_applied_shown_and_taken_back() -> None:
    change = Change("num_workers", 0, 4)
    config = {"num_workers": np.int64(0), "seed": np.int64(1)}

    after = apply(change, config)

    assert '-  "num_workers": 0,' in preview(change, config).diff
    assert after == {"num_workers": 4, "seed": 1}
    back = undo(change, after)
    assert back == config
    assert type(back["num_workers"]) is np.int64


def test_a_path_may_start_at_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.json").write_text('{"num_workers": 0}', encoding="utf-8")

    assert as_config("~/train.json")["num_workers"] == 0
    apply(Change("num_workers", 0, 4), "~/train.json")

    assert (tmp_path / "train.json").read_text(encoding="utf-8") == '{"num_workers": 4}'
    with pytest.raises(ConfigError, match=r"there is no file ~nosuchuser/train\.json"):
        as_config("~nosuchuser/train.json")


def test_a_file_whose_name_only_looks_like_a_home_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~train.json").write_text('{"num_workers": 0}', encoding="utf-8")

    assert as_config("~train.json")["num_workers"] == 0
