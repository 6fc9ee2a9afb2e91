"""What changed in the parts of a step between two runs: the step-time ledger of one beside that of the other."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.bootstrap import INTERVAL, resamples
from perfnb.errors import NoStepsError
from perfnb.facts import breakdown
from perfnb.ledger import step_ledger
from perfnb.run import Run

FEWEST_STEPS: Final = 3
"""With fewer steps on either side there is no interval."""

_DRAWS: Final = 400
_COLUMNS: Final = ("name", "change", "time_before_us", "time_after_us", "difference_us", "low_us", "high_us")

Floats = NDArray[np.float64]


def compare_parts(before: Run, after: Run) -> pd.DataFrame:
    """Mean time per step of each part of the ledger, in two runs of one training.

    Parameters
    ----------
    before, after
        The runs; both on the device's clock, or both on the host's.

    Returns
    -------
    pandas.DataFrame
        One row per part in words, largest change first: name, change ("added", "removed", "slower", "faster", "unchanged": the
        interval holds 0, "unclear": too few steps), time_before_us, time_after_us (means over ranks, devices and steps),
        difference_us, low_us, high_us (80 % bootstrap interval over steps).

    Raises
    ------
    NoStepsError
        If a run has no steps, or one has device work and the other none.

    Examples
    --------
    >>> import perfnb
    >>> before, after = (perfnb.read_trace(f"data/samples/slow_loader{folder}") for folder in ("", "/after"))
    >>> compare_parts(before, after)[["name", "change"]].head(1).values.tolist()
    [['Waiting for data', 'faster']]
    """
    ledgers = [step_ledger(run) for run in (before, after)]
    clocks = [str(each["clock"].iloc[0]) for each in ledgers]
    if clocks[0] != clocks[1]:
        message = f"the parts cannot be compared: before they are on the {clocks[0]}'s clock, after on the {clocks[1]}'s"
        raise NoStepsError(message)
    first, second = (_by_step(each) for each in ledgers)
    rows = [_row(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.iloc[np.argsort(-frame["difference_us"].abs().to_numpy(), kind="stable")].reset_index(drop=True)


def _by_step(ledger: pd.DataFrame) -> dict[str, Floats]:
    """Part in words to its mean over ranks and devices in each step."""
    means = ledger.pivot_table(index="step", columns="part", values="time_us", aggfunc="mean", fill_value=0.0, observed=True)
    found: dict[str, Floats] = {}
    for part in means.columns:
        label = str(breakdown(pd.DataFrame({"part": [part], "time_us": [1.0], "share": [1.0]}))["label"].iloc[0])
        values = means[part].to_numpy(dtype=np.float64)
        found[label] = found[label] + values if label in found else values
    return {label: values for label, values in found.items() if values.any()}


def _row(name: str, first: Floats | None, second: Floats | None) -> tuple[object, ...]:
    one, two = (np.zeros(1) if each is None else each for each in (first, second))
    difference = float(two.mean() - one.mean())
    known = [len(each) for each in (first, second) if each is not None]
    low = high = np.nan
    if min(known) >= FEWEST_STEPS:
        low, high = (float(end) for end in np.quantile(_drawn(two, 1) - _drawn(one, 0), INTERVAL))
    if first is None or second is None:
        change = "added" if first is None else "removed"
    elif np.isnan(low):
        change = "unclear"
    else:
        change = "slower" if low > 0 else "faster" if high < 0 else "unchanged"
    return (name, change, float(one.mean()), float(two.mean()), difference, low, high)


def _drawn(values: Floats, seed: int) -> Floats:
    return np.asarray(values[resamples(len(values), _DRAWS, seed=seed)].mean(axis=1), dtype=np.float64)
