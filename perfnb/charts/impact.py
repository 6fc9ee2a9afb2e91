"""The chart of what changes are predicted to do: the step time after each, with its interval, beside the step time now."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import (
    INK,
    distinct,
    drawable,
    finished,
    label_axis,
    largest_three,
    time_unit,
    value_scale,
    verdict_colours,
)


def impact_chart(impact: pd.DataFrame) -> alt.LayerChart:
    """Predicted step time after each change as a dot on its 80 % interval; the dashed line is the step time now.

    Parameters
    ----------
    impact
        One row per prediction: label, before_us, after_us, low_us, high_us, speedup, verdict; from `perfnb.facts.impact`.
        At least one row has numbers; where there are none, the row says so.

    Returns
    -------
    altair.LayerChart
        One row per prediction, with its numbers beside it.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 predictions.
    """
    rows = drawable(impact, "perfnb.facts.impact")
    now_us = float(rows["before_us"].mean())
    largest = float(rows[["before_us", "high_us"]].max().max())
    scale, unit = time_unit(largest)
    values = [
        _numbers(after, low, high, gain, verdict)
        for after, low, high, gain, verdict in rows[["after_us", "low_us", "high_us", "speedup", "verdict"]].itertuples(
            index=False
        )
    ]
    rows = rows.assign(
        label=distinct(rows["label"]),
        **{name: rows[f"{name}_us"] / scale for name in ("after", "low", "high")},
        now=now_us / scale,
        colour=verdict_colours(rows["verdict"]),
        value=values,
    )
    rows = rows.assign(right=rows[["now", "high"]].max(axis=1))
    shown = rows[["label", "now", "after", "low", "high", "right", "colour", "value"]]
    y = alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"]))
    tips = [alt.Tooltip("label:N"), alt.Tooltip("value:N")]
    base = alt.Chart(shown).encode(y=y, tooltip=tips)
    known = alt.Chart(shown[shown["after"].notna()]).encode(y=y, tooltip=tips)
    colour = alt.Color("colour:N").scale(None)
    domain = value_scale(largest / scale, rows["label"], values)
    x = alt.X("low:Q").title(f"step time ({unit})").scale(domain).axis(alt.Axis(tickCount=6))
    spans = known.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.5}, opacity=0.45).encode(
        x=x, x2=alt.X2("high"), color=colour
    )
    dots = known.mark_point(filled=True, size=90, stroke=INK, strokeWidth=1, opacity=1).encode(x=alt.X("after:Q"), fill=colour)
    now = alt.Chart(shown.head(1)).mark_rule(color=INK, strokeWidth=2, strokeDash=[5, 4]).encode(x=alt.X("now:Q"))
    labels = base.mark_text(align="left", dx=8, fontSize=12, color=INK).encode(x=alt.X("right:Q"), text=alt.Text("value:N"))
    before = text.duration(now_us)
    description = f"Predicted step time beside {before} now, with 80 % intervals. {largest_three(rows['label'], values)}."
    words = "dot: predicted, bar: 80 % interval, dashed line: now"
    return finished(
        spans,
        now,
        dots,
        labels,
        title=f"Predicted step time (now {before})",
        description=description,
        rows=len(rows),
        subtitle=words,
    )


def _numbers(after_us: float, low_us: float, high_us: float, gain: float, verdict: str) -> str:
    if verdict == "unknown":
        return "unknown"
    if low_us == high_us:
        return text.duration(after_us)
    estimate = text.duration_estimate(after_us, low_us, high_us)
    return f"{estimate}, no effect" if verdict == "no effect expected" else f"{estimate}, {text.speedup(gain)}"
