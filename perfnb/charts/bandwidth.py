"""The chart of what bandwidth each collective reaches, by size."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import (
    GROUP_COLOURS,
    INK,
    LOST,
    distinct,
    drawable,
    finished,
    label_axis,
    largest_three,
    value_scale,
)


def bus_bandwidth_chart(summary: pd.DataFrame) -> alt.LayerChart:
    """Bars of the median bus bandwidth of each collective and size, a mark at what is reachable.

    Parameters
    ----------
    summary
        One row per collective, size class and number of ranks; from `perfnb.analyses.bandwidth_summary`.

    Returns
    -------
    altair.LayerChart
        One bar per row; a lower bound (one rank alone) has ">=" before its number.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    wanted = [
        "collective",
        "size_class",
        "group_size",
        "calls",
        "bus_bytes_per_s",
        "is_lower_bound",
        "reachable_bytes_per_s",
        "reached_share",
    ]
    rows = drawable(summary[wanted].astype({"reachable_bytes_per_s": "float64"}), "perfnb.analyses.bandwidth_summary")
    values = [
        f"{'>= ' if bound else ''}{speed / 1e9:.3g} GB/s ({text.share(share)})"
        for bound, speed, share in zip(rows["is_lower_bound"], rows["bus_bytes_per_s"], rows["reached_share"], strict=True)
    ]
    labels = [
        f"{name} {text.byte_size(float(size))} x {ranks:.0f}"
        for name, size, ranks in zip(rows["collective"], rows["size_class"], rows["group_size"].astype("float64"), strict=True)
    ]
    rows = rows.assign(
        label=distinct(pd.Series(labels, dtype=object)),
        speed=rows["bus_bytes_per_s"] / 1e9,
        reachable=rows["reachable_bytes_per_s"] / 1e9,
        value=values,
    )
    rows = rows.assign(at=rows[["speed", "reachable"]].max(axis=1))
    largest = float(rows["at"].max()) if len(rows) else 0.0
    y = alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"]))
    scale = value_scale(largest, rows["label"], values)
    base = alt.Chart(rows[["label", "speed", "at", "value", "calls"]]).encode(
        y=y, tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N"), alt.Tooltip("calls:Q")]
    )
    x = alt.X("speed:Q").title("bus bandwidth (GB/s)").scale(scale).axis(alt.Axis(tickCount=6))
    bars = base.mark_bar(color=GROUP_COLOURS["communication"], stroke=INK, strokeWidth=1, height={"band": 0.7}).encode(x=x)
    words = base.mark_text(align="left", dx=8, fontSize=12, color=INK)
    marks = (
        alt.Chart(rows.loc[rows["reachable"].notna(), ["label", "reachable", "value", "calls"]])
        .mark_tick(color=LOST, thickness=3, height={"band": 0.9})
        .encode(x=alt.X("reachable:Q"), y=y, tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")])
    )
    ordered = rows.sort_values("speed", ascending=False)
    description = (
        "Bars of the median bus bandwidth by collective, size and number of ranks. "
        f"Largest: {largest_three(ordered['label'], list(ordered['value']))}."
    )
    return finished(
        bars,
        marks,
        words.encode(x=alt.X("at:Q"), text=alt.Text("value:N")),
        title="Bus bandwidth of collectives",
        description=description,
        rows=len(rows),
        subtitle="mark: what is reachable; share of it in brackets",
    )
