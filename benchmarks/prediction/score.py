"""How right the predictions of the stored pairs were, beside what simpler ways would have said of the same pairs."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.prediction.rows import BASELINES, calibrated_without_own_workload, is_scored
from perfnb.outcomes.accuracy import wilson

MORE_SAMPLES: Final = frozenset({"batch_size", "gradient_accumulation_steps"})
"""Knobs whose step has other samples in it: its time alone is no gain."""

LOADER: Final = frozenset({"num_workers", "prefetch_factor", "in_order", "cache_samples", "persistent_workers"})
_REAL_CHANGE: Final = 0.05
_FEWEST_ALTERNATIVES: Final = 2


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """The figures of a set of pairs; shares of the measured step unless said, NaN where there is nothing to make them of."""
    good = rows[is_scored(rows)]
    error = (good["after"] / good["actual"] - 1.0).abs()
    ratio = (good["after"] / good["before"] / (good["actual"] / good["actual_before"]) - 1.0).abs()
    repeated = (good["before"] / good["actual_before"] - 1.0).abs()
    inside = good["inside"].dropna().astype(bool)
    signs = good["sign_ok"].dropna().astype(bool)
    refused = rows[rows["refused"].ne("")]
    shadow = (refused["shadow_after"] / refused["actual"] - 1.0).abs().dropna()
    moved = good[(good["actual_before"] / good["actual"] - 1.0).abs() > _REAL_CHANGE]
    gain = (moved["before"] / moved["after"] - 1.0) / (moved["actual_before"] / moved["actual"] - 1.0) - 1.0
    low, high = wilson(int(inside.sum()), len(inside))
    return {
        "pairs": len(rows),
        "predicted": len(good),
        "median": _quantile(error, 0.5),
        "p90": _quantile(error, 0.9),
        "max": _quantile(error, 1.0),
        "ratio_median": _quantile(ratio, 0.5),
        "ratio_p90": _quantile(ratio, 0.9),
        "repeat_median": _quantile(repeated, 0.5),
        "repeat_p90": _quantile(repeated, 0.9),
        "coverage": float(inside.mean()) if len(inside) else math.nan,
        "coverage_low": low,
        "coverage_high": high,
        "width": float(((good["high"] - good["low"]) / good["after"]).mean()) if len(good) else math.nan,
        "signs": len(signs),
        "sign_errors": int((~signs).sum()),
        "gain_error": _quantile(gain.abs(), 0.5),
        "refusals": len(refused),
        "shadows": len(shadow),
        "shadow": _quantile(shadow, 0.5),
        "voids": int((rows["void"].ne("") & rows["refused"].eq("")).sum()),
    }


def _quantile(values: pd.Series, share: float) -> float:
    return float(values.quantile(share)) if len(values) else math.nan


def overall(rows: pd.DataFrame) -> pd.DataFrame:
    """Summaries of the scored set: all and quiet pairs, all knobs and those of the loader, as stated and calibrated."""
    scored = rows[rows["split"].eq("scored")]
    if rows.empty or scored.empty:
        return pd.DataFrame()
    calibrated = calibrated_without_own_workload(rows)
    calibrated = calibrated[calibrated["split"].eq("scored")]
    quiet = scored["is_quiet"].fillna(value=False).astype(bool)
    loader = scored["knobs"].map(is_loader).astype(bool)
    made = [
        ("scored, quiet machine", scored[quiet]),
        ("scored, quiet machine, loader knobs", scored[quiet & loader]),
        ("scored, quiet machine, intervals calibrated on other workloads", _same_pairs(calibrated, scored[quiet])),
        ("scored, all", scored),
        ("scored, all, intervals calibrated on other workloads", _same_pairs(calibrated, scored)),
        ("development (models were looked at on these and changed after)", rows[rows["split"].eq("development")]),
    ]
    return pd.DataFrame([{"set": name, **summary(own)} for name, own in made])


def _same_pairs(calibrated: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """The calibrated rows of some pairs, with the refused and void ones as they are."""
    own = calibrated[calibrated["pair"].isin(wanted["pair"])]
    others = wanted[~wanted["pair"].isin(own["pair"])]
    frames = [frame for frame in (own, others) if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else wanted


def is_loader(knobs: str) -> bool:
    """Whether a change is of the loader alone.

    Examples
    --------
    >>> is_loader("num_workers+prefetch_factor"), is_loader("num_workers+precision")
    (True, False)
    """
    return set(knobs.split("+")) <= LOADER


def by_knob(rows: pd.DataFrame) -> pd.DataFrame:
    """Summary of each knob over the scored set."""
    scored = rows[rows["split"].eq("scored")]
    made = [{"knobs": knobs, "workloads": own["workload"].nunique(), **summary(own)} for knobs, own in scored.groupby("knobs")]
    return pd.DataFrame(made)


def against_baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Each baseline beside the models on the very same scored pairs: those that both have an answer for."""
    good = rows[is_scored(rows) & rows["split"].eq("scored")]
    made = []
    for name in BASELINES:
        both = good[good[name].notna()]
        theirs = (both[name] / both["actual"] - 1.0).abs()
        ours = (both["after"] / both["actual"] - 1.0).abs()
        made.append(
            {
                "baseline": name,
                "pairs": len(both),
                "median": _quantile(theirs, 0.5),
                "p90": _quantile(theirs, 0.9),
                "our_median": _quantile(ours, 0.5),
                "our_p90": _quantile(ours, 0.9),
                "closer": float((ours < theirs).mean()) if len(both) else math.nan,
            }
        )
    return pd.DataFrame(made)


