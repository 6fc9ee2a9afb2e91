"""Charts of what a training was asked: branches of a probe, the gradient noise scale, and how reliable probed advice was."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import FASTER, GROUP_COLOURS, INK, LOST, NO_EFFECT, drawable, finished

_HEIGHT_ROWS: Final = 10
_BAND: Final = 10.0  # training.md 8: within this factor of the noise scale nothing is said
_VERDICTS: Final = {
    "present": INK,
    "better": FASTER,
    "undecided": NO_EFFECT,
    "unknown": NO_EFFECT,
    "worse": LOST,
    "not finite": LOST,
}


def probe_chart(drawing: pd.DataFrame) -> alt.LayerChart:
    """Loss of each branch of a probe over its steps, coloured by what it came to; the present setting in black.

    Parameters
    ----------
    drawing
        `perfnb.training.drawing.probe_drawing(result)`.

    Returns
    -------
    altair.LayerChart
        The loss axis is logarithmic where all losses are above zero.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(drawing[["change", "step", "loss", "verdict"]], "perfnb.training.drawing.probe_drawing")
    is_positive = bool(len(rows)) and bool((rows["loss"] > 0).all())
    shown = [name for name in _VERDICTS if name in set(rows["verdict"])]
    colour = alt.Scale(domain=shown, range=[_VERDICTS[name] for name in shown])
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q").title("step of the probe").scale(alt.Scale(nice=False)),
        y=alt.Y("loss:Q")
        .title("loss, logarithmic" if is_positive else "loss")
        .scale(alt.Scale(type="log" if is_positive else "linear", zero=False, nice=False)),
        color=alt.Color("verdict:N").scale(colour).legend(alt.Legend(orient="top", title=None, labelFontSize=12, labelColor=INK)),
        tooltip=[alt.Tooltip("change:N"), alt.Tooltip("step:Q"), alt.Tooltip("loss:Q", format=",.4~g"), alt.Tooltip("verdict:N")],
    )
    lines = base.mark_line(strokeWidth=1.5).encode(detail=alt.Detail("change:N"))
    ends = rows.sort_values("step").groupby("change", sort=False).tail(1)
    labels = (
        alt.Chart(ends)
        .mark_text(align="left", dx=4, fontSize=12, color=INK)
        .encode(x=alt.X("step:Q"), y=alt.Y("loss:Q"), text=alt.Text("change:N"))
    )
    said = "; ".join(f"{row['change']} {row['verdict']}, ends at {row['loss']:.4g}" for row in ends.to_dict("records"))
    return finished(
        lines,
        labels,
        title="Branches of the probe, on the same batches",
        description=f"Loss of each branch over its steps: {said or 'none'}.",
        rows=_HEIGHT_ROWS,
        subtitle="black: the present setting; each line ends where its branch did",
    )


def noise_scale_chart(drawing: pd.DataFrame) -> alt.LayerChart:
    """Gradient noise scale over the steps with its 80 % interval, a band of a factor 10 around it, and the batch.

    Parameters
    ----------
    drawing
        `perfnb.training.noise_scale.noise_scale_windows(run)`.

    Returns
    -------
    altair.LayerChart
        Both axes in samples, the upright one logarithmic; nothing is said while the batch lies in the band.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(
        drawing[["step", "noise_scale", "low", "high", "batch_size"]], "perfnb.training.noise_scale.noise_scale_windows"
    )
    rows = rows.assign(band_low=rows["noise_scale"] / _BAND, band_high=rows["noise_scale"] * _BAND)
    axis = alt.Scale(type="log", nice=False)
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q").title("step").scale(alt.Scale(zero=False, nice=False)),
        tooltip=[alt.Tooltip(f"{name}:Q", format=",.3~g") for name in ("step", "noise_scale", "low", "high", "batch_size")],
    )
    band = base.mark_area(color=GROUP_COLOURS["copying"], opacity=0.2).encode(
        y=alt.Y("band_low:Q").title("samples, logarithmic").scale(axis), y2=alt.Y2("band_high")
    )
    spread = base.mark_area(color=GROUP_COLOURS["communication"], opacity=0.35).encode(
        y=alt.Y("low:Q").scale(axis), y2=alt.Y2("high")
    )
    middle = base.mark_line(color=GROUP_COLOURS["communication"], strokeWidth=2, point=True).encode(y=alt.Y("noise_scale:Q"))
    batch = base.mark_line(color=LOST, strokeDash=[6, 3], strokeWidth=2).encode(y=alt.Y("batch_size:Q"))
    said = "no window allows to tell it"
    if len(rows):
        last = rows.iloc[-1]
        said = (
            f"at the end {last['noise_scale']:.3g} ({last['low']:.3g} to {last['high']:.3g}), the batch {last['batch_size']:.3g}"
        )
    return finished(
        band,
        spread,
        middle,
        batch,
        title="Gradient noise scale and batch",
        description=f"Gradient noise scale over the steps: {said}.",
        rows=_HEIGHT_ROWS,
        subtitle="line: noise scale with its 80 % interval; wide band: a factor 10 around it; dashed: the batch",
    )


def reliability_chart(reliability: pd.DataFrame) -> alt.LayerChart:
    """How often probed advice was right, by the probability that it stated, with 95 % intervals; the diagonal is perfect.

    Parameters
    ----------
    reliability
        `perfnb.outcomes.probes.reliability(rows)`.

    Returns
    -------
    altair.LayerChart
        A dot per range of the probability.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(reliability[["chance", "right", "low", "high", "count"]], "perfnb.outcomes.probes.reliability")
    share = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("chance:Q").title("probability stated").scale(share)
    base = alt.Chart(rows).encode(
        x=x,
        tooltip=[
            *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("chance", "right", "low", "high")),
            alt.Tooltip("count:Q"),
        ],
    )
    diagonal = alt.Chart(pd.DataFrame({"at": [0.0, 1.0]})).mark_line(color=NO_EFFECT, strokeDash=[4, 3])
    diagonal = diagonal.encode(x=alt.X("at:Q").scale(share), y=alt.Y("at:Q").title("share that was right").scale(share))
    spans = base.mark_rule(color=INK, strokeWidth=1.5).encode(y=alt.Y("low:Q").scale(share), y2=alt.Y2("high"))
    dots = base.mark_point(filled=True, size=90, color=FASTER, stroke=INK, strokeWidth=1, opacity=1).encode(y=alt.Y("right:Q"))
    counts = base.mark_text(align="left", dx=8, fontSize=12, color=INK).encode(y=alt.Y("right:Q"), text=alt.Text("count:Q"))
    said = "; ".join(
        f"stated {row['chance']:.2f}, right {row['right']:.2f} of {row['count']:.0f}" for row in rows.to_dict("records")
    )
    total = int(rows["count"].sum())
    return finished(
        diagonal,
        spans,
        dots,
        counts,
        title="Reliability of probed advice",
        description=f"Share of probed branches that were better, by the probability stated: {said or 'none was measured yet'}.",
        rows=_HEIGHT_ROWS,
        subtitle=f"{text.count(total, 'branch', 'branches')} measured; number beside each dot; bars: 95 % interval",
    )
