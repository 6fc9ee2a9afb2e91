"""How far a dry run is believed: residuals against measured peaks, confidence levels and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

Level = Literal["A", "B", "C", "D"]

MIB: Final = 1 << 20
LEVELS: Final = MappingProxyType(
    {
        "A": "a recorded replay is exact and only validated rules are used",
        "B": "corrected by measured peaks",
        "C": "every operator is modelled, nothing was measured",
        "D": "operators whose kernels take scratch memory that no dry run sees",
    }
)
"""Level to what it rests on; no dry run reaches A."""

SMALLEST_SHARE: Final = 0.02
"""Half-width of level B; a prior until predictions have been compared with a GPU's peaks."""

_ABOVE_ONE_POINT: Final = 1.1  # prior: of 6 measured cases the truth lay between a constant and a proportional residual in all
_ABOVE_C, _MORE_C = 1.05, 64 * MIB  # priors
_ABOVE_D: Final = (
    1.5  # prior: a convolutional network on the CPU took up to 1.42 times the dry run (benchmarks/memory/dry_run.py)
)


@dataclass(frozen=True, slots=True)
class Residual:
    """Measured minus dry-run bytes at one batch.

    Attributes
    ----------
    size
        Samples times tokens of the batch.
    by_phase
        Phase to bytes.
    measured_peak
        The measured peak itself.
    peak_phase
        The phase that the measured peak is taken to be of; empty where each phase was measured.
    """

    size: int
    by_phase: Mapping[str, float]
    measured_peak: int
    peak_phase: str = ""


def corrected(dry: Mapping[str, int], residuals: Sequence[Residual], size: int) -> dict[str, float]:
    """Bytes to add to each phase at a batch of some size: in proportion to the size from one point, affine from two or more.

    Scratch memory grows with the batch or stays, so the line is kept between the residual of the largest measured batch and that
    in proportion to the size.

    Examples
    --------
    >>> corrected({"forward": 100}, [Residual(2, {"forward": 10.0}, 60)], 4)
    {'forward': 20.0}
    >>> corrected({"forward": 100}, [Residual(2, {"forward": 10.0}, 60), Residual(4, {"forward": 12.0}, 90)], 8)
    {'forward': 16.0}
    """
    if not residuals:
        return dict.fromkeys(dry, 0.0)
    sizes = np.array([one.size for one in residuals], dtype=float)
    found = {}
    for phase in dry:
        values = np.array([one.by_phase[phase] for one in residuals])
        if len(set(sizes.tolist())) == 1:
            found[phase] = float(values.mean() * size / sizes[0])
        else:
            slope, constant = np.polyfit(sizes - sizes[0], values, 1)
            last = float(values[sizes.argmax()])
            low, high = sorted((last, last * size / float(sizes.max())))
            found[phase] = round(min(max(float(constant + slope * (size - sizes[0])), low), high), 3)
    return found


def interval(dry: Mapping[str, int], residuals: Sequence[Residual], size: int, level: Level, *, by_line: bool) -> tuple[int, int]:
    """Low and high end of the 80 % interval of the peak.

    Parameters
    ----------
    dry
        Dry-run peak of each phase.
    residuals
        Of measured points.
    size
        Of the batch that is predicted.
    level
        How far it is believed.
    by_line
        Whether only the batch changes, so that a line through the measured peaks is a second method.
    """
    add = corrected(dry, residuals, size)
    point = max(dry[phase] + add[phase] for phase in dry)
    if level == "C":
        return round(point), round(_ABOVE_C * point + _MORE_C)
    if level == "D" or not residuals:
        # measured points that do not fit this case may add too much: then the dry run alone is the low end
        low = point if not residuals else min(float(max(dry.values())), point) if any(dry.values()) else point / _ABOVE_D
        return round(low), round(_ABOVE_D * point)
    first = residuals[0]
    constant = max(dry[phase] + first.by_phase[phase] for phase in dry)
    if len({one.size for one in residuals}) == 1:
        above = max(dry[phase] + _ABOVE_ONE_POINT * add[phase] for phase in dry)
        ends = (constant, above, (1 - SMALLEST_SHARE) * point, (1 + SMALLEST_SHARE) * point)
        return round(min(ends)), round(max(ends))
    other = line_through(residuals, size) if by_line else constant
    gap = max(SMALLEST_SHARE * point, abs(point - other))
    return round(max(point - gap, 0)), round(max(point + gap, in_proportion(dry, residuals, size)))


def line_through(residuals: Sequence[Residual], size: int) -> float:
    """What a line through the measured peaks gives at a batch of some size; at least two sizes were measured.

    Examples
    --------
    >>> round(line_through([Residual(2, {}, 60), Residual(4, {}, 90)], 8))
    150
    """
    slope, start = np.polyfit([one.size for one in residuals], [one.measured_peak for one in residuals], 1)
    return float(start + slope * size)


def in_proportion(dry: Mapping[str, int], residuals: Sequence[Residual], size: int) -> float:
    """The peak if scratch memory grew as the batch does; 0 without a dry run."""
    largest = max(residuals, key=lambda one: one.size)
    return max(dry[phase] + largest.by_phase[phase] * size / largest.size for phase in dry) if any(dry.values()) else 0.0
