"""The monitor panel: the job, the host and its GPUs as they are now, also while a cell runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.charts.live import live
from perfnb.charts.monitor import monitor_chart
from perfnb.document import Block, Bundle, Line, Verdict, bundle, joined_html
from perfnb.errors import PerfnbError
from perfnb.panels.base import LONGEST_LINE, Panel, View, button, column, row, set_visible
from perfnb.panels.monitor_text import history_frame, history_table, monitor_blocks
from perfnb.panels.ticker import Ticker
from perfnb.read.newest import Now
from perfnb.report import picture

CHART_S: Final = 5.0
"""Between two drawings of the chart: one costs as much as ten looks."""

Look = Callable[[], Now | None]
"""What a recording tells now; None where nothing records yet."""


class MonitorPanel(Panel):
    """Shows what a recording tells, again and again, until it ends or Stop is clicked.

    Parameters
    ----------
    look
        What the recording tells now.
    title
        What is watched, in words.
    end
        Called once when the panel stops.
    interval_s
        Between two looks; more where a look costs more than 2 % of it.

    Attributes
    ----------
    now
        What the last look told.
    looks
        How many there were.
    """

    def __init__(self, look: Look, *, title: str = "", end: Callable[[], None] = lambda: None, interval_s: float = 1.0) -> None:
        self._look, self._title, self._end = look, title, end
        self._lock = threading.RLock()
        self._problem, self._cost_s, self._drawn_at = "", 0.0, 0.0
        self._is_paused = self._has_ended = False
        self.now: Now | None = None
        self.looks = 0
        self._ticker = Ticker(self._tick, interval_s, "perfnb-monitor")
        self._make_widgets()
        self.refresh()

    @property
    def is_watching(self) -> bool:
        """Whether its thread runs."""
        return self._ticker.is_running

    def start(self) -> None:
        """Look again and again from now on, unless it was stopped or what it watches has ended."""
        with self._lock:
            if self._has_ended or self._is_over:
                return
            self._ticker.start()
            self._show()

    def stop(self) -> None:
        """End the thread, and what was begun for the panel; what was seen last stays on screen. It may be called again."""
        self._ticker.stop()
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            self._end()
            self._show()

    def refresh(self) -> None:
        """Look once, now."""
        began_ns = time.thread_time_ns()
        try:
            now, problem = self._look(), ""
        except (PerfnbError, OSError) as error:
            now, problem = None, text.clean(error, 400)
        with self._lock:
            self.now = now if now is not None or problem == "" else self.now
            self._problem = problem
            self.looks += 1
            self._show()
            self._cost_s = (time.thread_time_ns() - began_ns) / 1e9
            is_over = self._is_over
        if is_over:
            self._ticker.stop()  # there is nothing left to look at

    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text."""
        with self._lock:
            history = history_frame(self.now)
            drawn = picture(monitor_chart(history)) if len(history) else ()
            return bundle([*self._blocks(), *drawn, *history_table(history), self._pace()])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """As of every panel; the thread starts here, where somebody looks."""
        self.start()
        return super()._repr_mimebundle_(include, exclude)

    @property
    def _is_over(self) -> bool:
        return self.now is not None and self.now.is_over

    def _make_widgets(self) -> None:
        self._state, self._numbers, self._tail = View(), View(), View()
        self.pause_button = button("Pause", "Look no more until Continue; what records goes on")
        self.stop_button = button("Stop", "End the panel's thread; acts when the running cell has ended")
        self.pause_button.on_click(lambda _: self._pause())
        self.stop_button.on_click(lambda _: self.stop())
        self.chart = live(monitor_chart(history_frame(None)))
        self.root = column(
            self._state.widget,
            row(self.pause_button, self.stop_button),
            self._numbers.widget,
            self.chart,
            self._tail.widget,
        )
        # the browser counts the views from here on: without one, as after the cell was run again, nobody needs the thread
        self.root.set_trait("_view_count", 0)
        self.root.observe(self._viewed, names="_view_count")

    def _viewed(self, change: Any) -> None:
        if not change["new"]:
            self._ticker.stop()
        elif not self._is_paused:
            self.start()

    def _pause(self) -> None:
        with self._lock:
            self._is_paused = not self._is_paused
        if self._is_paused:
            self._ticker.stop()
        else:
            self.start()
        with self._lock:
            self._show()

    def _tick(self) -> bool:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 - a thread of ours never prints and never ends silently: it says what went wrong
            with self._lock:
                self._problem = f"perfnb could not look: {type(error).__name__} {text.clean(error, 200)}"
                self._show()
            return False
        return not self._is_over

    def _show(self) -> None:
        blocks = self._blocks()
        self._state.show(blocks[0])
        self._numbers.show_html(joined_html(blocks[1:]))
        history = history_frame(self.now)
        self._tail.show_html(joined_html([*history_table(history), self._pace()]))
        is_done = self._has_ended or self._is_over
        self.pause_button.disabled = self.stop_button.disabled = is_done
        self.pause_button.description = "Continue" if self._is_paused else "Pause"
        self._draw(history, is_last=is_done)

    def _draw(self, history: pd.DataFrame, *, is_last: bool) -> None:
        set_visible(self.chart, visible=len(history) > 0)
        due = time.monotonic() - self._drawn_at >= CHART_S
        if len(history) and (due or is_last):
            self.chart.chart = monitor_chart(history)
            self._drawn_at = time.monotonic()

    def _blocks(self) -> Sequence[Block]:
        named = [Line("watched", text.clean(self._title, LONGEST_LINE))] if self._title else []
        if self._problem:
            return [Verdict("x", self._problem, label="monitor"), *named]
        if self.now is None:
            nothing = "Nothing records yet: perfnb.record(...) or %%perfnb in this kernel, or name a run folder"
            return [Verdict("?", nothing, label="monitor"), *named]
        first, *others = monitor_blocks(self.now)
        return [first, *named, *others]

    def _pace(self) -> Line:
        if self._has_ended:
            state = "stopped"
        elif self._is_over:
            state = "ended with the recording"
        elif self._is_paused:
            state = "paused"
        else:
            state = f"a look every {self._ticker.pause_s:.3g} s"
        return Line("panel", f"{state}; the last one took {1e3 * self._cost_s:.1f} ms of a core")
