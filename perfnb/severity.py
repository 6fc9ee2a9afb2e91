"""How much a detector's evidence costs: share of step time with its interval, confidence, and the floor of a finding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.bootstrap import INTERVAL, resamples
from perfnb.detector import Detector
from perfnb.findings import Cleared, Finding
from perfnb.intervals import clip, union
from perfnb.ledger import step_ledger, used_steps
from perfnb.run import Run
from perfnb.track_record import confidence, record_of
from perfnb.work import rank_work

FEWEST_STEPS: Final = 3
"""With fewer used steps a loss is "possible", not a finding."""

LOWEST_LOW: Final = 0.03
"""The low end of a finding's interval is at least this; a choice of display, as is `flag_above`."""

_DRAWS: Final = 500
_FEWEST_FOR_BOOTSTRAP: Final = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What every detector of one run is measured against.

    Attributes
    ----------
    ledger
        Parts of the used steps: rank, step, clock, device, part, time_us.
    work
        `rank_work` of the used steps.
    steps
        Used steps, rows of `run.steps`.
    left_us
        Time of each row of `ledger` that no detector has claimed yet; claims are taken off it in place, in their order.
    """

    run: Run
    ledger: pd.DataFrame
    work: pd.DataFrame
    steps: pd.DataFrame
    left_us: Floats = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, run: Run) -> Ground:
        """Ground of a run.

        Raises
        ------
        NoStepsError
            If the run has no step boundaries.
        """
        steps = used_steps(run)
        ledger = step_ledger(run).merge(steps[["rank", "step"]], on=["rank", "step"])
        return cls(run, ledger, rank_work(ledger), steps, ledger["time_us"].to_numpy(copy=True))

    @property
    def durations(self) -> pd.Series:
        """Duration of each used step of its critical rank, by step number; the mean over ranks where none waits for another."""
        return _on_critical(self.work, self.work["duration_us"], everyone=not self.waits)

    @property
    def waits(self) -> bool:
        """Whether ranks wait for one another in collectives, so that there is a critical rank."""
        return len(set(self.work["rank"])) > 1 and bool((self.work["with_peers_us"] > 0).any())

    @property
    def is_bound_only(self) -> bool:
        """Whether losses are at most what they look like: host time of a device job, of which the device may hide any part."""
        return self.run.uses_device and not self.run.is_device_job

    @property
    def tier(self) -> int:
        """1 device clock, 2 host clock; one more where the edges of steps were inferred."""
        return (1 if self.run.is_device_job else 2) + int(self.tier_falls)

    @property
    def tier_falls(self) -> bool:
        """Whether the edges of steps were inferred, which makes every signal worth less."""
        return bool(self.steps["steps_inferred"].any())


def measure(detector: Detector, ground: Ground) -> Finding | Cleared:
    """Finding of a detector, or its number where that stays under the floor.

    Severity is the sum of lost time over the sum of step time, on each step's critical rank. The interval is a circular block
    bootstrap over steps (80 %); with 3 to 9 steps, the smallest and largest step.

    Raises
    ------
    Unmeasured
        If the run lacks what the detector reads.
    """
    evidence = detector.evidence(ground.run, ground.ledger, ground.work)
    lost = lost_per_step(detector, evidence, ground)
    duration = ground.durations
    lost = lost.reindex(duration.index, fill_value=0.0)
    severity = float(lost.sum() / duration.sum())
    low, high, shares = _interval(lost.to_numpy(), duration.to_numpy())
    threshold = detector.threshold(ground.run)
    if not severity >= threshold or (low < LOWEST_LOW and len(duration) >= FEWEST_STEPS):
        return Cleared(
            detector.name, detector.family, severity, threshold, f"{detector.title}: {text.share(severity)} of each step"
        )
    lost_us = float(lost.mean())
    tier = ground.tier if detector.tier is None else detector.tier + int(ground.tier_falls)
    ranks = tuple(sorted({int(rank) for rank in evidence["rank"].unique()}))
    return Finding(
        detector=detector.name,
        category=detector.family,
        severity=severity,
        low=low,
        high=high,
        lost_us=lost_us,
        confidence=confidence(float((shares >= threshold).mean()), detector.name, tier),
        record=record_of(detector.name, tier).words,
        tier=tier,
        ranks=ranks,
        steps=tuple(int(step) for step in duration.index),
        evidence=_shown(evidence),
        summary=(
            f"{detector.title} takes {text.share(severity)} of each step: {text.duration(lost_us)} of "
            f"{text.duration(float(duration.mean()))} ({text.share(low)} to {text.share(high)})"
        ),
        upper_bound=detector.upper_bound
        or ground.is_bound_only
        or (len(ranks) < (ground.run.world_size or 1) and detector.family == "communication"),
    )


def lost_per_step(detector: Detector, evidence: pd.DataFrame, ground: Ground) -> pd.Series:
    """Time lost to a detector's cause in each step, microseconds by step number.

    Evidence with start_us and duration_us is clipped to steps; a detector that claims ledger parts gets at most what earlier
    ones left of them. Per part the job loses the smaller of the critical rank's loss and the median rank's: the excess is
    imbalance.
    """
    if evidence.empty:
        return pd.Series(dtype=float)
    per_rank = _per_rank(evidence if "lost_us" in evidence else _clipped(evidence, ground.steps))
    per_rank = (
        ground.work[["rank", "step", "is_critical"]].merge(per_rank, how="left", on=["rank", "step"]).fillna({"lost_us": 0.0})
    )
    if detector.claims:
        per_rank = per_rank.assign(lost_us=_claimed(detector, per_rank, ground))
    critical = _on_critical(per_rank, per_rank["lost_us"], everyone=not ground.waits)
    if not detector.claims or not ground.waits:
        return critical
    median = per_rank.groupby("step")["lost_us"].median()
    return critical.where(critical <= median, median)


def _per_rank(evidence: pd.DataFrame) -> pd.DataFrame:
    """Lost time of each (rank, step); devices of one rank are averaged."""
    devices = ["device"] if "device" in evidence else []
    sums = evidence.groupby(["rank", "step", *devices], dropna=False, as_index=False)[["lost_us"]].sum()
    return sums.groupby(["rank", "step"], as_index=False)[["lost_us"]].mean()


def _clipped(evidence: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Time of each (rank, step) that the evidence covers; overlapping events count once."""
    rows = []
    for rank, step, low, length in zip(steps["rank"], steps["step"], steps["start_us"], steps["duration_us"], strict=True):
        own = evidence[evidence["rank"].eq(rank)]
        start = own["start_us"].to_numpy()
        rows.append((rank, step, clip(union(start, start + own["duration_us"].to_numpy()), low, low + length).total))
    return pd.DataFrame(rows, columns=["rank", "step", "lost_us"])