def regrets(rows: pd.DataFrame) -> pd.DataFrame:
    """What picking the predicted best cost against the measured best, per training that several changes start from.

    Leaving all as it is is an alternative too. A change is picked where it is predicted to gain most; every alternative is
    measured against its own interleaved runs without it, so that drift between pairs cancels.

    Returns
    -------
    pandas.DataFrame
        One row per training: start, alternatives, picked, best, regret_share: T(picked) / T(best) - 1.
    """
    good = rows[is_scored(rows) & rows["split"].eq("scored") & ~rows["knobs"].map(_has_more_samples).astype(bool)]
    made = []
    for start, own in good.groupby("start"):
        if len(own) < _FEWEST_ALTERNATIVES:
            continue
        said = [1.0, *(own["after"] / own["before"])]
        true = [1.0, *(own["actual"] / own["actual_before"])]
        names = ["no change", *own["changes"].map(_change_words)]
        picked, best = int(np.argmin(said)), int(np.argmin(true))
        made.append(
            {
                "start": start,
                "alternatives": len(own),
                "picked": names[picked],
                "best": names[best],
                "regret_share": true[picked] / true[best] - 1.0,
            }
        )
    return pd.DataFrame(made, columns=["start", "alternatives", "picked", "best", "regret_share"])


def _has_more_samples(knobs: str) -> bool:
    return bool(MORE_SAMPLES & set(knobs.split("+")))


def _change_words(changes: str) -> str:
    return ", ".join(f"{each['knob']} {each['before']} -> {each['after']}" for each in json.loads(changes))


def worst(rows: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The predictions of the scored set that were furthest off, the worst first."""
    good = rows[is_scored(rows) & rows["split"].eq("scored")]
    error = good["after"] / good["actual"] - 1.0
    return good.assign(error=error).loc[error.abs().sort_values(ascending=False).index].head(count)


def refusals(rows: pd.DataFrame) -> pd.DataFrame:
    """Refused pairs of the scored set by reason: how many, and how far off the model would have been."""
    refused = rows[rows["refused"].ne("") & rows["split"].eq("scored")]
    return refused.assign(shadow_error=refused["shadow_after"] / refused["actual"] - 1.0)[
        ["pair", "knobs", "refused", "needs", "shadow_error"]
    ]


def headline(rows: pd.DataFrame) -> str:
    """The table that the command line prints."""
    found = overall(rows)
    if found.empty:
        return "no pair of the scored set is stored"
    lines = [f"{'':64} pairs  pred. refused void  median    p90    max  covered (95 %)    width  signs wrong"]
    for row in found.to_dict("records"):
        covered = f"{_percent(row['coverage'])} ({_percent(row['coverage_low'], 0)}-{_percent(row['coverage_high'], 0)})"
        lines.append(
            f"{row['set']:64} {row['pairs']:5} {row['predicted']:6} {row['refusals']:7} {row['voids']:4} "
            f"{_percent(row['median']):>7} {_percent(row['p90']):>6} {_percent(row['max']):>6}  {covered:16} "
            f"{_percent(row['width']):>7} {row['sign_errors']:3} of {row['signs']}"
        )
    regret = regrets(rows)["regret_share"]
    if len(regret):
        lines.append(f"regret of the top suggestion, {len(regret)} trainings: mean {regret.mean():.1%}, max {regret.max():.1%}")
    quiet = found.iloc[0]
    lines.append(
        f"quiet pairs, after over before: median {_percent(quiet['ratio_median'])}, p90 {_percent(quiet['ratio_p90'])}; the same "
        f"training run again unchanged differed by {_percent(quiet['repeat_median'])}, p90 {_percent(quiet['repeat_p90'])}"
    )
    lines.append("baselines on the same pairs (median, p90; the models' own beside):")
    lines += [
        f"  {row['baseline']:10} {row['pairs']:3} pairs {_percent(row['median']):>7} {_percent(row['p90']):>7}"
        f"   models {_percent(row['our_median']):>7} {_percent(row['our_p90']):>7}"
        for row in against_baselines(rows).to_dict("records")
    ]
    return "\n".join(lines)


def listing(rows: pd.DataFrame) -> str:
    """Every pair on a line: milliseconds before, predicted, measured, and the error; then all together."""
    lines = []
    for row in rows.sort_values(["knobs", "pair"]).to_dict("records"):
        start = f"{row['pair'][:84]:84} "
        if row["refused"]:
            shadow = row["shadow_after"] / row["actual"] - 1.0
            lines.append(f"{start}refused (would be off by {_percent(shadow)}): {row['refused']}")
            continue
        times = " ".join(f"{row[name] / 1e3:7.2f}" for name in ("actual_before", "before", "after", "low", "high", "actual"))
        error = _percent(row["after"] / row["actual"] - 1.0)
        lines.append(
            f"{start}{times} {error:>7} {'' if row['inside'] else 'OUTSIDE'} {'' if row['is_quiet'] else 'busy'} {row['void']}"
        )
    found = summary(rows)
    lines.append(f"median {_percent(found['median'])}, p90 {_percent(found['p90'])}, covered {_percent(found['coverage'])}")
    return "\n".join(lines)


def _percent(value: Any, digits: int = 1) -> str:
    return "-" if value != value else f"{100 * value:.{digits}f}%"  # noqa: PLR0124 - NaN
