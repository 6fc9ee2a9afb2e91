"""A track record out of the accuracy ledger: what turns a spread into an interval that held for four fifths of its pairs."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

import pandas as pd

from perfnb.errors import OutcomesError
from perfnb.outcomes.accuracy import scored
from perfnb.outcomes.files import ledger_folder, state
from perfnb.outcomes.ledger import read_ledger, shipped_ledger
from perfnb.whatif.uncertainty import Calibration, Pair


def calibration(outcomes: pd.DataFrame, *, metric: str = "step_us") -> Calibration:
    """The track record of the predictions of one metric, for `perfnb.predict(..., calibration=...)`.

    A pair counts log(actual / simulated) / spread: the models' own error, in units of the half-width that they stated, not
    that of a prediction which an earlier track record had moved.

    Parameters
    ----------
    outcomes
        Rows of a ledger: `read_ledger().rows`. Void ones, refusals and predictions without an outcome do not count.
    metric
        Predictions of it.

    Returns
    -------
    Calibration
        Used for a model and knob from 10 pairs of 3 workloads on.
    """
    rows = scored(outcomes)
    rows = rows[rows["metric"].eq(metric) & rows["spread"].gt(0.0) & rows["simulated"].gt(0.0) & rows["actual"].gt(0.0)]
    names = ["model", "knobs", "workload", "machines", "simulated", "actual", "spread", "is_own"]
    return Calibration(
        tuple(
            Pair(str(model), str(knobs), str(workload), int(machines), math.log(actual / simulated) / spread, is_own=bool(own))
            for model, knobs, workload, machines, simulated, actual, spread, own in rows[names].itertuples(index=False)
        )
    )


def own_calibration(folder: str | os.PathLike[str] | None = None) -> Calibration:
    """The track record that perfnb ships together with the user's own: what suggestions, panels and the command line use.

    Read again when a file of the ledger has changed. A ledger that cannot be read counts as none: predictions then rest on
    what perfnb ships, and `perfnb accuracy` says what is wrong.

    Parameters
    ----------
    folder
        Of the ledger; see `ledger_folder`.
    """
    place = ledger_folder(folder)
    try:
        return _read(place, state(place))
    except (OutcomesError, OSError):
        return calibration(shipped_ledger().rows)


@lru_cache(maxsize=8)
def _read(place: Path, _: tuple[tuple[str, int, int], ...]) -> Calibration:
    return calibration(read_ledger(place).rows)