def _claimed(detector: Detector, per_rank: pd.DataFrame, ground: Ground) -> Floats:
    """Lost time, at most what is left of the claimed parts; what is claimed is taken away from them."""
    own = ground.ledger["part"].isin(detector.claims).to_numpy()
    rows = ground.ledger.loc[own, ["rank", "step", "device"]].assign(left_us=ground.left_us[own])
    left = per_rank.merge(
        _per_rank(rows.rename(columns={"left_us": "lost_us"})), how="left", on=["rank", "step"], suffixes=("", "_left")
    )
    available = left["lost_us_left"].fillna(0.0).to_numpy()
    taken: Floats = np.minimum(per_rank["lost_us"].to_numpy(), available)
    share = np.divide(taken, available, out=np.zeros_like(taken), where=available > 0)
    shares = ground.ledger.loc[own, ["rank", "step"]].merge(per_rank[["rank", "step"]].assign(share=share), how="left")
    ground.left_us[own] *= 1.0 - shares["share"].fillna(0.0).to_numpy()
    return taken


def _on_critical(work: pd.DataFrame, values: pd.Series, *, everyone: bool) -> pd.Series:
    """Values of each step's critical rank by step number, or the mean over all ranks."""
    rows = work.assign(value=values)
    return (rows if everyone else rows[rows["is_critical"]]).groupby("step")["value"].mean()


def _interval(lost: Floats, duration: Floats) -> tuple[float, float, Floats]:
    """80 % interval of the share, and the shares that it comes from."""
    if len(lost) < _FEWEST_FOR_BOOTSTRAP:
        shares = lost / duration
        return float(shares.min()), float(shares.max()), shares
    rows = resamples(len(lost), _DRAWS)
    shares = lost[rows].sum(axis=1) / duration[rows].sum(axis=1)
    low, high = np.quantile(shares, INTERVAL)
    return float(low), float(high), shares


def _shown(evidence: pd.DataFrame) -> pd.DataFrame:
    """Evidence with the largest losses first."""
    by = "lost_us" if "lost_us" in evidence else "duration_us"
    return evidence[evidence[by] > 0].sort_values(by, ascending=False, ignore_index=True)
