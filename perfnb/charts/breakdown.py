"""The chart of where a step's time goes: one bar per ledger part."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import INK, colours, distinct, drawable, finished, label_axis, largest_three, time_unit, value_scale


def breakdown_chart(parts: pd.DataFrame) -> alt.LayerChart:
    """Bars of the parts of a step, largest first.

    Parameters
    ----------
    parts
        One row per part: label, group, time_us, share; from `perfnb.facts.breakdown`.

    Returns
    -------
    altair.LayerChart
        One bar per part with its time and share beside it.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 parts.
    """
    rows = drawable(parts, "perfnb.facts.breakdown")
    scale, unit = time_unit(float(rows["time_us"].max()) if len(rows) else 0.0)
    values = [f"{text.duration(time)} ({text.share(part)})" for time, part in zip(rows["time_us"], rows["share"], strict=True)]
    rows = rows.assign(label=distinct(rows["label"]), time=rows["time_us"] / scale, colour=colours(rows["group"]), value=values)
    total = text.duration(float(rows["time_us"].sum()))
    y = alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"]))
    scale_of_bars = value_scale(float(rows["time"].max()) if len(rows) else 0.0, rows["label"], values)
    x = alt.X("time:Q").title(f"time per step ({unit})").scale(scale_of_bars).axis(alt.Axis(tickCount=6))
    base = alt.Chart(rows[["label", "time", "colour", "value"]]).encode(
        y=y, x=x, tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")]
    )
    bars = base.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.7}).encode(color=alt.Color("colour:N").scale(None))
    labels = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text=alt.Text("value:N"))
    description = f"Bars of where a step of {total} goes. Largest: {largest_three(rows['label'], values)}."
    return finished(bars, labels, title=f"Where a step of {total} goes", description=description, rows=len(rows))
