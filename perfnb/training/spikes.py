"""Spikes of a loss: one-step jumps far outside of what the curve's own steps are like."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfnb.detector import Unmeasured
from perfnb.training.curve import Curve
from perfnb.training.statistics import Floats, log_loss, robust_sigma

FEWEST: Final = 80
FROM_STEP: Final = 200
"""Steps from the start that are left out: there every curve jumps."""
SIGMAS: Final = 5.0
SHARE_ABOVE: Final = 0.01


class Spikes(NamedTuple):
    """Where a curve spikes.

    Attributes
    ----------
    places
        Points of the curve that were looked at.
    is_spike
        For each of them but the first, whether the loss jumped up there.
    heights
        Jumps in robust standard deviations, same order.
    """

    places: NDArray[np.intp]
    is_spike: NDArray[np.bool_]
    heights: Floats

    @property
    def share(self) -> float:
        """Share of the steps that are spikes."""
        return float(self.is_spike.mean())

    @property
    def at(self) -> NDArray[np.intp]:
        """Points at which the loss jumped up."""
        return self.places[1:][self.is_spike]


def spikes(curve: Curve) -> Spikes:
    """Spikes of a curve after warm-up and step 200: differences of log losses above five robust standard deviations of all.

    Raises
    ------
    Unmeasured
        If it has under 80 finite losses there, or over half of its steps do not change it.
    """
    places = curve.after_warmup(FROM_STEP)
    places = places[np.isfinite(curve.losses[places])]
    if len(places) < FEWEST:
        message = f"{FEWEST} finite losses after warm-up and step {FROM_STEP} are needed, here are {len(places)}"
        raise Unmeasured(message)
    differences = np.diff(log_loss(curve.losses[places]))
    sigma = robust_sigma(differences)
    if sigma == 0.0:
        message = "over half of the steps leave the loss as it is: no scatter to hold a spike against"
        raise Unmeasured(message)
    heights = differences / sigma
    return Spikes(places, heights > SIGMAS, heights)
