"""The roofline chart: achieved rate of operators by arithmetic intensity, under the roof of the device."""

from __future__ import annotations

from typing import Final

import altair as alt
import numpy as np
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, LOST, drawable, finished, largest_three

_HEIGHT_ROWS: Final = 12
_FAMILY_COLOURS: Final = {
    "matmul": GROUP_COLOURS["computing"],
    "convolution": GROUP_COLOURS["communication"],
    "attention": GROUP_COLOURS["data"],
}


def roofline_chart(table: pd.DataFrame) -> alt.LayerChart:
    """Points of operators under the roof of their device; the larger a point, the more time it takes.

    Parameters
    ----------
    table
        `perfnb.analyses.roofline(flops, peak_flops_per_s, peak_bytes_per_s)`; rows without a rate or an intensity are left out.

    Returns
    -------
    altair.LayerChart
        One point per kind of operator, one roof per peak, both axes logarithmic.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    known = table[table["achieved_flops_per_s"].gt(0) & table["flops_per_byte"].gt(0) & table["attainable_flops_per_s"].gt(0)]
    wanted = [
        "name",
        "family",
        "input_shapes",
        "dtype",
        "calls",
        "time_us",
        "achieved_flops_per_s",
        "flops_per_byte",
        "attained_share",
    ]
    rows = drawable(known[wanted], "perfnb.analyses.roofline, then its first rows")
    rows = rows.assign(
        rate=rows["achieved_flops_per_s"] / 1e12,
        attained=[text.share(share) for share in rows["attained_share"]],
        time=[text.duration(value) for value in rows["time_us"]],
    )
    x = alt.X("flops_per_byte:Q").title("arithmetic intensity (FLOP per byte)").scale(alt.Scale(type="log", nice=False))
    y = alt.Y("rate:Q").title("achieved rate (TFLOP/s)").scale(alt.Scale(type="log"))
    legend = alt.Legend(orient="top", title=None, labelFontSize=12, labelColor=INK)
    colour = alt.Scale(domain=list(_FAMILY_COLOURS), range=list(_FAMILY_COLOURS.values()))
    shape = alt.Scale(domain=list(_FAMILY_COLOURS), range=["circle", "square", "triangle-up"])
    columns = ["name", "family", "input_shapes", "dtype", "calls", "time", "attained"]
    points = (
        alt.Chart(rows[[*columns, "rate", "flops_per_byte", "time_us"]])
        .mark_point(filled=True, stroke=INK, strokeWidth=0.7, opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=alt.Color("family:N").scale(colour).legend(legend),
            shape=alt.Shape("family:N").scale(shape).legend(legend),
            size=alt.Size("time_us:Q").scale(alt.Scale(range=[40, 400])).legend(None),
            tooltip=[alt.Tooltip(column) for column in columns],
        )
    )
    roof = alt.Chart(_roofs(known)).mark_line(color=LOST, strokeWidth=2).encode(x=x, y=y, detail=alt.Detail("roof:N"))
    ordered = rows.sort_values("time_us", ascending=False)
    said = largest_three(ordered["name"], [f"{share} of the roof" for share in ordered["attained"]])
    description = (
        f"Roofline of {text.count(len(rows), 'kind')} of operators. Most time: {said}." if len(rows) else "No rate is known."
    )
    left_out = len(table) - len(known)
    below = "line: what the device can do" + (
        f"; left out: {text.count(left_out, 'row')} without a known rate or roof" if left_out else ""
    )
    return finished(roof, points, title="Roofline of operators", description=description, rows=_HEIGHT_ROWS, subtitle=below)


def _roofs(known: pd.DataFrame) -> pd.DataFrame:
    """Corners of each roof, over all intensities that are drawn."""
    frames = []
    for number, (peak, bandwidth) in enumerate(known[["peak_flops_per_s", "peak_bytes_per_s"]].drop_duplicates().to_numpy()):
        ridge = peak / bandwidth
        low, high = min(known["flops_per_byte"].min(), ridge) / 2, max(known["flops_per_byte"].max(), ridge) * 2
        intensity = np.array([low, ridge, high])
        rate = np.minimum(intensity * bandwidth, peak) / 1e12
        frames.append(pd.DataFrame({"flops_per_byte": intensity, "rate": rate, "roof": str(number)}))
    return pd.concat(frames) if frames else pd.DataFrame({"flops_per_byte": [], "rate": [], "roof": pd.Series(dtype=object)})
