"""accuracy(): how right predictions were, per model and knob, from the outcomes in the accuracy ledger."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from perfnb.outcomes.ledger import read_ledger

CONFIDENCE_Z: Final = 1.959963984540054
"""Of the 95 % interval of the coverage: the 97.5th percentile of the normal distribution."""

ACCURACY_COLUMNS: Final = (
    "n",
    "workloads",
    "median_error_share",
    "p90_error_share",
    "max_error_share",
    "coverage_share",
    "coverage_low",
    "coverage_high",
    "mean_width_share",
    "signs",
    "sign_errors",
    "refusals",
    "shadow_error_share",
    "voids",
    "pending",
)


def accuracy(
    outcomes: pd.DataFrame | None = None,
    *,
    by: Sequence[str] = ("model", "knobs"),
    folder: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """How far predictions were off, and how often the measured value lay in their interval.

    Misses are never left out. Of runs that could not be compared (void), of refusals, and of predictions whose change was
    not measured yet (pending) only the numbers are told.

    Parameters
    ----------
    outcomes
        Rows of a ledger; by default what perfnb ships and what is in the folder.
    by
        Columns of the ledger that make the groups; empty for one row over all.
    folder
        Of the ledger; see `perfnb.outcomes.ledger_folder`.

    Returns
    -------
    pandas.DataFrame
        One row per group: the columns of `by`; n, scored predictions, of so many workloads; median, 90th percentile and
        largest of abs(predicted / measured - 1); the share of measured values in their 80 % interval with its 95 % Wilson
        interval; the interval's mean width as a share of the predicted value; signs, the predictions whose change went beyond
        the noise, and sign_errors, those of them that went the other way; refusals, with the median error of what would have
        been said (shadow); voids; pending. Shares are NaN where there is nothing to make them of.

    Raises
    ------
    OutcomesError
        If the folder cannot be read.

    Examples
    --------
    >>> accuracy(folder="no such folder").columns[:4].to_list()
    ['model', 'knobs', 'n', 'workloads']
    """
    rows = read_ledger(folder).rows if outcomes is None else outcomes
    names = list(by)
    if not names:
        return pd.DataFrame([_summary(rows)], columns=list(ACCURACY_COLUMNS))
    groups = [
        dict(zip(names, key, strict=True)) | _summary(own) for key, own in rows.fillna({"model": ""}).groupby(names, dropna=False)
    ]
    return pd.DataFrame(groups, columns=[*names, *ACCURACY_COLUMNS])


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Predictions with an outcome that counts."""
    return rows[~_is_refused(rows) & rows["actual"].notna() & rows["void"].fillna("").eq("")]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, after Wilson (1927): its ends lie in 0 to 1 however few were counted.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not count:
        return math.nan, math.nan
    share, z2 = hits / count, CONFIDENCE_Z**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = CONFIDENCE_Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    good = scored(rows)
    error = (good["after"] / good["actual"] - 1.0).abs()
    inside = good["inside"].dropna()
    low, high = wilson(int(inside.sum()), len(inside))
    signs = good["sign_ok"].dropna()
    refused = rows[_is_refused(rows)]
    shadow = (refused["shadow_after"] / refused["actual"] - 1.0).abs().dropna()
    is_void = rows["void"].fillna("").ne("")
    return {
        "n": len(good),
        "workloads": good["workload"].nunique(),
        "median_error_share": float(error.median()) if len(error) else math.nan,
        "p90_error_share": float(error.quantile(0.9)) if len(error) else math.nan,
        "max_error_share": float(error.max()) if len(error) else math.nan,
        "coverage_share": float(inside.mean()) if len(inside) else math.nan,
        "coverage_low": low,
        "coverage_high": high,
        "mean_width_share": float(((good["high"] - good["low"]) / good["after"]).mean()) if len(good) else math.nan,
        "signs": len(signs),
        "sign_errors": int((~signs.astype(bool)).sum()),
        "refusals": len(refused),
        "shadow_error_share": float(shadow.median()) if len(shadow) else math.nan,
        "voids": int((is_void & ~_is_refused(rows)).sum()),
        "pending": int((rows["actual"].isna() & ~is_void & ~_is_refused(rows)).sum()),
    }


def _is_refused(rows: pd.DataFrame) -> pd.Series:
    return rows["refused"].fillna("").ne("")
