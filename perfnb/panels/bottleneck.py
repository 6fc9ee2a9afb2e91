"""The bottleneck panel: step through what was found, with its chart, its evidence and the changes that answer it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import ipywidgets as widgets

from perfnb import text
from perfnb.charts import live
from perfnb.charts.theme import AnyChart
from perfnb.document import Block, Bundle, Items, Line, Section, bundle, joined_html
from perfnb.findings import Diagnosis, Finding
from perfnb.fix import NotApplicable, Suggestion
from perfnb.panels.base import Panel, View, button, column, row, set_visible
from perfnb.panels.bottleneck_text import evidence, not_applicable, sentence
from perfnb.panels.history import Config, Edit, History
from perfnb.prediction import Unknown
from perfnb.report import picture
from perfnb.wording import assumptions, changed, findings_table, rest, seen, suggestion_blocks, verdict

ChartOf = Callable[[Finding, int | None], AnyChart | None]
"""Chart of a finding, of one rank or all; None where there is none."""

_ALL_RANKS: Final = "all"


class _Slot:
    """A place for one suggestion: what it is, and its Apply button."""

    def __init__(self, clicked: Callable[[Suggestion | None], None]) -> None:
        self.suggestion: Suggestion | None = None
        self.view = View()
        self.button = button("Apply", "Make a new config with this change", style="primary")
        self.button.on_click(lambda _: clicked(self.suggestion))
        self.widget = column(self.view.widget, self.button)
        self.widget.layout.margin = "0 0 12px 0"

    def show(self, suggestion: Suggestion | None, *, applied: bool, file: str) -> None:
        self.suggestion = suggestion
        set_visible(self.widget, visible=suggestion is not None)
        if suggestion is None:
            return
        self.view.show(*suggestion_blocks(suggestion), *assumptions(suggestion.prediction))
        self.button.disabled = applied
        without = isinstance(suggestion.prediction, Unknown)
        words = "Applied" if applied else "Apply without a prediction" if without else f"Apply {suggestion.fix}"
        self.button.description = f"Write {text.name(file)}" if file and not applied else words


class BottleneckPanel(Panel):
    """Steps through the findings of a diagnosis.

    Parameters
    ----------
    diagnosis
        The answer of every detector.
    suggestions
        What to change, best first.
    refused
        Fixes that do not apply to the config, each with the findings that it would answer.
    config
        The config that Apply changes; never modified.
    chart
        Chart of a finding.
    how
        Detector to how it measures, in sentences.
    on_apply, on_undo
        Make the new config, and put it where it lives.
    home
        What to do with the new config, in a sentence; shown after Apply and Undo.
    state
        What has to be known of the run before its numbers are read.
    """

    def __init__(
        self,
        diagnosis: Diagnosis,
        suggestions: Sequence[Suggestion] = (),
        *,
        config: Config,
        chart: ChartOf,
        how: Mapping[str, Sequence[str]],
        on_apply: Edit,
        on_undo: Edit,
        refused: Sequence[tuple[NotApplicable, Sequence[str]]] = (),
        home: str = "",
        state: Sequence[Block] = (),
    ) -> None:
        self._diagnosis, self._suggestions, self._chart_of, self._how = diagnosis, tuple(suggestions), chart, how
        self._refused, self._home, self._state = tuple(refused), home, tuple(state)
        self._history, self._lock = History(config, on_apply, on_undo), threading.RLock()
        self._applied: tuple[Suggestion, ...] = ()
        self._message: tuple[Block, ...] = ()
        self.findings = (*diagnosis.found, *diagnosis.possible)
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
    def rank(self) -> int | None:
        """The rank that is shown; None for all."""
        return None if self.rank_choice.value == _ALL_RANKS else int(self.rank_choice.value)

    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text."""
        with self._lock:
            finding = self.finding
            if finding is None:
                return bundle([*self._header(), *self._lists()])
            drawn = self._chart_of(finding, self.rank)
            answers = [block for item in self._answers(finding) for block in suggestion_blocks(item)]
            return bundle(
                [
                    *self._header(),
                    Line("finding", f"{self.choice.value + 1} of {len(self.findings)}: {finding.detector}"),
                    *self._sentence(finding),
                    *(picture(drawn) if drawn is not None else ()),
                    *answers,
                    *self._not_applicable(finding),
                    Section("Evidence", (evidence(finding, self.rank),)),
                    Section("How measured", tuple(self._how_measured(finding))),
                    *self._message,
                    *self._lists(),
                ]
            )

    def _make_widgets(self) -> None:
        options = [
            (f"{number + 1}: {text.name(item.detector)}, {text.share(item.severity)}", number)
            for number, item in enumerate(self.findings)
        ]
        self.previous_button, self.next_button = button("Previous", "The finding before"), button("Next", "The finding after")
        layout, style = widgets.Layout(width="380px"), {"description_width": "60px"}
        self.choice = widgets.Dropdown(
            options=options, value=0 if options else None, description="Finding", layout=layout, style=style
        )
        ranks = sorted({rank for item in self.findings for rank in item.ranks})
        choices = [("all", _ALL_RANKS), *((str(rank), str(rank)) for rank in ranks)]
        self.rank_choice = widgets.Dropdown(
            options=choices, description="Rank", layout=widgets.Layout(width="160px"), style={"description_width": "45px"}
        )
        set_visible(self.rank_choice, visible=len(ranks) > 1)
        self._views = {
            name: View(is_status=name in ("sentence", "outcome"))
            for name in ("header", "sentence", "evidence", "how", "refused", "outcome", "lists")
        }
        most = max((len(self._answers(item)) for item in self.findings), default=0)
        self.slots = tuple(_Slot(self._apply) for _ in range(most))
        self.undo_button = button("Undo", "Take the latest Apply back")
        self._drawn: tuple[Finding, int | None] | None = (self.findings[0], None) if self.findings else None
        first = self._chart_of(*self._drawn) if self._drawn else None
        self.chart = live(first) if first is not None else None
        tabs = widgets.Tab(
            children=[
                *([self.chart] if self.chart is not None else []),
                self._views["evidence"].widget,
                self._views["how"].widget,
            ],
            titles=[*(["Chart"] if self.chart is not None else []), "Evidence", "How measured"],
        )
        set_visible(tabs, visible=bool(self.findings))
        self.previous_button.on_click(lambda _: self._step(-1))
        self.next_button.on_click(lambda _: self._step(1))
        self.undo_button.on_click(lambda _: self._undo())
        self.choice.observe(lambda _: self._chosen(), names="value")
        self.rank_choice.observe(lambda _: self._refresh(), names="value")
        self.root = column(
            self._views["header"].widget,
            row(self.previous_button, self.next_button, self.choice, self.rank_choice),
            self._views["sentence"].widget,
            tabs,
            *(slot.widget for slot in self.slots),
            self._views["refused"].widget,
            self.undo_button,
            self._views["outcome"].widget,
            self._views["lists"].widget,
        )

    def _step(self, by: int) -> None:
        if self.findings:
            self.choice.value = max(0, min(len(self.findings) - 1, self.choice.value + by))

    def _chosen(self) -> None:
        if self._history.forget_look(()):
            self._message = ()
        self._refresh()

    def _refresh(self) -> None:
        with self._lock:
            finding = self.finding
            self.choice.disabled = len(self.findings) < 2  # noqa: PLR2004 - one is no choice
            self.previous_button.disabled = finding is None or self.choice.value == 0
            self.next_button.disabled = finding is None or self.choice.value == len(self.findings) - 1
            views: dict[str, Sequence[Block]] = {"header": self._header(), "outcome": self._message, "lists": self._lists()}
            if finding is not None:
                views["sentence"] = self._sentence(finding)
                views["evidence"] = [evidence(finding, self.rank)]
                views["how"] = self._how_measured(finding)
                views["refused"] = self._not_applicable(finding)
                self._draw(finding, self.rank)
                answers = self._answers(finding)
                for number, slot in enumerate(self.slots):
                    suggestion = answers[number] if number < len(answers) else None
                    file = self._history.file_to_write(suggestion.changes) if suggestion else ""
                    slot.show(suggestion, applied=suggestion in self._applied, file=file)
            for name, blocks in views.items():
                self._views[name].show_html(joined_html(blocks))
            self.undo_button.disabled = not self._applied
            set_visible(self.undo_button, visible=bool(self._applied))
            self.undo_button.description = f"Undo {self._applied[-1].fix}" if self._applied else "Undo"

    def _draw(self, finding: Finding, rank: int | None) -> None:
        """Give the chart another finding or rank; drawing takes as long as all the rest."""
        if self._drawn == (finding, rank):
            return
        drawn = self._chart_of(finding, rank)
        if self.chart is not None and drawn is not None:
            self.chart.chart = drawn
        self._drawn = (finding, rank)

    def _apply(self, suggestion: Suggestion | None) -> None:
        with self._lock:
            if suggestion is None or suggestion in self._applied:
                return
            done = f"Applied {suggestion.fix}: {changed(suggestion.changes)}"
            self._message, is_done = self._history.click(suggestion.changes, done, self._home)
            if is_done:
                self._applied = (*self._applied, suggestion)
            self._refresh()

    def _undo(self) -> None:
        with self._lock:
            if not self._applied:
                return
            self._message, is_done = self._history.click_undo(f"Taken back {self._applied[-1].fix}", self._home)
            if is_done:
                self._applied = self._applied[:-1]
            self._refresh()

    def _answers(self, finding: Finding) -> tuple[Suggestion, ...]:
        return tuple(item for item in self._suggestions if finding.detector in item.answers)

    def _header(self) -> list[Block]:
        first = [] if self.findings else [verdict(self._diagnosis)]
        return [*self._state, *first, *seen(self._diagnosis)]

    def _sentence(self, finding: Finding) -> list[Block]:
        return sentence(finding, is_certain=finding in self._diagnosis.found)

    def _how_measured(self, finding: Finding) -> list[Block]:
        return [Items(tuple(self._how.get(finding.detector, ("no description is at hand",))))]

    def _not_applicable(self, finding: Finding) -> list[Block]:
        reasons = [(item.fix, item.reason) for item, answers in self._refused if finding.detector in answers]
        return not_applicable(reasons, nothing_answers=not self._answers(finding))

    def _lists(self) -> list[Block]:
        many = len(self.findings) > 1
        table = findings_table(self.findings, "")
        return [*([Section(f"All findings ({len(self.findings)})", (table,))] if many else []), *rest(self._diagnosis)]
