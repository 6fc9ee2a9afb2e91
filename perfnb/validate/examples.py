"""Every detector on the examples in its own file, whose losses were worked out by hand: what --full adds."""

from __future__ import annotations

from typing import Final

from perfnb.catalogue import detectors, training_detectors
from perfnb.claims import lost_per_step
from perfnb.detector import Detector, DetectorExample
from perfnb.ground import Ground
from perfnb.memory_loss import measure_memory
from perfnb.validate.check import DEFECT, NotAsExpected, Planned

GROUP: Final = "detectors on their examples"


def planned() -> list[Planned]:
    """One check per detector."""
    return [Planned(GROUP, each.name, lambda each=each: _looked(each)) for each in (*detectors(), *training_detectors())]  # type: ignore[misc]


def _looked(detector: Detector) -> str:
    for case in detector.examples:
        if detector.unit == "training":
            _check_curve(detector, case)
        else:
            _check_loss(detector, case)
    return f"{len(detector.examples)} examples"


def _check_loss(detector: Detector, case: DetectorExample) -> None:
    if detector.unit != "time":
        share = measure_memory(detector, case.run).severity
    else:
        ground = Ground.of(case.run)
        lost = lost_per_step(detector, detector.evidence(case.run, ground.ledger, ground.work), ground)
        share = float(lost.reindex(ground.durations.index, fill_value=0.0).sum() / ground.durations.sum())
    if not abs(share - case.lost_share) <= case.tolerance:
        message = f"{case.title}: lost {share:.4f}, worked out by hand {case.lost_share:.4f}"
        raise NotAsExpected(message, DEFECT)


def _check_curve(detector: Detector, case: DetectorExample) -> None:
    if case.fires is None:  # it must not be able to look
        return
    fired = bool(detector.evidence(case.run)["fires"].any())
    if fired != case.fires:
        message = f"{case.title}: {'fired' if fired else 'did not fire'}"
        raise NotAsExpected(message, DEFECT)
