"""The chart of how far the clocks of the ranks are apart."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, drawable, finished, label_axis, largest_three, time_unit


def clocks_chart(ranks: pd.DataFrame) -> alt.LayerChart:
    """Bars of each rank's clock offset.

    Parameters
    ----------
    ranks
        One row per rank: rank, offset_us; `ClockAlignment.ranks` of `perfnb.analyses.align_clocks`.

    Returns
    -------
    altair.LayerChart
        One bar per rank: to the right its clock is ahead of the ranks' median, to the left behind.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 ranks.
    """
    rows = drawable(ranks[["rank", "offset_us"]].astype("float64"), "DataFrame.nlargest")
    largest = float(rows["offset_us"].abs().max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    rows = rows.assign(
        label=[f"rank {rank:.0f}" for rank in rows["rank"]],
        offset=rows["offset_us"] / scale,
        value=[text.duration(us) for us in rows["offset_us"]],
    )
    reach = largest / scale or 1.0
    bars = (
        alt.Chart(rows[["label", "offset", "value"]])
        .mark_bar(color=GROUP_COLOURS["communication"], stroke=INK, strokeWidth=1, height={"band": 0.7})
        .encode(
            y=alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"])),
            x=alt.X("offset:Q").title(f"clock ahead of the ranks' median ({unit})").scale(alt.Scale(domain=[-reach, reach])),
            tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")],
        )
    )
    ordered = rows.sort_values("offset_us", key=lambda offsets: -offsets.abs())
    description = (
        f"Bars of how far the clocks of {text.count(len(rows), 'rank')} are ahead of their median. "
        f"Furthest: {largest_three(ordered['label'], list(ordered['value']))}."
    )
    return finished(bars, title="Clocks of the ranks", description=description, rows=len(rows))
