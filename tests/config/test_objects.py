"""Objects as configs: their own checks have the last word, what they do not take is said, secrets stay out of sight."""

from __future__ import annotations

import argparse
import dataclasses
from collections import OrderedDict, defaultdict
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from perfnb.apply import apply, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.json_file import read_config
from perfnb.errors import ConfigError
from perfnb.prediction import Change

CHANGE = Change("num_workers", 0, 4)


def test_the_checks_of_a_dataclass_have_the_last_word() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Checked:
        num_workers: int = 0
        doubled: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            if self.num_workers > 4:
                message = "at most 4 \x1b[31mworkers"
                raise ValueError(message)
            object.__setattr__(self, "doubled", 2 * self.num_workers)

    after = apply(CHANGE, Checked())

    assert (after.num_workers, after.doubled) == (4, 8)
    assert undo(CHANGE, after) == Checked()
    with pytest.raises(ConfigError, match=r"Checked refuses it: at most 4 \\x1b\[31mworkers; nothing was changed"):
        apply(Change("num_workers", 0, 5), Checked())


def test_a_dataclass_that_sets_a_value_back_is_no_success() -> None:
    @dataclass
    class Stubborn:
        num_workers: int = 0

        def __post_init__(self) -> None:
            self.num_workers = 0

    with pytest.raises(ConfigError, match="the Stubborn cannot hold num_workers = 4 together with the rest"):
        apply(CHANGE, Stubborn())


def test_a_dataclass_that_cannot_be_made_anew_is_said() -> None:
    @dataclass
    class Needs:
        path: InitVar[str]
        num_workers: int = 0

    @dataclass
    class Derived:
        num_workers: int = field(init=False, default=0)

    with pytest.raises(ConfigError, match=r"Needs refuses it: .*path"):
        apply(CHANGE, Needs("x"))
    with pytest.raises(ConfigError, match="Derived takes no num_workers: it takes nothing"):
        apply(CHANGE, Derived())


def test_mappings_keep_their_class_and_order() -> None:
    ordered = OrderedDict(seed=1, num_workers=0, last=2)
    default: defaultdict[str, Any] = defaultdict(list, num_workers=0)

    assert list(apply(CHANGE, ordered)) == ["seed", "num_workers", "last"]
    assert type(apply(CHANGE, ordered)) is OrderedDict
    assert apply(CHANGE, default)["other"] == []
    assert list(default) == ["num_workers"]


def test_keys_that_are_no_texts_do_no_harm() -> None:
    config = {1: {"num_workers": 0}, (2, 3): None, None: 4}

    after = apply(CHANGE, config)

    assert after == {1: {"num_workers": 4}, (2, 3): None, None: 4}
    assert '"num_workers": 4' in preview(CHANGE, config).diff


def test_what_is_not_changed_is_shared_and_what_is_changed_is_not() -> None:
    config = {"data": {"num_workers": 0}, "model": {"layers": [1, 2]}}

    after = apply(CHANGE, config)

    assert after["model"] is config["model"]
    assert after["data"] is not config["data"]


def test_a_namespace_keeps_its_class() -> None:
    class Options(argparse.Namespace):
        pass

    after = apply(CHANGE, Options(num_workers=0))

    assert type(after) is Options
    assert after == Options(num_workers=4)


def test_secrets_do_not_stand_in_a_diff() -> None:
    config = {"hub_token": "hf_abc", "num_workers": 0, "API_KEY": "sk-abc", "password": "abc", "token_count": "abc"}

    shown = str(preview(CHANGE, config))

    assert shown.count("<hidden>") == 3
    assert shown.count("abc") == 1


def test_a_preview_shows_no_character_that_acts_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    pytest.importorskip("ruamel.yaml")
    path.write_bytes('# \u202edesrever\r\nnum_workers: 0\r\nname: "x\u200b"\r\n'.encode())

    shown = str(preview(CHANGE, path))

    assert shown.replace("\n", "").isprintable()
    assert "+num_workers: 4\n" in shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"trainer": {"accelerator": "gpu", "accumulate_grad_batches": 2}, "workers": 3}'),
        ("a.jsonc", '{"trainer": {"accelerator": "gpu", "accumulate_grad_batches": 2}, /* few */ "workers": 3}'),
        ("a.yaml", "trainer: {accelerator: gpu, accumulate_grad_batches: 2}\nworkers: 3\n"),
        ("a.toml", 'workers = 3\n[trainer]\naccelerator = "gpu"\naccumulate_grad_batches = 2\n'),
    ],
)
def test_a_config_that_is_only_read_may_be_of_any_format(tmp_path: Path, name: str, text: str) -> None:
    pytest.importorskip("ruamel.yaml")
    (tmp_path / name).write_text(text, encoding="utf-8")

    read = read_config(tmp_path / name)

    assert read["num_workers"] == 3
    assert read["trainer"]["gradient_accumulation_steps"] == 2


def test_a_home_of_a_home_is_the_home() -> None:
    home = as_config({"num_workers": 0})

    assert as_config(home) is home
    assert dataclasses.is_dataclass(home) is False
    assert (len(home), list(home), home == {"num_workers": 0}) == (1, ["num_workers"], True)
