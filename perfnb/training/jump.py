"""Whether a loss jumps up at the start by more than its own scatter from batch to batch."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from perfnb.training.statistics import log_loss, robust_sigma

WINDOW: Final = 100
START: Final = 3
LARGEST_RATIO: Final = 1.35
SCATTERS: Final = 3.7
"""Standard deviations: one of about a hundred losses passes it by chance in 1 % of runs (Bonferroni, one-sided normal)."""


class Jump(NamedTuple):
    """The highest loss after the start.

    Attributes
    ----------
    place
        Which one it is.
    ratio
        It over the mean of the first three.
    threshold
        Ratio from which it is a jump: 1.35, or more where the losses scatter more.
    """

    place: int
    ratio: float
    threshold: float

    @property
    def is_one(self) -> bool:
        """Whether the loss jumped."""
        return self.ratio > self.threshold


def jump(losses: ArrayLike) -> Jump | None:
    """Highest of losses 4 to 100 against the start, and the ratio from which that is a jump.

    Scatter is the robust standard deviation of one-step differences of the log loss over sqrt(2); the highest loss and a start of
    three differ by sqrt(1 + 1/3) of it.

    Returns
    -------
    Jump or None
        None of fewer than four losses, a start that is not finite or not above zero, or no finite loss after it.

    Examples
    --------
    >>> jump([1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    Jump(place=4, ratio=2.0, threshold=1.35)
    """
    first = np.asarray(losses, dtype=np.float64)[:WINDOW]
    start = float(first[:START].mean()) if len(first) > START else math.nan
    later = np.where(np.isfinite(first[START:]), first[START:], -np.inf)
    if not (math.isfinite(start) and start > 0.0 and len(later) and np.isfinite(later.max())):
        return None
    finite = first[np.isfinite(first)]
    scatter = robust_sigma(np.diff(log_loss(finite))) / math.sqrt(2.0)
    allowed = math.exp(min(SCATTERS * scatter * math.sqrt(1.0 + 1.0 / START), 700.0))
    place = START + int(np.argmax(later))
    return Jump(place, float(first[place]) / start, max(LARGEST_RATIO, allowed))
