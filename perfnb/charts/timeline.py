"""The chart of one step's timeline: what host and device did when."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import INK, colours, drawable, finished, label_axis, largest_three, time_unit


def step_timeline_chart(timeline: pd.DataFrame, title: str = "One step on its timeline") -> alt.LayerChart:
    """Lanes of one step; the darker a piece, the more of that moment the lane was busy.

    Parameters
    ----------
    timeline
        One row per lane and bucket: lane, group, start_us, end_us, busy_share; from `perfnb.facts.step_timeline`.
    title
        Which step it is.

    Returns
    -------
    altair.LayerChart
        One lane per row, time from the start of the step on the x axis.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(timeline, "perfnb.facts.step_timeline")
    scale, unit = time_unit(float(rows["end_us"].max()) if len(rows) else 0.0)
    rows = rows.assign(
        start=rows["start_us"] / scale,
        end=rows["end_us"] / scale,
        colour=colours(rows["group"]),
        busy=[text.share(share) for share in rows["busy_share"]],
        busy_us=(rows["end_us"] - rows["start_us"]) * rows["busy_share"],
    )
    busy = rows.groupby("lane", sort=False)["busy_us"].sum().sort_values(ascending=False)
    lanes = list(dict.fromkeys(rows["lane"]))
    chart = (
        alt.Chart(rows[["lane", "start", "end", "colour", "busy", "busy_share"]])
        .mark_bar(height={"band": 0.7})
        .encode(
            x=alt.X("start:Q").title(f"time since the start of the step ({unit})").scale(alt.Scale(nice=False)),
            x2=alt.X2("end"),
            y=alt.Y("lane:N").sort(lanes).title(None).axis(label_axis(rows["lane"])),
            color=alt.Color("colour:N").scale(None),
            opacity=alt.Opacity("busy_share:Q").scale(alt.Scale(domain=[0, 1], range=[0.25, 1])).legend(None),
            stroke=alt.value(INK),
            strokeWidth=alt.value(0.2),
            tooltip=[
                alt.Tooltip("lane:N"),
                alt.Tooltip("busy:N"),
                alt.Tooltip("start:Q", format=".2f"),
                alt.Tooltip("end:Q", format=".2f"),
            ],
        )
    )
    values = [text.duration(value) for value in busy]
    description = (
        f"{text.clean(title)}, a timeline in {len(lanes)} lanes. Busiest: {largest_three(pd.Series(busy.index), values)}."
    )
    return finished(
        chart, title=title, description=description, rows=len(lanes), subtitle="the darker, the more of that moment was busy"
    )
