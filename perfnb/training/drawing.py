"""The curve of a training as tables of few rows: what a chart of it draws."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.findings import Diagnosis
from perfnb.run import Run
from perfnb.training.curve import curve_of
from perfnb.training.probe_result import ProbeResult
from perfnb.training.statistics import Floats

MOST_POINTS: Final = 300
"""Points of each line at most, about."""

_TREND_POINTS: Final = 15
_NAMES: Final = ("training loss", "its trend", "validation loss")


def loss_drawing(run: Run) -> pd.DataFrame:
    """Lines of the losses of a run: means of blocks of steps, their running median as a robust trend, and the evaluations.

    Parameters
    ----------
    run
        A run whose table `training` holds losses.

    Returns
    -------
    pandas.DataFrame
        One row per point: line (training loss, its trend, validation loss), step (the last of its block), value. Blocks that hold
        a loss that is not finite are left out: `training_events` has them.

    Raises
    ------
    Unmeasured
        If the run has no training values.

    Examples
    --------
    >>> from perfnb.training.examples import curve_run
    >>> loss_drawing(curve_run([2.0, 1.0]))["value"].tolist()
    [2.0, 1.0, 1.5, 1.5]
    """
    curve = curve_of(run.training, run.config)
    places = curve.points
    size = -(-max(len(places), 1) // MOST_POINTS)
    starts = np.arange(0, len(places), size)
    means = np.array([curve.losses[places[start : start + size]].mean() for start in starts], dtype=np.float64)
    ends = curve.steps[places[np.minimum(starts + size, len(places)) - 1]] if len(places) else curve.steps[:0]
    known = np.isfinite(means)
    means, ends = means[known], ends[known]
    evaluated = np.flatnonzero(np.isfinite(curve.validation_losses))
    evaluated = evaluated[:: -(-max(len(evaluated), 1) // MOST_POINTS)]
    lines = (
        (_NAMES[0], ends, means),
        (_NAMES[1], ends, _running_median(means)),
        (_NAMES[2], curve.steps[evaluated], curve.validation_losses[evaluated]),
    )
    frames = [pd.DataFrame({"line": name, "step": at, "value": values}) for name, at, values in lines if len(at)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["line", "step", "value"])


def training_events(diagnosis: Diagnosis) -> pd.DataFrame:
    """Steps at which the findings of a training fired, each first one.

    Parameters
    ----------
    diagnosis
        `perfnb.diagnose(run)`.

    Returns
    -------
    pandas.DataFrame
        One row per finding: step, detector, summary.
    """
    found = diagnosis.training.found if diagnosis.training else ()
    rows = [(each.steps[0], each.detector, each.summary) for each in found if each.steps]
    return pd.DataFrame(rows, columns=["step", "detector", "summary"])


def probe_drawing(result: ProbeResult) -> pd.DataFrame:
    """Losses of a probe's branches, meant over blocks of steps where there are many.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.

    Returns
    -------
    pandas.DataFrame
        One row per (change, block): change, step (the block's last), loss, verdict. Losses that are not finite are left out.
    """
    steps = result.steps[result.steps["finite"]]
    changes = result.effects["change"].tolist()
    size = -(-max(len(steps), 1) // (MOST_POINTS * max(2, len(changes)) // 2))
    blocks = steps.assign(block=steps["step"] // size).groupby(["change", "block"], sort=False, as_index=False)
    drawn = blocks.agg(step=("step", "max"), loss=("loss", "mean"))[["change", "step", "loss"]]
    return drawn.merge(result.effects[["change", "verdict"]], on="change", how="left")


def probe_table(result: ProbeResult) -> pd.DataFrame:
    """The branches of a probe in words, for a card or a page.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.

    Returns
    -------
    pandas.DataFrame
        One row per branch, all texts: change, steps, loss, effect (%), z, chance, gain (80 %), verdict. Empty where not known.
    """

    def said(value: float, form: str) -> str:
        return "" if np.isnan(value) else format(value, form)

    rows = [
        (
            row["change"],
            str(row["steps"]),
            said(row["loss"], ".4g"),
            said(100.0 * row["effect"], ".0f"),
            said(row["z"], ".1f"),
            said(row["chance"], ".2f"),
            "" if np.isnan(row["gain"]) else f"{row['gain']:.2f} ({row['gain_low']:.2f} to {row['gain_high']:.2f})",
            row["verdict"],
        )
        for row in result.effects.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["change", "steps", "loss", "effect (%)", "z", "chance", "gain (80 %)", "verdict"])


def _running_median(values: Floats) -> Floats:
    """Median of up to fifteen neighbours: an outlier does not move it."""
    half = _TREND_POINTS // 2
    return np.array([np.median(values[max(0, at - half) : at + half + 1]) for at in range(len(values))], dtype=np.float64)
