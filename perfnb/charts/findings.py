"""The chart of what was found: the share of step time that each finding costs, with its interval."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import INK, LOST, distinct, drawable, finished, label_axis, largest_three, value_scale


def findings_chart(findings: pd.DataFrame) -> alt.LayerChart:
    """Bars of the share of step time that each finding costs, with 80 % intervals.

    Parameters
    ----------
    findings
        One row per finding, worst first: detector, severity, low, high; as `Diagnosis.findings`.

    Returns
    -------
    altair.LayerChart
        One bar per finding, a line over it from low to high, and the numbers beside it.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 findings.
    """
    rows = drawable(findings[["detector", "severity", "low", "high"]], "Diagnosis.findings.head")
    values = [
        f"{text.share(severity)} ({text.share_range(low, high)})"
        for severity, low, high in zip(rows["severity"], rows["low"], rows["high"], strict=True)
    ]
    rows = rows.assign(
        label=distinct(pd.Series([text.heading(name).capitalize() for name in rows["detector"]], dtype=object)),
        percent=rows["severity"] * 100,
        percent_low=rows["low"] * 100,
        percent_high=rows["high"] * 100,
        value=values,
    )
    scale = value_scale(float(rows["percent_high"].max()) if len(rows) else 0.0, rows["label"], values)
    y = alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"]))
    x = alt.X("percent:Q").title("share of step time (%)").scale(scale).axis(alt.Axis(tickCount=6))
    base = alt.Chart(rows.drop(columns=["severity", "low", "high"])).encode(
        y=y, tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")]
    )
    bars = base.mark_bar(color=LOST, stroke=INK, strokeWidth=1, height={"band": 0.6}).encode(x=x)
    lines = base.mark_rule(color=INK, strokeWidth=2).encode(x=alt.X("percent_low:Q"), x2=alt.X2("percent_high"))
    labels = base.mark_text(align="left", dx=8, fontSize=12, color=INK).encode(
        x=alt.X("percent_high:Q"), text=alt.Text("value:N")
    )
    description = f"Bars of the share of step time that each finding costs. Largest: {largest_three(rows['label'], values)}."
    return finished(
        bars,
        lines,
        labels,
        title="What costs step time",
        description=description,
        rows=len(rows),
        subtitle="black line: 80 % interval",
    )
