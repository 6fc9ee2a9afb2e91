"""The compare panel: two runs of one training side by side, what was predicted beside what was measured."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import ipywidgets as widgets
import pandas as pd

from perfnb import text
from perfnb.charts import live
from perfnb.charts.compare import compare_chart
from perfnb.charts.outcome import outcome_chart
from perfnb.document import Block, Bundle, Items, Line, Section, Table, Verdict, bundle, joined_html
from perfnb.facts import impact
from perfnb.findings import Diagnosis
from perfnb.panels.base import LONGEST_LINE, Panel, View, column, row, set_visible
from perfnb.panels.diff import shortened
from perfnb.prediction import Prediction
from perfnb.report import picture
from perfnb.verify import Outcome, outcome_frame
from perfnb.wording import change_lines

MOST_ROWS: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What changed, seen one way.

    Attributes
    ----------
    changes
        Largest first: name, change, time_before_us, time_after_us, difference_us, low_us, high_us.
    reason
        Why there is nothing to see; empty where there is.
    """

    changes: pd.DataFrame = field(default_factory=pd.DataFrame)
    reason: str = ""


class ComparePanel(Panel):
    """Shows what a change really did, beside what was predicted of it.

    Parameters
    ----------
    outcome
        The prediction beside what was measured.
    before, after
        Diagnosis of each run.
    titles
        What each run is, in words.
    comparisons
        Ways to look at what changed, each with its name: parts of a step, operators, kernels.
    """

    def __init__(
        self,
        *,
        outcome: Outcome,
        before: Diagnosis,
        after: Diagnosis,
        titles: tuple[str, str],
        comparisons: Mapping[str, Comparison],
    ) -> None:
        self.outcome, self._before, self._after, self._titles = outcome, before, after, titles
        self._comparisons = dict(comparisons)
        self._lock = threading.RLock()
        self._make_widgets()
        self._refresh()

    @property
    def comparison(self) -> Comparison:
        """The one that is shown."""
        return self._comparisons[self.choice.value]

    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text."""
        with self._lock:
            changes = self.comparison.changes
            drawn = picture(compare_chart(changes.head(MOST_ROWS))) if len(changes) else ()
            return bundle(
                [
                    *self._header(),
                    *picture(outcome_chart(self._impact())),
                    *self._measured(),
                    Line("shown", text.name(self.choice.value)),
                    *drawn,
                    *self._changes(),
                    *self._findings(),
                ]
            )

    def _make_widgets(self) -> None:
        self._views = {name: View(is_status=name == "changes") for name in ("header", "measured", "changes", "findings")}
        self.choice = widgets.Dropdown(
            options=[(text.name(name), name) for name in self._comparisons],
            description="What changed",
            layout=widgets.Layout(width="380px"),
            style={"description_width": "110px"},
        )
        self.choice.observe(lambda _: self._refresh(), names="value")
        self.step_chart = live(outcome_chart(self._impact()))
        first = next((each.changes for each in self._comparisons.values() if len(each.changes)), None)
        self.chart = None if first is None else live(compare_chart(first.head(MOST_ROWS)))
        views = {name: view.widget for name, view in self._views.items()}
        self.root = column(
            *(views["header"], self.step_chart, views["measured"], row(self.choice)),
            *([self.chart] if self.chart is not None else []),
            *(views["changes"], views["findings"]),
        )

    def _refresh(self) -> None:
        with self._lock:
            blocks = {
                "header": self._header(),
                "measured": self._measured(),
                "changes": self._changes(),
                "findings": self._findings(),
            }
            for name, shown in blocks.items():
                self._views[name].show_html(joined_html(shown))
            changes = self.comparison.changes
            if self.chart is not None:
                set_visible(self.chart, visible=len(changes) > 0)
                if len(changes):
                    self.chart.chart = compare_chart(changes.head(MOST_ROWS))

    def _header(self) -> list[Block]:
        outcome = self.outcome
        sign = "?" if outcome.void or outcome.inside is None else "ok" if outcome.inside else "!"
        return [
            Verdict(sign, text.clean(outcome.verdict, 600), label="outcome"),  # type: ignore[arg-type]
            Line("before", text.clean(self._titles[0], LONGEST_LINE)),
            Line("after", text.clean(self._titles[1], LONGEST_LINE)),
        ]

    def _impact(self) -> pd.DataFrame:
        outcome = self.outcome
        measured = Prediction(outcome.metric, outcome.before, outcome.after, outcome.after_low, outcome.after_high, "measured")
        return impact({"predicted": outcome.prediction, "measured": measured})

    def _measured(self) -> list[Block]:
        outcome = self.outcome
        rows = tuple(
            (
                str(what),
                text.duration(before),
                text.duration(after),
                text.duration_range(low, high),
                text.speedup(speed if speed == speed else None),  # noqa: PLR0124 - NaN
            )
            for what, before, after, low, high, speed in outcome_frame(outcome).itertuples(index=False)
        )
        counts = f"{text.count(outcome.steps_before, 'steady step')} before, {outcome.steps_after} after"
        changed = (
            [shortened(change_lines(outcome.changes).lines)]
            if outcome.changes
            else [Line("change", "none is known from the configs")]
        )
        return [
            Table(
                "Step time" if outcome.metric == "step_us" else f"Time per {outcome.metric.removesuffix('_us')}",
                ("", "before", "after", "80 % interval", "speed-up"),
                rows,
                frozenset({1, 2, 3, 4}),
            ),
            *changed,
            Line("steps", f"{counts}; {text.clean(outcome.caution, 600)}" if outcome.caution else counts),
        ]

    def _changes(self) -> list[Block]:
        comparison = self.comparison
        if comparison.reason:
            return [Line("", f"Not compared: {text.clean(comparison.reason, 400)}")]
        shown = comparison.changes.head(MOST_ROWS)
        if shown.empty:
            return [Line("", "nothing changed")]
        rows = tuple(
            (
                text.name(each["name"]),
                str(each["change"]),
                text.duration(each["time_before_us"]),
                text.duration(each["time_after_us"]),
                text.duration(each["difference_us"]),
                text.duration_range(each["low_us"], each["high_us"]),
            )
            for each in shown.to_dict("records")
        )
        more = len(comparison.changes) - len(shown)
        caption = "Per step, largest change first" + (f" ({more:,} more in the table)" if more else "")
        header = ("", "", "before", "after", "difference", "80 % interval")
        return [Table(caption, header, rows, frozenset({2, 3, 4, 5}))]

    def _findings(self) -> list[Block]:
        """What was found before and after: what is gone, what is new."""
        sides = [{each.detector: each.severity for each in (*side.found, *side.possible)} for side in (self._before, self._after)]
        names = sorted(dict.fromkeys([*sides[0], *sides[1]]), key=lambda name: -max(_known(side.get(name)) for side in sides))
        if not names:
            return [Line("findings", "none before, none after")]
        rows = tuple(
            (name, *(text.share(side.get(name)) for side in sides), _fate(sides[0].get(name), sides[1].get(name)))
            for name in names
        )
        table = Table("Found, share of a step", ("finding", "before", "after", ""), rows, frozenset({1, 2}))
        return [table, *_unlooked(self._before, self._after, names)]


def _known(severity: float | None) -> float:
    return severity if severity is not None and severity == severity else 0.0  # noqa: PLR0124 - NaN


def _fate(before: float | None, after: float | None) -> str:
    return "new" if before is None else "gone" if after is None else "still there"


def _unlooked(before: Diagnosis, after: Diagnosis, names: Sequence[str]) -> list[Block]:
    """Findings of one side that the other could not look for: they are neither new nor gone."""
    lines = [
        f"{each.detector} was not measured {when}: {text.clean(each.reason, 200)}"
        for side, when in ((before, "before"), (after, "after"))
        for each in side.unmeasured
        if each.detector in names
    ]
    return [Section(f"Not measured on one side ({len(lines)})", (Items(tuple(lines)),), folded=False)] if lines else []
