"""The what-if panel: one control per knob, what the present setting is predicted to do, Apply and Undo."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import ipywidgets as widgets
import pandas as pd

from perfnb import text
from perfnb.charts import impact_chart
from perfnb.charts.live import LiveChart
from perfnb.document import Block, Bundle, Line, Section, Table, Verdict, bundle, joined_html
from perfnb.facts import impact
from perfnb.panels.at_rest import AtRest
from perfnb.panels.bars import parts_bars, step_bars
from perfnb.panels.base import LONGEST_LINE, Panel, View, button, column, row, set_visible
from perfnb.panels.controls import Control
from perfnb.panels.history import Config, Edit, History
from perfnb.panels.late_chart import LateChart
from perfnb.panels.memory_text import believed, memory_blocks, memory_of, present, risk_of, risk_words
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.report import picture
from perfnb.whatif.plan import PlanStep
from perfnb.wording import assumptions, changed, plan_blocks, predicted

Predict = Callable[[Mapping[str, Any], int], Prediction | Unknown]
"""Answers knob -> value after, with so many draws."""

DRAWS_MOVING: Final = 10
DRAWS_AT_REST: Final = 40
SLOW_S: Final = 0.08
"""A prediction that takes longer makes sliders report on release only."""


class WhatIfPanel(Panel):
    """Controls on knobs with a live prediction; `panel.num_workers.value = 8` moves one from code.

    Parameters
    ----------
    title
        What was recorded, in words.
    knobs
        Knob to the value that the run was recorded with, in the order to show.
    config
        The config that Apply changes; never modified.
    predict
        The what-if model.
    on_apply, on_undo
        Make the new config, and put it where it lives.
    home
        What to do with the new config, in a sentence; shown after Apply and Undo.
    suggested
        Changes that were suggested, best first, each with its label.
    parts
        Ledger parts of the run: part, time_us, share.
    plan
        Which suggestions to apply, in which order.
    state
        What has to be known of the run before its numbers are read.
    """

    def __init__(
        self,
        *,
        title: str,
        knobs: Mapping[str, Any],
        config: Config,
        predict: Predict,
        on_apply: Edit,
        on_undo: Edit,
        suggested: Mapping[str, Sequence[Change]],
        parts: pd.DataFrame,
        plan: Sequence[PlanStep] = (),
        home: str = "",
        state: Sequence[Block] = (),
    ) -> None:
        self._home, self._plan, self._state = home, tuple(plan), tuple(state)
        self._title, self._suggested, self._predict = title, dict(suggested), predict
        self._recorded = [Section("Parts of a step as recorded", (parts_bars(parts),))] if len(parts) else []
        self._history = History(config, on_apply, on_undo)
        self._lock, self._at_rest = threading.RLock(), AtRest()
        self._now = predict({}, DRAWS_AT_REST)
        self.answer = self._now
        self.message: tuple[Block, ...] = ()
        wanted = [change for changes in suggested.values() for change in changes]
        self.controls = {
            knob: Control(knob, value, [change.after for change in wanted if change.knob == knob])
            for knob, value in knobs.items()
        }
        self._make_widgets()
        for control in self.controls.values():
            control.observe(lambda _: self._moved())
        self._refresh(DRAWS_AT_REST, draw=False)
        self._late_chart.draw_later()

    def __getattr__(self, knob: str) -> Control:
        """The control of a knob."""
        controls = self.__dict__.get("controls", {})
        if knob in controls:
            return controls[knob]  # type: ignore[no-any-return]
        message = f"the panel has no {knob!r}: its knobs are {', '.join(controls) or 'none'}"
        raise AttributeError(message)

    @property
    def chart(self) -> LiveChart | None:
        """The live chart, drawn now if it was not yet; None where the run's own step cannot be predicted."""
        return self._late_chart.chart

    @property
    def config(self) -> Config:
        """The config with what was applied here."""
        return self._history.config

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs between the controls and the run as it was recorded."""
        return tuple(Change(knob, each.recorded, each.value) for knob, each in self.controls.items() if each.is_changed)

    @property
    def pending(self) -> tuple[Change, ...]:
        """What Apply would change: what differs between the controls and the config."""
        now = {knob: each.recorded for knob, each in self.controls.items()}
        for step in self._history.applied:
            now |= {change.knob: change.after for change in step}
        return tuple(Change(knob, now[knob], each.value) for knob, each in self.controls.items() if each.value != now[knob])

    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text."""
        with self._lock:
            self._at_rest.settle()
            settings = Table(
                "Settings",
                ("knob", "recorded", "now"),
                tuple((knob, text.name(each.recorded), text.name(each.value)) for knob, each in self.controls.items()),
            )
            chart = picture(impact_chart(self._impact())) if isinstance(self._now, Prediction) else ()
            return bundle([*self._header(), settings, *self._result(), *self._bars(), *chart, *self._details(), *self.message])

    def _make_widgets(self) -> None:
        self.apply_button = button("Apply", "Make a new config with these values", style="primary")
        self.undo_button = button("Undo", "Take the latest Apply back")
        self.reset_button = button("Reset all", "Every control back to the recorded value")
        self.suggested_choice = widgets.Dropdown(
            options=[
                ("choose one to set its values", 0),
                *((text.name(label), number + 1) for number, label in enumerate(self._suggested)),
            ],
            description="Suggested",
            style={"description_width": "190px"},
            layout=widgets.Layout(width="480px"),
        )
        set_visible(self.suggested_choice, visible=bool(self._suggested))
        self._views = {
            name: View(is_status=name in ("result", "outcome")) for name in ("header", "result", "bars", "details", "outcome")
        }
        self.code = widgets.Textarea(
            description="In Python",
            disabled=True,
            rows=5,
            layout=widgets.Layout(width="640px"),
            style={"description_width": "80px"},
        )
        self._late_chart = LateChart(lambda: self._impact() if isinstance(self._now, Prediction) else None, impact_chart)
        self.apply_button.on_click(lambda _: self._apply())
        self.undo_button.on_click(lambda _: self._undo())
        self.reset_button.on_click(lambda _: self._reset())
        self.suggested_choice.observe(lambda change: self._take(change["new"]), names="value")
        self.root = column(
            self._views["header"].widget,
            self.suggested_choice,
            *(each.row for each in self.controls.values()),
            self._views["result"].widget,
            row(self.apply_button, self.undo_button, self.reset_button),
            self._views["outcome"].widget,
            self._views["bars"].widget,
            self._late_chart.widget,
            self._views["details"].widget,
            self.code,
        )

    def _moved(self) -> None:
        if self._history.forget_look(self.pending):
            self.message = ()
        self._refresh(DRAWS_MOVING)
        self._at_rest.run(lambda: self._refresh(DRAWS_AT_REST))

    def _refresh(self, draws: int, *, draw: bool = True) -> None:
        with self._lock:
            start = time.perf_counter()
            self.answer = (
                self._predict({change.knob: change.after for change in self.changes}, draws) if self.changes else self._now
            )
            is_moving = draws == DRAWS_MOVING
            if is_moving:
                self._settle_speed(time.perf_counter() - start)
            made: dict[str, Callable[[], list[Block]]] = {"result": self._result, "bars": self._bars}
            made["outcome"] = lambda: list(self.message)
            if not is_moving:  # the chart and what is assumed follow at rest: drawing them takes longer than the rest together
                made |= {"header": self._header, "details": self._details}
            for name, blocks in made.items():
                self._views[name].show_html(joined_html(blocks()))
            if draw and not is_moving:
                self._late_chart.draw()
            self.code.value = self._python()
            self.apply_button.disabled = not self.pending
            file = self._history.file_to_write(self.pending)
            words = "Apply" if isinstance(self.answer, Prediction) else "Apply without a prediction"
            words = "Apply although memory may run out" if risk_of(self.answer) is not None else words
            self.apply_button.description = f"Write {text.name(file)}" if file else words
            self.undo_button.disabled = not self._history.applied
            latest = changed(self._history.applied[-1]) if self._history.applied else ""
            self.undo_button.description = f"Undo {latest}" if latest else "Undo"
            self.reset_button.disabled = not self.changes

    def _settle_speed(self, seconds: float) -> None:
        if seconds > SLOW_S:
            for each in self.controls.values():
                each.set_live(live=False)

    def _apply(self) -> None:
        with self._lock:
            pending = self.pending
            if pending:
                self.message, _ = self._history.click(pending, f"Applied: {changed(pending)}", self._home)
            self._refresh(DRAWS_AT_REST)

    def _undo(self) -> None:
        with self._lock:
            latest = self._history.applied[-1] if self._history.applied else ()
            self.message, is_done = self._history.click_undo(f"Taken back: {changed(latest)}", self._home)
            if is_done:
                for change in latest:
                    self.controls[change.knob].value = change.before
            self._refresh(DRAWS_AT_REST)

    def _reset(self) -> None:
        for each in self.controls.values():
            each.reset()

    def _take(self, number: int) -> None:
        """Set the values of a suggestion; 0 stands for none."""
        for change in list(self._suggested.values())[number - 1] if number else ():
            if change.knob in self.controls:
                self.controls[change.knob].value = change.after

    def _impact(self) -> pd.DataFrame:
        now = present(self._now, self.answer)
        same = {} if now is None else {"now": now}
        return impact({**same, **({"after the change": believed(self.answer)} if self.changes else {})})

    def _header(self) -> list[Block]:
        return [*self._state, Line("", f"What if: {text.clean(self._title, LONGEST_LINE)}")]

    def _result(self) -> list[Block]:
        if not self.changes:
            if isinstance(self._now, Unknown):
                return [Verdict("?", predicted(self._now))]
            return [
                Verdict(
                    "",
                    f"{text.duration(self._now.before)} per step as recorded",
                    "change a knob to see what it is predicted to do",
                    "predict",
                )
            ]
        risk = risk_of(self.answer)
        if risk is not None:
            return [Verdict("!", risk_words(risk), changed(self.changes), "predict")]
        return [
            Verdict("?" if isinstance(self.answer, Unknown) else "", predicted(self.answer), changed(self.changes), "predict")
        ]

    def _bars(self) -> list[Block]:
        now = present(self._now, self.answer)
        if now is None:
            return []
        after = {"after the change": believed(self.answer)} if self.changes else {}
        memory = memory_blocks(memory_of(self.answer)) if self.changes else []
        return [step_bars(now, after), *memory, *self._recorded]

    def _details(self) -> list[Block]:
        return [*(assumptions(self.answer) if self.changes else ()), *plan_blocks(self._plan)]

    def _python(self) -> str:
        if not self.changes:
            return "# no change"
        listed = ", ".join(f"perfnb.Change({change.knob!r}, {change.before!r}, {change.after!r})" for change in self.changes)
        return f"changes = [{text.clean(listed)}]\nperfnb.predict(run, changes, config)\nconfig = perfnb.apply(changes, config)"
