"""The chart of how right predictions were: every pair that was measured, predicted against measured, on its 80 % interval."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import FASTER, INK, LOST, distinct, drawable, finished, label_axis

MOST_PAIRS = 60
"""Pairs that are drawn: the worst ones, all within a page."""


def accuracy_chart(outcomes: pd.DataFrame) -> alt.LayerChart:
    """Predicted over measured value of each pair as a dot on its interval; the line is what was measured.

    Parameters
    ----------
    outcomes
        Rows of a ledger, `perfnb.outcomes.read_ledger().rows`: model, knobs, workload, after, low, high, actual, refused, void.
        Void outcomes, refusals and predictions that nobody measured are only counted.

    Returns
    -------
    altair.LayerChart
        One row per pair, worst first, at most 60 of them; an interval that holds the line was right.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(outcomes, "outcomes.nlargest")
    is_void, is_refused = _said(outcomes["void"]), _said(outcomes["refused"])
    is_pair = (outcomes["actual"].notna() & ~is_void & ~is_refused).to_numpy()
    pairs = rows[is_pair]
    pairs = pairs.assign(**{name: 100.0 * (pairs[name] / pairs["actual"] - 1.0) for name in ("after", "low", "high")})
    is_inside = pairs["low"].le(0.0) & pairs["high"].ge(0.0)
    pairs = pairs.assign(
        label=[f"{knobs}, {job or 'unnamed job'}" for knobs, job in zip(pairs["knobs"], pairs["workload"], strict=True)],
        colour=[FASTER if inside else LOST for inside in is_inside],
        value=[
            f"{error:+.1f} %, {'inside' if inside else 'outside'}"
            for error, inside in zip(pairs["after"], is_inside, strict=True)
        ],
    )
    worst = pairs.sort_values("after", key=lambda errors: -errors.abs(), kind="stable").head(MOST_PAIRS)
    shown = worst.assign(label=distinct(worst["label"]), measured=0.0)
    shown = shown[["label", "after", "low", "high", "measured", "colour", "value"]]
    y = alt.Y("label:N").sort(None).title(None).axis(label_axis(shown["label"]))
    tips = [alt.Tooltip("label:N"), alt.Tooltip("value:N")]
    base = alt.Chart(shown).encode(y=y, tooltip=tips)
    spans = base.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.5}, opacity=0.45).encode(
        x=alt.X("low:Q").title("predicted against measured (%)").axis(alt.Axis(tickCount=6)),
        x2=alt.X2("high"),
        color=alt.Color("colour:N").scale(None),
    )
    dots = base.mark_point(filled=True, size=90, stroke=INK, strokeWidth=1, opacity=1).encode(
        x=alt.X("after:Q"), fill=alt.Color("colour:N").scale(None)
    )
    line = alt.Chart(shown.head(1)).mark_rule(color=INK, strokeWidth=2).encode(x=alt.X("measured:Q"))
    held = int(is_inside.sum())
    counted = (
        f"{text.count(len(pairs), 'pair')}, {held} in their interval; {int(is_refused.sum())} refused, {int(is_void.sum())} void"
    )
    worst_three = "; ".join(
        f"{label} {value}" for label, value in zip(shown["label"].head(3), shown["value"].head(3), strict=True)
    )
    description = f"Predicted against measured: {counted}. Worst: {worst_three or 'none measured yet'}."
    left_out = f"; the worst {MOST_PAIRS} are drawn" if len(pairs) > MOST_PAIRS else ""
    return finished(
        spans,
        line,
        dots,
        title="Predicted against measured",
        description=description,
        rows=len(shown),
        subtitle=f"{counted}{left_out}. Dot: predicted, bar: 80 % interval, line: measured",
    )


def _said(column: pd.Series) -> pd.Series:
    return column.fillna("").astype(str).ne("")
