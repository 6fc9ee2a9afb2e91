"""Panels on configs that are files, on memory that may run out, and on runs that are not whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfnb.apply import apply, undo
from perfnb.panels.history import History
from perfnb.panels.run_state import state_blocks
from perfnb.panels.whatif import WhatIfPanel
from perfnb.prediction import Change, MemoryPart, Prediction
from perfnb.record.recorder import NO_TORCH
from perfnb.run import Recording, Run

Open = Callable[..., WhatIfPanel]
Shown = Callable[[Any], str]
CHANGE = Change("num_workers", 0, 4)
GIB = 2**30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text("num_workers: 0  # mine\n", encoding="utf-8")
    return path


def test_a_file_is_shown_first_written_second_and_put_back_to_the_byte(opened: Open, shown: Shown, file: Path) -> None:
    before = file.read_bytes()
    panel = opened(config=file, knobs={"num_workers": 0})
    panel.num_workers.value = 3

    panel.apply_button.click()
    assert file.read_bytes() == before
    assert panel.apply_button.description == "Write train.yaml"
    assert "Not written yet" in shown(panel)
    panel.apply_button.click()
    assert file.read_text(encoding="utf-8") == "num_workers: 3  # mine\n"
    assert "What it held lies in train.yaml." in shown(panel)
    panel.undo_button.click()

    assert file.read_bytes() == before


def test_another_value_asks_for_another_look(opened: Open, shown: Shown, file: Path) -> None:
    panel = opened(config=file, knobs={"num_workers": 0})
    panel.num_workers.value = 3
    panel.apply_button.click()

    panel.num_workers.value = 4

    assert panel.apply_button.description == "Apply"
    assert "Not written yet" not in shown(panel)


def test_a_file_edited_between_the_clicks_is_left_alone(opened: Open, shown: Shown, file: Path) -> None:
    panel = opened(config=file, knobs={"num_workers": 0})
    panel.num_workers.value = 3
    panel.apply_button.click()
    file.write_text("num_workers: 0  # theirs\n", encoding="utf-8")

    panel.apply_button.click()

    assert file.read_text(encoding="utf-8") == "num_workers: 0  # theirs\n"
    assert "[x]" in shown(panel)


def test_a_file_that_went_away_or_lacks_the_knob_is_said_with_code_to_paste(file: Path) -> None:
    history = History(file, apply, undo)
    blocks, is_done = history.click((Change("pin_memory", before=False, after=True),), "done", "")
    assert not is_done
    assert "no place for pin_memory" in blocks[0].plain()
    assert "DataLoader(" in blocks[1].plain()

    file.unlink()
    blocks, is_done = history.click((CHANGE,), "done", "")

    assert not is_done
    assert blocks[0].plain().startswith("perfnb  [x]")


def test_objects_are_changed_into_new_ones_of_their_make() -> None:
    history = History(SimpleNamespace(num_workers=0), apply, undo)

    blocks, is_done = history.click((CHANGE,), "done", "run it again")

    assert is_done
    assert history.config == SimpleNamespace(num_workers=4)
    assert "done. run it again" in blocks[0].plain()


def test_an_object_without_a_place_gets_code_to_paste() -> None:
    blocks, is_done = History(SimpleNamespace(seed=1), apply, undo).click((CHANGE,), "done", "")

    assert not is_done
    assert "num_workers=4" in "\n".join(block.plain() for block in blocks)


def with_memory(low: int, high: int, usable: int | None = 79 * GIB) -> Callable[[Mapping[str, Any], int], Prediction]:
    part = MemoryPart("reserved", 61 * GIB, 70 * GIB, low * GIB, high * GIB, usable, "C", "recorded peaks", ("same optimizer",))

    def predict(after: Mapping[str, Any], _: int) -> Prediction:
        made = Prediction("step_us", 100_000.0, 50_000.0, 45_000.0, 55_000.0, "prior")
        return dataclasses.replace(made, memory=part) if after else made

    return predict


def test_memory_stands_beside_time(opened: Open, shown: Shown) -> None:
    panel = opened(predict=with_memory(66, 72))
    panel.num_workers.value = 3

    text = shown(panel)
    assert "Memory, reserved" in text
    assert "66.0 GiB to 72.0 GiB" in text
    assert "level C, recorded peaks; same optimizer" in text
    assert "50.0 ms" in text


def test_where_memory_may_run_out_no_speed_is_promised(opened: Open, shown: Shown) -> None:
    panel = opened(predict=with_memory(78, 86))
    panel.num_workers.value = 3

    text = shown(panel)
    assert "may run out of memory: 78.0 GiB to 86.0 GiB of 79.0 GiB usable, so no speed is promised" in text
    assert "50.0 ms" not in text
    assert panel.apply_button.description == "Apply although memory may run out"


def test_where_a_change_alters_the_samples_of_a_step_time_is_per_sample_throughout(opened: Open, shown: Shown) -> None:
    def predict(after: Mapping[str, Any], _: int) -> Prediction:
        metric, scale = ("sample_us", 10.0) if after else ("step_us", 1.0)
        return Prediction(metric, 100_000.0 / scale, 50_000.0 / scale, 45_000.0 / scale, 55_000.0 / scale, "prior")

    panel = opened(predict=predict)
    assert "Step time" in shown(panel)
    panel.num_workers.value = 3

    text = shown(panel)
    assert "Time per sample" in text
    assert "10.0 -&gt; 5.0 ms per sample" in text
    assert "100 ms" not in text.partition("Parts of a step")[0]


def test_unknown_usable_memory_is_no_risk_and_no_promise(opened: Open, shown: Shown) -> None:
    panel = opened(predict=with_memory(78, 86, None))
    panel.num_workers.value = 3

    assert "usable memory not known" in shown(panel)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            Run(recordings=(Recording(0, "failed", "ValueError: x"),)),
            "[x] The run failed (ValueError: x). What follows is of the 0",
        ),
        (Run(recordings=(Recording(0, "finished"), Recording(1, "killed"))), "[x] 1 rank of 2 was killed"),
        (Run(recordings=(Recording(0, "running"),)), "The run is still recording"),
        (Run(notes=(NO_TORCH,)), "torch was not imported"),
        (Run(recordings=(Recording(0, "finished"),), missing={"gpu_samples": "no driver"}), "none was seen (no driver)"),
        (Run(), ""),
    ],
)
def test_a_run_that_is_not_whole_says_so_first(run: Run, words: str) -> None:
    said = "\n".join(block.plain() for block in state_blocks(run))

    assert words in said
    assert bool(said) == bool(words)
