"""Bars of a step's time in plain HTML: they follow a slider without waiting for a chart to be drawn."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from perfnb import text
from perfnb.charts.theme import NO_EFFECT, colours, verdict_colours
from perfnb.document import Table
from perfnb.facts import breakdown
from perfnb.prediction import Prediction, Unknown


def parts_bars(parts: pd.DataFrame) -> Table:
    """Parts of a step, each with a bar of its share.

    Parameters
    ----------
    parts
        One row per ledger part: part, time_us, share; as `Diagnosis.parts`.
    """
    table = breakdown(parts)
    rows = tuple((label, text.duration(time), text.share(part)) for label, _, time, part in table.itertuples(index=False))
    bars = tuple(zip(table["share"].to_list(), colours(table["group"]), strict=True))
    return Table("", ("part", "time", "of step"), rows, frozenset({1, 2}), bars)


def step_bars(now: Prediction, after: Mapping[str, Prediction | Unknown]) -> Table:
    """Time per step, or per sample, now and after each change, with bars on one scale.

    Parameters
    ----------
    now
        The measured time.
    after
        Label to prediction of the same metric.
    """
    before_us = now.before
    longest = max(before_us, *(given.after for given in after.values() if isinstance(given, Prediction)), 0.0)
    rows = [("now", text.duration(before_us), text.NOTHING, text.NOTHING)]
    bars = [(before_us / longest, NO_EFFECT)]
    for label, given in after.items():
        if isinstance(given, Unknown):
            rows.append((label, "Unknown", text.NOTHING, text.NOTHING))
            bars.append((0.0, NO_EFFECT))
        else:
            rows.append(
                (label, text.duration(given.after), text.duration_range(given.low, given.high), text.speedup(given.speedup))
            )
            bars.append((given.after / longest, verdict_colours(pd.Series([given.verdict]))[0]))
    return Table(
        "Step time" if now.per == "step" else f"Time per {now.per}",
        ("", "mean", "80 % interval", "speed-up"),
        tuple(rows),
        frozenset({1, 2, 3}),
        tuple(bars),
    )
