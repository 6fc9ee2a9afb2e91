"""The training panel: the losses with what was found on them, what to try, and a probe that asks the training itself."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import ipywidgets as widgets
import pandas as pd

from perfnb import text
from perfnb.charts.live import live
from perfnb.charts.training import loss_chart
from perfnb.document import Block, Bundle, Items, Line, Section, Verdict, bundle, joined_html
from perfnb.errors import PerfnbError
from perfnb.findings import Diagnosis, Finding
from perfnb.panels.base import LONGEST_LINE, Panel, View, button, column, row, set_visible
from perfnb.panels.history import Config, Edit, History
from perfnb.panels.training_text import (
    advice_answers,
    advice_blocks,
    drawing_table,
    finding_blocks,
    probe_blocks,
    rest_blocks,
    training_verdict,
)
from perfnb.prediction import Change
from perfnb.report import picture
from perfnb.training.probe_result import ProbeResult
from perfnb.training.suggest import HyperparameterSuggestion
from perfnb.wording import changed, evidence_table

Probe = Callable[[Sequence[float]], ProbeResult]
"""Asks the training itself: branches with the learning rate times each factor, from one state on the same batches."""

_HOW_TO_PROBE: Final = (
    "training_panel(run, config, probe=lambda factors: perfnb.probe(step, state, factors, 30, batches)) probes from here"
)


class TrainingPanel(Panel):
    """Steps through the symptoms of a training's curve.

    Parameters
    ----------
    title
        What was recorded, in words.
    diagnosis
        Of the training itself.
    advice
        What to try, surest first.
    drawing
        Lines of the losses: line, step, value; empty where none was recorded.
    events
        Where findings fired: step, detector.
    config
        The config that Apply changes; never modified.
    how
        Detector to how it measures, in sentences.
    on_apply, on_undo
        Make the new config, and put it where it lives.
    home
        What to do with the new config, in a sentence.
    probe
        Asks the training itself; without one the panel says how to give it one.
    """

    def __init__(
        self,
        *,
        title: str,
        diagnosis: Diagnosis,
        advice: Sequence[HyperparameterSuggestion],
        drawing: pd.DataFrame,
        events: pd.DataFrame,
        config: Config,
        how: Mapping[str, Sequence[str]],
        on_apply: Edit,
        on_undo: Edit,
        home: str = "",
        probe: Probe | None = None,
    ) -> None:
        self._title, self._diagnosis, self._advice, self._drawing = title, diagnosis, tuple(advice), drawing
        self._events, self._how, self._home, self._probe = events, how, home, probe
        self._history, self._lock = History(config, on_apply, on_undo), threading.RLock()
        self._message: tuple[Block, ...] = ()
        self.result: ProbeResult | None = None
        """What the last probe came to."""
        self.findings = diagnosis.found
        self._make_widgets()
        self._refresh()

    @property
    def config(self) -> Config:
        """The config with what was applied here."""
        return self._history.config

    @property
    def finding(self) -> Finding | None:
        """The finding that is shown."""
        return self.findings[self.choice.value] if self.findings else None

    @property
    def advice(self) -> tuple[HyperparameterSuggestion, ...]:
        """What answers the finding that is shown."""
        return advice_answers(self.finding, self._advice)

    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text."""
        with self._lock:
            finding = self.finding
            drawn = picture(loss_chart(self._drawing, self._events)) if len(self._drawing) else ()
            number = [Line("finding", f"{self.choice.value + 1} of {len(self.findings)}: {finding.detector}")] if finding else []
            return bundle(
                [
                    *self._header(),
                    *drawn,
                    *drawing_table(self._drawing),
                    *number,
                    *(finding_blocks(finding) if finding else ()),
                    *(block for each in self.advice for block in advice_blocks(each)),
                    *self._probed(),
                    *self._message,
                    *(self._details(finding) if finding else ()),
                    *rest_blocks(self._diagnosis),
                ]
            )

    def _make_widgets(self) -> None:
        names = ("header", "numbers", "sentence", "advice", "probed", "outcome", "details", "lists")
        self._views = {name: View(is_status=name in ("sentence", "probed", "outcome")) for name in names}
        self.chart = live(loss_chart(self._drawing, self._events)) if len(self._drawing) else None
        options = [(f"{number + 1}: {text.name(each.detector)}", number) for number, each in enumerate(self.findings)]
        self.previous_button, self.next_button = button("Previous", "The finding before"), button("Next", "The finding after")
        self.choice = widgets.Dropdown(
            options=options,
            value=0 if options else None,
            description="Finding",
            layout=widgets.Layout(width="380px"),
            style={"description_width": "60px"},
        )
        self.apply_button = button("Apply", "Make a new config with what is to be tried", style="primary")
        self.undo_button = button("Undo", "Take the latest Apply back")
        self.probe_button = button("Probe", "Train a few steps with each learning rate, then put everything back")
        self.previous_button.on_click(lambda _: self._step(-1))
        self.next_button.on_click(lambda _: self._step(1))
        self.choice.observe(lambda _: self._chosen(), names="value")
        self.apply_button.on_click(lambda _: self._apply())
        self.undo_button.on_click(lambda _: self._undo())
        self.probe_button.on_click(lambda _: self._ask())
        stepping = row(self.previous_button, self.next_button, self.choice)
        buttons = row(self.apply_button, self.undo_button, self.probe_button)
        for each in (stepping, buttons):
            set_visible(each, visible=bool(self.findings))
        views = {name: view.widget for name, view in self._views.items()}
        drawn = [self.chart] if self.chart is not None else []
        self.root = column(
            *(views["header"], *drawn, views["numbers"], stepping, views["sentence"], views["advice"], buttons),
            *(views["probed"], views["outcome"], views["details"], views["lists"]),
        )

    def _step(self, by: int) -> None:
        if self.findings:
            self.choice.value = max(0, min(len(self.findings) - 1, self.choice.value + by))

    def _chosen(self) -> None:
        if self._history.forget_look(self._changes()):
            self._message = ()
        self._refresh()

    def _refresh(self) -> None:
        with self._lock:
            finding, advice = self.finding, self.advice
            blocks: dict[str, Sequence[Block]] = {
                "header": self._header(),
                "numbers": drawing_table(self._drawing),
                "probed": self._probed(),
                "outcome": self._message,
                "lists": rest_blocks(self._diagnosis),
            }
            if finding is not None:
                blocks["sentence"] = finding_blocks(finding)
                blocks["advice"] = [block for each in advice for block in advice_blocks(each)]
                blocks["details"] = self._details(finding)
            for name, shown in blocks.items():
                self._views[name].show_html(joined_html(shown))
            self.choice.disabled = len(self.findings) < 2  # noqa: PLR2004 - one is no choice
            self.previous_button.disabled = finding is None or self.choice.value == 0
            self.next_button.disabled = finding is None or self.choice.value == len(self.findings) - 1
            changes = self._changes()
            file = self._history.file_to_write(changes)
            self.apply_button.disabled = not changes or any(changes == each for each in self._history.applied)
            self.apply_button.description = (
                f"Write {text.name(file)}" if file else f"Apply {changed(changes)} without a probe".replace("  ", " ")
            )
            latest = changed(self._history.applied[-1]) if self._history.applied else ""
            self.undo_button.disabled = not latest
            self.undo_button.description = f"Undo {latest}" if latest else "Undo"
            self.probe_button.disabled = self._probe is None or not self._factors()

    def _apply(self) -> None:
        with self._lock:
            changes = self._changes()
            if changes:
                self._message, _ = self._history.click(changes, f"Applied: {changed(changes)}", self._home)
            self._refresh()

    def _undo(self) -> None:
        with self._lock:
            latest = changed(self._history.applied[-1]) if self._history.applied else ""
            self._message, _ = self._history.click_undo(f"Taken back: {latest}", self._home)
            self._refresh()

    def _ask(self) -> None:
        """Probe; what it refuses, or what the user's own step raises, stands in the panel."""
        factors = self._factors()
        if self._probe is None or not factors:
            return
        with self._lock:
            self.probe_button.disabled = True
            self._message = (Line("", "Probing: the training runs a few steps per branch and is put back after each"),)
            self._views["outcome"].show(*self._message)
            try:
                self.result = self._probe(factors)
                self._message = ()
            except PerfnbError as error:
                self._message = (Verdict("x", text.clean(error, 600)),)
            except Exception as error:  # noqa: BLE001 - the user's own step failed: its words belong on screen, not in a log
                self._message = (Verdict("x", f"The probe failed: {type(error).__name__}: {text.clean(error, 400)}"),)
            self._refresh()

    def _changes(self) -> tuple[Change, ...]:
        """What Apply would change: what the first advice with a value says."""
        return next((each.changes for each in self.advice if each.changes), ())

    def _factors(self) -> tuple[float, ...]:
        return next((each.probe_factors for each in self.advice if each.probe_factors), ())

    def _header(self) -> list[Block]:
        return [training_verdict(self._diagnosis), Line("seen", text.clean(self._title, LONGEST_LINE))]

    def _probed(self) -> list[Block]:
        if self.result is not None:
            return probe_blocks(self.result)
        return [Line("", _HOW_TO_PROBE)] if self._probe is None and self._factors() else []

    def _details(self, finding: Finding) -> list[Block]:
        how = Items(tuple(self._how.get(finding.detector, ("no description is at hand",))))
        rows = finding.evidence.drop(columns="symptom", errors="ignore")  # its words stand above
        shown = dataclasses.replace(finding, evidence=rows)
        return [Section("Evidence", (evidence_table(shown),)), Section("How measured", (how,))]
