"""The chart of what changed between two runs, by operator or kernel."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import FASTER, INK, LOST, NO_EFFECT, distinct, drawable, finished, label_axis, largest_three, time_unit

_SURE = ("added", "removed", "slower", "faster")


def compare_chart(changes: pd.DataFrame) -> alt.LayerChart:
    """Bars of the change in time per step, with 80 % intervals.

    Parameters
    ----------
    changes
        One row per name: name, change, difference_us, low_us, high_us; from `perfnb.analyses.largest_changes`.

    Returns
    -------
    altair.LayerChart
        One bar per row, to the right slower, to the left faster; grey where the interval holds 0 or is not known.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(changes[["name", "change", "difference_us", "low_us", "high_us"]], "perfnb.analyses.largest_changes")
    ends = rows[["difference_us", "low_us", "high_us"]].abs().max().max() if len(rows) else 0.0
    scale, unit = time_unit(float(ends))
    values = [f"{text.duration(us)} ({change})" for us, change in zip(rows["difference_us"], rows["change"], strict=True)]
    rows = rows.assign(
        label=distinct(pd.Series(list(rows["name"]), dtype=object)),
        difference=rows["difference_us"] / scale,
        low=rows["low_us"] / scale,
        high=rows["high_us"] / scale,
        value=values,
        colour=[
            (LOST if us > 0 else FASTER) if change in _SURE else NO_EFFECT
            for us, change in zip(rows["difference_us"], rows["change"], strict=True)
        ],
    )
    reach = float(ends) / scale or 1.0
    x = (
        alt.X("difference:Q")
        .title(f"change per step ({unit})")
        .scale(alt.Scale(domain=[-reach, reach]))
        .axis(alt.Axis(tickCount=6))
    )
    base = alt.Chart(rows[["label", "difference", "value", "colour"]]).encode(
        y=alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"])),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")],
    )
    bars = base.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.6}).encode(x=x, color=alt.Color("colour:N").scale(None))
    lines = (
        alt.Chart(rows.loc[rows["low"].notna(), ["label", "low", "high", "value"]])
        .mark_rule(color=INK, strokeWidth=2)
        .encode(y=alt.Y("label:N").sort(None), x=alt.X("low:Q"), x2=alt.X2("high"), tooltip=[alt.Tooltip("value:N")])
    )
    description = f"Bars of the change in time per step. Largest: {largest_three(rows['label'], values)}."
    return finished(
        bars,
        lines,
        title="What changed between the runs",
        description=description,
        rows=len(rows),
        subtitle="right: slower, left: faster, grey: not sure; line: 80 % interval",
    )
