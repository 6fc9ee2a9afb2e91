"""How much a detector's evidence costs: share of step time with its interval, confidence, and the floor of a finding."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.bootstrap import INTERVAL, resamples
from perfnb.claims import lost_per_step
from perfnb.detector import Detector
from perfnb.findings import Cleared, Finding
from perfnb.ground import Floats, Ground
from perfnb.track_record import confidence, record_of

FEWEST_STEPS: Final = 3
"""With fewer used steps a loss is "possible", not a finding."""

LOWEST_LOW: Final = 0.03
"""The low end of a finding's interval is at least this; a choice of display, as is `flag_above`."""

_DRAWS: Final = 500
_WORTH_A_WORD: Final = 0.02
_FEWEST_FOR_BOOTSTRAP: Final = 10


def measure(detector: Detector, ground: Ground) -> Finding | Cleared:
    """Finding of a detector, or its number where that stays under the floor.

    Severity is the sum of lost time over the sum of step time, on each step's critical rank. On the host's clock it is a share
    of the step's own time, without waiting for a core: that wait is the host's trouble and would make every other one look
    small on a busy machine. The interval is a circular block
    bootstrap over steps (80 %); with 3 to 9 steps, the smallest and largest step. What a detector claims that stays under the
    floor goes back, so that the heading of its family can name what its causes together cost.

    Raises
    ------
    Unmeasured
        If the run lacks what the detector reads.
    """
    evidence = detector.evidence(ground.run, ground.ledger, ground.work)
    left_us = ground.claims.left_us.copy()
    lost = lost_per_step(detector, evidence, ground)
    is_own = ground.knows_runqueue and not any(part.endswith(".runqueue") for part in detector.claims)
    duration = ground.own_durations if is_own else ground.durations
    lost = lost.reindex(duration.index, fill_value=0.0)
    severity = float(lost.sum() / duration.sum())
    low, high, shares = _interval(lost.to_numpy(), duration.to_numpy())
    threshold = detector.threshold(ground.run)
    if not severity >= threshold or (low < LOWEST_LOW and len(duration) >= FEWEST_STEPS):
        ground.claims.left_us[:] = left_us
        return Cleared(
            detector.name,
            detector.family,
            severity,
            threshold,
            f"{detector.title}: {text.share(severity)} of {_what(ground, is_own)}",
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
            f"{detector.title} takes {text.share(severity)} of {_what(ground, is_own)}: {text.duration(lost_us)} of "
            f"{text.duration(float(duration.mean()))} ({text.share(low)} to {text.share(high)})"
        ),
        upper_bound=detector.upper_bound
        or ground.is_bound_only(detector.family)
        or (len(ranks) < (ground.run.world_size or 1) and detector.family == "communication"),
    )


def _what(ground: Ground, is_own: bool) -> str:  # noqa: FBT001 - it names a share's whole
    """What a share is of: the step, or its own time where waiting for a core takes a part worth a word."""
    if not is_own or 1.0 - ground.own_durations.sum() / ground.durations.sum() < _WORTH_A_WORD:
        return "each step"
    return "each step's own time, without waiting for a core"


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
