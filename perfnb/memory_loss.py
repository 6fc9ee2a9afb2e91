"""How much memory a detector's evidence is about: share of the memory's size, and the floor of a finding."""

from __future__ import annotations

import pandas as pd

from perfnb import text
from perfnb.detector import Detector, Unmeasured
from perfnb.findings import Cleared, Finding
from perfnb.ground import Ground
from perfnb.run import Run
from perfnb.track_record import confidence, record_of


def measure_memory(detector: Detector, run: Run, ground: Ground | None = None) -> Finding | Cleared:
    """Finding of a detector of memory, or its number where that stays under its threshold.

    Severity is bytes over the size of the memory, of the device (or host) where it is largest. It is measured, not sampled, so
    that the interval has no width unless the evidence states low_bytes and high_bytes.

    Parameters
    ----------
    detector
        A detector whose unit is memory, or an opportunity.
    run
        The run.
    ground
        Of the run, if it was made already; its ledger is made anew otherwise where the detector reads it.

    Raises
    ------
    Unmeasured
        If the run lacks what the detector reads, or the size of the memory is not known.
    """
    evidence = detector.evidence(run) if ground is None else detector.evidence(run, ground.ledger, ground.work)
    rows = evidence[evidence["bytes"].notna()]
    if len(rows) and rows["capacity_bytes"].isna().all():
        message = "the size of the memory is not known"
        raise Unmeasured(message)
    rows = rows[rows["capacity_bytes"].notna()]
    shares = (rows["bytes"].astype("float64") / rows["capacity_bytes"].astype("float64")).clip(0.0, 1.0)
    severity = float(shares.max()) if len(shares) else 0.0
    if not len(shares) or not severity >= detector.flag_above:
        return Cleared(
            detector.name, detector.family, severity, detector.flag_above, f"{detector.title}: {text.share(severity)} of memory"
        )
    worst = rows.loc[[shares.idxmax()]].to_dict("records")[0]
    lost, capacity = float(worst["bytes"]), float(worst["capacity_bytes"])
    low, high = (float(worst.get(name, lost)) / capacity for name in ("low_bytes", "high_bytes"))
    tier = detector.tier or 1
    ranks = tuple(sorted({int(rank) for rank in rows.loc[shares >= detector.flag_above, "rank"]}))
    return Finding(
        detector=detector.name,
        category=detector.family,
        severity=severity,
        low=low,
        high=high,
        lost_us=float("nan"),
        confidence=confidence(1.0, detector.name, tier),
        record=record_of(detector.name, tier).words,
        tier=tier,
        ranks=ranks,
        steps=_steps(rows),
        evidence=evidence.assign(share=shares).sort_values("share", ascending=False, ignore_index=True),
        summary=f"{detector.title}: {text.byte_size(lost)} of {text.byte_size(capacity)} ({text.share(severity)})",
        upper_bound=detector.upper_bound,
        unit=detector.unit,
        lost_bytes=lost,
    )


def _steps(rows: pd.DataFrame) -> tuple[int, ...]:
    if "step" not in rows:
        return ()
    return tuple(sorted({int(step) for step in rows["step"].dropna()}))
