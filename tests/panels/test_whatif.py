"""The what-if panel: a control moves, the answer follows, Apply and Undo change a config that is never touched itself."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pytest

import perfnb
from perfnb.errors import ConfigError, StaleChange
from perfnb.fix import Suggestion
from perfnb.panels.whatif import DRAWS_AT_REST, DRAWS_MOVING, SLOW_S, WhatIfPanel
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.whatif.plan import PlanStep


def run_apart(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run in a thread of its own: the browser tests leave an event loop running in this one."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


Open = Callable[..., WhatIfPanel]
Shown = Callable[[Any], str]
HOSTILE = "<img src=x onerror=alert(1)></script>`|\x1b\u202e"


def test_a_slider_changes_the_answer_and_its_text(opened: Open, shown: Shown) -> None:
    panel = opened()

    panel.num_workers.value = 3

    assert isinstance(panel.answer, Prediction)
    assert panel.answer.after == 55_000
    assert "100 -&gt; 55 ms per step (49.5-60.5 ms, 80 %), 1.82x, basis: prior" in shown(panel)
    assert "was 0" in shown(panel)


def test_the_widget_itself_can_be_moved(opened: Open) -> None:
    panel = opened()
    slider = panel.controls["num_workers"].widget

    slider.index = 3

    assert isinstance(slider, widgets.SelectionSlider)
    assert panel.num_workers.value == 3


def test_children_stay_while_their_traits_change(opened: Open) -> None:
    panel = opened()
    children, chart = panel.root.children, panel.chart
    before = panel.chart.spec

    panel.num_workers.value = 3

    assert panel.root.children == children
    assert panel.chart is chart
    assert panel.chart.spec != before


def test_unknown_shows_why_and_keeps_no_old_number(opened: Open, shown: Shown) -> None:
    panel = opened()
    panel.num_workers.value = 3

    panel.cache_samples.value = "memory"

    text = shown(panel)
    assert "Unknown: it is not known &lt;b&gt;which&lt;/b&gt; part is deterministic. Needs: a probe of the loader" in text
    assert "55" not in re.sub(r'style="[^"]*"', "", text)
    assert "55.0 ms" not in json.dumps(panel.chart.spec)
    assert panel.apply_button.description == "Apply without a prediction"


def test_apply_is_off_while_nothing_changed(opened: Open) -> None:
    panel = opened()

    assert panel.apply_button.disabled
    panel.num_workers.value = 3
    assert not panel.apply_button.disabled
    panel.num_workers.value = 0
    assert panel.apply_button.disabled


def test_apply_makes_a_new_config_and_shows_the_diff(opened: Open, config: dict[str, Any], shown: Shown) -> None:
    panel = opened(config=config, home="config is a new object")
    panel.num_workers.value = 3
    panel.pin_memory.value = True

    panel.apply_button.click()

    assert panel.config == {**config, "num_workers": 3, "pin_memory": True}
    assert config["num_workers"] == 0
    assert "Applied: num_workers 0 -&gt; 3, pin_memory False -&gt; True. config is a new object" in shown(panel)
    assert "+  &#34;num_workers&#34;: 3" in shown(panel)
    assert panel.apply_button.disabled


def test_a_chart_whose_bars_stay_is_not_drawn_again(opened: Open) -> None:
    panel = opened()
    panel.num_workers.value = 4
    drawn = panel.chart.spec

    panel.apply_button.click()

    assert panel.chart.spec is drawn
    panel.num_workers.value = 2
    assert panel.chart.spec is not drawn


def test_undo_gives_the_config_back_and_names_what_it_takes_back(opened: Open, config: dict[str, Any]) -> None:
    panel = opened(config=config)
    panel.num_workers.value = 3
    panel.apply_button.click()
    panel.num_workers.value = 4
    panel.apply_button.click()

    assert panel.undo_button.description == "Undo num_workers 3 -> 4"
    panel.undo_button.click()
    assert panel.config["num_workers"] == panel.num_workers.value == 3
    panel.undo_button.click()
    assert panel.config == config
    assert panel.undo_button.disabled


def test_a_second_click_on_apply_does_nothing(opened: Open) -> None:
    panel = opened()
    panel.num_workers.value = 3
    panel.apply_button.click()
    once = panel.config

    panel.apply_button.click()

    assert panel.config is once


def test_a_config_that_was_edited_meanwhile_is_refused_with_both_values(opened: Open, shown: Shown) -> None:
    def stale(*_: Any) -> Mapping[str, Any]:
        message = "num_workers is 9, but the change starts from 0"
        raise StaleChange(message)

    panel = opened(on_apply=stale)
    panel.num_workers.value = 3

    panel.apply_button.click()

    assert panel.config["num_workers"] == 0
    assert "num_workers is 9, but the change starts from 0" in shown(panel)
    assert "[x]" in shown(panel)


def test_reset_goes_back_to_what_was_recorded(opened: Open) -> None:
    panel = opened()
    panel.num_workers.value = 3
    panel.pin_memory.value = True

    panel.num_workers.reset_button.click()
    assert (panel.num_workers.value, panel.pin_memory.value) == (0, True)
    panel.reset_button.click()
    assert panel.changes == ()


def test_a_suggestion_sets_its_values(opened: Open) -> None:
    panel = opened()

    panel.suggested_choice.index = 1

    assert panel.num_workers.value == 5


def test_a_suggested_value_is_among_those_offered(opened: Open) -> None:
    assert "5" in [words for words, _ in opened().num_workers.widget.options]


def test_a_value_that_is_not_offered_becomes_one_when_it_is_set_in_code(opened: Open) -> None:
    panel = opened()

    panel.num_workers.value = 7

    assert panel.num_workers.value == 7
    assert panel.changes[0].after == 7


def test_a_value_of_another_kind_is_refused_with_those_there_are(opened: Open) -> None:
    with pytest.raises(ConfigError, match=r"num_workers cannot be 'many': it is one of 0, 1, 2"):
        opened().num_workers.value = "many"


def test_a_value_that_is_not_set_can_be_set_and_unset(opened: Open) -> None:
    panel = opened()

    panel.prefetch_factor.value = 4
    assert panel.changes[0].before is None
    panel.prefetch_factor.value = None
    assert panel.changes == ()


def test_a_knob_of_another_type_is_shown_and_cannot_be_changed(opened: Open) -> None:
    panel = opened(knobs={"pipeline_split": [1, 2]})

    assert panel.pipeline_split.widget.disabled
    with pytest.raises(ConfigError, match="pipeline_split cannot be changed here"):
        panel.pipeline_split.value = [2, 1]


def test_an_unknown_knob_is_answered_with_the_known_ones(opened: Open) -> None:
    with pytest.raises(AttributeError, match="the panel has no 'workers': its knobs are num_workers, prefetch_factor"):
        _ = opened().workers


def test_a_run_that_cannot_be_modelled_says_so_and_has_no_chart(opened: Open, shown: Shown) -> None:
    panel = opened(predict=lambda *_: Unknown("2 steady steps, 3 are needed", "a longer run"))

    assert panel.chart is None
    assert "Unknown: 2 steady steps, 3 are needed. Needs: a longer run" in shown(panel)
    assert "Unknown: 2 steady steps" in panel.snapshot().plain


def test_the_code_does_the_same_as_the_panel(opened: Open, config: dict[str, Any]) -> None:
    panel = opened(config=config)
    panel.num_workers.value = 3
    variables = {"perfnb": perfnb, "config": config}

    exec("\n".join(line for line in panel.code.value.splitlines() if "predict" not in line), variables)  # noqa: S102 - our own text

    panel.apply_button.click()
    assert variables["config"] == panel.config


def test_few_draws_while_moving_and_more_at_rest(opened: Open) -> None:
    async def moved() -> tuple[Any, Any]:
        panel = opened()
        panel.num_workers.value = 2
        panel.num_workers.value = 3
        moving = panel.answer
        await asyncio.sleep(0.5)
        return moving, panel.answer

    moving, rest = run_apart(moved())

    assert moving.assumptions == (f"{DRAWS_MOVING} draws",)
    assert rest.assumptions == (f"{DRAWS_AT_REST} draws",)


def test_a_snapshot_does_not_wait_for_rest(opened: Open) -> None:
    async def taken() -> str:
        panel = opened()
        panel.num_workers.value = 3
        return panel.snapshot().plain

    assert f"{DRAWS_AT_REST} draws" in run_apart(taken())


def test_a_slow_model_makes_sliders_report_on_release_only(opened: Open) -> None:
    def slow(after: Mapping[str, Any], draws: int) -> Prediction:
        time.sleep(1.2 * SLOW_S if after else 0.0)
        return Prediction("step_us", 100.0, 90.0, 80.0, 95.0, "prior")

    panel = opened(predict=slow)
    assert panel.num_workers.widget.continuous_update

    panel.num_workers.value = 3

    assert not panel.num_workers.widget.continuous_update


def test_the_snapshot_is_complete_in_every_face(opened: Open) -> None:
    panel = opened()
    panel.num_workers.value = 3
    panel.apply_button.click()

    snapshot = panel.snapshot()

    assert list(panel._repr_mimebundle_()) == ["text/html", "text/markdown", "text/plain"]
    for face in (snapshot.html, snapshot.markdown, snapshot.plain):
        assert "num_workers" in face
        assert "55 ms per step" in face
        assert "Applied" in face
    assert "<img" in snapshot.html


def test_no_hostile_name_acts_in_any_view(opened: Open, shown: Shown, tags: Callable[[str], Any]) -> None:
    def named(name: str) -> WhatIfPanel:
        def predict(after: Mapping[str, Any], draws: int) -> Prediction:
            return Prediction("step_us", 100.0, 50.0, 40.0, 60.0, name, (name,))

        panel = opened(
            title=name,
            knobs={name: "a"},
            config={name: "a"},
            suggested={name: (Change(name, "a", name),)},
            predict=predict,
            home=name,
        )
        panel.controls[name].value = name
        panel.apply_button.click()
        return panel

    hostile, benign = named(HOSTILE), named("name")

    assert tags(shown(hostile)) == tags(shown(benign))
    assert tags(hostile.snapshot().html) == tags(benign.snapshot().html)


def test_the_plan_stands_below_with_what_each_change_adds(opened: Open, shown: Shown) -> None:
    after = Prediction("step_us", 100_000, 55_000, 49_500, 60_500, "prior")
    suggestion = Suggestion("raise_num_workers", (Change("num_workers", 0, 3),), ("data_stall",), "", after)

    panel = opened(plan=[PlanStep(suggestion, after, 45_000, 45_000, 45_000)])

    assert "Plan (1 change)" in shown(panel)
    assert "Predicted together: gains do not add up." in panel.snapshot().markdown
    assert "1: raise_num_workers  num_workers 0 -> 3" in panel.snapshot().plain


def test_the_public_panel_answers_on_a_recorded_run(repository: Path) -> None:
    folder = repository / "data" / "samples" / "slow_loader"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    panel = perfnb.whatif_panel(perfnb.read_trace(folder), config)

    panel.num_workers.value = 2

    assert isinstance(panel.answer, Prediction)
    assert panel.answer.verdict == "faster"
    panel.apply_button.click()
    assert panel.config == {**config, "num_workers": 2}
