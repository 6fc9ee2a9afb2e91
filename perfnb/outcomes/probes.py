"""Probed advice in the accuracy ledger: written down with its probability, measured by a fork or a full run, and how reliable."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.errors import OutcomesError
from perfnb.outcomes.accuracy import scored, wilson
from perfnb.outcomes.record import record_outcome, record_prediction
from perfnb.prediction import Change, Prediction
from perfnb.run import Run
from perfnb.training.probe_result import ProbeResult
from perfnb.training.probe_suggest import METRIC, prediction_of
from perfnb.verify import Outcome

HORIZONS: Final = 3
"""A fork has to be so many times as long as the probe to count: shorter ones show what the probe has shown already."""

BETTER: Final = 0.01
"""Gain from which a branch was better, as a share of the attainable drop."""

BINS: Final = 10

_CHANCE: Final = re.compile(r"^chance (0\.\d{4}|1\.0000) of over ")
_COLUMNS: Final = ("chance", "right", "low", "high", "count")


def record_probe(
    result: ProbeResult,
    *,
    run: Run | None = None,
    config: Mapping[str, Any] | None = None,
    workload: str = "",
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, tuple[str, Prediction]]:
    """Write down what a probe says of each branch, before anything is measured of it.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.
    run
        The recorded run, which tells the machine; not needed.
    config
        The training's config.
    workload
        What is trained, in a few words.
    folder
        Of the ledger; see `perfnb.outcomes.ledger_folder`.

    Returns
    -------
    dict
        Name of the branch to the number of its prediction and the prediction; branches without a probability are left out.

    Raises
    ------
    OutcomesError
        If the folder cannot be written.
    """
    now = float(result.steps["setting"].iloc[0])
    told = {}
    for row in result.effects.iloc[1:].to_dict("records"):
        prediction = prediction_of(result, row["change"])
        if isinstance(prediction, Prediction):
            change = Change(result.knob, now, now * row["factor_high"])
            number = record_prediction(run or Run(), prediction, (change,), config=config or {}, workload=workload, folder=folder)
            told[row["change"]] = (number, prediction)
    return told


def measured_gain(present: float, changed: float, first: float, best: float | None = None) -> float:
    """Share of the attainable drop that a change brought: how much lower its final loss was, over the first less the best one.

    Parameters
    ----------
    present, changed
        Final losses with the present setting and with the change; one that is not finite counts as no drop at all.
    first
        Loss that both began with.
    best
        Lowest final loss that is known of this training; the lower of the two by default.

    Examples
    --------
    >>> measured_gain(1.0, 0.5, 2.0), round(measured_gain(1.0, float("nan"), 2.0), 2)
    (0.3333333333333333, -1.0)
    """
    ends = [min(each, first) if math.isfinite(each) else first for each in (present, changed)]
    least = min(ends) if best is None else min(best, *ends)
    return (ends[0] - ends[1]) / (first - least) if first > least else 0.0


def record_probe_outcome(
    prediction_id: str,
    prediction: Prediction,
    change: Change,
    gain: float,
    *,
    probe_steps: int,
    compared_steps: int,
    is_whole_run: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Write down what a branch really brought: both settings from one state, or two full runs.

    Parameters
    ----------
    prediction_id, prediction
        As `record_probe` gave them.
    change
        What was changed.
    gain
        See `measured_gain`.
    probe_steps, compared_steps
        Steps of the probe, and those over which both settings were then compared. The outcome is void under three times as many,
        unless the whole run was compared.
    is_whole_run
        Whether both ran to the end.
    folder
        Of the ledger.

    Returns
    -------
    Outcome
        As it was written.

    Raises
    ------
    OutcomesError
        If the ledger lacks the prediction, the gain is no number, or the folder cannot be written.
    """
    if not math.isfinite(gain):
        message = f"a gain of {gain} is no measurement: a diverged branch counts as no drop, see measured_gain"
        raise OutcomesError(message)
    void = ""
    if not is_whole_run and compared_steps < HORIZONS * probe_steps:
        void = f"compared over {compared_steps} steps, less than {HORIZONS} times the probe's {probe_steps}"
    after = 1.0 - gain
    has_sign = abs(gain) > BETTER and prediction.after != prediction.before
    outcome = Outcome(
        changes=(change,),
        prediction=prediction,
        metric=METRIC,
        before=1.0,
        after=after,
        after_low=after,
        after_high=after,
        speedup_low=math.nan,
        speedup_high=math.nan,
        steps_before=compared_steps,
        steps_after=compared_steps,
        paired=True,
        pressure_before=None,
        pressure_after=None,
        inside=None if void else prediction.low <= after <= prediction.high,
        sign_ok=None if void or not has_sign else (prediction.after < 1.0) == (gain > 0.0),
        void=void,
        caution="",
    )
    record_outcome(prediction_id, outcome, folder=folder)
    return outcome


def probe_rows(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Probed branches of a ledger whose outcome counts.

    Parameters
    ----------
    outcomes
        `perfnb.outcomes.read_ledger(...).rows`.

    Returns
    -------
    pandas.DataFrame
        One row per branch: workload, chance, gain, is_better.
    """
    rows = scored(outcomes)
    rows = rows[rows["metric"].eq(METRIC)]
    found = [_CHANCE.match(str(each)) for each in rows["assumptions"]]
    made = pd.DataFrame(
        {
            "workload": rows["workload"].astype(str).to_list(),
            "chance": [math.nan if each is None else float(each[1]) for each in found],
            "gain": (1.0 - rows["actual"]).to_list(),
        }
    ).astype({"chance": "float64", "gain": "float64"})
    return made.dropna(subset=["chance"]).assign(is_better=lambda frame: frame["gain"] > BETTER).reset_index(drop=True)


def reliability(outcomes: pd.DataFrame) -> pd.DataFrame:
    """How often probed branches were better, by the probability that was stated.

    Parameters
    ----------
    outcomes
        `perfnb.outcomes.read_ledger(...).rows`.

    Returns
    -------
    pandas.DataFrame
        One row per tenth of the probability that has any: chance (mean), right (share that was better by over 1 % of the
        attainable drop), low and high (95 % Wilson interval), count.
    """
    rows = probe_rows(outcomes)
    bins = np.minimum((rows["chance"] * BINS).astype(int), BINS - 1)
    made = []
    for _, own in rows.groupby(bins):
        hits = int(own["is_better"].sum())
        made.append((float(own["chance"].mean()), hits / len(own), *wilson(hits, len(own)), len(own)))
    return pd.DataFrame(made, columns=list(_COLUMNS))


def expected_calibration_error(outcomes: pd.DataFrame) -> float:
    """Mean distance of stated probability and share that was better, over tenths weighed by their branches; NaN without any."""
    bins = reliability(outcomes)
    return float(np.average((bins["chance"] - bins["right"]).abs(), weights=bins["count"])) if len(bins) else math.nan
