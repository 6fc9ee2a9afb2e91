"""The chart of pairs: worst first, misses told apart, refusals and voids counted, nothing hidden."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from perfnb.charts import accuracy_chart, svg
from perfnb.charts.accuracy import MOST_PAIRS
from perfnb.charts.theme import FASTER, INK, LOST
from perfnb.errors import TooManyRows
from perfnb.outcomes.rows import COLUMNS

HOSTILE = "</script>\x00\x1b[2J\u202e"


def outcomes(*rows: dict[str, Any]) -> pd.DataFrame:
    usual = {"knobs": "num_workers", "workload": "job", "after": 60.0, "low": 55.0, "high": 66.0, "refused": "", "void": ""}
    given = [usual | row for row in rows]
    return pd.DataFrame({name: pd.Series([row.get(name) for row in given], dtype=kind) for name, kind in COLUMNS.items()})


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    spec = accuracy_chart(frame).to_dict()
    return max(spec["datasets"].values(), key=len)


PAIRS = outcomes(
    {"actual": 60.0}, {"actual": 75.0, "workload": HOSTILE}, {"actual": 50.0, "void": "few steps"}, {"refused": "no probe"}, {}
)


def test_pairs_are_drawn_worst_first_as_shares_of_what_was_measured() -> None:
    rows = rows_of(PAIRS)

    assert [round(row["after"], 6) for row in rows] == [-20.0, 0.0]
    assert rows[0]["low"] == pytest.approx(100 * (55 / 75 - 1))
    assert [row["colour"] for row in rows] == [LOST, FASTER]
    assert [row["value"] for row in rows] == ["-20.0 %, outside", "+0.0 %, inside"]


def test_what_is_not_drawn_is_counted() -> None:
    spec = accuracy_chart(PAIRS).to_dict()

    assert "2 pairs, 1 in their interval; 1 refused, 1 void" in spec["description"]
    assert "1 refused, 1 void" in spec["title"]["subtitle"]


def test_the_table_stays_as_it_is_and_texts_are_dark() -> None:
    before = PAIRS.copy(deep=True)

    spec = accuracy_chart(PAIRS).to_dict()

    pd.testing.assert_frame_equal(PAIRS, before)
    assert INK in json.dumps(spec)


def test_a_hostile_name_is_text_only() -> None:
    assert "\x00" not in json.dumps(accuracy_chart(PAIRS).to_dict(), ensure_ascii=False)
    assert "</script>" not in svg(accuracy_chart(PAIRS))


def test_no_pair_yet_is_said() -> None:
    chart = accuracy_chart(PAIRS.head(0))

    assert "none measured yet" in chart.to_dict()["description"]
    assert svg(chart).startswith("<svg")


def test_many_pairs_are_the_worst_ones_and_too_many_are_refused() -> None:
    many = outcomes(*({"actual": 60.0 + number} for number in range(MOST_PAIRS + 5)))

    rows = rows_of(many)

    assert len(rows) == MOST_PAIRS
    assert rows[0]["value"].startswith("-51.6 %")  # 60 / 124 - 1
    assert f"the worst {MOST_PAIRS} are drawn" in accuracy_chart(many).to_dict()["title"]["subtitle"]
    with pytest.raises(TooManyRows):
        accuracy_chart(pd.concat([many] * 40, ignore_index=True))
