"""Chart of a training's losses: blocks of steps, their robust trend, evaluations, and what was found where."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, LOST, drawable, finished

_HEIGHT_ROWS: Final = 10
_LINES: Final = {
    "training loss": (GROUP_COLOURS["copying"], [1, 0]),
    "its trend": (GROUP_COLOURS["communication"], [1, 0]),
    "validation loss": (GROUP_COLOURS["data"], [6, 3]),
}


def loss_chart(drawing: pd.DataFrame, events: pd.DataFrame | None = None) -> alt.LayerChart:
    """Lines of the losses over the steps; a dashed rule where a finding fired first.

    Parameters
    ----------
    drawing
        `perfnb.training.drawing.loss_drawing(run)`.
    events
        `perfnb.training.drawing.training_events(diagnosis)`; none by default.

    Returns
    -------
    altair.LayerChart
        The loss axis is logarithmic where all losses are above zero.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(drawing[["line", "step", "value"]], "perfnb.training.drawing.loss_drawing")
    found = pd.DataFrame(columns=["step", "detector"]) if events is None else events
    names = [name for name in _LINES if name in set(rows["line"])]
    colour = alt.Scale(domain=names, range=[_LINES[name][0] for name in names])
    dash = alt.Scale(domain=names, range=[_LINES[name][1] for name in names])
    legend = alt.Legend(orient="top", title=None, labelFontSize=12, labelColor=INK, symbolType="stroke")
    is_positive = bool(len(rows)) and bool((rows["value"] > 0).all())
    lines = (
        alt.Chart(rows)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("step:Q").title("step").scale(alt.Scale(nice=False, zero=False)),
            y=alt.Y("value:Q")
            .title("loss, logarithmic" if is_positive else "loss")
            .scale(alt.Scale(type="log" if is_positive else "linear", zero=False, nice=False)),
            color=alt.Color("line:N").scale(colour).legend(legend),
            strokeDash=alt.StrokeDash("line:N").scale(dash).legend(legend),
            tooltip=[alt.Tooltip("line:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=",.4~g")],
        )
    )
    named = found.assign(what=[text.name(str(detector)).replace("_", " ") for detector in found["detector"]])
    marks = drawable(named[["step", "what"]].astype({"step": "float64"}), "training_events")
    rules = (
        alt.Chart(marks)
        .mark_rule(color=LOST, strokeDash=[4, 3], strokeWidth=1.5)
        .encode(x=alt.X("step:Q"), tooltip=[alt.Tooltip("what:N"), alt.Tooltip("step:Q")])
    )
    said = "; ".join(f"{what} at step {step:.0f}" for what, step in zip(marks["what"], marks["step"], strict=True))
    last = rows[rows["line"].eq("training loss")]["value"]
    description = (
        f"Losses over the steps, {text.count(len(names), 'line')}; the training loss ends at {last.iloc[-1]:.4g}. "
        f"Found: {said or 'nothing'}."
        if len(last)
        else "Losses over the steps: nothing recorded."
    )
    shown = said if said else "nothing was found on this curve"
    return finished(lines, rules, title="Losses of the training", description=description, rows=_HEIGHT_ROWS, subtitle=shown)
