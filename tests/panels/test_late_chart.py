"""A late chart comes after the rest of its panel, once, and is drawn anew only where its table changed."""

from __future__ import annotations

import asyncio

import altair as alt
import pandas as pd
import pytest

from perfnb.charts.theme import AnyChart
from perfnb.panels import late_chart
from perfnb.panels.at_rest import REST_S
from perfnb.panels.late_chart import LateChart


class Shown:
    """A table that changes, and how often it was drawn."""

    def __init__(self) -> None:
        self.table: pd.DataFrame | None = pd.DataFrame({"a": [1]})
        self.drawn: list[int] = []
        self.late = LateChart(lambda: self.table, self.draw)

    def draw(self, table: pd.DataFrame) -> AnyChart:
        self.drawn.append(int(table["a"].iloc[0]))
        return alt.Chart(table).mark_bar().encode(x="a:Q")


def test_where_no_loop_runs_it_is_drawn_at_once() -> None:
    shown = Shown()

    shown.late.draw_later()

    assert shown.drawn == [1]
    assert shown.late.widget.children == (shown.late.chart,)


def test_in_a_kernel_it_is_drawn_a_moment_later() -> None:
    async def cell() -> None:
        shown.late.draw_later()
        assert not shown.late.widget.children
        await asyncio.sleep(2 * REST_S)
        assert shown.late.widget.children

    shown = Shown()
    asyncio.run(cell())

    assert shown.drawn == [1]


def test_who_asks_for_it_or_changes_its_table_before_gets_it_then_and_it_is_drawn_once() -> None:
    async def cell() -> None:
        asked.late.draw_later()
        changed.late.draw_later()
        assert asked.late.chart is not None
        changed.table = pd.DataFrame({"a": [2]})
        changed.late.draw()
        await asyncio.sleep(2 * REST_S)

    asked, changed = Shown(), Shown()
    asyncio.run(cell())

    assert (asked.drawn, changed.drawn) == ([1], [2])


def test_the_same_table_is_not_drawn_again_and_another_goes_into_the_same_chart() -> None:
    shown = Shown()
    shown.late.draw()
    chart = shown.late.chart

    shown.table = pd.DataFrame({"a": [1]})
    shown.late.draw()
    assert shown.drawn == [1]
    shown.table = pd.DataFrame({"a": [3]})
    shown.late.draw()

    assert shown.drawn == [1, 3]
    assert shown.late.chart is chart
    assert shown.late.widget.children == (chart,)


def test_one_that_could_not_be_drawn_is_drawn_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    with monkeypatch.context() as patch:
        patch.setattr(late_chart, "live", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shown.late.draw()

    shown.late.draw()

    assert shown.late.widget.children == (shown.late.chart,)


def test_asked_for_after_its_loop_has_ended_it_is_there() -> None:
    async def cell() -> None:
        shown.late.draw_later()

    shown = Shown()
    asyncio.run(cell())

    assert shown.late.chart is not None
    assert shown.drawn == [1]


def test_nothing_to_show_is_no_chart() -> None:
    shown = Shown()
    shown.table = None

    shown.late.draw_later()

    assert shown.late.chart is None
    assert not shown.late.widget.children
