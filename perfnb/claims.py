"""How much of each step a detector's evidence takes: clipped to steps, and at most what earlier detectors left of a part."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfnb.detector import Detector
from perfnb.ground import Floats, Ground
from perfnb.intervals import covered, intersect, union

_ON_HOST = ("data", "device idle", "host")
"""Families whose evidence with a start is time of the host: on a device job only what overlaps the device's idle time counts."""


def lost_per_step(detector: Detector, evidence: pd.DataFrame, ground: Ground) -> pd.Series:
    """Time lost to a detector's cause in each step, microseconds by step number.

    Evidence with start_us and duration_us is clipped to steps, and on a device job to the time that the device idles. A
    detector that claims ledger parts gets at most what earlier ones left of them, of that part alone where all its rows name
    one; a detector of the family "over time", which claims nothing, what is more than detectors claimed of that step beyond
    the usual: what they explain of a longer step is not told twice. Per part the job loses the smaller of the critical rank's
    loss and the median rank's (of two ranks the smaller): the excess is imbalance.
    """
    if evidence.empty:
        return pd.Series(dtype=float)
    lost = ground.at_places(evidence if "lost_us" in evidence else _clipped(detector, evidence, ground))
    free = ground.device_free_us() if detector.family == "data" else None
    if free is not None:
        lost = np.fmin(lost, np.nan_to_num(free))  # a step that the device's events do not tell of counts nothing
    if detector.family == "over time":
        lost = np.maximum(lost - _more_than_usual(ground), 0.0)
    if detector.claims:
        lost = _taken(detector, evidence, lost, ground)
    critical = ground.on_critical(lost)
    if not detector.claims or not ground.waits or detector.family == "imbalance":
        return critical
    median = pd.Series(lost).groupby(ground.work["step"].to_numpy()).quantile(0.5, interpolation="lower")
    return critical.where(critical <= median, median)


def _more_than_usual(ground: Ground) -> Floats:
    """What detectors claimed at each place beyond the median of its rank: what they explain of a longer step."""
    claimed = pd.Series(ground.claims.claimed())
    usual = claimed.groupby(ground.work["rank"].to_numpy()).transform("median")
    more: Floats = np.maximum((claimed - usual).to_numpy(), 0.0)
    return more


def _taken(detector: Detector, evidence: pd.DataFrame, lost: Floats, ground: Ground) -> Floats:
    """What is left of the claimed parts, at most what was lost; of rows that name a claimed part, from that part."""
    if not {"lost_us", "part"} <= set(evidence) or not evidence["part"].isin(detector.claims).all():
        return ground.claims.take(detector.claims, lost)
    by_part = {str(part): ground.at_places(rows) for part, rows in evidence.groupby("part", sort=False)}
    stated = np.sum(list(by_part.values()), axis=0)
    counts = np.divide(lost, stated, out=np.zeros_like(lost), where=stated > 0)
    taken: Floats = np.sum([ground.claims.take((part,), each * counts) for part, each in by_part.items()], axis=0)
    return taken


def _clipped(detector: Detector, evidence: pd.DataFrame, ground: Ground) -> pd.DataFrame:
    """Time of each (rank, step) that the evidence covers; overlapping events count once."""
    rows = []
    by_idle = ground.run.is_device_job and detector.family in _ON_HOST
    for rank in ground.steps["rank"].unique():
        own = ground.steps[ground.steps["rank"].eq(rank)]
        mine = evidence[evidence["rank"].eq(rank)]
        start = mine["start_us"].to_numpy(dtype="float64")
        spans = union(start, start + mine["duration_us"].to_numpy(dtype="float64"))
        low = own["start_us"].to_numpy()
        high = low + own["duration_us"].to_numpy()
        idle = ground.idle(rank) if by_idle else []
        parts = [covered(intersect(spans, each), low, high) for each in idle] or [covered(spans, low, high)]
        rows.append(own[["rank", "step"]].assign(lost_us=np.mean(parts, axis=0)))
    return pd.concat(rows)
