"""Bars of times, one per row, with the time and its share beside each: what several charts are made of."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import INK, colours, distinct, finished, label_axis, largest_three, time_unit, value_scale


def time_bars(rows: pd.DataFrame, *, title: str, axis: str, subject: str) -> alt.LayerChart:
    """Bars in the order of the rows.

    Parameters
    ----------
    rows
        One row per bar, texts already clean: label, group (of `theme.GROUP_COLOURS`), time_us and share.
    title
        Of the chart.
    axis
        Title of the axis of time, without its unit.
    subject
        What the bars are, for the text alternative.
    """
    largest = float(rows["time_us"].max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    values = [f"{text.duration(time)} ({text.share(part)})" for time, part in zip(rows["time_us"], rows["share"], strict=True)]
    drawn = pd.DataFrame(
        {"label": distinct(rows["label"]), "time": rows["time_us"] / scale, "colour": colours(rows["group"]), "value": values}
    )
    base = alt.Chart(drawn).encode(
        y=alt.Y("label:N").sort(None).title(None).axis(label_axis(drawn["label"])),
        x=alt.X("time:Q")
        .title(f"{axis} ({unit})")
        .scale(value_scale(largest / scale, drawn["label"], values))
        .axis(alt.Axis(tickCount=6)),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")],
    )
    bars = base.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.7}).encode(color=alt.Color("colour:N").scale(None))
    labels = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text=alt.Text("value:N"))
    description = f"Bars of {subject}. Largest: {largest_three(drawn['label'], values)}." if len(rows) else f"No {subject}."
    return finished(bars, labels, title=title, description=description, rows=len(rows))


def stacked_bars(rows: pd.DataFrame, parts: Sequence[tuple[str, str, str]], *, title: str, axis: str) -> alt.LayerChart:
    """One bar per row, made of parts.

    Parameters
    ----------
    rows
        One row per bar, texts already clean: label, and the columns that `parts` name, in microseconds.
    parts
        Column, name and group (of `theme.GROUP_COLOURS`) of each part, from left to right.
    title, axis
        Of the chart, and of its axis of time without its unit.
    """
    whole = sum((rows[column].fillna(0.0) for column, _, _ in parts), start=pd.Series(0.0, index=rows.index))
    largest = float(whole.max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    labels = distinct(rows["label"])
    pieces = [
        pd.DataFrame(
            {
                "label": labels,
                "part": name,
                "order": place,
                "time": rows[column].to_numpy() / scale,
                "value": [
                    f"{text.duration(us)} ({text.share(us / total)})" for us, total in zip(rows[column], whole, strict=True)
                ],
            }
        )
        for place, (column, name, _) in enumerate(parts)
    ]
    drawn = pd.concat(pieces, ignore_index=True)
    named = [name for _, name, _ in parts]
    bars = (
        alt.Chart(drawn)
        .mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.7})
        .encode(
            y=alt.Y("label:N").sort(None).title(None).axis(label_axis(drawn["label"])),
            x=alt.X("time:Q", stack="zero").title(f"{axis} ({unit})").scale(alt.Scale(domain=[0, largest / scale or 1.0])),
            color=alt.Color("part:N")
            .scale(alt.Scale(domain=named, range=colours(pd.Series([group for _, _, group in parts]))))
            .legend(alt.Legend(orient="bottom", title=None, symbolStrokeColor=INK)),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("label:N"), alt.Tooltip("part:N"), alt.Tooltip("value:N")],
        )
    )
    shares = {name: float(rows[column].sum()) / float(whole.sum() or 1.0) for column, name, _ in parts}
    said = "; ".join(f"{name} {text.share(part)}" for name, part in shares.items())
    return finished(
        bars, title=title, description=f"Bars of {text.count(len(rows), 'device')}. Together: {said}.", rows=len(rows)
    )
