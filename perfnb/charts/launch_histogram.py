"""The chart of launch calls: how many take how long, how long their device work takes, and how late it starts."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, drawable, finished

_MEASURES: Final = (
    ("call", "launch call", GROUP_COLOURS["launching"]),
    ("device", "its device work", GROUP_COLOURS["computing"]),
    ("delay", "delay until it starts", GROUP_COLOURS["waiting"]),
)
_HEIGHT_ROWS: Final = 10


def launch_histogram_chart(histogram: pd.DataFrame) -> alt.LayerChart:
    """Bars of how many launches have which call duration, device time and delay; all ranks together.

    Parameters
    ----------
    histogram
        `perfnb.analyses.launch_histogram(launch_statistics(run))`.

    Returns
    -------
    altair.LayerChart
        Three bars per bucket of time; buckets double.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    together = histogram.groupby(["measure", "low_us", "high_us"], observed=True)["launches"].sum().reset_index()
    rows = drawable(together, "perfnb.analyses.launch_histogram")
    names = {measure: name for measure, name, _ in _MEASURES}
    rows = rows.assign(
        what=rows["measure"].map(names),
        bucket=["under 1 us" if low < 1 else f"from {text.duration(low)}" for low in rows["low_us"]],
    )
    order = list(dict.fromkeys(rows.sort_values("low_us")["bucket"]))
    scale = alt.Scale(domain=list(names.values()), range=[colour for _, _, colour in _MEASURES])
    chart = (
        alt.Chart(rows[["bucket", "what", "launches"]])
        .mark_bar(stroke=INK, strokeWidth=0.7)
        .encode(
            x=alt.X("bucket:N").sort(order).title("time, in buckets that double"),
            xOffset=alt.XOffset("what:N").sort(list(names.values())),
            y=alt.Y("launches:Q").title("launch calls"),
            color=alt.Color("what:N").scale(scale).legend(alt.Legend(orient="top", title=None, labelFontSize=12, labelColor=INK)),
            tooltip=[alt.Tooltip("what:N"), alt.Tooltip("bucket:N"), alt.Tooltip("launches:Q", format=",")],
        )
    )
    total = int(rows.loc[rows["measure"] == "call", "launches"].sum()) if len(rows) else 0
    most = rows.sort_values("launches", ascending=False).drop_duplicates("measure")
    said = "; ".join(f"{what} {bucket}" for what, bucket in zip(most["what"], most["bucket"], strict=True))
    description = (
        f"Bars of the times of {text.count(total, 'launch call')}. Most often: {said}." if total else "No launch was recorded."
    )
    return finished(chart, title="Launch calls and their device work", description=description, rows=_HEIGHT_ROWS)
