"""A live chart that follows the rest of its panel: its script is long, and drawing it takes as long as all the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pandas as pd

from perfnb.charts import live
from perfnb.charts.live import LiveChart
from perfnb.charts.theme import AnyChart
from perfnb.panels.at_rest import AtRest
from perfnb.panels.base import column


class LateChart:
    """A place for a chart, which is drawn when the rest of the panel has been painted, and anew where its table changed.

    In a notebook that runs on at once it comes when the kernel is next idle.

    Parameters
    ----------
    table
        What is to be shown now; None where there is nothing to show.
    draw
        Makes the chart of it.
    """

    def __init__(self, table: Callable[[], pd.DataFrame | None], draw: Callable[[pd.DataFrame], AnyChart]) -> None:
        self._table, self._draw_table = table, draw
        self._lock, self._first = threading.RLock(), AtRest()
        self._drawn: pd.DataFrame | None = None
        self._chart: LiveChart | None = None
        self.widget = column()

    @property
    def chart(self) -> LiveChart | None:
        """The chart, drawn now if it was not yet; None where there is nothing to show."""
        self._first.settle()
        if self._chart is None:
            self.draw()
        return self._chart

    def draw_later(self) -> None:
        """Draw it in a moment; at once where no event loop runs."""
        self._first.run(self.draw)

    def draw(self) -> None:
        """Draw it where its table changed."""
        with self._lock:
            table = self._table()
            if table is None or (self._drawn is not None and table.equals(self._drawn)):
                return
            if self._chart is None:
                self._chart = live(self._draw_table(table))
                self.widget.children = (self._chart,)
            else:
                self._chart.chart = self._draw_table(table)
            self._drawn = table
