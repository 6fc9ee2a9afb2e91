"""The chart of a call tree: rectangles as wide as the time of each path, children under their parents."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, drawable, finished, largest_three, time_unit

_SHARE_FOR_NAME = 0.06  # of the width: a narrower rectangle has no room for a name
_CHARACTERS = 90  # of 12 pixels' text that fit the whole width


def operator_tree_chart(rectangles: pd.DataFrame, title: str = "Where host time goes, by call path") -> alt.LayerChart:
    """Icicle of the call tree; the darker a rectangle, the more of its time is its own.

    Parameters
    ----------
    rectangles
        `perfnb.analyses.operator_rectangles(operator_tree(run))`.
    title
        Which time and which step it is.

    Returns
    -------
    altair.LayerChart
        Roots on top, one row per depth; the whole path is in the tooltip.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rectangles.
    """
    rows = drawable(rectangles, "perfnb.analyses.operator_rectangles")
    largest = float(rows["end_us"].max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    width = rows["end_us"] - rows["start_us"]
    labels = [
        str(name)[: max(int(share * _CHARACTERS), 1)] if share >= _SHARE_FOR_NAME else ""
        for name, share in zip(rows["name"], width / (largest or 1.0), strict=True)
    ]
    drawn = pd.DataFrame(
        {
            "start": rows["start_us"] / scale,
            "end": rows["end_us"] / scale,
            "top": rows["depth"],
            "bottom": rows["depth"] + 1,
            "level": rows["depth"] + 0.5,
            "own": (rows["self_us"] / rows["total_us"].where(rows["total_us"] > 0)).fillna(0.0),
            "name": rows["name"],
            "path": rows["path"],
            "label": labels,
            "calls": rows["calls"],
            "total": [text.duration(value) for value in rows["total_us"]],
            "itself": [text.duration(value) for value in rows["self_us"]],
            "device": [text.duration(value) for value in rows["device_us"]],
        }
    )
    y = alt.Y("top:Q").scale(alt.Scale(reverse=True, nice=False)).axis(None)
    x = alt.X("start:Q").title(f"time, summed over calls ({unit})").scale(alt.Scale(nice=False))
    words = ("name", "path", "calls", "total", "itself", "device")
    base = alt.Chart(drawn).encode(x=x, tooltip=[alt.Tooltip(word) for word in words])
    boxes = base.mark_rect(color=GROUP_COLOURS["copying"], stroke=INK, strokeWidth=0.4).encode(
        x2=alt.X2("end"),
        y=y,
        y2=alt.Y2("bottom"),
        opacity=alt.Opacity("own:Q").scale(alt.Scale(domain=[0, 1], range=[0.2, 1])).legend(None),
    )
    names = base.mark_text(align="left", dx=3, fontSize=12, color=INK).encode(
        y=alt.Y("level:Q").scale(alt.Scale(reverse=True, nice=False)).axis(None), text=alt.Text("label:N")
    )
    most = rows.sort_values("self_us", ascending=False)
    said = largest_three(most["name"], [text.duration(value) for value in most["self_us"]])
    description = (
        f"{title}: {text.count(len(rows), 'path')}. Most time of their own: {said}." if len(rows) else "No host op recorded."
    )
    depth = int(rows["depth"].max()) + 1 if len(rows) else 1
    below = "one row per depth; the darker, the more of the time is its own" if len(rows) else description
    return finished(boxes, names, title=title, description=description, rows=depth, subtitle=below)
