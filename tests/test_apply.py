"""Preview, apply and undo: what is shown is what is done, all of it or nothing, and it comes back as it was."""

from __future__ import annotations

import copy
import gc
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfnb
from perfnb.apply import apply, config_diff, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.home import Home
from perfnb.config.mapping import value_of
from perfnb.errors import ConfigError, NoPlaceError, PerfnbError, StaleChange
from perfnb.prediction import Change

CHANGE = Change("num_workers", 0, 4)
TRAINER = {"accelerator": "gpu", "max_epochs": 3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text('{\n  "num_workers": 0,\n  "seed": 1\n}', encoding="utf-8")
    return path


def test_a_preview_shows_the_diff_of_the_file_and_writes_what_it_showed(file: Path) -> None:
    shown = preview(CHANGE, file)

    assert str(shown) == (
        f"--- {file} before\n+++ {file} after\n@@ -1,4 +1,4 @@\n {{\n"
        '-  "num_workers": 0,\n+  "num_workers": 4,\n   "seed": 1\n }\n\\ No newline at end of file\n'
    )
    assert '"num_workers": 0' in file.read_text(encoding="utf-8")

    home = shown.write()

    assert file.read_text(encoding="utf-8") == '{\n  "num_workers": 4,\n  "seed": 1\n}'
    assert home.backup.read_text(encoding="utf-8") == '{\n  "num_workers": 0,\n  "seed": 1\n}'


def test_a_file_that_was_edited_after_the_preview_is_not_overwritten(file: Path) -> None:
    shown = preview(CHANGE, file)
    file.write_text('{"num_workers": 0, "seed": 2}', encoding="utf-8")

    with pytest.raises(StaleChange, match="was edited since it was read"):
        shown.write()

    assert file.read_text(encoding="utf-8") == '{"num_workers": 0, "seed": 2}'


def test_a_second_click_on_write_changes_nothing_more(file: Path) -> None:
    shown = preview(CHANGE, file)
    shown.write()

    with pytest.raises(StaleChange):
        shown.write()

    assert len(list(file.parent.iterdir())) == 2


def test_what_has_no_place_is_shown_as_code_and_nothing_is_written(file: Path) -> None:
    before = file.read_bytes()
    shown = preview((CHANGE, Change("precision", "fp32", "bf16"), Change("gc_freeze", before=False, after=True)), file)

    assert '+  "num_workers": 4,' in str(shown)
    assert "train.json (JSON) has no place for precision = 'bf16'; paste into your code:" in str(shown)
    assert "with torch.autocast(device.type, dtype=torch.bfloat16):" in shown.snippets[0]
    assert shown.snippets[1].startswith("gc.collect()\ngc.freeze()")
    with pytest.raises(NoPlaceError) as caught:
        shown.write()
    assert caught.value.snippets == shown.snippets
    with pytest.raises(NoPlaceError):
        apply((CHANGE, Change("precision", "fp32", "bf16")), file)
    assert file.read_bytes() == before


def test_a_knob_that_perfnb_does_not_know_has_no_code(file: Path) -> None:
    with pytest.raises(NoPlaceError, match=r"train\.json \(JSON\) has no warp_factor: it has num_workers, seed") as caught:
        apply(Change("warp_factor", 1, 9), file)

    assert caught.value.snippets == ()


def test_undo_of_a_path_is_told_by_the_file_and_its_backup(file: Path) -> None:
    before = file.read_bytes()
    first, second = CHANGE, Change("num_workers", 4, 8)
    apply(first, file)
    apply(second, str(file))

    with pytest.raises(StaleChange, match="num_workers is 8, but the change starts from 4"):
        undo(first, file)
    undo(second, file)
    undo(first, file)

    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == ["train.json"]
    with pytest.raises(StaleChange):
        undo(first, file)


def test_undo_after_an_edit_by_hand_keeps_the_edit(file: Path) -> None:
    apply(CHANGE, file)
    edited = file.read_text(encoding="utf-8").replace('"seed": 1', '"seed": 2')
    file.write_text(edited, encoding="utf-8")

    with pytest.raises(StaleChange, match="was edited after the last change"):
        undo(CHANGE, file)

    assert file.read_text(encoding="utf-8") == edited


def test_a_change_to_the_same_value_writes_nothing(file: Path) -> None:
    same = Change("num_workers", 0, 0)

    undo(same, apply(same, file))

    assert [each.name for each in file.parent.iterdir()] == ["train.json"]


def test_two_threads_one_file(file: Path) -> None:
    said: list[str] = []

    def click() -> None:
        try:
            apply(CHANGE, file)
        except ConfigError as error:
            said.append(type(error).__name__)
        except StaleChange:
            said.append("stale")

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert said == ["stale"] * 3
    undo(CHANGE, file)
    assert as_config(file)["num_workers"] == 0


def test_a_name_that_was_added_goes_when_the_change_is_undone() -> None:
    change = Change("precision", "fp32", "bf16")

    after = apply(change, TRAINER)

    assert after == {**TRAINER, "precision": "bf16-mixed"}
    assert undo(change, after) == TRAINER
    assert undo(change, copy.deepcopy(after)) == TRAINER


def test_undo_keeps_what_was_edited_elsewhere_since() -> None:
    change = Change("precision", "fp32", "bf16")
    after = dict(apply(change, TRAINER))
    after["max_epochs"] = 5

    assert undo(change, after) == {**TRAINER, "max_epochs": 5, "precision": "32-true"}

    after = apply(change, TRAINER)
    after["max_epochs"] = 5  # the very object that apply gave
    assert undo(change, after) == {"accelerator": "gpu", "max_epochs": 5}


def test_undo_of_what_this_process_never_applied_writes_the_value_back() -> None:
    assert undo(Change("precision", "fp32", "bf16"), {"accelerator": "cpu", "devices": 3, "precision": "bf16-mixed"}) == {
        "accelerator": "cpu",
        "devices": 3,
        "precision": "32-true",
    }


def test_undo_never_gives_what_the_knob_did_not_have() -> None:
    """Two configs that become equal by equal changes: undo gives the latest one's, and its knob has the value said."""
    change = Change("precision", "fp32", "bf16")
    explicit, implied = {**TRAINER, "precision": "32-true"}, TRAINER

    both = apply(change, implied), apply(change, explicit)

    assert undo(change, both[0]) == implied
    assert undo(change, both[1]) == explicit
    assert value_of(as_config(undo(change, dict(both[0]))), "precision") == "fp32"


def test_a_home_stays_a_home() -> None:
    home = as_config(TRAINER)
    change = Change("precision", "fp32", "bf16")

    after = apply(change, home)

    assert isinstance(after, Home)
    assert (home["precision"], after["precision"], undo(change, after)["precision"]) == ("fp32", "bf16", "fp32")
    assert undo(change, after).value == TRAINER
    assert as_config(after) is after
    assert repr(after) == (
        "<dict (Lightning Trainer arguments): gradient_accumulation_steps, precision, log_every_n_steps, accelerator, max_epochs>"
    )


def test_a_diff_of_two_homes_is_in_their_own_words() -> None:
    home = as_config(TRAINER)
    after = apply(Change("precision", "fp32", "bf16"), home)

    assert '+  "precision": "bf16-mixed"\n' in config_diff(home, after)
    assert '+  "precision": "bf16"' in config_diff(dict(home), dict(after))


def test_suggestions_are_made_for_and_applied_to_any_home(tmp_path: Path) -> None:
    run = perfnb.read_trace("data/samples/slow_loader")
    path = tmp_path / "train.json"
    path.write_text('{"loader": {"workers": 0}}\n', encoding="utf-8")

    suggestion = next(each for each in perfnb.suggest(run, path) if each.fix == "raise_num_workers")  # type: ignore[arg-type]

    home = perfnb.apply(suggestion, path)
    assert home["loader"]["num_workers"] == suggestion.changes[0].after > 0
    perfnb.undo(suggestion, path)
    assert path.read_text(encoding="utf-8") == '{"loader": {"workers": 0}}\n'


@pytest.mark.parametrize("thing", [3, None, [1], {1}, object(), dict, Change, lambda: 0, float("nan")])
def test_what_is_no_config_is_refused_in_words(thing: Any) -> None:
    with pytest.raises(ConfigError, match="is no config that perfnb knows: there are mappings, dataclasses"):
        as_config(thing)


HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[31mred\x07",
    "\u202edesrever",
    "a\nb\r\nc: 1",
    "'\"\\#: {}[]&*!|>%@`",
    "${oc.env:HOME}",
    "__import__('os').system('touch pwned')",
    "\ud800",
    "x" * 1_000_000,
    "",
    "~",
    "<<",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_and_values_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"num_workers": 0, "value": text, text: {"inner": text}, "attention": text}
    change = Change("attention", text, "sdpa")

    after = apply(change, config)
    shown = preview(change, config)

    assert after == config | {"attention": "sdpa"}
    assert undo(change, after) == config
    assert "sdpa" in str(shown)
    for error in (Change("num_workers", text, 1), Change(text + "?", 0, 1), Change("gc_freeze", 0, text)):
        with pytest.raises(PerfnbError) as caught:
            apply(error, config)
        assert str(caught.value).replace("\n", "").isprintable()
        assert len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.no_cover
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("ending", ["json", "yaml", "toml"])
def test_hostile_values_in_files_stay_text_or_are_refused(tmp_path: Path, ending: str, text: str) -> None:
    for library in ("ruamel.yaml", "tomlkit"):
        pytest.importorskip(library)
    path = tmp_path / f"a.{ending}"
    before = {
        "json": b'{"attention": "eager", "b": 1}',
        "yaml": b"attention: eager\nb: 1\n",
        "toml": b'attention = "eager"\nb = 1\n',
    }
    path.write_bytes(before[ending])
    change = Change("attention", "eager", text)

    if text == "\ud800" and ending == "toml":  # half a character: JSON and YAML can write one as an escape
        with pytest.raises(ConfigError) as caught:
            apply(change, path)
        assert str(caught.value).isprintable()
    else:
        home = apply(change, path)
        assert home["attention"] == text
        assert home["b"] == 1
        undo(change, path)
    assert path.read_bytes() == before[ending]


def test_values_that_compare_by_code_of_their_own_break_nothing() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

        def __str__(self) -> str:
            raise RuntimeError

    config = {"num_workers": 0, "odd": Odd(), "nan": math.nan}

    after = apply(CHANGE, config)

    assert after["odd"] is config["odd"]
    assert undo(CHANGE, after)["num_workers"] == 0
    assert "<Odd>" in as_config(config).text


def test_a_config_that_holds_itself_is_refused() -> None:
    config: dict[str, Any] = {"num_workers": 0}
    config["self"] = config

    with pytest.raises(ConfigError, match="more than 60 levels deep, or holds itself"):
        apply(CHANGE, config)


def test_no_loader_is_kept_alive_by_what_is_remembered() -> None:
    torch = pytest.importorskip("torch")
    import weakref  # noqa: PLC0415 - beside its only use

    loader = torch.utils.data.DataLoader([1])
    after = apply(Change("pin_memory", before=False, after=True), loader)
    seen = [weakref.ref(loader), weakref.ref(after)]

    del loader, after
    gc.collect()

    assert [each() for each in seen] == [None, None]


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
CONFIGS = st.recursive(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=3), inner | VALUES, max_size=4),
    max_leaves=10,
)


@given(CONFIGS, VALUES, VALUES, st.sampled_from(["num_workers", "learning_rate", "attention"]))
def test_any_nested_config_comes_back_equal(config: dict[str, Any], before: Any, after: Any, knob: str) -> None:
    held = {**config, knob: before}
    copied = copy.deepcopy(held)
    change = Change(knob, before, after)

    back = undo(change, apply(change, held))

    assert repr(back) == repr(held) == repr(copied)
