"""How much of its fault a case gets under peers: calibrated anew, once for all peers, without any of them at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.detection import single
from benchmarks.detection.case import ON, Case, Truth

_STEPS: Final = 200
_RANK_STEPS: Final = 120
_SLOW_LINK_STEPS: Final = 30


def amount_of(case: Case, truths: Sequence[Truth]) -> float:
    """Amount of the fault of a case, in the fault's own unit; 0 where it has none.

    Parameters
    ----------
    case
        The case.
    truths
        What was measured when it was stored: the pause of a rank's loader is what its step is longer by.
    """
    if case.control or case.dose == ON:
        return 0.0
    if case.kind == "ranks":
        return (truths[0].with_us - truths[0].without_us) / 1e6
    return single._amount(single.BY_ID[case.faults[0]], single.base_plan(case), case)  # noqa: SLF001 - the same calibration


def steps_of(case: Case) -> int:
    """Steps that a case is trained under a peer: as many as in the run that is stored, fewer where steps are long."""
    if case.kind == "ranks":
        return _SLOW_LINK_STEPS if "slow_link" in case.faults else _RANK_STEPS
    return _STEPS
